//! `POST /admin/backup`: a backup of this node, now. Any node makes one.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use quorate_actors::archive::{
    BackupError, BackupReport, Location, Position, RunOptions, StepReport, WithState,
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::answers::{BackupGap, BackupMade, BackupStep};
use super::orders::refused;
use super::routes::AdminState;

/// What is asked for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BackupOrder {
    /// Where to, a directory on this machine or `s3://bucket/prefix`; the configured target without.
    target: Option<String>,
    /// Whether the state is copied too.
    #[serde(default = "yes")]
    snapshot: bool,
}

fn yes() -> bool {
    true
}

/// Make a backup of this node
///
/// Answers when it is done, which takes as long as copying does.
#[utoipa::path(
    post, path = "/admin/backup", tag = "node", request_body = BackupOrder,
    responses((status = 200, body = BackupMade)),
)]
pub(super) async fn create(
    State(state): State<AdminState>,
    body: Result<Json<BackupOrder>, JsonRejection>,
) -> Response {
    let Json(BackupOrder { target, snapshot }) = match body {
        Ok(body) => body,
        Err(rejection) => return refused(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    let target = match target.map(|target| named(&target)).transpose() {
        Ok(target) => target,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error),
    };
    let Some(archive) = state.node.archiver() else {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "there is nothing to back up yet");
    };
    let with_state = if snapshot { WithState::Yes } else { WithState::No };
    let options = RunOptions { state: with_state, ..RunOptions::default() };
    match archive.backup(target, options).await {
        Ok(report) => {
            tracing::info!(
                target = report.target,
                seq = report.archived.seq,
                bytes = report.bytes,
                took = ?report.took,
                "backup made for an operator"
            );
            Json(rendered(&report)).into_response()
        }
        Err(error @ BackupError::Busy) => refused(StatusCode::CONFLICT, &error.to_string()),
        Err(error @ BackupError::NoTarget) => refused(StatusCode::BAD_REQUEST, &error.to_string()),
        Err(BackupError::Failed(failure)) => {
            tracing::error!(%failure, "the backup that an operator asked for failed");
            refused(StatusCode::INTERNAL_SERVER_ERROR, &failure.to_string())
        }
        Err(error @ (BackupError::Stopping | BackupError::Late(_))) => {
            refused(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
        }
    }
}

fn named(target: &str) -> Result<Location, String> {
    let location = target.parse()?;
    if let Location::Directory(path) = &location
        && !path.is_absolute()
    {
        return Err(format!("the target {target:?} must be an absolute path"));
    }
    Ok(location)
}

fn rendered(report: &BackupReport) -> BackupMade {
    let seq = |position: &Position| position.seq;
    let step = |step: &StepReport| BackupStep {
        step: step.step,
        seconds: step.took.as_secs_f64(),
        missed: step.missed.clone(),
    };
    BackupMade {
        target: report.target.clone(),
        before_seq: report.before.as_ref().map(seq),
        archived_seq: report.archived.seq,
        archived_epoch: report.archived.epoch,
        archived_time_ms: report.archived.time_ms,
        snapshot: report.snapshot.as_ref().map(|(name, _)| name.clone()),
        snapshot_seq: report.snapshot.as_ref().map(|(_, at)| at.seq),
        segments: report.segments,
        entries: report.entries,
        bytes: report.bytes,
        gap: report.gap.as_ref().map(|gap| BackupGap { first: gap.first, last: gap.last }),
        uploaded: true,
        seconds: report.took.as_secs_f64(),
        steps: report.steps.iter().map(step).collect(),
    }
}
