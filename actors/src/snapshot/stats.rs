//! What was sent and received, for status and metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use quorate_protocol::types::{EntryId, NodeId};

/// Counted by the snapshots' thread, read by anyone.
#[derive(Debug, Default)]
pub struct SnapshotStats {
    pub(super) made: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) received_bytes: AtomicU64,
    pub(super) progress: Mutex<Option<SnapshotProgress>>,
    /// By connection, in the order in which they came.
    pub(super) sending: Mutex<BTreeMap<u64, SnapshotSending>>,
    /// When the first attempt began to fetch what is to be installed.
    pub(super) fetching_since: Mutex<Option<Instant>>,
}

/// A snapshot that this node is receiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotProgress {
    /// From whom.
    pub from: NodeId,
    /// The last entry in it.
    pub last: EntryId,
    /// Bytes of all its files.
    pub total_bytes: u64,
    /// Bytes of them that are here.
    pub received_bytes: u64,
}

/// A snapshot that this node is sending to one other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotSending {
    /// To whom.
    pub to: NodeId,
    /// The last entry in it.
    pub last: EntryId,
    /// Bytes of all its files.
    pub total_bytes: u64,
    /// Bytes of them that were sent, now or by an earlier connection.
    pub sent_bytes: u64,
}

impl SnapshotStats {
    /// Snapshots made for others since the start.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Bytes of snapshots sent since the start.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Snapshots received whole since the start. The node restarts when it has installed one.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes of snapshots received since the start.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// Since when a snapshot has been fetched that isn't installed yet, failed attempts included.
    #[must_use]
    pub fn fetching_since(&self) -> Option<Instant> {
        *self.fetching_since.lock()
    }

    /// What is being sent now.
    #[must_use]
    pub fn sending(&self) -> Vec<SnapshotSending> {
        self.sending.lock().values().copied().collect()
    }

    /// What is being received now.
    #[must_use]
    pub fn progress(&self) -> Option<SnapshotProgress> {
        *self.progress.lock()
    }
}
