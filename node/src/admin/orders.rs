//! What operators change at run time: who leads, and the durability policy. Answered by the
//! primary; another node says who that is.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use quorate_actors::quorum::{ChangeError, TransferError};
use quorate_actors::view::View;
use quorate_protocol::cluster::ClusterChange;
use quorate_protocol::core::{ChangeRefused, HandoverRefused};
use quorate_protocol::policy::Policy;
use quorate_protocol::types::NodeId;
use serde::Deserialize;
use serde_json::json;

use super::routes::AdminState;

/// How long an order may take: more than a transfer's own deadline, and than an election.
const ORDER_LIMIT: Duration = Duration::from_secs(4);

/// `POST /admin/promote`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Promote {
    /// The node that is to lead; without it the most caught-up voter.
    to: Option<u64>,
}

/// `POST /admin/policy`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetPolicy {
    /// A preset's name or clauses.
    policy: String,
}

/// Hands leadership over, and answers once the new primary is known here.
pub(super) async fn promote(
    State(state): State<AdminState>,
    body: Result<Json<Promote>, JsonRejection>,
) -> Response {
    let Json(Promote { to }) = match body {
        Ok(body) => body,
        Err(rejection) => return refused(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    let began = Instant::now();
    let handed = state.node.quorum().transfer(to.map(NodeId), began + ORDER_LIMIT).await;
    match handed {
        Ok(target) => {
            let primary = new_primary(&state, began + ORDER_LIMIT).await;
            if let (Some(wanted), Some(primary)) = (to.map(NodeId), primary)
                && wanted != primary
            {
                let error = format!("node {primary} was elected instead of node {wanted}");
                return refused(StatusCode::GATEWAY_TIMEOUT, &error);
            }
            tracing::info!(%target, ?primary, took = ?began.elapsed(), "promoted by an operator");
            let body = json!({
                "primary": primary.map(|node| node.0),
                "milliseconds": began.elapsed().as_secs_f64() * 1_000.0,
            });
            Json(body).into_response()
        }
        Err(TransferError::Refused(HandoverRefused::NotPrimary)) => not_primary(&state),
        Err(error @ TransferError::Refused(_)) => refused(StatusCode::CONFLICT, &error.to_string()),
        Err(error @ (TransferError::TimedOut(_) | TransferError::Deadline)) => {
            refused(StatusCode::GATEWAY_TIMEOUT, &error.to_string())
        }
        Err(error @ TransferError::Stopping) => {
            refused(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
        }
    }
}

/// Replaces the policy, and answers once the new one is in force.
pub(super) async fn set_policy(
    State(state): State<AdminState>,
    body: Result<Json<SetPolicy>, JsonRejection>,
) -> Response {
    let Json(SetPolicy { policy }) = match body {
        Ok(body) => body,
        Err(rejection) => return refused(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    let voters = state.node.view().config.as_ref().map_or(0, |config| config.voters().count());
    let parsed = match Policy::parse(&policy, voters) {
        Ok(parsed) => parsed,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let change = ClusterChange::SetPolicy(parsed);
    match state.node.quorum().change(change, Instant::now() + ORDER_LIMIT).await {
        Ok(id) => {
            tracing::info!(policy = %parsed, entry = %id, "policy changed by an operator");
            let body = json!({
                "policy": parsed.to_string(),
                "epoch": id.epoch.0,
                "seq": id.seq.0,
                "warning": parsed.weakness(voters).map(|weakness| weakness.to_string()),
            });
            Json(body).into_response()
        }
        Err(ChangeError::Refused(ChangeRefused::NotPrimary)) => not_primary(&state),
        Err(error @ ChangeError::Refused(_)) => refused(StatusCode::CONFLICT, &error.to_string()),
        Err(error @ (ChangeError::InDoubt(_) | ChangeError::Deadline)) => {
            refused(StatusCode::GATEWAY_TIMEOUT, &error.to_string())
        }
        Err(error @ ChangeError::Stopping) => {
            refused(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
        }
    }
}

/// The next primary that this node hears, if it does so in time.
async fn new_primary(state: &AdminState, deadline: Instant) -> Option<NodeId> {
    let primary = state.node.published().other_primary();
    tokio::time::timeout_at(deadline.into(), primary).await.ok()
}

fn not_primary(state: &AdminState) -> Response {
    let view = state.node.view();
    let error = match view.primary {
        Some(primary) => format!("node {} is not primary; ask node {primary}", view.node),
        None => {
            let silent = silent_voters(&view);
            format!("node {} is not primary, and no primary is known{silent}", view.node)
        }
    };
    refused(StatusCode::CONFLICT, &error)
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
    (code, Json(json!({ "error": error }))).into_response()
}
