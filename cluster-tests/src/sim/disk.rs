//! What a node keeps through a crash: journal, hard state and flushed state.
//!
//! A killed process keeps what its writes handed to the machine; a power cut keeps what was
//! synced and, of the rest, any records.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::core::{HardState, Snapshot};
use quorate_protocol::mutants::Mutant;
use quorate_protocol::types::{Branch, EntryId, Incarnation, Seq};

use super::log::Entries;
use super::random::Random;
use super::state::State;

/// Everything that outlives a process.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    /// The journal's content.
    pub(super) journal: Journal,
    /// The hard state, as synced.
    pub(super) hard: HardState,
    /// The incarnation, as synced.
    pub(super) incarnation: Incarnation,
    /// The boot id of the machine that the hard state names.
    pub(super) boot_id: u64,
    /// Whether the last process ended in good order.
    pub(super) clean: bool,
    /// Whether the last process ended because a sync failed.
    pub(super) failed: bool,
    /// Whether no copy of the hard state can be read.
    pub(super) hard_damaged: bool,
    /// Whether everything is gone.
    pub(super) wiped: bool,
    /// The last entry that the flushed state holds.
    pub(super) flushed: EntryId,
    /// The flushed state.
    pub(super) state: State,
    /// The newest cluster entry in the flushed state.
    pub(super) config: (EntryId, Arc<ClusterEntry>),
}

impl Disk {
    /// A disk whose journal holds no commands, and neither does its state.
    pub(super) fn new(
        journal: Journal,
        hard: HardState,
        config: (EntryId, Arc<ClusterEntry>),
    ) -> Self {
        Self {
            flushed: journal.cached.last(),
            state: State::default(),
            journal,
            hard,
            incarnation: Incarnation(0),
            boot_id: 0,
            clean: false,
            failed: false,
            hard_damaged: false,
            wiped: false,
            config,
        }
    }

    /// Whether the next boot will find that it may not count (S6).
    pub(super) fn is_damaged(&self) -> bool {
        self.wiped || self.hard_damaged || self.journal.is_damaged()
    }

    /// One rename switches state and journal to a snapshot.
    fn install(&mut self, snapshot: &Snapshot, state: State, keep_suffix: bool) {
        self.flushed = snapshot.last;
        self.state = state;
        self.config = snapshot.config.clone();
        if keep_suffix {
            self.journal.trim(snapshot.last);
        } else {
            self.journal = Journal::new(Entries::after(snapshot.last));
        }
    }
}

/// The journal's files, with what of them is in the page cache only.
///
/// Invariants: `marked <= synced <= last`, and `synced < lost_from`.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    /// As the machine would read it now.
    pub(super) cached: Entries,
    /// Through here it is synced.
    synced: Seq,
    /// Through here a mark in the journal itself says that it was synced.
    marked: Seq,
    /// A failed sync dropped what was written from here on: no later sync brings it to the disk.
    lost_from: Option<Seq>,
    /// Records that can't be read.
    damaged: BTreeSet<Seq>,
}

/// What recovery makes of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recovered {
    /// Every record is good.
    Whole,
    /// A bad record above all marks: cut from there.
    TornTail,
    /// A bad record that was synced (S6).
    Damaged,
}

impl Journal {
    /// A journal that is synced throughout.
    pub(super) fn new(entries: Entries) -> Self {
        let last = entries.last().seq;
        let damaged = BTreeSet::new();
        Self { cached: entries, synced: last, marked: last, lost_from: None, damaged }
    }

    /// Through here a power cut changes nothing.
    pub(super) fn synced(&self) -> Seq {
        self.synced
    }

    /// Whether a record that a mark covers is bad.
    fn is_damaged(&self) -> bool {
        self.damaged.first().is_some_and(|seq| *seq <= self.marked)
    }

    /// Adds an entry and syncs it, on an installation that is stopped.
    pub(super) fn append_synced(&mut self, id: EntryId) {
        self.cached.push(id);
        self.rewrite();
    }

    fn write(&mut self, ids: &[EntryId]) {
        for id in ids {
            self.cached.push(*id);
        }
        self.marked = self.synced;
    }

    fn truncate(&mut self, from: Seq) {
        self.cached.truncate(from);
        self.synced = self.synced.min(from.prev());
        self.marked = self.marked.min(from.prev());
        self.lost_from = self.lost_from.filter(|lost| *lost < from);
        self.damaged.split_off(&from);
    }

