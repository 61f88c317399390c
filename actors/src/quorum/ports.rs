//! Everything that the quorum actor acts upon, behind calls that never wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::core::message::Message;
use quorate_protocol::core::{HardState, Violation};
use quorate_protocol::entry::Entry;
use quorate_protocol::types::{
    Branch, Chain, ClusterId, DiskId, EntryId, Epoch, Generation, Incarnation, NodeId, Seq,
};
use quorate_protocol::wire::{Formation, Hello, WireError};
use tokio::sync::mpsc;

use crate::divergence::Suspicion;
use crate::health::Health;
use crate::replication::{
    Candidates, PeerAddress, PeerEvents, Refusal, Replication, SendEntries, Session,
};
use crate::snapshot::SnapshotHandle;
use crate::storage::apply::ApplyHandle;
use crate::storage::cache::LogCache;
use crate::storage::hardstate::HardStateWriter;
use crate::storage::identity::DataDir;
use crate::storage::journal::{Journal, JournalReader, Progress};
use crate::storage::state::StateReader;
use crate::storage::state::damage::StateLoss;
use crate::submit::GateInput;
use crate::supervisor::Lifecycle;
use crate::view::Published;

/// Why the node must stop.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The core found a broken invariant.
    #[error("broken invariant: {0}")]
    Violation(#[from] Violation),
    /// A record that doesn't continue this node's log came from the primary of its epoch.
    #[error("entry {id} doesn't continue this node's log, {last} with chain {chain}")]
    Chain {
        /// The entry.
        id: EntryId,
        /// The end of this node's log.
        last: EntryId,
        /// The chain there.
        chain: Chain,
    },
    /// The chain before a cut can't be read.
    #[error("the journal can't be read at {seq}: {reason}")]
    Unreadable {
        /// The position.
        seq: Seq,
        /// What the reader said.
        reason: String,
    },
    /// The configuration can't be encoded.
    #[error("the cluster entry can't be encoded: {0}")]
    Cluster(WireError),
    /// A small file of the first boot can't be written.
    #[error("{what} can't be stored: {reason}")]
    Store {
        /// Which.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// This node was removed, for good.
    #[error("this node was removed from the cluster: its id is never used again")]
    Removed,
    /// A neighbour's queue is closed or overfull: it has failed.
    #[error("the {0} takes nothing any more")]
    Gone(&'static str),
}

/// What a phase of the quorum actor works with.
pub(crate) struct Ports {
    /// This node.
    pub node: NodeId,
    /// Its current life.
    pub incarnation: Incarnation,
    /// What peers say.
    pub peers: Arc<PeerEvents>,
    /// Speaks to peers.
    pub replication: Replication,
    /// What peers are told about this node.
    pub hello: Hello,
    /// Writes the log.
    pub journal: Journal,
    /// Reads the log.
    pub reader: JournalReader,
    /// The newest entries.
    pub cache: Arc<LogCache>,
    /// What is applied.
    pub state: StateReader,
    /// Writes hard state.
    pub hard: Arc<HardStateWriter>,
    /// The number of the latest synced hard state; stored by the writer's thread.
    pub hard_saved: Arc<AtomicU64>,
    /// Applies what is committed.
    pub apply: ApplyHandle,
    /// Answers clients.
    pub gate: mpsc::Sender<GateInput>,
    /// Identity and reservation.
    pub data_dir: Arc<Mutex<DataDir>>,
    /// Whether writes must be refused.
    pub health: Arc<Health>,
    /// Whether the node drains.
    pub lifecycle: Arc<Lifecycle>,
    /// Gives the state up.
    pub loss: Arc<StateLoss>,
    /// Doubts the log.
    pub suspicion: Arc<Suspicion>,
    /// Fetches and installs snapshots.
    pub snapshots: SnapshotHandle,
    /// Where this node's own file says that others are.
    pub file_peers: Vec<PeerAddress>,
    /// Nodes that call and are not members yet.
    pub candidates: Arc<Candidates>,
    /// What the rest of the node sees.
    pub published: Arc<Published>,
    /// The record of the first entry and the configuration in it, for members that lack it.
    pub first: Option<(Bytes, Arc<ClusterEntry>)>,
    /// What was last taken from the journal and the hard state's writer.
    pub seen: Seen,
}

/// While more than this waits for the journal, nothing is sealed and no entries are taken from the
/// transport. Well below the journal's own limit, which a round may then not reach: a round takes
/// what one lane of the transport holds.
const JOURNAL_WAITING_BYTES_MAX: usize = 16 << 20;

/// What has been handed to the core already.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    progress: Option<Progress>,
    hard: u64,
}

impl Ports {
    /// The journal's progress, if it moved since it was last asked for.
    ///
    /// `branch` is the log's own: what the journal wrote of an older one says nothing about the
    /// entries in the cache, which must stay there until the journal has them.
    pub(super) fn journal_progress(&mut self, branch: Branch) -> Option<Progress> {
        let progress = self.journal.progress();
        if progress.branch == branch {
            self.cache.set_written(progress.in_memory.seq);
        }
        (self.seen.progress.replace(progress) != Some(progress)).then_some(progress)
    }

    /// Whether the journal takes more entries: its queue is bounded, and what a peer sends waits
    /// in the transport meanwhile.
    pub(super) fn journal_has_room(&self) -> bool {
        self.journal.waiting_bytes() < JOURNAL_WAITING_BYTES_MAX
    }

    /// The number of the latest synced hard state, if it moved.
    pub(super) fn hard_state_saved(&mut self) -> Option<u64> {
        let saved = self.hard_saved.load(Ordering::Acquire);
        (saved > self.seen.hard).then(|| {
            self.seen.hard = saved;
            saved
        })
    }

    pub(super) fn save_hard_state(&mut self, id: u64, state: HardState) {
        self.hard.save(id, state);
    }

    pub(super) fn append(&mut self, entries: Vec<Entry>, branch: Branch) -> Result<(), Fatal> {
        for entry in &entries {
            self.cache.push(entry.clone());
        }
        self.journal.append(branch, entries).map_err(|_| Fatal::Gone("journal"))
    }

    /// Cuts the log and gives the chain after what is left.
    pub(super) fn truncate(&mut self, from: Seq, branch: Branch) -> Result<Chain, Fatal> {
        let chain = self.chain_at(from.prev())?;
        self.cache.truncate_from(from);
        self.journal.truncate(from, branch).map_err(|_| Fatal::Gone("journal"))?;
        Ok(chain)
    }

    /// Rare: a cut. The entry is nearly always among the newest. Where the whole log is cut, it is
    /// the one before the journal's first, and what is cut was not committed: so it is the last
    /// one applied.
    fn chain_at(&self, seq: Seq) -> Result<Chain, Fatal> {
        if let Some(entry) = self.cache.entry(seq) {
            return Ok(entry.chain);
        }
        let unreadable = |reason: String| Fatal::Unreadable { seq, reason };
        if seq < self.reader.first() {
            let applied = self.state.applied().map_err(|error| unreadable(error.to_string()))?;
            if applied.id.seq == seq {
                return Ok(applied.chain);
            }
        }
        let read = self.reader.read(seq, 1);
        let entries = read.map_err(|error| unreadable(error.to_string()))?;
        let entry = entries.first().ok_or_else(|| unreadable("no entry there".to_owned()))?;
        Ok(entry.chain)
    }

    pub(super) fn gate(&mut self, input: GateInput) -> Result<(), Fatal> {
        self.gate.try_send(input).map_err(|_| Fatal::Gone("gate"))
    }

    pub(super) fn apply_through(&mut self, seq: Seq, tenure: Option<Epoch>) {
        self.apply.commit(seq, tenure);
    }

    pub(super) fn send(&mut self, to: NodeId, session: Session, message: Message) {
        self.replication.send(to, session, message);
    }

    pub(super) fn send_formation(&mut self, to: NodeId, session: Session, message: Formation) {
        self.replication.send_formation(to, session, message);
    }

    pub(super) fn send_entries(&mut self, to: NodeId, request: SendEntries) {
        self.replication.send_entries(to, request);
    }

    pub(super) fn fetch_snapshot(&self, from: NodeId, session: Session, above: EntryId) {
        if let Some(address) = self.replication.address_of(from, session) {
            self.snapshots.fetch(from, address, above);
        }
    }

    /// A connection failed because of who the other side is, or who this one is.
    pub(super) fn refused(&self, peer: NodeId, reason: &Refusal) -> Result<(), Fatal> {
        match reason {
            Refusal::RemovedByPeer => {
                tracing::error!(%peer, "a member says that this node was removed");
                Err(self.removed())
            }
            // Candidates call every two seconds, and are logged where they are noted.
            Refusal::Candidate => Ok(()),
            reason => {
                tracing::warn!(%peer, %reason, "peer refused");
                Ok(())
            }
        }
    }

    /// Why a removed node ends; its process ends with a code of its own.
    pub(super) fn removed(&self) -> Fatal {
        self.published.set_removed();
        Fatal::Removed
    }

    /// For a node without a log.
    pub(super) fn fetch_first_snapshot(&self, from: NodeId, session: Session, disk: DiskId) {
        if let Some(address) = self.replication.address_of(from, session) {
            self.snapshots.fetch_first(from, address, (self.node, disk));
        }
    }

    pub(super) fn save_reservation(&mut self, disk: DiskId) -> Result<(), Fatal> {
        let stored = self.data_dir.lock().save_reservation(disk);
        stored.map_err(|e| Fatal::Store { what: "the reservation", reason: e.to_string() })
    }

    /// The cluster that this directory belongs to from now on.
    pub(super) fn save_cluster(
        &mut self,
        cluster: ClusterId,
        generation: Generation,
    ) -> Result<(), Fatal> {
        let stored = self.data_dir.lock().set_cluster(cluster);
        stored.map_err(|e| Fatal::Store { what: "the cluster id", reason: e.to_string() })?;
        self.journal.identify(cluster, generation).map_err(|_| Fatal::Gone("journal"))
    }

    /// This node has a log: tells the peers, and from now on offers the first entry.
    pub(super) fn formed(&mut self, first: &Entry, config: Arc<ClusterEntry>) {
        self.hello.cluster = Some(config.cluster);
        self.hello.generation = config.generation;
        self.hello.formed = true;
        self.replication.announce(self.hello.clone());
        self.first = Some((first.record(), config));
    }

    /// A member that lacks a log, on the disk that the first entry names, is given that entry.
    pub(super) fn offer_first_entry(&mut self, peer: NodeId, session: Session, hello: &Hello) {
        let Some((record, config)) = &self.first else { return };
        if !hello.formed && config.binds(peer, hello.disk) {
            let message = Formation::Formed { record: record.to_vec() };
            self.send_formation(peer, session, message);
        }
    }
}
