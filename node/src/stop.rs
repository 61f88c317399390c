//! The stop of a node: asked for once or more often, it happens once and has one report.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use quorate_actors::node::{FinalBackup, ShutdownReport};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use utoipa::ToSchema;

use crate::failure::Failure;
use crate::moment::moment;

/// What a stop achieved, as callers are told and the log says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct StopReport {
    /// Whether everything in the journal is synced.
    pub(crate) journal_flushed: bool,
    /// Whether the state is on disk as of its last entry.
    pub(crate) final_checkpoint: bool,
    /// Whether what was new was archived outside the node.
    pub(crate) backup_uploaded: bool,
    /// Why it was not, though it should have been.
    #[serde(default)]
    pub(crate) backup_error: Option<String>,
    /// Whether the next start will know that nothing is lost.
    pub(crate) clean: bool,
    /// How long it took.
    pub(crate) duration_seconds: f64,
    /// When it began, in UTC.
    pub(crate) started_at: String,
    /// When it was done.
    pub(crate) completed_at: String,
    /// Why it was given up.
    pub(crate) error: Option<String>,
}

impl StopReport {
    pub(crate) fn of(report: &ShutdownReport) -> Self {
        Self {
            journal_flushed: report.journal_synced,
            final_checkpoint: report.state_flushed,
            backup_uploaded: report.backup == Some(Ok(())),
            backup_error: report.backup.clone().and_then(Result::err),
            clean: report.clean,
            duration_seconds: report.duration.as_secs_f64(),
            started_at: moment(report.started_at.into()),
            completed_at: moment(report.completed_at.into()),
            error: None,
        }
    }

    /// Of a stop that was cut off after so long.
    pub(crate) fn given_up(after: Duration) -> Self {
        let now = SystemTime::now();
        Self {
            journal_flushed: false,
            final_checkpoint: false,
            backup_uploaded: false,
            backup_error: None,
            clean: false,
            duration_seconds: after.as_secs_f64(),
            started_at: moment((now - after).into()),
            completed_at: moment(now.into()),
            error: Some(format!("the stop took longer than {after:?}")),
        }
    }

    /// The report as the outcome of the process.
    pub(crate) fn outcome(&self) -> Result<(), Failure> {
        match (&self.error, &self.backup_error, self.clean) {
            (Some(error), _, _) => Err(Failure::Failed(error.clone())),
            (None, None, true) => Ok(()),
            (None, Some(error), true) => {
                Err(Failure::Failed(format!("stopped, but the last backup failed: {error}")))
            }
            (None, _, false) => Err(Failure::Failed(format!(
                "stopped without a clean mark (journal flushed: {}, final checkpoint: {}); the \
                 next start proves the journal's tail",
                self.journal_flushed, self.final_checkpoint
            ))),
        }
    }
}

/// Where a stop is asked for over HTTP, and where everyone finds its report.
#[derive(Debug)]
pub(crate) struct Stop {
    asked: Notify,
    /// Whether someone wants a backup first.
    backup: AtomicBool,
    report: watch::Sender<Option<StopReport>>,
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            asked: Notify::new(),
            backup: AtomicBool::new(false),
            report: watch::Sender::new(None),
        }
    }
}

impl Stop {
    /// Asks for the stop, with a backup or without; asking again changes nothing once it has begun.
    pub(crate) fn ask(&self, backup: bool) {
        self.backup.fetch_or(backup, Ordering::Relaxed);
        self.asked.notify_one();
    }

    /// Whether a backup is made first.
    pub(crate) fn final_backup(&self) -> FinalBackup {
        if self.backup.load(Ordering::Relaxed) {
            FinalBackup::Asked
        } else {
            FinalBackup::AsConfigured
        }
    }

    /// The report, once there is one; the same for everyone.
    pub(crate) async fn report(&self) -> StopReport {
        let mut reports = self.report.subscribe();
        loop {
            if let Some(report) = reports.borrow_and_update().clone() {
                return report;
            }
            if reports.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The stop is done, or given up.
    pub(crate) fn done(&self, report: StopReport) {
        self.report.send_replace(Some(report));
    }
}

/// Learns that the node is to stop: from a signal, or over HTTP.
pub(crate) struct Told<'a> {
    terminate: Signal,
    interrupt: Signal,
    stop: &'a Stop,
    by: Option<&'static str>,
}

impl<'a> Told<'a> {
    /// Catches SIGTERM and SIGINT from now on, for good: a second one must not end the process
    /// before its last sync.
    pub(crate) fn new(stop: &'a Stop) -> Result<Self, Failure> {
        let catch = |kind| signal(kind).map_err(|error| Failure::failed("signals", error));
        let (terminate, interrupt) =
            (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, stop, by: None })
    }

    /// Completes when the node was told to stop, with by what; at once if it was before.
    pub(crate) async fn wait(&mut self) -> &'static str {
        if let Some(by) = self.by {
            return by;
        }
        let by = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = self.stop.asked.notified() => "an operator's request",
        };
        *self.by.insert(by)
    }

    /// Whether it was told to stop.
    pub(crate) async fn was_told(&mut self) -> bool {
        tokio::time::timeout(Duration::ZERO, self.wait()).await.is_ok()
    }

    /// Completes so long after it was told to stop.
    pub(crate) async fn overdue(&mut self, limit: Duration) -> &'static str {
        let by = self.wait().await;
        tokio::time::sleep(limit).await;
        by
    }
}
