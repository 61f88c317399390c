//! What operators change at run time: who leads, the durability policy, members.
//!
//! Each is an act of the primary. Another node passes the request on, over the peer connection, and
//! brings the primary's answer back as it is. What was passed on is never passed on again. The node
//! that acts or refuses records who asked and what came of it; one that could not pass an order on, or
//! had no answer, records that.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use quorate_actors::orders::{
    OrderAnswer, OrderError, OrderInbox, OrderKind, Received, ReceivedOrder, RefusedOrder,
};
use quorate_actors::quorum::{ChangeError, TransferError};
use quorate_actors::view::View;
use quorate_protocol::cluster::ClusterChange;
use quorate_protocol::core::{ChangeRefused, HandoverRefused};
use quorate_protocol::policy::Policy;
use quorate_protocol::types::{EntryId, NodeId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use utoipa::ToSchema;

use super::answers::{Broken, PolicySet, Promoted, Refusal, Upgraded};
use super::drill::{Break, break_here};
use super::routes::AdminState;
use super::{joining, members, renewal, tokens};
use crate::events::{Act, ActOutcome, Events, fields_of};

/// How long an order may take: more than a transfer's own deadline, and than an election.
pub(super) const ORDER_LIMIT: Duration = Duration::from_secs(4);

/// How long another node's answer is waited for: a little more than it allows itself.
const FORWARD_LIMIT: Duration = Duration::from_secs(5);

/// Between two attempts while another change is under way, or a tenure is about to begin.
const TURN_PERIOD: Duration = Duration::from_millis(50);

/// Orders of other nodes that are carried out at once.
const RECEIVED_MAX: usize = 8;

/// Who is to lead.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Promote {
    /// The node that is to lead; without it the most caught-up voter.
    pub(super) to: Option<u64>,
}

/// The policy that is to hold.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetPolicy {
    /// A preset's name or clauses.
    pub(super) policy: String,
}

/// What came of an order: an HTTP status, and JSON.
#[derive(Debug)]
pub(super) struct Verdict {
    code: StatusCode,
    body: Value,
    /// Nothing was done, because another node leads.
    not_primary: bool,
}

impl Verdict {
    pub(super) fn done(body: impl Serialize) -> Self {
        match serde_json::to_value(body) {
            Ok(body) => Self { code: StatusCode::OK, body, not_primary: false },
            Err(error) => Self::refused(StatusCode::INTERNAL_SERVER_ERROR, error),
        }
    }

    pub(super) fn refused(code: StatusCode, error: impl std::fmt::Display) -> Self {
        Self { code, body: json!({ "error": error.to_string() }), not_primary: false }
    }

    /// What went wrong, if it is no success.
    pub(super) fn error(&self) -> Option<&str> {
        (!self.code.is_success()).then(|| self.body["error"].as_str().unwrap_or_default())
    }

    /// As JSON.
    pub(super) fn body(&self) -> &Value {
        &self.body
    }

    /// Whether nothing was changed, by a rule.
    pub(super) fn is_conflict(&self) -> bool {
        self.code == StatusCode::CONFLICT
    }

    /// Whether another node has to be asked.
    pub(super) fn passes_on(&self) -> bool {
        self.not_primary
    }

    fn not_primary(state: &AdminState) -> Self {
        let refused = Self::refused(StatusCode::CONFLICT, not_primary(&state.node.view()));
        Self { not_primary: true, ..refused }
    }

    pub(super) fn into_response(self) -> Response {
        (self.code, Json(self.body)).into_response()
    }

    /// By the node that acted.
    fn record(&self, events: &Events, kind: OrderKind, actor: &str, body: &[u8]) {
        let outcome = ActOutcome::of_status(self.code.as_u16());
        let reason = self.error().map(str::to_owned);
        events.acted(
            kind.name(),
            Act { actor: actor.to_owned(), outcome, reason },
            fields_of(body),
        );
    }
}

/// Hand leadership over
#[utoipa::path(
    post, path = "/admin/promote", tag = "cluster", request_body = Promote,
    responses((status = 200, body = Promoted)),
)]
pub(super) async fn promote(
    State(state): State<AdminState>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    body: Bytes,
) -> Response {
    order(&state, OrderKind::Promote, &caller.to_string(), body).await.into_response()
}

/// Replace the durability policy
#[utoipa::path(
    post, path = "/admin/policy", tag = "cluster", request_body = SetPolicy,
    responses((status = 200, body = PolicySet)),
)]
pub(super) async fn set_policy(
    State(state): State<AdminState>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    body: Bytes,
) -> Response {
    order(&state, OrderKind::SetPolicy, &caller.to_string(), body).await.into_response()
}

