//! Keeps the journal from being trimmed while something needs it that isn't on this disk.

use std::sync::atomic::{AtomicU64, Ordering};

use quorate_protocol::types::Seq;

/// The positions above which the journal is needed: by a replica that fetches a snapshot which it
/// continues, and by the archive. They are wishes: what exceeds the limit on disk goes all the same,
/// and what was needed is then made up for by another snapshot.
#[derive(Debug)]
pub struct JournalHold {
    replica: AtomicU64,
    archive: AtomicU64,
}

const NONE: u64 = u64::MAX;

impl Default for JournalHold {
    /// Nothing is needed.
    fn default() -> Self {
        Self { replica: AtomicU64::new(NONE), archive: AtomicU64::new(NONE) }
    }
}

impl JournalHold {
    /// A replica needs the entries after `seq` from now on.
    pub fn keep_after(&self, seq: Seq) {
        self.replica.store(seq.0, Ordering::Release);
    }

    /// No replica needs any.
    pub fn release(&self) {
        self.replica.store(NONE, Ordering::Release);
    }

    /// The archive holds everything through `seq`.
    pub fn keep_for_archive(&self, seq: Seq) {
        self.archive.store(seq.0, Ordering::Release);
    }

    /// The entries after `seq` are needed until the guard is dropped, too.
    pub(crate) fn hold_for_archive(&self, seq: Seq) -> ArchiveHold<'_> {
        let before = self.archive.fetch_min(seq.0, Ordering::AcqRel);
        ArchiveHold { hold: self, before }
    }

    /// The first entry that is needed, if one is.
    #[must_use]
    pub fn first(&self) -> Option<Seq> {
        let after = self.replica.load(Ordering::Acquire).min(self.archive.load(Ordering::Acquire));
        (after != NONE).then(|| Seq(after).next())
    }
}

/// Keeps the journal for a backup that is under way.
#[derive(Debug)]
pub(crate) struct ArchiveHold<'a> {
    hold: &'a JournalHold,
    before: u64,
}

impl Drop for ArchiveHold<'_> {
    fn drop(&mut self) {
        self.hold.archive.store(self.before, Ordering::Release);
    }
}
