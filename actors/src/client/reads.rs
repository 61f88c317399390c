//! Reads are served from the applied state only under the rules of S11: by a primary within its
//! lease, which is looked at again after the state was read, or after a heartbeat round that was
//! sent after the read arrived. A replica serves them only where the session asked for it.

use std::time::{Duration, Instant};

use quorate_protocol::command::ReadLevel;
use quorate_protocol::resp::Reply;
use quorate_protocol::types::Seq;

use super::refusal;
use super::routing::{self, Route};
use super::session::{Deadline, Session};
use super::shared::Shared;
use crate::clock;
use crate::submit::Refusal;
use crate::view::Role;

/// By what right the state may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// The lease: it must still hold after the state was read.
    Lease,
    /// A confirmed round, or a session that takes a replica's state.
    Granted,
}

/// Why the state may not be read here.
#[derive(Debug)]
pub(super) enum Denied {
    /// The primary is elsewhere, or not known.
    NotHere(Route),
    /// A replica whose state is too old, or that hears no primary.
    Stale(Route),
    /// Another reason.
    Refused(Refusal),
}

/// Waits until the state may be read.
pub(super) async fn acquire(
    shared: &Shared,
    session: &Session,
    deadline: Deadline,
    primary_until: Instant,
) -> Result<Right, Denied> {
    if session.reads_locally() && shared.published.role() != Role::Primary {
        return local(shared, session, deadline).await;
    }
    if session.read_level != ReadLevel::Confirmed
        && let Some(committed) = leased(shared)
    {
        // Usually applied already.
        applied(shared, committed, deadline).await?;
        return Ok(Right::Lease);
    }
    confirm(shared, deadline, primary_until).await
}

/// Whether what was read by this right may be answered.
pub(super) fn still_holds(shared: &Shared, right: Right) -> bool {
    match right {
        Right::Lease => shared.published.may_read(clock::now()),
        Right::Granted => true,
    }
}

/// The right of a heartbeat round, also where the lease was lost while the state was read.
pub(super) async fn confirm(
    shared: &Shared,
    deadline: Deadline,
    primary_until: Instant,
) -> Result<Right, Denied> {
    let until = primary_until.min(deadline.at);
    loop {
        match routing::route(shared, until).await {
            Route::Here => {}
            route => return Err(Denied::NotHere(route)),
        }
        match shared.quorum.confirmed_read(deadline.at).await {
            Ok(position) => {
                applied(shared, position, deadline).await?;
                return Ok(Right::Granted);
            }
            Err(Refusal::NotPrimary { .. } | Refusal::NoPrimary) => {
                if Instant::now() >= until {
                    return Err(Denied::NotHere(Route::Unknown));
                }
                // The view follows the actor's answer shortly.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(Refusal::Timeout { .. }) => {
                return Err(Denied::Refused(Refusal::Timeout { caller: deadline.caller }));
            }
            Err(refusal) => return Err(Denied::Refused(refusal)),
        }
    }
}

/// The answer to a read that may not be served. `slot` is its key's, where it has one.
pub(super) fn denial(denied: &Denied, session: &Session, slot: Option<u16>) -> Reply {
    match denied {
        Denied::NotHere(route) => routing::answer(route, session.mode, slot, false),
        Denied::Stale(Route::Elsewhere(address)) if slot.is_some() => {
            routing::answer(&Route::Elsewhere(address.clone()), session.mode, slot, false)
        }
        Denied::Stale(_) => refusal::master_down(),
        Denied::Refused(refusal) => refusal::refused(refusal),
    }
}

/// The commit position, if the lease holds.
fn leased(shared: &Shared) -> Option<Seq> {
    shared.published.may_read(clock::now()).then(|| shared.published.committed())
}

async fn applied(shared: &Shared, position: Seq, deadline: Deadline) -> Result<(), Denied> {
    if shared.published.applied() >= position {
        return Ok(());
    }
    let wait = shared.published.applied_through(position);
    tokio::time::timeout_at(deadline.at.into(), wait)
        .await
        .map_err(|_| Denied::Refused(Refusal::Timeout { caller: deadline.caller }))
}

/// A replica's own state: at most as old as the session allows. The age is that of the primary's
/// last word plus the time that the state needs to reach the commit position in it.
async fn local(shared: &Shared, session: &Session, deadline: Deadline) -> Result<Right, Denied> {
    let route = routing::route_now(shared);
    let lag = session.max_lag.unwrap_or(shared.options.replica_max_lag);
    let silent = Duration::from_micros(clock::now().since(shared.published.heard()));
    if silent > lag {
        return Err(Denied::Stale(route));
    }
    let until = deadline.at.min(Instant::now() + lag.saturating_sub(silent));
    let wait = shared.published.applied_through(shared.published.committed());
    match tokio::time::timeout_at(until.into(), wait).await {
        Ok(()) => Ok(Right::Granted),
        Err(_) => Err(Denied::Stale(route)),
    }
}
