//! Where a node is in its life: the health probes, draining and stopping.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use quorate_actors::node::Drained;
use quorate_actors::supervisor::{ColdStep, Lifecycle};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::health::{Purpose, readiness_of};
use super::orders::{parse, refused};
use super::routes::AdminState;
use crate::moment::moment;

/// How long handing over may take until a caller is told that it goes on.
const DRAIN_LIMIT: Duration = Duration::from_secs(4);

/// How long the steps of a start took that are done and were needed, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ColdStart {
    restore: Option<f64>,
    journal_replay: Option<f64>,
    snapshot_install: Option<f64>,
    warm_up: Option<f64>,
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

/// The process answers: that is all. Data is none of its business, or a probe would restart a
/// node for trouble that a restart makes worse.
pub(super) async fn live(State(state): State<AdminState>) -> Response {
    probe(state.node.lifecycle(), "live", true, None)
}

/// Local recovery is done and all listeners are bound; other nodes don't matter.
pub(super) async fn startup(State(state): State<AdminState>) -> Response {
    let life = state.node.lifecycle();
    let reason = life.starting();
    probe(life, "started", reason.is_none(), reason.map(str::to_owned))
}

#[derive(Deserialize)]
pub(super) struct ReadyQuery {
    #[serde(default, rename = "for")]
    purpose: Purpose,
}

pub(super) async fn ready(
    State(state): State<AdminState>,
    Query(query): Query<ReadyQuery>,
) -> Response {
    let reason = readiness_of(state.node.as_ref(), query.purpose).reason;
    probe(state.node.lifecycle(), "ready", reason.is_none(), reason)
}

fn probe(life: &Lifecycle, what: &str, good: bool, reason: Option<String>) -> Response {
    let body = json!({
        what: good,
        "reason": reason,
        "phase": life.phase().to_string(),
        "started_at": moment(life.started_at().into()),
        "ready_at": life.ready_at().map(|at| moment(at.into())),
        "uptime_seconds": life.uptime().as_secs_f64(),
        "cold_start_seconds": ColdStart::of(life),
    });
    (if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body))
        .into_response()
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

/// Hands leadership over and takes none from now on.
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
    let body = json!({
        "phase": state.node.phase().to_string(),
        "drained": drained,
        "primary": primary.map(|node| node.0),
        "milliseconds": began.elapsed().as_secs_f64() * 1_000.0,
    });
    Json(body).into_response()
}

/// How the node is to stop.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StopOrder {
    /// Whether what is new is archived first.
    #[serde(default)]
    backup: bool,
}

/// Asks for the stop and answers with its report: the same to everyone who asks. Nothing need be said of
/// how.
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
