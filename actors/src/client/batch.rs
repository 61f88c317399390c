//! One batch of a connection on its way through the log.

use std::time::{Duration, Instant};

use quorate_protocol::command::batch::Encoded;
use quorate_protocol::policy::Policy;
use quorate_protocol::resp::Reply;
use quorate_protocol::types::EntryId;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::routing::{self, Route};
use super::session::Deadline;
use super::shared::Shared;
use crate::submit::{Batch, DoubtReason, Outcome, Refusal, Waits};

/// The gate answers at the deadline. Only where it can't, because its node is failing, does the
/// connection stop waiting by itself, so much later.
const GRACE: Duration = Duration::from_secs(2);

/// Between two attempts at a node that calls itself primary and refuses as if it weren't: its
/// view follows within this time.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// How a batch ended, in what a connection needs to answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// Committed and applied.
    Done {
        /// The entry.
        id: EntryId,
        /// One reply per command.
        replies: Vec<Reply>,
        /// What they waited for.
        waits: Option<Waits>,
    },
    /// May have happened.
    InDoubt {
        /// The entry, where it is known.
        id: Option<EntryId>,
        /// Position of the batch's first command in it.
        index: u32,
        /// Why it isn't known.
        reason: DoubtReason,
    },
    /// Did not happen: the primary is elsewhere, or not known.
    NotHere(Route),
    /// Did not happen.
    Refused(Refusal),
}

/// On which terms a batch goes through the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// When it must be answered.
    pub deadline: Deadline,
    /// How long it waits for a primary.
    pub primary_until: Instant,
    /// What the session asks for beyond the cluster's policy.
    pub durability: Option<Policy>,
}

/// Hands a batch over and waits for its outcome. A batch that was refused because this node isn't
/// primary certainly wasn't sealed: it waits for a primary until `primary_until` and, if that is
/// this node again, is handed over again.
pub(super) async fn run(
    shared: &Shared,
    encoded: &Encoded,
    accepted: Instant,
    terms: Terms,
) -> Answer {
    let Terms { deadline, primary_until, durability } = terms;
    loop {
        let permit = match admit(shared, encoded.bytes.len(), deadline).await {
            Ok(permit) => permit,
            Err(refusal) => return Answer::Refused(refusal),
        };
        let (reply, outcome) = oneshot::channel();
        let batch = Batch {
            body: encoded.bytes.clone(),
            crc: encoded.crc,
            count: encoded.count,
            accepted,
            deadline: deadline.at,
            durability,
            permit,
            reply,
        };
        let outcome = match shared.quorum.submit(batch).await {
            Ok(()) => outcome_of(outcome, deadline).await,
            Err(refusal) => Outcome::Refused(refusal),
        };
        match outcome {
            Outcome::Done { id, index: _, replies, waits } => {
                return Answer::Done { id, replies, waits };
            }
            Outcome::InDoubt { id, index, reason } => {
                return Answer::InDoubt { id, index, reason };
            }
            Outcome::Refused(Refusal::NotPrimary { .. } | Refusal::NoPrimary) => {
                tokio::time::sleep(RETRY_AFTER).await;
                let until = primary_until.min(deadline.at);
                match routing::route(shared, until).await {
                    Route::Here if Instant::now() < until => {}
                    Route::Here => return Answer::NotHere(Route::Unknown),
                    route => return Answer::NotHere(route),
                }
            }
            Outcome::Refused(Refusal::Timeout { .. }) => {
                return Answer::Refused(Refusal::Timeout { caller: deadline.caller });
            }
            Outcome::Refused(refusal) => return Answer::Refused(refusal),
        }
    }
}

/// Takes the batch's bytes from the admission budget. While it waits the connection reads
/// nothing, so that what a client can have on its way is bounded.
async fn admit(
    shared: &Shared,
    bytes: usize,
    deadline: Deadline,
) -> Result<OwnedSemaphorePermit, Refusal> {
    // A batch above the whole budget is admitted alone.
    let live = shared.live();
    let bytes = bytes.min(live.settings.admission_bytes_max);
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    if let Ok(permit) = live.admission.clone().try_acquire_many_owned(bytes) {
        return Ok(permit);
    }
    let waiting = live.admission.clone().acquire_many_owned(bytes);
    match tokio::time::timeout_at(deadline.at.into(), waiting).await {
        Ok(Ok(permit)) => Ok(permit),
        // The budget is closed only when the node stops.
        Ok(Err(_)) => Err(Refusal::Draining),
        Err(_) if deadline.caller => Err(Refusal::Timeout { caller: true }),
        Err(_) => Err(Refusal::Overloaded),
    }
}

async fn outcome_of(outcome: oneshot::Receiver<Outcome>, deadline: Deadline) -> Outcome {
    let lost = |reason| Outcome::InDoubt { id: None, index: 0, reason };
    match tokio::time::timeout_at((deadline.at + GRACE).into(), outcome).await {
        Ok(Ok(outcome)) => outcome,
        // Whoever held it is gone, and may have sealed it before.
        Ok(Err(_)) => lost(DoubtReason::Shutdown),
        Err(_) => lost(DoubtReason::Deadline),
    }
}