    /// Entries up to `preceding` go.
    pub(super) fn trim(&mut self, preceding: EntryId) {
        self.cached.trim(preceding);
        self.damaged = self.damaged.split_off(&preceding.seq.next());
    }

    /// Everything written is now synced, except what a failed sync dropped.
    pub(super) fn sync(&mut self) {
        let last = self.cached.last().seq;
        self.synced = self.lost_from.map_or(last, |lost| lost.prev().min(last));
    }

    /// The same, and a mark says so.
    pub(super) fn sync_and_mark(&mut self) {
        self.sync();
        self.marked = self.synced;
    }

    /// Everything from `synced` on is written anew, and synced.
    fn rewrite(&mut self) {
        self.lost_from = None;
        self.sync_and_mark();
    }

    /// A sync fails: some of what it was to bring to the disk is dropped, though reads go on
    /// showing it.
    pub(super) fn lose_unsynced(&mut self, random: &mut Random) {
        let last = self.cached.last().seq;
        if last > self.synced {
            self.lost_from = Some(Seq(random.between(self.synced.0 + 1, last.0)));
        }
    }

    /// A record that a mark covers goes bad, or was never written. False if there is none.
    pub(super) fn damage_below_marks(&mut self, random: &mut Random) -> bool {
        let first = self.cached.preceding().seq.next();
        let some = self.marked >= first;
        if some {
            self.damaged.insert(Seq(random.between(first.0, self.marked.0)));
        }
        some
    }

    /// The power fails: of what isn't synced, any records may be left.
    pub(super) fn cut_power(&mut self, random: &mut Random) {
        let last = self.cached.last().seq;
        let left = random.below(101);
        let prefix = random.percent(50);
        let dropped = |seq: u64| self.lost_from.is_some_and(|lost| seq >= lost.0);
        let bad = (self.synced.0 + 1..=last.0).find(|seq| dropped(*seq) || !random.percent(left));
        let Some(bad) = bad else {
            return self.sync();
        };
        self.damaged.insert(Seq(bad));
        if prefix {
            self.truncate(Seq(bad));
        }
        self.lost_from = None;
    }

    /// Reads the journal at boot, and cuts a torn tail.
    pub(super) fn recover(&mut self) -> Recovered {
        let Some(bad) = self.damaged.first().copied() else {
            return Recovered::Whole;
        };
        if bad <= self.marked && !Mutant::CutDamageBelowMarks.is_active() {
            return Recovered::Damaged;
        }
        self.truncate(bad);
        Recovered::TornTail
    }
}

/// What a journal writer was told to do.
#[derive(Clone, Debug)]
enum Order {
    Write { id: EntryId, branch: Branch },
    Truncate { from: Seq },
    Install { snapshot: Snapshot, state: State, keep_suffix: bool },
}

/// What it is busy with.
#[derive(Clone, Debug)]
enum Work {
    Write { ids: Vec<EntryId>, branch: Branch },
    Truncate { from: Seq },
    Sync { branch: Branch, last: EntryId },
    Rewrite { last: EntryId },
    Install { snapshot: Snapshot, state: State, keep_suffix: bool },
}

/// What it finished.
#[derive(Clone, Copy, Debug)]
pub(super) enum Done {
    /// Written through this entry.
    Written(Branch, EntryId),
    /// Synced through this entry.
    Synced(Branch, EntryId),
    /// Cut.
    Truncated,
    /// Switched to a snapshot that ends here; whether what came after it stayed.
    Installed(EntryId, bool),
}

/// The journal thread: orders in sequence; everything waiting goes into one write and one sync.
#[derive(Clone, Debug, Default)]
pub(super) struct JournalWriter {
    orders: VecDeque<Order>,
    work: Option<Work>,
}

impl JournalWriter {
    /// Queues an entry.
    pub(super) fn append(&mut self, id: EntryId, branch: Branch) {
        self.orders.push_back(Order::Write { id, branch });
    }

    /// Queues a cut.
    pub(super) fn truncate(&mut self, from: Seq) {
        self.orders.push_back(Order::Truncate { from });
    }

    /// Queues the switch to a snapshot.
    pub(super) fn install(&mut self, snapshot: Snapshot, state: State, keep_suffix: bool) {
        self.orders.push_back(Order::Install { snapshot, state, keep_suffix });
    }

    /// After a boot: writes what no mark proves once more, and syncs it.
    pub(super) fn rewrite_tail(&mut self, last: EntryId) {
        self.work = Some(Work::Rewrite { last });
    }

