//! HTTP for operators: health, status, metrics, and orders.

#![allow(unused_qualifications, reason = "the macros that describe routes write them")]

mod access;
mod answers;
mod backup;
pub(crate) mod drill;
mod events;
mod front;
#[cfg(test)]
mod golden;
mod health;
mod joining;
mod lifecycle;
mod members;
mod orders;
mod params;
mod policy;
mod renewal;
mod routes;
mod schedule;
mod scrub;
mod starting;
pub(crate) mod status;
mod storage;
mod tokens;

pub(crate) use events::{STREAMS_MAX, watch_cluster};
pub(crate) use front::Front;
pub(crate) use joining::{JoinAnswer, JoinRequest};
pub(crate) use members::MembersOrder;
pub(crate) use orders::serve_orders;
pub(crate) use renewal::keep_certificate;
pub(crate) use routes::{AdminState, Identity, router};
pub(crate) use schedule::{BackupJob, BackupSchedule};
pub(crate) use starting::StartingNode;
pub(crate) use tokens::TokensOrder;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use quorate_actors::archive::{Archive, ArchiveStatus};
use quorate_actors::health::HealthView;
use quorate_actors::node::Drained;
use quorate_actors::orders::OrderDesk;
use quorate_actors::quorum::QuorumHandle;
use quorate_actors::replication::Candidate;
use quorate_actors::scrub::Scrubber;
use quorate_actors::snapshot::{SnapshotProgress, SnapshotSending};
use quorate_actors::storage::Freed;
use quorate_actors::storage::state::{CompactError, CompactProgress, Compacted};
use quorate_actors::supervisor::{Lifecycle, Phase};
use quorate_actors::view::{Published, View};

use crate::failure::Failure;
use crate::reload::ReloadReport;
use crate::stop::Stop;

/// An answer that takes time.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the admin port needs to know of a node. A trait, so that its answers are tested without
/// one.
pub(crate) trait NodeView: Send + Sync + 'static {
    /// Where the node is in its life, and how it got there.
    fn lifecycle(&self) -> &Lifecycle;
    /// Its phase.
    fn phase(&self) -> Phase {
        self.lifecycle().phase()
    }
    /// Its published state.
    fn published(&self) -> &Published;
    /// The slowly changing part of it.
    fn view(&self) -> Arc<View> {
        self.published().view()
    }
    /// Takes orders for the replication core.
    fn quorum(&self) -> &QuorumHandle;
    /// Asks other members to do something, where there may be any.
    fn orders(&self) -> Option<&OrderDesk>;
    /// Nodes that call this one and are not members yet.
    fn candidates(&self) -> Vec<Candidate>;
    /// Takes orders to scrub, where there is something to scrub.
    fn scrubber(&self) -> Option<&Scrubber>;
    /// Its positions now.
    fn positions(&self) -> Positions;
    /// Whether it may serve a linearizable read by itself at this moment (S11).
    fn may_read(&self) -> bool;
    /// Errors and space, as the health monitor last judged them.
    fn health(&self) -> Arc<HealthView>;
    /// What is known of the archive.
    fn archive(&self) -> Arc<ArchiveStatus>;
    /// Takes orders for backups, where there is something to back up.
    fn archiver(&self) -> Option<&Archive>;
    /// The snapshot that it is receiving.
    fn receiving(&self) -> Option<SnapshotProgress>;
    /// The snapshots that it is sending.
    fn sending(&self) -> Vec<SnapshotSending> {
        Vec::new()
    }
    /// Who holds a different log, as of the last comparison.
    fn divergence(&self) -> Option<String> {
        None
    }
    /// All metrics in Prometheus's text format.
    fn metrics(&self) -> Result<String, String>;
    /// Writes the state to disk. Returns the position that a restart would find.
    fn flush(&self) -> Result<u64, String>;
    /// Rewrites the state's files without what was deleted and overwritten.
    fn compact(&self) -> Result<Compacted, CompactError>;
    /// How far that is, while it is under way.
    fn compacting(&self) -> Option<CompactProgress> {
        None
    }
    /// Gives memory back.
    fn relieve(&self) -> Freed;
    /// Hash over the whole state; reads all of it.
    fn content_hash(&self) -> Result<ContentHash, String>;
    /// Takes the node out of service; handing over may take until the limit.
    fn drain(&self, limit: Duration) -> BoxFuture<'_, Drained>;
    /// Where a stop is asked for, and its report.
    fn stop(&self) -> &Stop;
    /// Reads the configuration again, once the node runs; reads disks.
    fn reload(&self) -> Option<ReloadReport> {
        None
    }
    /// Has the log tell what this filter lets through, once the node runs; opens the log's file.
    fn set_log_filter(&self, _filter: &str) -> Option<Result<(), Failure>> {
        None
    }
    /// Whole days until the first certificate expires, once they are in use.
    fn certificate_days(&self) -> Option<i64> {
        None
    }
}

/// Positions in the log, as counts of entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Positions {
    /// Known to be committed.
    pub(crate) committed: u64,
    /// The policy in force is met up to here.
    pub(crate) acknowledgeable: u64,
    /// Executed.
    pub(crate) applied: u64,
}

/// The state's content at one position.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct ContentHash {
    /// The position that it was taken at.
    pub(crate) applied_seq: u64,
    /// Keys that had not expired.
    pub(crate) keys: u64,
    /// In hex.
    pub(crate) content_hash: String,
}
