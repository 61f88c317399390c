//! What the core knows of the log: which epoch sealed which positions, and how far the journal is.

use crate::mutants::mutant;
use crate::types::{Branch, EntryId, Epoch, Seq};

/// The log's shape. Epochs never fall along the log, so it is described by the positions at which
/// they rise.
///
/// Invariants: `persisted <= in_memory <= last` as positions; every run starts above `preceding`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Log {
    /// The entry before the first one retained.
    preceding: EntryId,
    /// First position and epoch of each run, both strictly rising.
    runs: Vec<(Seq, Epoch)>,
    last: EntryId,
    /// Highest entry of this branch whose write returned.
    in_memory: Seq,
    /// Highest entry of this branch whose sync returned.
    persisted: Seq,
    branch: Branch,
}

impl Log {
    /// A log as recovered: everything retained counts as in memory, `persisted` as proven.
    #[must_use]
    pub fn new(preceding: EntryId, runs: Vec<(Seq, Epoch)>, last: EntryId, persisted: Seq) -> Self {
        assert!(persisted <= last.seq, "persisted {persisted} beyond the last entry {last}");
        Self { preceding, runs, last, in_memory: last.seq, persisted, branch: Branch(0) }
    }

    /// The last entry, whether written or not.
    #[must_use]
    pub fn last(&self) -> EntryId {
        self.last
    }

    /// The first position retained.
    #[must_use]
    pub fn first(&self) -> Seq {
        self.preceding.seq.next()
    }

    /// The entry before the first one retained.
    #[must_use]
    pub fn preceding(&self) -> EntryId {
        self.preceding
    }

    /// Highest position written.
    #[must_use]
    pub fn in_memory(&self) -> Seq {
        self.in_memory
    }

    /// Highest position synced.
    #[must_use]
    pub fn persisted(&self) -> Seq {
        self.persisted
    }

    /// The current branch of the journal.
    #[must_use]
    pub fn branch(&self) -> Branch {
        self.branch
    }

    /// The epoch that sealed the entry at `seq`; `None` below what is retained and above the last.
    #[must_use]
    pub fn epoch_at(&self, seq: Seq) -> Option<Epoch> {
        if seq == self.preceding.seq {
            return Some(self.preceding.epoch);
        }
        if seq < self.preceding.seq || seq > self.last.seq {
            return None;
        }
        let run = self.runs.partition_point(|(first, _)| *first <= seq);
        Some(self.runs[run.checked_sub(1).expect("a run starts at the first entry")].1)
    }

    /// The id of the entry at `seq`, where known.
    #[must_use]
    pub fn id_at(&self, seq: Seq) -> Option<EntryId> {
        self.epoch_at(seq).map(|epoch| EntryId { epoch, seq })
    }

    /// Whether this exact entry is in the log.
    #[must_use]
    pub fn holds(&self, id: EntryId) -> bool {
        self.epoch_at(id.seq) == Some(id.epoch)
    }

    /// The highest entry at or below `seq` whose epoch is at most `epoch`: where two logs may
    /// agree. At least `preceding`.
    #[must_use]
    pub fn last_at_most(&self, seq: Seq, epoch: Epoch) -> EntryId {
        let seq = seq.min(self.last.seq);
        if seq <= self.preceding.seq {
            return self.preceding;
        }
        let runs = self.runs.partition_point(|(first, run)| *first <= seq && *run <= epoch);
        let Some((_, run_epoch)) = runs.checked_sub(1).map(|index| self.runs[index]) else {
            return self.preceding;
        };
        let run_last = self.runs.get(runs).map_or(self.last.seq, |(next, _)| next.prev());
        EntryId { epoch: run_epoch, seq: seq.min(run_last) }
    }

    /// Adds an entry after the last.
    pub fn push(&mut self, id: EntryId) {
        assert!(
            id.seq == self.last.seq.next() && id.epoch >= self.last.epoch,
            "entry {id} can't follow {}",
            self.last
        );
        if self.runs.last().is_none_or(|(_, epoch)| *epoch < id.epoch) {
            self.runs.push((id.seq, id.epoch));
        }
        self.last = id;
    }

    /// Cuts everything from `from` on and starts a new branch; cursors fall back with it, and
    /// completions of the old branch no longer count (S8).
    pub fn truncate(&mut self, from: Seq) {
        assert!(from > self.preceding.seq && from <= self.last.seq, "nothing to cut at {from}");
        let kept = from.prev();
        self.last = self.id_at(kept).expect("the entry before the cut is retained");
        self.runs.retain(|(first, _)| *first < from);
        self.in_memory = self.in_memory.min(kept);
        self.persisted = self.persisted.min(kept);
        self.branch = Branch(self.branch.0 + 1);
    }

    /// A write returned; ignored unless it is of the current branch and of an entry still held.
    pub fn on_in_memory(&mut self, branch: Branch, id: EntryId) {
        if branch == self.branch && self.holds(id) {
            self.in_memory = self.in_memory.max(id.seq);
        }
    }

    /// A sync returned; ignored like a write's completion. What is synced was written.
    pub fn on_persisted(&mut self, branch: Branch, id: EntryId) {
        let current = branch == self.branch && self.holds(id);
        if mutant!(EtcdAppendAba, id.seq <= self.last.seq, current) {
            let through = mutant!(MelinWholeBatch, self.last.seq, id.seq);
            self.persisted = self.persisted.max(through);
            self.in_memory = self.in_memory.max(self.persisted);
        }
    }

