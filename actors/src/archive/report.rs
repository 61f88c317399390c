//! What a backup did, or why it ended early.

use std::time::Duration;

use super::catalogue::{Gap, Position};
use super::error::ArchiveError;
use super::status::{SnapshotSeen, Written};

/// A step of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepReport {
    /// Its name.
    pub step: &'static str,
    /// How long it took.
    pub took: Duration,
    /// Why it was not done; only of steps that are best effort.
    pub missed: Option<String>,
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// Where the archive is.
    pub target: String,
    /// Through here the log was in the archive before.
    pub before: Option<Position>,
    /// Through here it is now.
    pub archived: Position,
    /// The new snapshot's manifest and position.
    pub snapshot: Option<(String, Position)>,
    /// When something was last archived: by this run, unless nothing was new.
    pub written: Written,
    /// The archive's newest snapshot.
    pub newest: SnapshotSeen,
    /// New segments.
    pub segments: u64,
    /// Entries in them.
    pub entries: u64,
    /// Bytes written to the target.
    pub bytes: u64,
    /// Entries that are lost to the archive: none of its snapshots or segments holds them.
    pub gap: Option<Gap>,
    /// Every step, in order.
    pub steps: Vec<StepReport>,
    /// How long it took.
    pub took: Duration,
}

/// Why a run ended early. What was in the archive before is there still.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {error}")]
pub struct BackupFailure {
    /// In which step.
    pub step: &'static str,
    /// Why.
    #[source]
    pub error: ArchiveError,
}
