//! The node's published state: written by its owners only, read by everyone without a mailbox.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::types::{ClusterId, EntryId, Epoch, Incarnation, MonoTime, NodeId, Seq};

use crate::clock;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// What a node is in the current epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// Follows, or waits for a primary.
    #[default]
    Replica = 0,
    /// Stands for election.
    Candidate = 1,
    /// Leads.
    Primary = 2,
}

/// Hot values as atomics, the rest as one immutable snapshot.
#[derive(Debug, Default)]
pub struct Published {
    role: AtomicU8,
    epoch: AtomicU64,
    lease_until: AtomicU64,
    readable: AtomicU8,
    committed: AtomicU64,
    committed_epoch: AtomicU64,
    acknowledgeable: AtomicU64,
    applied: AtomicU64,
    /// No stored key expires before this moment of cluster time.
    next_expiry_ms: AtomicU64,
    /// Cluster time less this node's monotonic clock, in microseconds, as last raised. 0 is
    /// unknown: a cluster that runs counts from 1970, a machine from its start.
    cluster_offset_us: AtomicI64,
    /// When a primary was last heard.
    heard: AtomicU64,
    /// The last primary that was heard; 0 before the first.
    last_primary: AtomicU64,
    view: ArcSwap<View>,
    view_changed: Notify,
    applied_changed: Notify,
    /// Time that the policy could not be met while this node led, in microseconds.
    degraded_us: AtomicU64,
    /// How many wait for cursors to move.
    cursor_watches: AtomicUsize,
    /// Whether this node was removed from the cluster.
    removed: AtomicBool,
}

/// While one is held, the view is replaced each time that a cursor moves.
#[derive(Debug)]
pub struct CursorWatch<'a>(&'a Published);

impl Drop for CursorWatch<'_> {
    fn drop(&mut self) {
        self.0.cursor_watches.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The slowly changing part, replaced whole whenever any of it changes.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// This node.
    pub node: NodeId,
    /// This life of the node.
    pub incarnation: Incarnation,
    /// Role in `epoch`.
    pub role: Role,
    /// The current epoch.
    pub epoch: Epoch,
    /// The primary of `epoch`, where one was heard within an election timeout (or is this node).
    pub primary: Option<NodeId>,
    /// The cluster's id, once formed.
    pub cluster: Option<ClusterId>,
    /// The configuration in force here; `None` before the cluster is formed.
    pub config: Option<Arc<ClusterEntry>>,
    /// Last entry of the log here.
    pub last: EntryId,
    /// Highest synced position here.
    pub persisted: Seq,
    /// Whether this node may have lost entries it acknowledged from memory (S5).
    pub memory_loss: bool,
    /// Why the policy can't be met by the connected voters, where it can't.
    pub degraded: Option<String>,
    /// Other members, as this node sees them.
    pub peers: Vec<PeerView>,
    /// What this node waits for before the cluster can be formed or joined.
    pub waiting: Option<String>,
    /// Why it takes part in nothing, where it doesn't.
    pub absence: Absence,
}

/// Why a node without a configuration takes part in nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Absence {
    /// It has no log yet; or it takes part.
    #[default]
    Forming,
    /// It is a member, and waits for a snapshot because its state is lost.
    SnapshotInstall,
    /// It is a member, and asks the voters whether its log is theirs.
    JournalRecovery,
}

/// A primary's view of one other member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerView {
    /// Which member.
    pub node: NodeId,
    /// Whether a session with it is up.
    pub connected: bool,
    /// Where the session's other end is.
    pub address: Option<SocketAddr>,
    /// Its acknowledged cursor in memory (0 where this node isn't primary).
    pub in_memory: Seq,
    /// Its acknowledged cursor on disk.
    pub persisted: Seq,
    /// Its applied position.
    pub applied: Seq,
}

