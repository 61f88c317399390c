//! What the writer has published: one coalesced state instead of a message per group.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate_protocol::types::{Branch, EntryId};

/// How far the journal is, on one branch of the log. Invariant: `persisted <= in_memory` in seq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The branch that both positions speak of. A reader that has moved on to another branch
    /// ignores them (S8).
    pub branch: Branch,
    /// The last entry whose write returned.
    pub in_memory: EntryId,
    /// The last entry whose sync returned.
    pub persisted: EntryId,
}

#[derive(Debug)]
pub(super) struct ProgressCell {
    published: Mutex<Progress>,
    started: Instant,
    /// Microseconds after `started`, plus 1, when the system call began that is running now; 0
    /// while none is.
    busy_since: AtomicU64,
    failed: AtomicBool,
}

impl ProgressCell {
    pub(super) fn new(progress: Progress) -> Self {
        Self {
            published: Mutex::new(progress),
            started: Instant::now(),
            busy_since: AtomicU64::new(0),
            failed: AtomicBool::new(false),
        }
    }

    pub(super) fn get(&self) -> Progress {
        *self.published.lock()
    }

    pub(super) fn set(&self, progress: Progress) {
        debug_assert!(progress.persisted.seq <= progress.in_memory.seq);
        *self.published.lock() = progress;
    }

    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Runs a write or sync so that others can see how long it has been running.
    pub(super) fn watched<T>(&self, call: impl FnOnce() -> T) -> T {
        self.busy_since.store(self.elapsed_us() + 1, Ordering::Relaxed);
        let result = call();
        self.busy_since.store(0, Ordering::Relaxed);
        result
    }

    pub(super) fn busy_for(&self) -> Duration {
        match self.busy_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_micros((self.elapsed_us() + 1).saturating_sub(since)),
        }
    }

    fn elapsed_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX - 1)
    }
}
