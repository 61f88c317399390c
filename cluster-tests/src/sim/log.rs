//! Entries by position, as a node or its journal holds them.

use quorate_protocol::types::{EntryId, Epoch, Seq};

/// A log without payloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entries {
    preceding: EntryId,
    ids: Vec<EntryId>,
}

impl Entries {
    /// No entries, after `preceding`.
    pub(super) fn after(preceding: EntryId) -> Self {
        Self { preceding, ids: Vec::new() }
    }

    /// The entry before the first.
    pub(super) fn preceding(&self) -> EntryId {
        self.preceding
    }

    /// The last entry, or the one before the first.
    pub(super) fn last(&self) -> EntryId {
        self.ids.last().copied().unwrap_or(self.preceding)
    }

    /// The entry at a position.
    pub(super) fn at(&self, seq: Seq) -> Option<EntryId> {
        if seq == self.preceding.seq {
            return Some(self.preceding);
        }
        let index = seq.0.checked_sub(self.preceding.seq.0 + 1)?;
        self.ids.get(index as usize).copied()
    }

    /// Whether this exact entry is here.
    pub(super) fn holds(&self, id: EntryId) -> bool {
        self.at(id.seq) == Some(id)
    }

    /// Adds the entry after the last.
    pub(super) fn push(&mut self, id: EntryId) {
        assert_eq!(id.seq, self.last().seq.next(), "entries are contiguous");
        self.ids.push(id);
    }

    /// Cuts everything from `from` on.
    pub(super) fn truncate(&mut self, from: Seq) {
        let keep = from.0.saturating_sub(self.preceding.seq.0 + 1);
        self.ids.truncate(keep as usize);
    }

    /// Forgets everything up to `preceding`, which is here.
    pub(super) fn trim(&mut self, preceding: EntryId) {
        assert!(self.holds(preceding), "only what is here is trimmed");
        self.ids.retain(|id| id.seq > preceding.seq);
        self.preceding = preceding;
    }

    /// Entries from `first` through `last`, as far as they are here.
    pub(super) fn range(&self, first: Seq, last: Seq) -> &[EntryId] {
        let from = first.0.saturating_sub(self.preceding.seq.0 + 1) as usize;
        let to = (last.0.saturating_sub(self.preceding.seq.0) as usize).min(self.ids.len());
        self.ids.get(from..to).unwrap_or(&[])
    }

    /// All entries.
    pub(super) fn ids(&self) -> &[EntryId] {
        &self.ids
    }

    /// The first position and the epoch of each run of entries of one epoch.
    pub(super) fn runs(&self) -> Vec<(Seq, Epoch)> {
        let mut runs: Vec<(Seq, Epoch)> = Vec::new();
        for id in &self.ids {
            if runs.last().is_none_or(|(_, epoch)| *epoch != id.epoch) {
                runs.push((id.seq, id.epoch));
            }
        }
        runs
    }
}