/// Have the primary break itself, for a drill
///
/// A node that is killed gives no answer, and one that is paused a late one.
#[utoipa::path(
    post, path = "/admin/drill", tag = "cluster", request_body = Break,
    responses((status = 200, body = Broken)),
)]
pub(super) async fn break_primary(
    State(state): State<AdminState>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    body: Bytes,
) -> Response {
    order(&state, OrderKind::Drill, &caller.to_string(), body).await.into_response()
}

/// Raise the cluster version to what the primary's binary brings
///
/// Older binaries don't start any more then.
#[utoipa::path(
    post, path = "/admin/upgrade", tag = "cluster", responses((status = 200, body = Upgraded)),
)]
pub(super) async fn finish_upgrade(
    State(state): State<AdminState>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    body: Bytes,
) -> Response {
    order(&state, OrderKind::FinishUpgrade, &caller.to_string(), body).await.into_response()
}

/// Carries out what other members ask, until the node stops.
pub(crate) async fn serve_orders(state: AdminState, mut inbox: OrderInbox) {
    let mut working = JoinSet::new();
    while let Some(received) = inbox.next().await {
        while working.len() >= RECEIVED_MAX {
            // A panic has been reported by its task; the asker's channel is closed.
            let _ = working.join_next().await;
        }
        while working.try_join_next().is_some() {}
        match received {
            Received::Order(order) => working.spawn(carry_out(state.clone(), order)),
            Received::Join(join) => working.spawn(joining::answer(state.clone(), join)),
            Received::Refused(refused) => {
                record_refused(&state.events, &refused);
                continue;
            }
        };
    }
}

/// One whose asker may give no orders, or that this node doesn't know or can't take now.
fn record_refused(events: &Events, refused: &RefusedOrder) {
    let RefusedOrder { from, operator, kind, reason } = refused;
    let order = kind.map_or("any", OrderKind::name);
    events.refused(order, passed_on_by(*from, operator), reason);
}

fn passed_on_by(node: NodeId, operator: &str) -> String {
    format!("{operator} at node {node}")
}

async fn carry_out(state: AdminState, received: ReceivedOrder) {
    let ReceivedOrder { from, kind, operator, body, deadline, reply } = received;
    let actor = passed_on_by(from, &operator);
    if Instant::now() >= deadline {
        // The asker was told that it is in doubt.
        let late = "its turn came after its asker had stopped waiting; nothing was changed";
        let verdict = Verdict::refused(StatusCode::CONFLICT, late);
        return verdict.record(&state.events, kind, &actor, &body);
    }
    let verdict = perform(&state, from, kind, &actor, &body).await;
    if verdict.not_primary {
        verdict.record(&state.events, kind, &actor, &body);
    }
    let answer = OrderAnswer { code: verdict.code.as_u16(), body: verdict.body.to_string().into() };
    // The asker has stopped waiting, and was told that it is in doubt.
    let _ = reply.send(answer);
}

/// Has the primary carry out what somebody asks at this node.
pub(super) async fn order(
    state: &AdminState,
    kind: OrderKind,
    operator: &str,
    body: Bytes,
) -> Verdict {
    if let Some(primary) = other_primary(&state.node.view()) {
        return forward(state, primary, kind, operator, body).await;
    }
    let own = state.node.view().node;
    let verdict = perform(state, own, kind, operator, &body).await;
    if !verdict.not_primary {
        return verdict;
    }
    // Leadership may have gone there meanwhile.
    if let Some(primary) = other_primary(&state.node.view()) {
        return forward(state, primary, kind, operator, body).await;
    }
    verdict.record(&state.events, kind, operator, &body);
    verdict
}

fn other_primary(view: &View) -> Option<NodeId> {
    view.primary.filter(|primary| *primary != view.node)
}

