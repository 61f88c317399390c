//! Metrics of the archive, as this node sees it.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::archive::{ArchiveStatus, BackupReport};

/// What is archived, and how the last runs of this node ended.
#[derive(Clone, Debug)]
pub struct ArchiveMetrics {
    enabled: IntGauge,
    archived_seq: IntGauge,
    archived_at: IntGauge,
    succeeded_at: IntGauge,
    verified_at: IntGauge,
    good: IntCounter,
    failed: IntCounter,
    verify_failed: IntCounter,
    bytes: IntCounter,
}

impl ArchiveMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let opts = Opts::new("quorate_backups_total", "Backups that this node began");
        let runs = IntCounterVec::new(opts, &["outcome"])?;
        registry.register(Box::new(runs.clone()))?;
        Ok(Self {
            enabled: gauge("quorate_archive_enabled", "1 while a target is configured")?,
            archived_seq: gauge(
                "quorate_archive_archived_seq",
                "Position up to which the log is archived, as this node last saw it",
            )?,
            archived_at: gauge(
                "quorate_archive_archived_timestamp_seconds",
                "When the last archived entry was sealed, in seconds since 1970",
            )?,
            succeeded_at: gauge(
                "quorate_backup_succeeded_timestamp_seconds",
                "When this node last ended a backup well, in seconds since 1970; 0 before the first",
            )?,
            verified_at: gauge(
                "quorate_backup_verified_restore_timestamp_seconds",
                "When a restored archive last held what was archived, in seconds since 1970; 0 \
                 before the first",
            )?,
            good: runs.with_label_values(&["good"]),
            failed: runs.with_label_values(&["failed"]),
            verify_failed: counter(
                "quorate_backup_verify_failures_total",
                "Restored archives that did not hold what was archived, or could not be restored",
            )?,
            bytes: counter("quorate_backup_bytes_total", "Bytes that this node has archived")?,
        })
    }

    /// What is known from now on.
    pub(crate) fn set(&self, status: &ArchiveStatus) {
        let seconds = |ms: Option<u64>| (ms.unwrap_or(0) / 1_000) as i64;
        self.enabled.set(i64::from(status.target.is_some()));
        if let Some(archived) = &status.archived {
            self.archived_seq.set(archived.seq as i64);
            self.archived_at.set(seconds(Some(archived.time_ms)));
        }
        self.succeeded_at.set(seconds(status.runs.succeeded_at_ms));
        self.verified_at.set(seconds(status.verifications.succeeded_at_ms));
    }

    /// A run to the configured target ended; `None` if it failed.
    pub(crate) fn ran(&self, report: Option<&BackupReport>) {
        let Some(report) = report else { return self.failed.inc() };
        self.good.inc();
        self.bytes.inc_by(report.bytes);
    }

    /// A restored archive was not what it should be.
    pub(crate) fn verify_failed(&self) {
        self.verify_failed.inc();
    }
}
