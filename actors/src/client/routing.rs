//! Where a command may be carried out.

use std::time::Instant;

use super::refusal;
use super::session::Mode;
use super::shared::Shared;
use crate::view::{Role, View};
use quorate_protocol::resp::Reply;

/// Where the primary is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// This node.
    Here,
    /// A primary of the current epoch that was heard within an election timeout: the `host:port`
    /// of its cluster listener.
    Elsewhere(String),
    /// Not known.
    Unknown,
}

/// Where the primary is now.
pub(super) fn route_now(shared: &Shared) -> Route {
    if shared.published.role() == Role::Primary {
        return Route::Here;
    }
    route_of(&shared.published.view())
}

/// Where the primary is; waits until `until` while none is known.
pub(super) async fn route(shared: &Shared, until: Instant) -> Route {
    loop {
        let changed = shared.published.view_changed();
        let route = route_now(shared);
        if route != Route::Unknown {
            return route;
        }
        if tokio::time::timeout_at(until.into(), changed).await.is_err() {
            return Route::Unknown;
        }
    }
}

/// The answer to a command that can't be carried out here. `slot` is the key's, where the
/// command has one; only commands with a key are redirected, and only on the cluster listener.
pub(super) fn answer(route: &Route, mode: Mode, slot: Option<u16>, write: bool) -> Reply {
    match (route, mode, slot) {
        (Route::Elsewhere(address), Mode::Cluster, Some(slot)) => refusal::moved(slot, address),
        (Route::Elsewhere(_), _, _) => refusal::not_primary(write),
        (Route::Here | Route::Unknown, _, _) => refusal::cluster_down(),
    }
}

fn route_of(view: &View) -> Route {
    match view.primary {
        Some(primary) if primary == view.node => Route::Here,
        Some(primary) => view
            .config
            .as_ref()
            .and_then(|config| config.member(primary))
            .filter(|member| !member.client_addr.is_empty())
            .map_or(Route::Unknown, |member| Route::Elsewhere(member.client_addr.clone())),
        None => Route::Unknown,
    }
}
