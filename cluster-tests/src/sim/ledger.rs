//! What an all-knowing observer wrote down: who ever held which entry, who led, what is committed.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::core::message::{EntryMeta, Message};
use quorate_protocol::entry::Entry;
use quorate_protocol::policy::NormalForm;
use quorate_protocol::resp::Reply;
use quorate_protocol::types::{Chain, EntryId, EntryKind, Epoch, Generation, Seq};
use quorate_protocol::wire::entry_meta;

use super::clients::{Answer, AttemptId, Record};
use super::log::Entries;
use super::node::{Node, Process};
use super::state::Reference;

/// The most nodes that a simulated cluster has.
pub(super) const NODES_MAX: usize = 9;

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
    /// Entries as their primaries sealed them. A node that holds an id holds this record: frames
    /// and journals carry checksums.
    entries: BTreeMap<EntryId, Entry>,
    /// How much damage there was when an entry was sealed.
    damage_at_seal: BTreeMap<EntryId, usize>,
    /// What the committed log comes to.
    pub(super) reference: Reference,
    /// Entries of which a client was told that they are done, with the policy of that moment.
    pub(super) acknowledged: BTreeMap<EntryId, Acknowledged>,
    /// What took copies away, in the order in which it happened.
    pub(super) damage: Vec<(usize, Damage)>,
    /// What is in cluster entries.
    pub(super) clusters: BTreeMap<EntryId, Arc<ClusterEntry>>,
    /// Lossy recoveries so far.
    pub(super) generation: Generation,
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
    committed: Vec<(EntryId, Epoch)>,
    /// The highest epoch of which an entry is committed.
    pub(super) epoch_committed: Epoch,
    /// The highest position that a client saw, by a reply to a write or in a read.
    pub(super) seen: Seq,
}

/// What happened to a node's copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// What was not synced may be gone.
    Memory,
    /// What was synced may be gone, too.
    Disk,
}

/// An acknowledged entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acknowledged {
    /// What the policy promised.
    pub(super) form: NormalForm,
    /// How much damage there was before its first copy.
    pub(super) damage_before: usize,
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

    /// A primary sealed an entry.
    ///
    /// # Errors
    /// Another entry has the same id.
    pub(super) fn seal(&mut self, entry: Entry) -> Result<(), String> {
        let id = entry.id;
        self.damage_at_seal.insert(id, self.damage.len());
        match self.entries.insert(id, entry) {
            None => Ok(()),
            Some(other) => Err(format!("{id} is sealed twice; before as {other:?}")),
        }
    }

    /// The record of an entry that was sealed.
    pub(super) fn entry(&self, id: EntryId) -> &Entry {
        self.entries.get(&id).expect("entries are sealed before they are anywhere")
    }

    /// The kind of an entry, if it was ever sealed.
    pub(super) fn kind(&self, id: EntryId) -> Option<EntryKind> {
        self.entries.get(&id).map(|entry| entry.kind)
    }

    /// What a core learns of an entry from a message.
    pub(super) fn meta(&self, id: EntryId) -> EntryMeta {
        entry_meta(self.entry(id)).expect("cluster entries can be read")
    }

    /// The log's chain at an entry.
    pub(super) fn chain(&self, id: EntryId) -> Chain {
        if id == EntryId::ZERO { Chain(0) } else { self.entry(id).chain }
    }

    /// The primary of an epoch commits the next entry.
    pub(super) fn commit(&mut self, id: EntryId, by: Epoch) {
        let entry = self.entries.get(&id).expect("entries are sealed before they are committed");
        self.reference.apply(entry);
        self.committed.push((id, by));
    }

    /// What is committed, from position 1 on, and by the primary of which epoch first.
    pub(super) fn committed(&self) -> &[(EntryId, Epoch)] {
        &self.committed
    }

    /// A client is told that its write is done.
    pub(super) fn acknowledge(&mut self, id: EntryId, form: NormalForm) {
        self.seen = self.seen.max(id.seq);
        // Not now: a copy that counts may be lost while its acknowledgement is on the way.
        let damage_before = self.damage_at_seal.get(&id).copied().unwrap_or(self.damage.len());
        self.acknowledged.entry(id).or_insert(Acknowledged { form, damage_before });
    }

    /// What a lossy recovery gives up is as if it had never been: only what `log` holds stays.
    pub(super) fn forget_all_but(&mut self, log: &Entries) {
        let kept = self
            .committed
            .iter()
            .take_while(|(id, _)| id.seq <= log.preceding().seq || log.holds(*id));
        self.committed.truncate(kept.count());
        self.reference = Reference::default();
        for (id, _) in &self.committed {
            self.reference.apply(&self.entries[id]);
        }
        let committed = &self.committed;
        self.acknowledged.retain(|id, _| committed.iter().any(|(kept, _)| kept == id));
        self.seen = self.seen.min(self.committed_through());
        self.tenures.clear();
        self.in_force.clear();
        self.generation = Generation(self.generation.0 + 1);
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
    /// A primary put commands into an entry.
    Sealed {
        /// The entry.
        id: EntryId,
        /// Which commands.
        attempts: &'a [AttemptId],
    },
    /// A node answered a command.
    Answered {
        /// Who.
        node: usize,
        /// Which command.
        attempt: AttemptId,
        /// How.
        answer: &'a Answer,
    },
    /// A client heard the answer.
    Heard {
        /// Over which connection.
        connection: u64,
        /// Which command.
        attempt: AttemptId,
    },
    /// A node applied an entry.
    Applied {
        /// Who.
        node: usize,
        /// Which entry.
        id: EntryId,
        /// The state's digest afterwards.
        digest: u64,
        /// What the commands came to.
        replies: &'a [Reply],
    },
    /// A node took a state over: at boot, or from a snapshot.
    StateTaken {
        /// Who.
        node: usize,
        /// The last entry in it.
        through: EntryId,
        /// Its digest.
        digest: u64,
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
    /// What clients asked and heard.
    pub(super) record: &'a Record,
    /// True time in microseconds.
    pub(super) now_us: u64,
}
