//! Members: who they are, and adding and removing them while the cluster runs (S10).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use quorate_actors::orders::OrderKind;
use quorate_actors::replication::Candidate;
use quorate_protocol::cluster::{ClusterChange, Member, MemberKind};
use quorate_protocol::core::Quorum;
use quorate_protocol::policy::Policy;
use quorate_protocol::types::{DiskId, NodeId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answers::{
    CandidateNode, MembersAnswer, MembersChanged, MembersForecast, MembersImpossible, MembersList,
    Reachable,
};
use super::orders::{ORDER_LIMIT, Verdict, change_in_turn, not_changed, order, parse};
use super::routes::AdminState;
use super::status;

/// How long another primary is waited for after a hand-over.
const PRIMARY_LIMIT: Duration = Duration::from_secs(3);

/// A change of the members.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, tag = "action", rename_all = "lowercase")]
pub(crate) enum MembersOrder {
    /// Takes a node in, as a learner that becomes a voter by itself.
    Add {
        /// Its number, which its certificate proves.
        node: u64,
        /// Its disk in hex; by default that of the node that calls under this number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        disk: Option<String>,
        /// `host:port` of its QUIC endpoint; by default as it says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<String>,
        /// `host:port` for cluster-mode clients; by default as it says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<String>,
        /// `host:port` for plain clients; by default as it says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        plain: Option<String>,
        /// Only say what would happen.
        #[serde(default)]
        dry_run: bool,
    },
    /// Removes a member, for ever.
    Remove {
        /// Its number.
        node: u64,
        /// Only say what would happen.
        #[serde(default)]
        dry_run: bool,
    },
}

/// Members, nodes that call and are none, and removed ids
#[utoipa::path(
    get, path = "/members", tag = "cluster", responses((status = 200, body = MembersList)),
)]
pub(super) async fn list(State(state): State<AdminState>) -> Response {
    let view = state.node.view();
    let members = status::members(&view, state.node.positions());
    let removed: Vec<u64> =
        view.config.iter().flat_map(|config| &config.removed).map(|node| node.0).collect();
    let known = |candidate: &Candidate| {
        view.config.as_ref().is_some_and(|config| config.member(candidate.node).is_some())
    };
    let candidates: Vec<_> = state
        .node
        .candidates()
        .iter()
        .filter(|candidate| !known(candidate))
        .map(|candidate| CandidateNode {
            node: candidate.node.0,
            disk: candidate.disk.to_string(),
            peer_addr: candidate.peer_addr.clone(),
            client_addr: candidate.client_addr.clone(),
            plain_addr: candidate.plain_addr.clone(),
        })
        .collect();
    Json(MembersList { members, candidates, removed }).into_response()
}

/// Add or remove a member
///
/// Any node takes it. Where it removes the primary, leadership is handed over first, and until the
/// removal itself nothing is changed that would have to be undone.
#[utoipa::path(
    post, path = "/admin/members", tag = "cluster", request_body = MembersOrder,
    responses((status = 200, body = MembersAnswer)),
)]
pub(super) async fn change(
    State(state): State<AdminState>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    body: Bytes,
) -> Response {
    let verdict = match parse::<MembersOrder>(&body) {
        Ok(order) => change_anywhere(&state, caller, order).await,
        Err(verdict) => verdict,
    };
    verdict.into_response()
}

async fn change_anywhere(state: &AdminState, caller: SocketAddr, asked: MembersOrder) -> Verdict {
    if let MembersOrder::Remove { node, dry_run: false } = asked
        && state.node.view().primary == Some(NodeId(node))
    {
        let operator = caller.to_string();
        let handed = order(state, OrderKind::Promote, &operator, Bytes::from_static(b"{}")).await;
        if let Some(error) = handed.error() {
            let error = format!("node {node} leads and does not hand over: {error}");
            return Verdict::refused(StatusCode::CONFLICT, error);
        }
        if !leads_no_more(state, NodeId(node)).await {
            let error = format!("node {node} handed over, and no other primary was heard in time");
            return Verdict::refused(StatusCode::SERVICE_UNAVAILABLE, error);
        }
    }
    // The node that calls may have called here and not at the primary.
    let asked = with_candidate(asked, &state.node.candidates());
    let body = serde_json::to_vec(&asked).unwrap_or_default();
    order(state, OrderKind::Members, &caller.to_string(), body.into()).await
}

async fn leads_no_more(state: &AdminState, node: NodeId) -> bool {
    let published = state.node.published();
    let elsewhere = async {
        loop {
            let mut changed = std::pin::pin!(published.view_changed());
            // Registered before the look, so that no change falls in between.
            changed.as_mut().enable();
            if published.view().primary.is_some_and(|primary| primary != node) {
                return;
            }
            changed.await;
        }
    };
    tokio::time::timeout(PRIMARY_LIMIT, elsewhere).await.is_ok()
}