    /// Starts the next piece of work; false if there is none or one is under way.
    pub(super) fn start(&mut self) -> bool {
        if self.work.is_some() {
            return false;
        }
        self.work = match self.orders.pop_front() {
            None => None,
            Some(Order::Truncate { from }) => Some(Work::Truncate { from }),
            Some(Order::Install { snapshot, state, keep_suffix }) => {
                Some(Work::Install { snapshot, state, keep_suffix })
            }
            Some(Order::Write { id, branch }) => {
                let mut ids = vec![id];
                while let Some(Order::Write { id, branch: next }) = self.orders.front()
                    && *next == branch
                {
                    ids.push(*id);
                    self.orders.pop_front();
                }
                Some(Work::Write { ids, branch })
            }
        };
        self.work.is_some()
    }

    /// The work under way takes effect.
    pub(super) fn finish(&mut self, disk: &mut Disk) -> Done {
        let journal = &mut disk.journal;
        match self.work.take().expect("work is under way") {
            Work::Write { ids, branch } => {
                journal.write(&ids);
                let last = *ids.last().expect("a write holds an entry");
                self.work = Some(Work::Sync { branch, last });
                Done::Written(branch, last)
            }
            Work::Sync { branch, last } => {
                journal.sync();
                // Going idle, it adds a record that carries the mark.
                if self.orders.is_empty() {
                    journal.sync_and_mark();
                }
                Done::Synced(branch, last)
            }
            Work::Rewrite { last } => {
                journal.rewrite();
                Done::Synced(Branch(0), last)
            }
            Work::Truncate { from } => {
                journal.truncate(from);
                Done::Truncated
            }
            Work::Install { snapshot, state, keep_suffix } => {
                disk.install(&snapshot, state, keep_suffix);
                Done::Installed(snapshot.last, keep_suffix)
            }
        }
    }

    /// Whether a sync is under way, rather than a write or a cut.
    pub(super) fn is_syncing(&self) -> bool {
        matches!(self.work, Some(Work::Sync { .. } | Work::Rewrite { .. }))
    }

    /// Whether the switch to a snapshot is under way.
    pub(super) fn is_installing(&self) -> bool {
        matches!(self.work, Some(Work::Install { .. }))
    }

    /// Whether a sync is due at once.
    pub(super) fn is_busy(&self) -> bool {
        self.work.is_some()
    }

    /// Whether nothing is left to do.
    pub(super) fn is_idle(&self) -> bool {
        self.work.is_none() && self.orders.is_empty()
    }

    /// The process dies: what is under way happens, in part or not at all.
    pub(super) fn crash(self, disk: &mut Disk, random: &mut Random) {
        let journal = &mut disk.journal;
        match self.work {
            Some(Work::Write { ids, .. }) => {
                let count = random.index(ids.len() + 1);
                journal.write(&ids[..count]);
            }
            Some(Work::Sync { .. }) if random.percent(50) => journal.sync(),
            Some(Work::Truncate { from }) if random.percent(50) => journal.truncate(from),
            Some(Work::Install { snapshot, state, keep_suffix }) if random.percent(50) => {
                disk.install(&snapshot, state, keep_suffix);
            }
            Some(
                Work::Sync { .. }
                | Work::Truncate { .. }
                | Work::Rewrite { .. }
                | Work::Install { .. },
            )
            | None => {}
        }
    }
}

/// The hard-state thread: one save at a time, the newest that waits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HardStateWriter {
    work: Option<(u64, HardState)>,
    waiting: Option<(u64, HardState)>,
}

impl HardStateWriter {
    /// Queues a state; true if its save starts now.
    pub(super) fn save(&mut self, id: u64, state: HardState) -> bool {
        if self.work.is_some() {
            self.waiting = Some((id, state));
            return false;
        }
        self.work = Some((id, state));
        true
    }

    /// The save under way is synced. Returns its number and whether another starts.
    pub(super) fn finish(&mut self, disk: &mut Disk) -> (u64, bool) {
        let (id, state) = self.work.take().expect("a save is under way");
        disk.hard = state;
        self.work = self.waiting.take();
        (id, self.work.is_some())
    }

    /// Whether nothing is left to do.
    pub(super) fn is_idle(&self) -> bool {
        self.work.is_none()
    }

    /// The process dies: a slot is written whole or not at all.
    pub(super) fn crash(self, disk: &mut Disk, random: &mut Random) {
        if let Some((_, state)) = self.work
            && random.percent(50)
        {
            disk.hard = state;
        }
    }
}
