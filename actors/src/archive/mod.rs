//! The archive: backups of the state and of the log, outside the node.
//!
//! ```text
//! run      view of the state ─► snapshots/…  ─► journal/…  ─► HEAD ─► MANIFEST.json
//! rebuild  newest snapshot before a point ─► entries of the log up to it ─► a state
//! ```
//!
//! The primary writes, by schedule; any node does by order. `HEAD` is replaced only by who knows the
//! last one, so of two that write one fails. The other nodes look where the archive ends, and keep
//! their journals from there on.
//!
//! - `actor`, `settings`, `status`: the schedule, one job at a time, and what is known of it.
//! - `run`, `options`, `report`, `ack`, `pace`: one backup, step by step.
//! - `prune`: what goes.
//! - `catalogue`, `segment`, `chain`: the files and how they hang together.
//! - `location`, `target`: where they are.
//! - `verify`: whether they are whole.
//! - `rebuild`, `restore`: back to a state, and to a data directory.

mod ack;
mod actor;
mod catalogue;
mod chain;
mod error;
#[cfg(test)]
mod golden;
mod location;
mod options;
mod pace;
mod prune;
mod rebuild;
mod report;
mod restore;
mod run;
mod segment;
mod settings;
mod status;
mod target;
mod verify;

pub use ack::Ack;
pub(crate) use actor::ArchiveParts;
pub use actor::{Archive, BackupError};
pub use catalogue::{Catalogue, Gap, Head, Position, SegmentManifest, SnapshotManifest};
pub use error::ArchiveError;
pub use location::{Authorities, Location, S3Settings};
pub use options::{RunOptions, WithState};
pub use prune::{Pruned, Retention, prune};
pub use rebuild::{Point, Progress};
pub use report::{BackupFailure, BackupReport, StepReport};
pub use restore::{RestoreOptions, Restored, restore, verify_by_restore};
pub(crate) use run::RunParts;
pub use settings::ArchiveSettings;
pub use status::{ArchiveStatus, Attempts, Counted, DueMs, SnapshotSeen, Written};
pub use target::{Target, TargetOptions};
pub use verify::{Verification, verify};
