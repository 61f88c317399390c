//! What a policy promises, and what would hold with nodes failed. Answered by any node; only the
//! primary knows the cursors.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use quorate_actors::clock;
use quorate_actors::view::{Role, View};
use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::policy::{Condition, Cursors, Policy, Scenario};
use quorate_protocol::types::{NodeId, Seq};
use serde::Deserialize;
use utoipa::IntoParams;

use super::answers::PolicyInForce;
use super::orders::refused;
use super::params::Params;
use super::routes::AdminState;
use crate::policy::report::{Explained, Simulated};

/// Longer than the view's own period.
const FRESH_LIMIT: Duration = Duration::from_millis(100);

/// Largest number of voters that is explained, as large as a cluster gets.
const VOTERS_MAX: usize = 9;

/// The durability policy in force
#[utoipa::path(
    get, path = "/policy", tag = "cluster", responses((status = 200, body = PolicyInForce)),
)]
pub(super) async fn show(State(state): State<AdminState>) -> Response {
    let view = state.node.view();
    let in_force = PolicyInForce {
        policy: view.config.as_ref().map(|config| config.policy.to_string()),
        voters: view.config.as_ref().map(|config| config.voters().count()),
        degraded: view.degraded.clone(),
    };
    Json(in_force).into_response()
}

/// What `GET /policy/explain` explains.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Explain {
    /// A preset's name or clauses; the policy in force without it.
    policy: Option<String>,
    /// As many as the cluster has without it.
    voters: Option<usize>,
}

/// What `GET /policy/simulate` supposes.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Simulate {
    /// A preset's name or clauses; the policy in force without it.
    policy: Option<String>,
    /// Nodes that are stopped: numbers with commas between.
    #[serde(default)]
    #[param(required = false)]
    down: String,
    /// Nodes that come back from a power cut.
    #[serde(default)]
    #[param(required = false)]
    power_cut: String,
    /// Nodes whose disks are lost.
    #[serde(default)]
    #[param(required = false)]
    disk_lost: String,
}

/// Which failures a policy survives, and what it costs
#[utoipa::path(
    get, path = "/policy/explain", tag = "cluster", params(Explain),
    responses((status = 200, body = Explained)),
)]
pub(super) async fn explain(
    State(state): State<AdminState>,
    Params(Explain { policy, voters }): Params<Explain>,
) -> Response {
    let config = state.node.view().config.clone();
    let known = config.as_ref().map(|config| config.voters().count());
    let Some(voters) = voters.or(known) else { return unformed() };
    if !(1..=VOTERS_MAX).contains(&voters) {
        return refused(StatusCode::BAD_REQUEST, "voters: 1 to 9");
    }
    match chosen(policy.as_deref(), config.as_ref(), voters) {
        Ok(policy) => {
            let explained = Explained::of(policy, voters);
            let copies = state.node.quorum().copy_times();
            let now = clock::now();
            let predicted = copies.predict(policy, voters, now).filter(|_| known == Some(voters));
            Json(explained.with_latency(predicted, &copies.medians(now))).into_response()
        }
        Err(error) => refused(StatusCode::BAD_REQUEST, &error),
    }
}

/// What would hold if these nodes failed now
#[utoipa::path(
    get, path = "/policy/simulate", tag = "cluster", params(Simulate),
    responses((status = 200, body = Simulated)),
)]
pub(super) async fn simulate(
    State(state): State<AdminState>,
    Params(query): Params<Simulate>,
) -> Response {
    // In this order: whatever was acknowledged is within cursors that are looked at later.
    let acknowledged = Seq(state.node.positions().acknowledgeable);
    let view = fresh_view(&state).await;
    let Some(config) = &view.config else { return unformed() };
    let simulated = scenario(&query, &view, config, acknowledged).and_then(|scenario| {
        let policy = chosen(query.policy.as_deref(), Some(config), scenario.voters.len())?;
        Ok(Simulated::of(policy, &scenario))
    });
    match simulated {
        Ok(simulated) => Json(simulated).into_response(),
        Err(error) => refused(StatusCode::BAD_REQUEST, &error),
    }
}

/// The view with the cursors as of now: it is renewed only from time to time unless someone watches.
async fn fresh_view(state: &AdminState) -> Arc<View> {
    let published = state.node.published();
    let _watch = published.watch_cursors();
    let mut changed = std::pin::pin!(published.view_changed());
    changed.as_mut().enable();
    state.node.quorum().look();
    // Where no cursor has moved nothing changes, and the view is right as it is.
    let _ = tokio::time::timeout(FRESH_LIMIT, changed).await;
    state.node.view()
}

/// The policy asked for, or the one in force.
fn chosen(
    text: Option<&str>,
    config: Option<&Arc<ClusterEntry>>,
    voters: usize,
) -> Result<Policy, String> {
    match (text, config) {
        (Some(text), _) => Policy::parse(text, voters).map_err(|error| error.to_string()),
        (None, Some(config)) => {
            let policy = config.policy;
            policy.check(voters).map_err(|error| error.to_string())?;
            Ok(policy)
        }
        (None, None) => Err("no policy is in force yet; name one".to_owned()),
    }
}

/// The cluster as this node sees it, and what is asked to happen to it. Voters that don't answer
/// anyway are stopped already.
fn scenario(
    asked: &Simulate,
    view: &View,
    config: &ClusterEntry,
    acknowledged: Seq,
) -> Result<Scenario, String> {
    let connected = |node: NodeId| {
        node == view.node || view.peers.iter().any(|peer| peer.node == node && peer.connected)
    };
    let now = |node| if connected(node) { Condition::Up } else { Condition::Stopped };
    let mut voters: Vec<(NodeId, Condition)> =
        config.voters().map(|node| (node, now(node))).collect();
    for (name, list, condition) in [
        ("down", &asked.down, Condition::Stopped),
        ("power_cut", &asked.power_cut, Condition::PowerCut),
        ("disk_lost", &asked.disk_lost, Condition::DiskLost),
    ] {
        for node in list.split(',').map(str::trim).filter(|node| !node.is_empty()) {
            let id = u64::from_str(node).map_err(|_| format!("{name}: `{node}` is no number"))?;
            let voter = voters.iter_mut().find(|(voter, _)| voter.0 == id);
            voter.ok_or_else(|| format!("{name}: node {id} is no voter"))?.1 = condition;
        }
    }
    Ok(Scenario { voters, primary: view.primary, cursors: cursors(view, config), acknowledged })
}

/// The primary's own cursors, and those that the voters last reported. Nobody else knows.
fn cursors(view: &View, config: &ClusterEntry) -> Vec<Cursors> {
    if view.role != Role::Primary {
        return Vec::new();
    }
    let own = Cursors { node: view.node, in_memory: view.last.seq, persisted: view.persisted };
    let peers = view.peers.iter().map(|peer| Cursors {
        node: peer.node,
        in_memory: peer.in_memory,
        persisted: peer.persisted,
    });
    let is_voter = |cursors: &Cursors| config.voters().any(|voter| voter == cursors.node);
    std::iter::once(own).chain(peers).filter(is_voter).collect()
}

fn unformed() -> Response {
    refused(StatusCode::CONFLICT, "this node knows of no cluster yet")
}