impl Published {
    /// Starts as a replica of epoch 0 that knows nothing.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The slowly changing part.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Role now.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.role.load(Ordering::Acquire) {
            2 => Role::Primary,
            1 => Role::Candidate,
            _ => Role::Replica,
        }
    }

    /// Epoch now.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// Whether this node may serve reads at `now` from state applied at least to `committed()`:
    /// primary, `EpochStart` committed, and within its lease (S11). Check again before the reply.
    #[must_use]
    pub fn may_read(&self, now: MonoTime) -> bool {
        self.readable.load(Ordering::Acquire) == 1
            && now.0 < self.lease_until.load(Ordering::Acquire)
    }

    /// Commit position.
    #[must_use]
    pub fn committed(&self) -> Seq {
        Seq(self.committed.load(Ordering::Acquire))
    }

    /// An epoch in which this node knew everything through `committed()` to be committed.
    #[must_use]
    pub fn committed_epoch(&self) -> Epoch {
        Epoch(self.committed_epoch.load(Ordering::Acquire))
    }

    /// Position up to which the policy in force is met; at most `committed()`.
    #[must_use]
    pub fn acknowledgeable(&self) -> Seq {
        Seq(self.acknowledgeable.load(Ordering::Acquire))
    }

    /// Position that the state holds.
    #[must_use]
    pub fn applied(&self) -> Seq {
        Seq(self.applied.load(Ordering::Acquire))
    }

    /// No key that is stored expires before this moment, in milliseconds of cluster time.
    #[must_use]
    pub fn next_expiry_ms(&self) -> u64 {
        self.next_expiry_ms.load(Ordering::Acquire)
    }

    /// Cluster time now, in milliseconds: that of the last entry or heartbeat, and what has gone
    /// by since. Never goes back, as the monotonic clock doesn't. 0 before the first.
    #[must_use]
    pub fn cluster_time_ms(&self) -> u64 {
        match self.cluster_offset_us.load(Ordering::Acquire) {
            0 => 0,
            offset => clock::now().0.saturating_add_signed(offset) / 1_000,
        }
    }

    /// When another node was last heard as primary; 0 if never.
    #[must_use]
    pub fn heard(&self) -> MonoTime {
        MonoTime(self.heard.load(Ordering::Acquire))
    }

    /// The last primary that was heard, also while none is.
    #[must_use]
    pub fn last_primary(&self) -> Option<NodeId> {
        match self.last_primary.load(Ordering::Acquire) {
            0 => None,
            node => Some(NodeId(node)),
        }
    }

    /// Completes when the view is next replaced. Create it before looking at the view, so that no
    /// change falls in between.
    pub fn view_changed(&self) -> Notified<'_> {
        self.view_changed.notified()
    }

    /// Waits until another node is known to lead. The caller bounds the wait.
    pub async fn other_primary(&self) -> NodeId {
        loop {
            let mut changed = std::pin::pin!(self.view_changed());
            // Registered before the look, so that no change falls in between.
            changed.as_mut().enable();
            let view = self.view();
            if let Some(primary) = view.primary.filter(|primary| *primary != view.node) {
                return primary;
            }
            changed.await;
        }
    }

    /// Asks the quorum actor to publish cursors as soon as they move, and not only from time to
    /// time. Wake it afterwards: what has moved already is published in its next round.
    #[must_use]
    pub fn watch_cursors(&self) -> CursorWatch<'_> {
        self.cursor_watches.fetch_add(1, Ordering::SeqCst);
        CursorWatch(self)
    }

    /// Whether someone waits for cursors to move.
    #[must_use]
    pub fn cursors_are_watched(&self) -> bool {
        self.cursor_watches.load(Ordering::SeqCst) > 0
    }

    /// Waits until the state holds everything through `seq`. The caller bounds the wait.
    pub async fn applied_through(&self, seq: Seq) {
        while self.applied() < seq {
            let mut changed = std::pin::pin!(self.applied_changed.notified());
            // Registered before the second look, so that no change falls in between.
            changed.as_mut().enable();
            if self.applied() >= seq {
                return;
            }
            changed.await;
        }
    }

    /// Whether this node was removed from the cluster, for good.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// For the quorum actor, before it ends for that.
    pub fn set_removed(&self) {
        self.removed.store(true, Ordering::Release);
    }

    /// How long the policy could not be met, of the time that this node led in this life, in
    /// microseconds.
    #[must_use]
    pub fn degraded_us(&self) -> u64 {
        self.degraded_us.load(Ordering::Relaxed)
    }

    /// For the quorum actor: time spent degraded so far.
    pub fn set_degraded_us(&self, us: u64) {
        self.degraded_us.store(us, Ordering::Relaxed);
    }

    /// For the quorum actor: publishes role, epoch and positions.
    pub fn set_positions(&self, committed: Seq, acknowledgeable: Seq) {
        self.committed.store(committed.0, Ordering::Release);
        self.acknowledgeable.store(acknowledgeable.0, Ordering::Release);
    }

    /// For the quorum actor, before it publishes positions: the epoch in which it knows them.
    pub fn set_committed_epoch(&self, epoch: Epoch) {
        self.committed_epoch.store(epoch.0, Ordering::Release);
    }

    /// For the quorum actor: the lease, as the moment when it ends, and whether reads may be
    /// served at all.
    pub fn set_lease(&self, readable: bool, until: MonoTime) {
        self.lease_until.store(until.0, Ordering::Release);
        self.readable.store(u8::from(readable), Ordering::Release);
    }

    /// For the quorum actor: when another node was last heard as primary.
    pub fn set_heard(&self, at: MonoTime) {
        self.heard.store(at.0, Ordering::Release);
    }

    /// For the quorum actor: replaces the snapshot and the role and epoch with it.
    pub fn set_view(&self, view: View) {
        self.epoch.store(view.epoch.0, Ordering::Release);
        self.role.store(view.role as u8, Ordering::Release);
        if let Some(primary) = view.primary {
            self.last_primary.store(primary.0, Ordering::Release);
        }
        self.view.store(Arc::new(view));
        self.view_changed.notify_waiters();
    }

    /// For the apply loop only: the state now holds everything through `applied`.
    pub fn set_applied(&self, applied: Seq) {
        self.applied.store(applied.0, Ordering::Release);
        // One load where nobody waits.
        self.applied_changed.notify_waiters();
    }

    /// For the apply loop only, before the applied position that it belongs to.
    pub fn set_next_expiry_ms(&self, at_ms: u64) {
        self.next_expiry_ms.store(at_ms, Ordering::Release);
    }

    /// For the quorum actor: cluster time never goes back.
    pub fn raise_cluster_time(&self, ms: u64) {
        let us = i64::try_from(ms.saturating_mul(1_000)).unwrap_or(i64::MAX);
        let offset = us.saturating_sub_unsigned(clock::now().0);
        self.cluster_offset_us.fetch_max(offset, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_time_goes_on_by_itself_and_never_back() {
        let published = Published::new();
        assert_eq!(published.cluster_time_ms(), 0);
        let start = 1_800_000_000_000;
        published.raise_cluster_time(start);
        published.raise_cluster_time(start - 60_000);
        let first = published.cluster_time_ms();
        assert!(first >= start);
        std::thread::sleep(std::time::Duration::from_millis(3));
        assert!(published.cluster_time_ms() >= first + 3);
    }
}
