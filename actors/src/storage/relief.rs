//! Giving memory back: what can be read from disk again, and what can be written there.

#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "malloc_trim is a C function"))]

use std::fmt;
use std::sync::Arc;

use super::cache::LogCache;
use super::state::StateReader;

/// Memory that a node can do without, at a price.
#[derive(Clone, Debug)]
pub struct MemoryRelief {
    state: StateReader,
    log: Arc<LogCache>,
}

/// What was given back, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Memtables that were flushed; 0 where that failed.
    pub memtables: u64,
    /// Blocks of the state's tables.
    pub block_cache: u64,
    /// Entries of the log that the journal holds.
    pub log_cache: u64,
}

impl MemoryRelief {
    /// What is to shrink.
    #[must_use]
    pub fn new(state: StateReader, log: Arc<LogCache>) -> Self {
        Self { state, log }
    }

    /// Drops caches, flushes memtables, and hands what that frees back to the system. Blocks for
    /// the flush. A flush that fails is reported to the node's health.
    #[must_use]
    pub fn relieve(&self) -> Freed {
        let log_cache = self.log.drop_written() as u64;
        let block_cache = self.state.drop_cache();
        let memtables = || self.state.property(c"rocksdb.size-all-mem-tables").unwrap_or(0);
        let before = memtables();
        if let Err(error) = self.state.flush() {
            self.state.report(&error);
            tracing::warn!(%error, "memtables can't be flushed to free memory");
        }
        trim();
        Freed { memtables: before.saturating_sub(memtables()), block_cache, log_cache }
    }
}

/// Freed memory stays with the allocator, which keeps it for later, unless it is asked.
fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

impl Freed {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.memtables + self.block_cache + self.log_cache
    }
}

impl fmt::Display for Freed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memtables, block_cache, log_cache } = self;
        write!(f, "memtables {memtables}, block cache {block_cache}, log cache {log_cache}")
    }
}
