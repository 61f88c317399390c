//! `GET /backup`: the archive's schedule in force on a node, what came of it, and what is due when.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use quorate_actors::archive::{Archive, Attempts};
use quorate_actors::view::{Role, View};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answers::Refusal;
use super::orders::refused;
use super::routes::AdminState;

/// What a node does about the archive. Moments are in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct BackupSchedule {
    /// The node that answers.
    pub(crate) node: u64,
    /// Who leads, where one was heard lately: it archives.
    pub(crate) primary: Option<u64>,
    /// Whether the node that answers is it.
    pub(crate) archives: bool,
    /// Whether a job is under way on it.
    pub(crate) running: bool,
    /// Where the archive is.
    pub(crate) target: String,
    /// Through here the log is archived, as this node last saw it.
    pub(crate) archived_seq: Option<u64>,
    /// When that entry was sealed.
    pub(crate) archived_time_ms: Option<u64>,
    /// When something was last archived.
    pub(crate) written_at_ms: Option<u64>,
    /// By which node.
    pub(crate) written_by: Option<u64>,
    /// Runs, which archive what is new in the log, as far as this node has made them.
    pub(crate) runs: BackupJob,
    /// Copies of the state. The newest counts, whoever made it.
    pub(crate) snapshots: BackupJob,
    /// Restores for comparison, as far as this node has made them.
    pub(crate) verifications: BackupJob,
    /// How many snapshots are kept; all without.
    pub(crate) retain_snapshots: Option<u64>,
    /// How old what is kept may be.
    pub(crate) retain_age_seconds: Option<f64>,
    /// How many bytes are kept.
    pub(crate) retain_bytes: Option<u64>,
    /// What a backup copies in a second at most.
    pub(crate) bytes_per_second: u64,
    /// What a backup waits for at its end.
    pub(crate) ack: String,
    /// Whether a stop archives what is new.
    pub(crate) final_backup: bool,
}

/// Something that is done again and again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct BackupJob {
    /// How often; never without.
    pub(crate) interval_seconds: Option<f64>,
    /// When the last one ended.
    pub(crate) ended_at_ms: Option<u64>,
    /// When the last one ended well.
    pub(crate) succeeded_at_ms: Option<u64>,
    /// Why the last one failed.
    pub(crate) failure: Option<String>,
    /// When the next one is due, where this node archives; a moment that is past is now.
    pub(crate) due_at_ms: Option<u64>,
}

/// The archive's schedule in force on this node, what came of it, and what is due when
#[utoipa::path(
    get, path = "/backup", tag = "node",
    responses(
        (status = 200, body = BackupSchedule),
        (status = 404, description = "Nothing is archived by itself", body = Refusal),
    ),
)]
pub(super) async fn show(State(state): State<AdminState>) -> Response {
    let Some(archive) = state.node.archiver() else {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "there is nothing to back up yet");
    };
    match BackupSchedule::of(archive, &state.node.view()) {
        Some(schedule) => Json(schedule).into_response(),
        None => refused(
            StatusCode::NOT_FOUND,
            "nothing is archived by itself: archive.target is not set on this node",
        ),
    }
}

impl BackupSchedule {
    /// None without a target.
    fn of(archive: &Archive, view: &View) -> Option<Self> {
        let (settings, status, due) = archive.schedule();
        let archives = view.role == Role::Primary;
        let job =
            |interval: Option<Duration>, attempts: &Attempts, due_at_ms: Option<u64>| BackupJob {
                interval_seconds: interval.map(|interval| interval.as_secs_f64()),
                ended_at_ms: attempts.ended_at_ms,
                succeeded_at_ms: attempts.succeeded_at_ms,
                failure: attempts.failure.clone(),
                due_at_ms: due_at_ms.filter(|_| archives),
            };
        let made_at_ms = status.snapshot.as_ref().map(|snapshot| snapshot.made_at_ms);
        let made = Attempts { ended_at_ms: made_at_ms, succeeded_at_ms: made_at_ms, failure: None };
        Some(Self {
            node: view.node.0,
            primary: view.primary.map(|primary| primary.0),
            archives,
            running: status.running,
            target: status.target.clone()?,
            archived_seq: status.archived.as_ref().map(|archived| archived.seq),
            archived_time_ms: status.archived.as_ref().map(|archived| archived.time_ms),
            written_at_ms: status.written.map(|written| written.at_ms),
            written_by: status.written.map(|written| written.by),
            runs: job(Some(settings.interval), &status.runs, Some(due.run_ms)),
            snapshots: job(Some(settings.snapshot_interval), &made, Some(due.snapshot_ms)),
            verifications: job(
                settings.verify_interval,
                &status.verifications,
                due.verification_ms,
            ),
            retain_snapshots: settings.retention.snapshots.map(|kept| kept as u64),
            retain_age_seconds: settings.retention.age.map(|age| age.as_secs_f64()),
            retain_bytes: settings.retention.bytes,
            bytes_per_second: settings.bytes_per_second,
            ack: settings.ack.to_string(),
            final_backup: settings.final_backup,
        })
    }
}
