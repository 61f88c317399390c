//! The routes and their answers.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use serde::Deserialize;
use tokio::sync::Semaphore;
use utoipa::{OpenApi, ToSchema, openapi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{LogLevelSet, Refusal};
use super::status::Status;
use super::{
    ContentHash, NodeView, access, backup, events, lifecycle, members, orders, policy, schedule,
    scrub, storage, tokens,
};
use crate::events::Events;
use crate::failure::Failure;
use crate::pki::Signer;
use crate::reload::ReloadReport;

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

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Quorate, admin port",
        description = "Any node answers, and passes on what another one \
        has to do. Callers on other machines may ask for /health/*, and for /metrics where \
        admin.public_metrics is set. A POST needs Content-Type: application/json."
    ),
    components(schemas(Refusal))
)]
struct Description;

/// All routes. Serve it with the callers' addresses (`ConnectInfo`).
pub(crate) fn router(state: AdminState) -> Router {
    let (routes, description) = described(&state);
    routes
        .route("/openapi.json", get(|| std::future::ready(Json(description))))
        .layer(middleware::from_fn_with_state(state.clone(), lifecycle::after_start))
        .layer(middleware::from_fn_with_state(state.clone(), access::guard))
        .with_state(state)
}

/// The routes, and what they are as an OpenAPI document.
fn described(state: &AdminState) -> (Router<AdminState>, openapi::OpenApi) {
    let (routes, mut description) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(lifecycle::live))
        .routes(routes!(lifecycle::startup))
        .routes(routes!(lifecycle::ready))
        .routes(routes!(metrics))
        .routes(routes!(full_status))
        .routes(routes!(members::list))
        .routes(routes!(tokens::list))
        .routes(routes!(schedule::show))
        .routes(routes!(policy::show))
        .routes(routes!(policy::explain))
        .routes(routes!(policy::simulate))
        .routes(routes!(events::list))
        .routes(routes!(content_hash))
        .routes(routes!(orders::promote))
        .routes(routes!(orders::set_policy))
        .routes(routes!(members::change))
        .routes(routes!(tokens::change))
        .routes(routes!(orders::finish_upgrade))
        .routes(routes!(orders::break_primary))
        .merge(of_this_node(state))
        .split_for_parts();
    describe_responses(&mut description);
    (routes, description)
}

/// What is asked of this node alone, and recorded by it.
fn of_this_node(state: &AdminState) -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .routes(routes!(storage::flush))
        .routes(routes!(storage::compact))
        .routes(routes!(storage::relieve))
        .routes(routes!(scrub::scrub))
        .routes(routes!(backup::create))
        .routes(routes!(reload))
        .routes(routes!(log_level))
        .routes(routes!(lifecycle::drain))
        .routes(routes!(lifecycle::shutdown))
        .route_layer(middleware::from_fn_with_state(state.clone(), events::audit))
}

/// What succeeds needs no more words than its content, and whatever is refused or fails is told in one
/// way.
fn describe_responses(description: &mut openapi::OpenApi) {
    for path in description.paths.paths.values_mut() {
        for operation in [&mut path.get, &mut path.post].into_iter().flatten() {
            let refusal = openapi::ResponseBuilder::new()
                .description("Refused, failed, or in doubt (504)")
                .content(
                    "application/json",
                    openapi::Content::new(Some(openapi::Ref::from_schema_name("Refusal"))),
                );
            let responses = &mut operation.responses.responses;
            for response in responses.values_mut() {
                if let openapi::RefOr::T(response) = response
                    && response.description.is_empty()
                {
                    "Done, or what was asked for".clone_into(&mut response.description);
                }
            }
            responses.insert("default".to_owned(), refusal.into());
        }
    }
}

/// All metrics, in Prometheus's text format
#[utoipa::path(
    get, path = "/metrics", tag = "node",
    responses((status = 200, content_type = "text/plain", body = String)),
)]
async fn metrics(State(state): State<AdminState>) -> Response {
    // Collectors read files of the system and figures of RocksDB.
    blocking(move || match state.node.metrics() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
            .into_response(),
        Err(error) => failed(&error),
    })
    .await
}

/// What this node knows of itself and of its cluster
#[utoipa::path(get, path = "/status", tag = "node", responses((status = 200, body = Status)))]
async fn full_status(State(state): State<AdminState>) -> Response {
    Json(Status::of(state.node.as_ref(), &state.cluster_name)).into_response()
}

/// Read the configuration again, and take over what has changed: all of it, or nothing
#[utoipa::path(
    post, path = "/admin/reload", tag = "node",
    responses((status = 200, body = ReloadReport), (status = 409, description = "Nothing was changed", body = ReloadReport)),
)]
async fn reload(State(state): State<AdminState>) -> Response {
    tracing::info!("asked to reload by an operator over HTTP");
    blocking(move || match state.node.reload() {
        Some(report) if report.applied => Json(report).into_response(),
        Some(report) => (StatusCode::CONFLICT, Json(report)).into_response(),
        None => failed("there is nothing to reload"),
    })
    .await
}

/// What the log is to tell.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LogLevel {
    /// A level, or levels by module, as `log.filter` has them.
    level: String,
}

/// Change what the log tells, until the next reload
#[utoipa::path(
    post, path = "/admin/log-level", tag = "node", request_body = LogLevel,
    responses((status = 200, body = LogLevelSet)),
)]
async fn log_level(State(state): State<AdminState>, body: Bytes) -> Response {
    let LogLevel { level } = match orders::parse(&body) {
        Ok(asked) => asked,
        Err(verdict) => return verdict.into_response(),
    };
    blocking(move || match state.node.set_log_filter(&level) {
        Some(Ok(())) => Json(LogLevelSet { level }).into_response(),
        Some(Err(Failure::Usage(error))) => orders::refused(StatusCode::BAD_REQUEST, &error),
        Some(Err(error)) => failed(&error.to_string()),
        None => failed("there is no log to change"),
    })
    .await
}

/// Hash over the whole state, which is read for it
#[utoipa::path(
    get, path = "/admin/content-hash", tag = "node", responses((status = 200, body = ContentHash)),
)]
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
    orders::refused(StatusCode::INTERNAL_SERVER_ERROR, error)
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
