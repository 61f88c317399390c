//! The routes and their answers.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use quorate_actors::supervisor::Phase;
use serde::Deserialize;
use serde_json::json;

use super::health::{Purpose, readiness};
use super::status::{self, Status};
use super::{NodeView, access, backup, orders, policy, scrub, storage};

/// What every route may use.
#[derive(Clone)]
pub(crate) struct AdminState {
    /// The node.
    pub(crate) node: Arc<dyn NodeView>,
    /// The cluster's name, as configured.
    pub(crate) cluster_name: Arc<str>,
    /// When the process started.
    pub(crate) started: Instant,
    /// Whether other machines may read `/metrics`.
    pub(crate) public_metrics: bool,
}

/// All routes. Serve it with the callers' addresses (`ConnectInfo`).
pub(crate) fn router(state: AdminState) -> Router {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/startup", get(startup))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/status", get(full_status))
        .route("/members", get(members))
        .route("/policy", get(policy::show))
        .route("/policy/explain", get(policy::explain))
        .route("/policy/simulate", get(policy::simulate))
        .route("/admin/content-hash", get(content_hash))
        .route("/admin/promote", post(orders::promote))
        .route("/admin/policy", post(orders::set_policy))
        .route("/admin/flush", post(storage::flush))
        .route("/admin/compact", post(storage::compact))
        .route("/admin/relieve", post(storage::relieve))
        .route("/admin/scrub", post(scrub::scrub))
        .route("/admin/backup", post(backup::create))
        .route("/admin/shutdown", post(shutdown))
        .layer(middleware::from_fn_with_state(state.clone(), access::guard))
        .with_state(state)
}

/// The process answers: that is all. Data is none of its business, or a probe would restart a
/// node for trouble that a restart makes worse.
async fn live() -> Response {
    Json(json!({ "live": true })).into_response()
}

async fn startup(State(state): State<AdminState>) -> Response {
    let phase = state.node.phase();
    let body = json!({
        "started": phase > Phase::Starting,
        "phase": phase.to_string(),
        "uptime_seconds": state.uptime(),
    });
    (code(phase > Phase::Starting), Json(body)).into_response()
}

#[derive(Deserialize)]
struct ReadyQuery {
    #[serde(default, rename = "for")]
    purpose: Purpose,
}

async fn ready(State(state): State<AdminState>, Query(query): Query<ReadyQuery>) -> Response {
    let node = &state.node;
    let phase = node.phase();
    let now = (node.positions(), node.may_read());
    let readiness = readiness(phase, &node.health(), &node.view(), now, query.purpose);
    let body = json!({
        "ready": readiness.ready,
        "reason": readiness.reason,
        "phase": phase.to_string(),
        "uptime_seconds": state.uptime(),
    });
    (code(readiness.ready), Json(body)).into_response()
}

async fn metrics(State(state): State<AdminState>) -> Response {
    // Collectors read files of the system and figures of RocksDB.
    blocking(move || match state.node.metrics() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
            .into_response(),
        Err(error) => failed(&error),
    })
    .await
}

async fn full_status(State(state): State<AdminState>) -> Response {
    Json(Status::of(state.node.as_ref(), &state.cluster_name, state.uptime())).into_response()
}

async fn members(State(state): State<AdminState>) -> Response {
    let members = status::members(&state.node.view(), state.node.positions());
    Json(json!({ "members": members })).into_response()
}

async fn content_hash(State(state): State<AdminState>) -> Response {
    blocking(move || match state.node.content_hash() {
        Ok(hash) => Json(hash).into_response(),
        Err(error) => failed(&error),
    })
    .await
}

async fn shutdown(State(state): State<AdminState>) -> Response {
    tracing::info!("asked to stop by an operator over HTTP");
    state.node.request_shutdown();
    (StatusCode::ACCEPTED, Json(json!({ "stopping": true }))).into_response()
}

impl AdminState {
    fn uptime(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

/// Keeps work that reads disks off the threads that serve clients.
pub(super) async fn blocking(work: impl FnOnce() -> Response + Send + 'static) -> Response {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| failed(&error.to_string()))
}

fn code(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

pub(super) fn failed(error: &str) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "error": error }))).into_response()
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
