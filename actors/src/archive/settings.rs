//! What is archived by itself, where to, and how.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::ack::Ack;
use super::location::{Location, S3Settings};
use super::prune::Retention;

/// Those in force. A reload replaces them whole: what is under way keeps to the new rate at once, and
/// all else holds from the next job on.
pub(crate) type InForce = Arc<ArcSwap<ArchiveSettings>>;

/// What an operator has configured.
#[derive(Clone, Debug)]
pub struct ArchiveSettings {
    /// Where; nothing is archived by itself without. Stays as it is while the node runs.
    pub target: Option<Location>,
    /// How S3 stores are reached.
    pub s3: S3Settings,
    /// How often the primary archives what is new.
    pub interval: Duration,
    /// How often the state is copied too.
    pub snapshot_interval: Duration,
    /// What is kept.
    pub retention: Retention,
    /// How often the primary restores the archive to compare it; never without.
    pub verify_interval: Option<Duration>,
    /// What a backup copies in a second at most, but for the last one of a node that stops.
    pub bytes_per_second: u64,
    /// What a backup waits for at its end.
    pub ack: Ack,
    /// Whether a node that is told to stop archives what is new.
    pub final_backup: bool,
}
