//! The routes and their answers.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde_json::json;
use tokio::sync::Semaphore;

use super::status::Status;
use super::{
    NodeView, access, backup, events, lifecycle, members, orders, policy, scrub, storage, tokens,
};
use crate::events::Events;
use crate::pki::Signer;

/// What every route may use.
#[derive(Clone)]
pub(crate) struct AdminState {
    /// The node.
    pub(crate) node: Arc<dyn NodeView>,
    /// The cluster's name, as configured.
    pub(crate) cluster_name: Arc<str>,
    /// Whether other machines may read `/metrics`.
    pub(crate) public_metrics: bool,
    /// Whether `quorate drill` may break this node without being asked twice.
    pub(crate) drill_allowed: bool,
    /// The newest cluster version that this binary follows.
    pub(crate) cluster_version_max: u32,
    /// What nodes that join are told of the cluster's authorities. A reload replaces it whole.
    pub(crate) identity: Arc<ArcSwap<Identity>>,
    /// What has happened.
    pub(crate) events: Arc<Events>,
    /// Taken by each stream of events.
    pub(crate) event_streams: Arc<Semaphore>,
}

/// The cluster's authorities.
#[derive(Default)]
pub(crate) struct Identity {
    /// Their certificates in PEM.
    pub(crate) authorities_pem: String,
    /// The fingerprint of each, in hex.
    pub(crate) authorities: Vec<String>,
    /// Signs for the first of them, where this node holds its key.
    pub(crate) signer: Option<Signer>,
}

/// All routes. Serve it with the callers' addresses (`ConnectInfo`).
pub(crate) fn router(state: AdminState) -> Router {
    Router::new()
        .route("/health/live", get(lifecycle::live))
        .route("/health/startup", get(lifecycle::startup))
        .route("/health/ready", get(lifecycle::ready))
        .route("/metrics", get(metrics))
        .route("/status", get(full_status))
        .route("/members", get(members::list))
        .route("/tokens", get(tokens::list))
        .route("/policy", get(policy::show))
        .route("/policy/explain", get(policy::explain))
        .route("/policy/simulate", get(policy::simulate))
        .route("/events", get(events::list))
        .route("/admin/content-hash", get(content_hash))
        .route("/admin/promote", post(orders::promote))
        .route("/admin/policy", post(orders::set_policy))
        .route("/admin/members", post(members::change))
        .route("/admin/tokens", post(tokens::change))
        .route("/admin/upgrade", post(orders::finish_upgrade))
        .route("/admin/drill", post(orders::break_primary))
        .merge(of_this_node(&state))
        .layer(middleware::from_fn_with_state(state.clone(), lifecycle::after_start))
        .layer(middleware::from_fn_with_state(state.clone(), access::guard))
        .with_state(state)
}

/// What is asked of this node alone, and recorded by it.
fn of_this_node(state: &AdminState) -> Router<AdminState> {
    Router::new()
        .route("/admin/flush", post(storage::flush))
        .route("/admin/compact", post(storage::compact))
        .route("/admin/relieve", post(storage::relieve))
        .route("/admin/scrub", post(scrub::scrub))
        .route("/admin/backup", post(backup::create))
        .route("/admin/reload", post(reload))
        .route("/admin/drain", post(lifecycle::drain))
        .route("/admin/shutdown", post(lifecycle::shutdown))
        .route_layer(middleware::from_fn_with_state(state.clone(), events::audit))
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
    Json(Status::of(state.node.as_ref(), &state.cluster_name)).into_response()
}

async fn reload(State(state): State<AdminState>) -> Response {
    tracing::info!("asked to reload by an operator over HTTP");
    blocking(move || match state.node.reload() {
        Some(report) if report.applied => Json(report).into_response(),
        Some(report) => (StatusCode::CONFLICT, Json(report)).into_response(),
        None => failed("there is nothing to reload"),
    })
    .await
}

async fn content_hash(State(state): State<AdminState>) -> Response {
    blocking(move || match state.node.content_hash() {
        Ok(hash) => Json(hash).into_response(),
        Err(error) => failed(&error),
    })
    .await
}

/// Keeps work that reads disks off the threads that serve clients.
pub(super) async fn blocking(work: impl FnOnce() -> Response + Send + 'static) -> Response {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| failed(&error.to_string()))
}

pub(super) fn failed(error: &str) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "error": error }))).into_response()
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
