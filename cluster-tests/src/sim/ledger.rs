//! What an all-knowing observer wrote down: who ever held which entry, who led, what is committed.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::core::message::{EntryMeta, Message};
use quorate_protocol::types::{EntryId, EntryKind, Epoch, Seq};

use super::log::Entries;
use super::node::{Node, Process};

/// The most nodes that a simulated cluster has.
pub(super) const NODES_MAX: usize = 9;

/// Bytes that a simulated record takes.
pub(super) const ENTRY_BYTES: u32 = 100;

/// Where copies of one entry were.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Copies {
    /// The latest incarnation of each node in whose memory the entry was; 0 for none.
    pub(super) memory_in: [u64; NODES_MAX],
    /// Which nodes' disks it ever was on.
    pub(super) disk: [bool; NODES_MAX],
}

/// One primary's tenure.
#[derive(Clone, Debug)]
pub(super) struct TenureRecord {
    /// Its log; it only grows.
    pub(super) log: Entries,
}

/// The record.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    /// Copies by entry.
    pub(super) copies: BTreeMap<EntryId, Copies>,
    /// Entries that are not commands.
    pub(super) kinds: BTreeMap<EntryId, EntryKind>,
    /// What is in cluster entries.
    pub(super) clusters: BTreeMap<EntryId, Arc<ClusterEntry>>,
    /// Configurations that a node held to be in force, and the epoch in which one first did.
    pub(super) in_force: BTreeMap<EntryId, Epoch>,
    /// Tenures by epoch.
    pub(super) tenures: BTreeMap<Epoch, TenureRecord>,
    /// Votes that reached their candidate, by epoch: whether the voter's disk said memory loss.
    pub(super) votes: BTreeMap<Epoch, BTreeMap<usize, bool>>,
    /// The pre-votes that reached each node's current life, by its rounds: whether each voter said
    /// memory loss.
    pub(super) pre_votes: BTreeMap<(usize, u64), BTreeMap<usize, bool>>,
    /// What is committed, from position 1 on, and by the primary of which epoch first.
    pub(super) committed: Vec<(EntryId, Epoch)>,
    /// The highest epoch of which an entry is committed.
    pub(super) epoch_committed: Epoch,
    /// The highest position that a client saw, by a reply to a write or in a read.
    pub(super) seen: Seq,
}

impl Ledger {
    /// Every configuration that a node may be elected under: the one in force and those after it
    /// in its log.
    pub(super) fn configs_of(&self, process: &Process) -> Vec<Arc<ClusterEntry>> {
        let configs = process.core.configs();
        let later = (Bound::Excluded(configs.in_force_at()), Bound::Unbounded);
        let later = self.clusters.range(later).filter(|(id, _)| process.log.holds(**id));
        std::iter::once(configs.in_force()).chain(later.map(|(_, entry)| entry)).cloned().collect()
    }

    /// What a core learns of an entry from a message.
    pub(super) fn meta(&self, id: EntryId) -> EntryMeta {
        EntryMeta {
            id,
            kind: self.kinds.get(&id).copied().unwrap_or(EntryKind::Commands),
            bytes: ENTRY_BYTES,
            cluster: self.clusters.get(&id).cloned(),
        }
    }

    /// What a lossy recovery gives up is as if it had never been: only what `log` holds stays.
    pub(super) fn forget_all_but(&mut self, log: &Entries) {
        let kept = self
            .committed
            .iter()
            .take_while(|(id, _)| id.seq <= log.preceding().seq || log.holds(*id));
        self.committed.truncate(kept.count());
        self.seen = self.seen.min(self.committed_through());
        self.tenures.clear();
        self.in_force.clear();
        self.epoch_committed = Epoch::ZERO;
    }

    /// The committed entry at a position.
    pub(super) fn committed_at(&self, seq: Seq) -> Option<EntryId> {
        let index = seq.0.checked_sub(1)?;
        self.committed.get(index as usize).map(|(id, _)| *id)
    }

    /// The last committed position.
    pub(super) fn committed_through(&self) -> Seq {
        Seq(self.committed.len() as u64)
    }

    /// An entry is in a node's memory.
    pub(super) fn note_memory(&mut self, node: usize, incarnation: u64, id: EntryId) {
        let copies = self.copies.entry(id).or_default();
        copies.memory_in[node] = copies.memory_in[node].max(incarnation);
    }

    /// An entry is on a node's disk.
    pub(super) fn note_disk(&mut self, node: usize, id: EntryId) {
        self.copies.entry(id).or_default().disk[node] = true;
    }
}

/// Something that an invariant may judge.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fact<'a> {
    /// A message left a node.
    Sent {
        /// Who sent it.
        from: usize,
        /// To whom.
        to: usize,
        /// What.
        message: &'a Message,
    },
    /// A node won an election; its first entry is not in its log yet.
    BecamePrimary {
        /// Who.
        node: usize,
        /// Its epoch.
        epoch: Epoch,
    },
    /// A node put an entry after another.
    Pushed {
        /// Which entry.
        id: EntryId,
        /// After which.
        previous: EntryId,
    },
    /// A node moved its commit position.
    Committed {
        /// Who.
        node: usize,
        /// The position before.
        from: Seq,
        /// The position now.
        to: Seq,
        /// Through here the policy is met, as the node says.
        acknowledgeable: Seq,
    },
    /// A client's read was answered from state at `at`.
    Read {
        /// The state's position.
        at: Seq,
        /// What clients had seen when the read began.
        floor: Seq,
        /// Who answered.
        node: usize,
    },
    /// A node took an event and carried out what followed from it.
    Stepped,
}

/// What an invariant may look at.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    /// All nodes.
    pub(super) nodes: &'a [Node],
    /// The record.
    pub(super) ledger: &'a Ledger,
    /// True time in microseconds.
    pub(super) now_us: u64,
}