    /// What an installed snapshot that ends with `last` leaves: whether the entries after it stay,
    /// which they do if the log holds `last` itself, and the branch from then on.
    #[must_use]
    pub fn after_install(&self, last: EntryId) -> (bool, Branch) {
        let keep_suffix = mutant!(KeepAnySuffix, last.seq < self.last.seq, self.holds(last));
        (keep_suffix, Branch(self.branch.0 + u64::from(!keep_suffix)))
    }

    /// A snapshot that ends with `last` replaced everything through it, and is synced.
    pub fn install(&mut self, last: EntryId) {
        let (keep_suffix, branch) = self.after_install(last);
        if keep_suffix {
            self.trim(last);
            self.persisted = self.persisted.max(last.seq);
            self.in_memory = self.in_memory.max(last.seq);
        } else {
            *self = Self { branch, ..Self::new(last, Vec::new(), last, last.seq) };
        }
    }

    /// See [`Core::forget_time`](super::Core::forget_time).
    pub(super) fn forget_branches(&mut self) {
        self.branch = Branch(0);
    }

    /// Entries up to `preceding` are gone from the journal.
    pub fn trim(&mut self, preceding: EntryId) {
        if preceding.seq <= self.preceding.seq {
            return;
        }
        assert!(self.holds(preceding), "trimming to {preceding}, which the log doesn't hold");
        let first = preceding.seq.next();
        let run = self.epoch_at(first);
        self.preceding = preceding;
        self.runs.retain(|(start, _)| *start > first);
        if let Some(epoch) = run {
            self.runs.insert(0, (first, epoch));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(epoch: u64, seq: u64) -> EntryId {
        EntryId::new(Epoch(epoch), Seq(seq))
    }

    fn log() -> Log {
        // Positions 1..=3 of epoch 1, 4..=5 of epoch 3, 6 of epoch 7.
        let runs = vec![(Seq(1), Epoch(1)), (Seq(4), Epoch(3)), (Seq(6), Epoch(7))];
        Log::new(EntryId::ZERO, runs, id(7, 6), Seq(4))
    }

    #[test]
    fn epochs_are_found_by_position() {
        let log = log();
        let epochs: Vec<_> = (0..=7).map(|seq| log.epoch_at(Seq(seq)).map(|e| e.0)).collect();
        assert_eq!(epochs, [Some(0), Some(1), Some(1), Some(1), Some(3), Some(3), Some(7), None]);
    }

    #[test]
    fn hints_name_the_highest_entry_that_may_agree() {
        let log = log();
        for (seq, epoch, hint) in [
            (6, 7, id(7, 6)),
            (9, 9, id(7, 6)),
            (6, 6, id(3, 5)),
            (6, 2, id(1, 3)),
            (4, 9, id(3, 4)),
            (6, 0, EntryId::ZERO),
            (0, 5, EntryId::ZERO),
        ] {
            assert_eq!(log.last_at_most(Seq(seq), Epoch(epoch)), hint, "{seq} {epoch}");
        }
    }

    #[test]
    fn completion_of_an_overwritten_write_counts_for_nothing() {
        let mut log = log();
        let old = log.branch();
        log.truncate(Seq(5));
        assert_eq!((log.last(), log.in_memory(), log.persisted()), (id(3, 4), Seq(4), Seq(4)));
        log.push(id(3, 5));
        log.on_persisted(old, id(3, 5));
        assert_eq!(log.persisted(), Seq(4));
        log.on_in_memory(log.branch(), id(3, 5));
        assert_eq!((log.in_memory(), log.persisted()), (Seq(5), Seq(4)));
    }

    #[test]
    fn an_installed_snapshot_keeps_what_continues_it_and_nothing_else() {
        let mut same = log();
        same.install(id(3, 5));
        assert_eq!((same.first(), same.last(), same.persisted()), (Seq(6), id(7, 6), Seq(5)));
        assert_eq!(same.branch(), Branch(0));
        let mut other = log();
        other.install(id(5, 5));
        assert_eq!((other.first(), other.last(), other.persisted()), (Seq(6), id(5, 5), Seq(5)));
        assert_eq!((other.branch(), other.epoch_at(Seq(5))), (Branch(1), Some(Epoch(5))));
        let mut short = log();
        short.install(id(7, 60));
        assert_eq!((short.last(), short.in_memory()), (id(7, 60), Seq(60)));
    }

    #[test]
    fn trimming_keeps_the_entry_before_the_first() {
        let mut log = log();
        log.trim(id(1, 2));
        assert_eq!(
            (log.first(), log.epoch_at(Seq(2)), log.epoch_at(Seq(1))),
            (Seq(3), Some(Epoch(1)), None)
        );
        assert_eq!(log.epoch_at(Seq(3)), Some(Epoch(1)));
        log.trim(id(3, 5));
        assert_eq!(log.epoch_at(Seq(6)), Some(Epoch(7)));
        log.trim(id(7, 6));
        assert_eq!(log.epoch_at(Seq(6)), Some(Epoch(7)));
        log.push(id(7, 7));
        assert_eq!(log.epoch_at(Seq(7)), Some(Epoch(7)));
    }
}
