//! What a node keeps through a crash: journal, hard state and flushed state.
//!
//! A killed process keeps what its writes handed to the machine; a power cut keeps what was
//! synced and, of the rest, an arbitrary beginning.

use std::collections::VecDeque;

use quorate_protocol::core::HardState;
use quorate_protocol::types::{Branch, EntryId, Incarnation, Seq};

use super::log::Entries;
use super::random::Random;

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
    /// The last entry that the flushed state holds.
    pub(super) flushed: EntryId,
}

/// The journal's files, with what of them is in the page cache only.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    /// As the machine would read it now.
    pub(super) cached: Entries,
    /// Through here it is synced.
    synced: Seq,
}

impl Journal {
    /// A journal that is synced throughout.
    pub(super) fn new(entries: Entries) -> Self {
        Self { synced: entries.last().seq, cached: entries }
    }

    /// Through here a power cut changes nothing.
    pub(super) fn synced(&self) -> Seq {
        self.synced
    }

    fn write(&mut self, ids: &[EntryId]) {
        for id in ids {
            self.cached.push(*id);
        }
    }

    fn truncate(&mut self, from: Seq) {
        self.cached.truncate(from);
        self.synced = self.synced.min(from.prev());
    }

    /// Everything written is now synced.
    pub(super) fn sync(&mut self) {
        self.synced = self.cached.last().seq;
    }

    /// The power fails.
    pub(super) fn cut_power(&mut self, random: &mut Random) {
        let last = self.cached.last().seq;
        let kept = random.between(self.synced.0, last.0);
        self.cached.truncate(Seq(kept + 1));
        self.synced = Seq(kept);
    }
}

/// What a journal writer was told to do.
#[derive(Clone, Debug)]
enum Order {
    Write { id: EntryId, branch: Branch },
    Truncate { from: Seq },
}

/// What it is busy with.
#[derive(Clone, Debug)]
enum Work {
    Write { ids: Vec<EntryId>, branch: Branch },
    Truncate { from: Seq },
    Sync { branch: Branch, last: EntryId },
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

    /// After a boot: syncs what an earlier process left unsynced.
    pub(super) fn sync_tail(&mut self, last: EntryId) {
        self.work = Some(Work::Sync { branch: Branch(0), last });
    }

    /// Starts the next piece of work; false if there is none or one is under way.
    pub(super) fn start(&mut self) -> bool {
        if self.work.is_some() {
            return false;
        }
        self.work = match self.orders.pop_front() {
            None => None,
            Some(Order::Truncate { from }) => Some(Work::Truncate { from }),
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
    pub(super) fn finish(&mut self, journal: &mut Journal) -> Done {
        match self.work.take().expect("work is under way") {
            Work::Write { ids, branch } => {
                journal.write(&ids);
                let last = *ids.last().expect("a write holds an entry");
                self.work = Some(Work::Sync { branch, last });
                Done::Written(branch, last)
            }
            Work::Sync { branch, last } => {
                journal.sync();
                Done::Synced(branch, last)
            }
            Work::Truncate { from } => {
                journal.truncate(from);
                Done::Truncated
            }
        }
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
    pub(super) fn crash(self, journal: &mut Journal, random: &mut Random) {
        match self.work {
            Some(Work::Write { ids, .. }) => {
                let count = random.index(ids.len() + 1);
                journal.write(&ids[..count]);
            }
            Some(Work::Sync { .. }) if random.percent(50) => journal.sync(),
            Some(Work::Truncate { from }) if random.percent(50) => journal.truncate(from),
            Some(Work::Sync { .. } | Work::Truncate { .. }) | None => {}
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