/// The order with what is known of the node that calls under this number.
fn with_candidate(asked: MembersOrder, candidates: &[Candidate]) -> MembersOrder {
    let MembersOrder::Add { node, disk, peer, client, plain, dry_run } = asked else {
        return asked;
    };
    let Some(known) = candidates.iter().find(|candidate| candidate.node.0 == node) else {
        return MembersOrder::Add { node, disk, peer, client, plain, dry_run };
    };
    MembersOrder::Add {
        node,
        disk: disk.or_else(|| Some(known.disk.to_string())),
        peer: peer.or_else(|| Some(known.peer_addr.clone())),
        client: client.or_else(|| Some(known.client_addr.clone())),
        plain: plain.or_else(|| Some(known.plain_addr.clone())),
        dry_run,
    }
}

/// What the primary does.
pub(super) async fn perform(state: &AdminState, asked: MembersOrder) -> Verdict {
    let (MembersOrder::Add { dry_run, .. } | MembersOrder::Remove { dry_run, .. }) = asked;
    let change = match cluster_change(state, asked) {
        Ok(change) => change,
        Err(verdict) => return verdict,
    };
    let deadline = Instant::now() + ORDER_LIMIT;
    if dry_run {
        return forecast(state, change, deadline).await;
    }
    let what = describe(&change);
    match change_in_turn(state, change, deadline).await {
        Ok(id) => {
            tracing::info!(change = %what, entry = %id, "members changed by an operator");
            let changed = MembersChanged { change: what, epoch: id.epoch.0, seq: id.seq.0 };
            Verdict::done(MembersAnswer::Changed(changed))
        }
        Err(error) => not_changed(state, &error),
    }
}

fn cluster_change(state: &AdminState, asked: MembersOrder) -> Result<ClusterChange, Verdict> {
    let asked = with_candidate(asked, &state.node.candidates());
    let (node, disk, peer, client, plain) = match asked {
        MembersOrder::Remove { node, .. } => return Ok(ClusterChange::Remove(NodeId(node))),
        MembersOrder::Add { node, disk, peer, client, plain, .. } => {
            (node, disk, peer, client, plain)
        }
    };
    let Some(disk) = disk else {
        let calling: Vec<String> =
            state.node.candidates().iter().map(|known| known.node.to_string()).collect();
        let calling = if calling.is_empty() { "no node".to_owned() } else { calling.join(", ") };
        let error = format!(
            "node {node} calls neither the node that was asked nor the primary, node {}, so its \
             disk and address are not known ({calling} calls the primary). Start it with \
             cluster.join = [\"{}\"] in its file and an empty data directory, look for it in \
             `quorate members list`, and try again. For a node that reaches none of them, name \
             --disk and --peer",
            state.node.view().node,
            own_address(state),
        );
        return Err(Verdict::refused(StatusCode::CONFLICT, error));
    };
    let bad = |error: String| Verdict::refused(StatusCode::BAD_REQUEST, error);
    let disk = u128::from_str_radix(&disk, 16)
        .map_err(|_| bad(format!("disk: {disk:?} is no disk id in hex")))?;
    let peer_addr = peer.filter(|peer| !peer.is_empty());
    Ok(ClusterChange::AddLearner(Member {
        node: NodeId(node),
        disk: DiskId(disk),
        kind: MemberKind::Learner,
        peer_addr: peer_addr.ok_or_else(|| bad("peer: where is it reached?".to_owned()))?,
        client_addr: client.unwrap_or_default(),
        plain_addr: plain.unwrap_or_default(),
    }))
}

/// This node as another one's `cluster.join` would name it.
fn own_address(state: &AdminState) -> String {
    let view = state.node.view();
    let own = view.config.as_ref().and_then(|config| config.member(view.node));
    own.map_or_else(String::new, |own| format!("{}@{}", own.node, own.peer_addr))
}

fn describe(change: &ClusterChange) -> String {
    match change {
        ClusterChange::AddLearner(member) => format!("node {} added as a learner", member.node),
        ClusterChange::Remove(node) => format!("node {node} removed"),
        other => format!("{other:?}"),
    }
}

/// Whether the old and the new voters that must hold the change can, without making it.
async fn forecast(state: &AdminState, change: ClusterChange, deadline: Instant) -> Verdict {
    let view = state.node.view();
    let hands_over = matches!(change, ClusterChange::Remove(node) if node == view.node);
    let what = describe(&change);
    let quorum = |quorum: &Quorum| Reachable {
        needed: quorum.needed,
        reachable: quorum.reachable.iter().map(|node| node.0).collect(),
    };
    match state.node.quorum().outlook(change, deadline).await {
        Ok(outlook) => {
            let voters = outlook.next.voters().count();
            let policy = outlook.next.policy;
            Verdict::done(MembersAnswer::Possible(MembersForecast {
                dry_run: true,
                change: what,
                possible: true,
                hands_over,
                old: quorum(&outlook.old),
                new: quorum(&outlook.new),
                voters: outlook.next.voters().map(|node| node.0).collect(),
                policy: policy.to_string(),
                warning: weakness(policy, voters),
            }))
        }
        Err(error) => {
            let refused = not_changed(state, &error);
            if refused.is_conflict() && !refused.passes_on() {
                return Verdict::done(MembersAnswer::Impossible(MembersImpossible {
                    dry_run: true,
                    change: what,
                    possible: false,
                    refused: error.to_string(),
                }));
            }
            refused
        }
    }
}

fn weakness(policy: Policy, voters: usize) -> Option<String> {
    policy.weakness(voters).map(|weakness| weakness.to_string())
}