/// Passes an order on, once. What the other node answers is recorded there; where it gives no answer,
/// that is recorded here.
pub(super) async fn forward(
    state: &AdminState,
    to: NodeId,
    kind: OrderKind,
    operator: &str,
    body: Bytes,
) -> Verdict {
    let Some(desk) = state.node.orders() else {
        let refused = Verdict::not_primary(state);
        refused.record(&state.events, kind, operator, &body);
        return refused;
    };
    let unanswered = match desk.ask(to, kind, operator, body.clone(), FORWARD_LIMIT).await {
        Ok(OrderAnswer { code, body: answer }) => {
            let code = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY);
            match serde_json::from_slice(&answer) {
                Ok(body) => return Verdict { code, body, not_primary: false },
                Err(_) => {
                    let error = format!("in doubt: the answer of node {to} can't be read");
                    Verdict::refused(StatusCode::GATEWAY_TIMEOUT, error)
                }
            }
        }
        Err(error @ OrderError::NotAsked { .. }) => {
            Verdict::refused(StatusCode::SERVICE_UNAVAILABLE, error)
        }
        Err(error @ OrderError::InDoubt { .. }) => {
            Verdict::refused(StatusCode::GATEWAY_TIMEOUT, error)
        }
    };
    unanswered.record(&state.events, kind, operator, &body);
    unanswered
}

/// Does it here, or says why not. Where that is because another node leads, the caller records it.
/// `from` is the node that somebody asked.
pub(super) async fn perform(
    state: &AdminState,
    from: NodeId,
    kind: OrderKind,
    actor: &str,
    body: &[u8],
) -> Verdict {
    let verdict = match kind {
        OrderKind::Promote => match parse(body) {
            Ok(Promote { to }) => hand_over(state, to.map(NodeId)).await,
            Err(verdict) => verdict,
        },
        OrderKind::SetPolicy => match parse(body) {
            Ok(SetPolicy { policy }) => replace_policy(state, &policy).await,
            Err(verdict) => verdict,
        },
        OrderKind::Members => match parse(body) {
            Ok(asked) => members::perform(state, asked).await,
            Err(verdict) => verdict,
        },
        OrderKind::Tokens => match parse(body) {
            Ok(asked) => tokens::perform(state, asked).await,
            Err(verdict) => verdict,
        },
        OrderKind::Redeem => match parse(body) {
            Ok(asked) => tokens::redeem(state, asked).await,
            Err(verdict) => verdict,
        },
        OrderKind::Sign => match parse(body) {
            Ok(asked) => joining::sign(state, asked).await,
            Err(verdict) => verdict,
        },
        OrderKind::Renew => match parse(body) {
            Ok(asked) => renewal::sign(state, from, &asked),
            Err(verdict) => verdict,
        },
        OrderKind::FinishUpgrade => raise_version(state).await,
        OrderKind::Drill => match parse(body) {
            Ok(order) => break_here(state, actor, order).await,
            Err(verdict) => verdict,
        },
    };
    // One that may be passed on is recorded once that is settled.
    if !verdict.not_primary {
        verdict.record(&state.events, kind, actor, body);
    }
    verdict
}

pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Verdict> {
    serde_json::from_slice(body)
        .map_err(|error| Verdict::refused(StatusCode::BAD_REQUEST, format!("the body: {error}")))
}

/// Hands leadership over, and answers once the new primary is known here.
async fn hand_over(state: &AdminState, to: Option<NodeId>) -> Verdict {
    let began = Instant::now();
    let handed = state.node.quorum().transfer(to, began + ORDER_LIMIT).await;
    match handed {
        Ok(target) => {
            let primary = new_primary(state, began + ORDER_LIMIT).await;
            if let (Some(wanted), Some(primary)) = (to, primary)
                && wanted != primary
            {
                let error = format!("node {primary} was elected instead of node {wanted}");
                return Verdict::refused(StatusCode::GATEWAY_TIMEOUT, error);
            }
            tracing::info!(%target, ?primary, took = ?began.elapsed(), "promoted by an operator");
            Verdict::done(Promoted {
                primary: primary.map(|node| node.0),
                milliseconds: began.elapsed().as_secs_f64() * 1_000.0,
            })
        }
        Err(TransferError::Refused(HandoverRefused::NotPrimary)) => Verdict::not_primary(state),
        Err(error @ TransferError::Refused(_)) => Verdict::refused(StatusCode::CONFLICT, error),
        Err(error @ (TransferError::TimedOut(_) | TransferError::Deadline)) => {
            Verdict::refused(StatusCode::GATEWAY_TIMEOUT, error)
        }
        Err(error @ TransferError::Stopping) => {
            Verdict::refused(StatusCode::SERVICE_UNAVAILABLE, error)
        }
    }
}

