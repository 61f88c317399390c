//! Keeps the journal from being trimmed while a replica fetches a snapshot that it continues.

use std::sync::atomic::{AtomicU64, Ordering};

use quorate_protocol::types::Seq;

/// The position above which the journal is needed. It is a wish: what exceeds the limit on disk
/// goes all the same, and the replica then needs another snapshot.
#[derive(Debug)]
pub struct JournalHold(AtomicU64);

const NONE: u64 = u64::MAX;

impl Default for JournalHold {
    /// Nothing is needed.
    fn default() -> Self {
        Self(AtomicU64::new(NONE))
    }
}

impl JournalHold {
    /// The entries after `seq` are needed from now on.
    pub fn keep_after(&self, seq: Seq) {
        self.0.store(seq.0, Ordering::Release);
    }

    /// Nothing is needed any more.
    pub fn release(&self) {
        self.0.store(NONE, Ordering::Release);
    }

    /// The first entry that is needed, if one is.
    #[must_use]
    pub fn first(&self) -> Option<Seq> {
        let after = self.0.load(Ordering::Acquire);
        (after != NONE).then(|| Seq(after).next())
    }
}
