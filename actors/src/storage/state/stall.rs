//! Writes that RocksDB puts off, told to whoever looks while they are being put off.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::reader::StateReader;
use crate::clock;

/// A write that is put off for this long is worth a line in the log.
const WARN_AFTER: Duration = Duration::from_secs(1);
/// And one more each time that this has gone by.
const WARN_EVERY: Duration = Duration::from_secs(5);

/// Shared by the writer, which writes it, and readers on any thread.
#[derive(Debug, Default)]
pub(super) struct WriteStalls {
    /// Attempts that were put off, ever.
    count: AtomicU64,
    /// When the write that is put off now was tried first, on the monotonic clock; 0 while none is.
    since_us: AtomicU64,
}

/// One write that is being put off.
pub(super) struct Stalled {
    began: Instant,
    warn_at: Duration,
}

impl WriteStalls {
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// How long the current write has been put off; zero while none is.
    pub(super) fn age(&self) -> Duration {
        match self.since_us.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_micros(clock::now().0.saturating_sub(since)),
        }
    }

    /// The write was put off once more.
    pub(super) fn put_off(&self, stalled: &mut Option<Stalled>, state: &StateReader) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let stalled = stalled.get_or_insert_with(|| {
            self.since_us.store(clock::now().0, Ordering::Relaxed);
            Stalled { began: Instant::now(), warn_at: WARN_AFTER }
        });
        let seconds = stalled.began.elapsed();
        if seconds >= stalled.warn_at {
            stalled.warn_at = seconds + WARN_EVERY;
            let causes = state.stall_causes();
            tracing::warn!(?seconds, %causes, "RocksDB takes no writes: the apply loop waits");
        }
    }

    /// The write went through.
    pub(super) fn over(&self, stalled: Option<Stalled>) {
        let Some(stalled) = stalled else { return };
        self.since_us.store(0, Ordering::Relaxed);
        if stalled.warn_at > WARN_AFTER {
            let seconds = stalled.began.elapsed();
            tracing::info!(?seconds, "RocksDB takes writes again");
        }
    }
}

impl StateReader {
    /// What RocksDB says of everything that may hold up a write.
    #[must_use]
    pub fn stall_causes(&self) -> String {
        let causes = [
            ("write_stopped", c"rocksdb.is-write-stopped"),
            ("delayed_write_rate", c"rocksdb.actual-delayed-write-rate"),
            ("immutable_memtables", c"rocksdb.num-immutable-mem-table"),
            ("level0_files", c"rocksdb.num-files-at-level0"),
            ("flush_pending", c"rocksdb.mem-table-flush-pending"),
            ("flushes", c"rocksdb.num-running-flushes"),
            ("compaction_pending", c"rocksdb.compaction-pending"),
            ("compactions", c"rocksdb.num-running-compactions"),
            ("background_errors", c"rocksdb.background-errors"),
        ];
        let known = causes.iter().filter_map(|(name, property)| {
            Some(format!("{name}={}", self.text_property(property)?.trim()))
        });
        known.collect::<Vec<_>>().join(" ")
    }

    /// Whether RocksDB waits for a flush that it will not make: one for which there was no space is
    /// tried a second time, and then again only when a memtable is full, which none gets while
    /// writes are stopped. Nothing but opening the state anew helps.
    #[must_use]
    pub fn has_given_up_flushing(&self) -> bool {
        self.property(c"rocksdb.background-errors").unwrap_or(0) > 0
            && self.property(c"rocksdb.is-write-stopped") == Some(1)
            && self.property(c"rocksdb.mem-table-flush-pending") == Some(1)
            && self.property(c"rocksdb.num-running-flushes") == Some(0)
    }

    /// How many attempts of the apply loop to write RocksDB has put off, and for how long it has
    /// been putting off the one that is made now.
    #[must_use]
    pub fn write_stalls(&self) -> (u64, Duration) {
        let stalls = &self.store().write_stalls;
        (stalls.count(), stalls.age())
    }

    fn text_property(&self, name: &std::ffi::CStr) -> Option<String> {
        self.store().db.property_value(name).ok().flatten()
    }
}