/// Replaces the policy, and answers once the new one is in force.
async fn replace_policy(state: &AdminState, policy: &str) -> Verdict {
    let voters = state.node.view().config.as_ref().map_or(0, |config| config.voters().count());
    let parsed = match Policy::parse(policy, voters) {
        Ok(parsed) => parsed,
        Err(error) => return Verdict::refused(StatusCode::BAD_REQUEST, error),
    };
    let change = ClusterChange::SetPolicy(parsed);
    match state.node.quorum().change(change, Instant::now() + ORDER_LIMIT).await {
        Ok(id) => {
            tracing::info!(policy = %parsed, entry = %id, "policy changed by an operator");
            Verdict::done(PolicySet {
                policy: parsed.to_string(),
                epoch: id.epoch.0,
                seq: id.seq.0,
                warning: parsed.weakness(voters).map(|weakness| weakness.to_string()),
            })
        }
        Err(error) => not_changed(state, &error),
    }
}

/// Raises the cluster version to the one that the primary's binary brings, and answers once it is in
/// force: older binaries then don't start any more.
async fn raise_version(state: &AdminState) -> Verdict {
    let version = state.cluster_version_max;
    let before = state.node.view().config.as_ref().map(|config| config.version);
    if before == Some(version) {
        return Verdict::done(Upgraded { cluster_version: version, raised: false });
    }
    let change = ClusterChange::RaiseVersion(version);
    match state.node.quorum().change(change, Instant::now() + ORDER_LIMIT).await {
        Ok(id) => {
            tracing::info!(version, entry = %id, "cluster version raised by an operator");
            Verdict::done(Upgraded { cluster_version: version, raised: true })
        }
        Err(error) => not_changed(state, &error),
    }
}

/// Makes a change once the primary is ready and other changes are through.
pub(super) async fn change_in_turn(
    state: &AdminState,
    change: ClusterChange,
    deadline: Instant,
) -> Result<EntryId, ChangeError> {
    loop {
        match state.node.quorum().change(change.clone(), deadline).await {
            Err(ChangeError::Refused(ChangeRefused::Pending(_) | ChangeRefused::NotReady))
                if Instant::now() + TURN_PERIOD < deadline =>
            {
                tokio::time::sleep(TURN_PERIOD).await;
            }
            outcome => return outcome,
        }
    }
}

/// A change of the configuration that is not known to be in force.
pub(super) fn not_changed(state: &AdminState, error: &ChangeError) -> Verdict {
    let code = match error {
        ChangeError::Refused(ChangeRefused::NotPrimary) => return Verdict::not_primary(state),
        ChangeError::Refused(_) => StatusCode::CONFLICT,
        ChangeError::InDoubt(_) | ChangeError::Deadline => StatusCode::GATEWAY_TIMEOUT,
        ChangeError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    };
    Verdict::refused(code, error)
}

/// The next primary that this node hears, if it does so in time.
async fn new_primary(state: &AdminState, deadline: Instant) -> Option<NodeId> {
    let primary = state.node.published().other_primary();
    tokio::time::timeout_at(deadline.into(), primary).await.ok()
}

fn not_primary(view: &View) -> String {
    match view.primary {
        Some(primary) => format!("node {} is not primary; ask node {primary}", view.node),
        None => {
            let silent = silent_voters(view);
            format!("node {} is not primary, and no primary is known{silent}", view.node)
        }
    }
}

/// Who is missing where no primary is found, and what is left to do.
fn silent_voters(view: &View) -> String {
    let connected = |node| view.peers.iter().any(|peer| peer.node == node && peer.connected);
    let voters = view.config.iter().flat_map(|config| config.voters());
    let silent: Vec<String> = voters
        .filter(|node| *node != view.node && !connected(*node))
        .map(|node| node.to_string())
        .collect();
    if silent.is_empty() {
        return String::new();
    }
    format!("; missing: {}. If they are lost for good, see `quorate recover`", silent.join(", "))
}

pub(super) fn refused(code: StatusCode, error: &str) -> Response {
    (code, Json(Refusal { error: error.to_owned() })).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_node_may_not_order_is_recorded() {
        let events = Events::default();
        let refused = RefusedOrder {
            from: NodeId(3),
            operator: "127.0.0.1:5".to_owned(),
            kind: Some(OrderKind::SetPolicy),
            reason: "node 3 is not a member on its disk".to_owned(),
        };
        record_refused(&events, &refused);
        let kept = events.since(0, 10).events;
        let act = kept[0].act.as_ref().expect("an act");
        assert_eq!((&*kept[0].event, &*act.actor), ("policy set", "127.0.0.1:5 at node 3"));
        assert_eq!((act.outcome, act.reason.as_ref()), (ActOutcome::Denied, Some(&refused.reason)));
    }
}
