//! Where a node is in its life: the health probes, draining and stopping.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use quorate_actors::node::Drained;
use quorate_actors::supervisor::{ColdStep, Lifecycle};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answers::{DrainReport, Probe};
use super::health::{Purpose, readiness_of};
use super::orders::{parse, refused};
use super::params::Params;
use super::routes::AdminState;
use crate::moment::moment;
use crate::stop::StopReport;

/// How long handing over may take until a caller is told that it goes on.
const DRAIN_LIMIT: Duration = Duration::from_secs(4);

/// How long the steps of a start took that are done and were needed, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ColdStart {
    /// Opening the state.
    restore: Option<f64>,
    /// Applying the log behind it.
    journal_replay: Option<f64>,
    /// Putting a snapshot in force that was received.
    snapshot_install: Option<f64>,
    /// Warming caches up.
    warm_up: Option<f64>,
    /// Until the node was ready.
    total: Option<f64>,
}

impl ColdStart {
    pub(super) fn of(life: &Lifecycle) -> Self {
        let took = |step| life.took(step).map(|took| took.as_secs_f64());
        Self {
            restore: took(ColdStep::Restore),
            journal_replay: took(ColdStep::JournalReplay),
            snapshot_install: took(ColdStep::SnapshotInstall),
            warm_up: took(ColdStep::WarmUp),
            total: life.total().map(|took| took.as_secs_f64()),
        }
    }
}

/// Whether the process answers
///
/// That is all. Data is none of its business, or a probe would restart a node for trouble that a
/// restart makes worse.
#[utoipa::path(get, path = "/health/live", tag = "health", responses((status = 200, body = Probe)))]
pub(super) async fn live(State(state): State<AdminState>) -> Response {
    probe(state.node.lifecycle(), true, None)
}

/// Whether local recovery is done and all listeners are bound
///
/// Other nodes don't matter.
#[utoipa::path(
    get, path = "/health/startup", tag = "health",
    responses((status = 200, body = Probe), (status = 503, description = "It is not so", body = Probe)),
)]
pub(super) async fn startup(State(state): State<AdminState>) -> Response {
    let life = state.node.lifecycle();
    let reason = life.starting();
    probe(life, reason.is_none(), reason.map(str::to_owned))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ReadyQuery {
    /// What the caller wants to do.
    #[serde(default, rename = "for")]
    #[param(inline, required = false)]
    purpose: Purpose,
}

/// Whether this node can serve
///
/// A linearizable read, itself or by way of another node, unless `for` says what is wanted.
#[utoipa::path(
    get, path = "/health/ready", tag = "health", params(ReadyQuery),
    responses((status = 200, body = Probe), (status = 503, description = "It is not so", body = Probe)),
)]
pub(super) async fn ready(
    State(state): State<AdminState>,
    Params(query): Params<ReadyQuery>,
) -> Response {
    let reason = readiness_of(state.node.as_ref(), query.purpose).reason;
    probe(state.node.lifecycle(), reason.is_none(), reason)
}

fn probe(life: &Lifecycle, ok: bool, reason: Option<String>) -> Response {
    let body = Probe {
        ok,
        reason,
        phase: life.phase().to_string(),
        started_at: moment(life.started_at().into()),
        ready_at: life.ready_at().map(|at| moment(at.into())),
        uptime_seconds: life.uptime().as_secs_f64(),
        cold_start_seconds: ColdStart::of(life),
    };
    (if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body)).into_response()
}

/// Lets those requests through that a node answers which is still starting.
pub(super) async fn after_start(
    State(state): State<AdminState>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let always = path.starts_with("/health/")
        || ["/status", "/metrics", "/admin/drain", "/admin/shutdown"].contains(&path);
    match state.node.lifecycle().starting() {
        Some(step) if !always => {
            refused(StatusCode::SERVICE_UNAVAILABLE, &format!("the node is starting: {step}"))
        }
        Some(_) | None => next.run(request).await,
    }
}

/// Take the node out of service
///
/// It hands leadership over and takes none from now on.
#[utoipa::path(
    post, path = "/admin/drain", tag = "node", responses((status = 200, body = DrainReport)),
)]
pub(super) async fn drain(State(state): State<AdminState>) -> Response {
    tracing::info!("asked to drain by an operator over HTTP");
    let began = std::time::Instant::now();
    let (drained, primary) = match state.node.drain(DRAIN_LIMIT).await {
        Drained::Starting => ("starting", None),
        Drained::Replica => ("replica", state.node.view().primary),
        Drained::HandedOver(primary) => ("handed_over", primary),
        Drained::Alone => ("alone", None),
        Drained::StillPrimary(error) => {
            let error = format!("draining, and still primary: {error}; the node goes on trying");
            return refused(StatusCode::GATEWAY_TIMEOUT, &error);
        }
    };
    let report = DrainReport {
        phase: state.node.phase().to_string(),
        drained,
        primary: primary.map(|node| node.0),
        milliseconds: began.elapsed().as_secs_f64() * 1_000.0,
    };
    Json(report).into_response()
}

/// How the node is to stop.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StopOrder {
    /// Whether what is new is archived first.
    #[serde(default)]
    backup: bool,
}

/// Stop the node in order
///
/// Answers with the stop's report, the same to everyone who asks. Nothing need be said of how.
#[utoipa::path(
    post, path = "/admin/shutdown", tag = "node", request_body = Option<StopOrder>,
    responses((status = 200, body = StopReport), (status = 500, description = "Not stopped as it should be", body = StopReport)),
)]
pub(super) async fn shutdown(State(state): State<AdminState>, body: Bytes) -> Response {
    let asked = if body.is_empty() { Ok(StopOrder::default()) } else { parse(&body) };
    let StopOrder { backup } = match asked {
        Ok(asked) => asked,
        Err(verdict) => return verdict.into_response(),
    };
    tracing::info!(backup, "asked to stop by an operator over HTTP");
    let stop = state.node.stop();
    stop.ask(backup);
    let report = stop.report().await;
    let code = match report.error {
        None => StatusCode::OK,
        Some(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (code, Json(report)).into_response()
}
