//! `POST /admin/scrub`: whether all nodes hold the same and can read it.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use quorate_actors::scrub::{Difference, NodeScrub, ScrubError};
use serde::Deserialize;
use utoipa::ToSchema;

use super::orders::refused;
use super::routes::AdminState;
use crate::scrub::{Different, NodeScrubbed, Scrubbed};

/// `POST /admin/scrub`
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ScrubOrder {
    /// Whether nodes that differ from most are told to rebuild their state.
    #[serde(default)]
    repair: bool,
}

/// Compare what the nodes hold, and read all files
///
/// Answers when all of it is read. A caller that goes away finds the outcome in log and metrics.
#[utoipa::path(
    post, path = "/admin/scrub", tag = "cluster", request_body = ScrubOrder,
    responses((status = 200, body = Scrubbed)),
)]
pub(super) async fn scrub(
    State(state): State<AdminState>,
    body: Result<Json<ScrubOrder>, JsonRejection>,
) -> Response {
    let Json(ScrubOrder { repair }) = match body {
        Ok(body) => body,
        Err(rejection) => return refused(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    let Some(scrubber) = state.node.scrubber().cloned() else {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "there is nothing to scrub");
    };
    tracing::info!(repair, "scrub: asked for by an operator");
    match scrubber.scrub(repair).await {
        Ok(report) => {
            let node = |one: &NodeScrub| NodeScrubbed {
                node: one.node.0,
                keys: one.keys,
                fault: one.fault.clone(),
                absent: one.absent.clone(),
            };
            let difference = |one: &Difference| Different {
                first_slot: one.first_slot,
                last_slot: one.last_slot,
                nodes: one.nodes.iter().map(|node| node.0).collect(),
            };
            Json(Scrubbed {
                clean: report.is_clean(),
                seq: report.seq.0,
                nodes: report.nodes.iter().map(node).collect(),
                differences: report.differences.iter().map(difference).collect(),
                repaired: report.repaired.iter().map(|node| node.0).collect(),
            })
            .into_response()
        }
        Err(error @ (ScrubError::Busy | ScrubError::NoPosition | ScrubError::NoCluster)) => {
            refused(StatusCode::CONFLICT, &error.to_string())
        }
        Err(error @ ScrubError::Stopping) => {
            refused(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
        }
    }
}
