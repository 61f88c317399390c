//! Compacting the state on demand.

use std::time::{Duration, Instant};

use rocksdb::{BottommostLevelCompaction, CompactOptions, WaitForCompactOptions};

use super::error::{Operation, StateError};
use super::reader::StateReader;

/// What a compaction achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes of tables and blobs before.
    pub before_bytes: u64,
    /// And afterwards.
    pub after_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// How far a compaction on demand is. What other compactions write meanwhile counts as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactProgress {
    /// Bytes of files written since it began, at most the total.
    pub done_bytes: u64,
    /// Bytes of files when it began.
    pub total_bytes: u64,
}

/// What there was when a compaction began.
#[derive(Clone, Copy, Debug)]
pub(super) struct CompactionStart {
    newest_file: u64,
    total_bytes: u64,
}

/// Why the state wasn't compacted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CompactError {
    /// One at a time.
    #[error("a compaction is under way already")]
    UnderWay,
    /// RocksDB failed in the foreground.
    #[error(transparent)]
    State(#[from] StateError),
    /// RocksDB failed in the background. It doesn't say there how.
    #[error("{0} background errors of RocksDB during the compaction; its own log says which")]
    Background(u64),
}

impl StateReader {
    /// Flushes, rewrites all tables down to the bottommost level, which drops what was deleted and
    /// overwritten, and waits for all of it. Blocks, for long where the state is large. Writes go
    /// on meanwhile.
    ///
    /// # Errors
    /// [`CompactError`]: also what failed in the background. The state is as good as before.
    pub fn compact(&self) -> Result<Compacted, CompactError> {
        let Some(_one) = self.store().compacting.try_lock() else {
            return Err(CompactError::UnderWay);
        };
        let (began, before_bytes, errors) =
            (Instant::now(), self.file_bytes(), self.background_errors());
        self.flush()?;
        let start = CompactionStart {
            newest_file: self.data_files().map(|(number, _)| number).max().unwrap_or_default(),
            total_bytes: self.file_bytes(),
        };
        *self.store().compaction.lock() = Some(start);
        let compacted = self.compact_all(began, before_bytes, errors);
        *self.store().compaction.lock() = None;
        compacted
    }

    /// How far [`compact`](Self::compact) is, while it runs. Lists the state's files.
    #[must_use]
    pub fn compact_progress(&self) -> Option<CompactProgress> {
        let CompactionStart { newest_file, total_bytes } = (*self.store().compaction.lock())?;
        let new = self.data_files().filter(|(number, _)| *number > newest_file);
        let done_bytes = new.map(|(_, bytes)| bytes).sum::<u64>().min(total_bytes);
        Some(CompactProgress { done_bytes, total_bytes })
    }

    fn compact_all(
        &self,
        began: Instant,
        before_bytes: u64,
        errors: u64,
    ) -> Result<Compacted, CompactError> {
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        // Other compactions go on: nobody should wait for an operator's.
        options.set_exclusive_manual_compaction(false);
        self.store().db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &options);
        let failed = |source| StateError::rocksdb(Operation::Compact, b"state", source);
        self.store().db.wait_for_compact(&WaitForCompactOptions::default()).map_err(failed)?;
        match self.background_errors().saturating_sub(errors) {
            0 => {
                let (after_bytes, took) = (self.file_bytes(), began.elapsed());
                Ok(Compacted { before_bytes, after_bytes, took })
            }
            new => Err(CompactError::Background(new)),
        }
    }

    /// Empties the cache of blocks. Returns how many bytes were in it.
    #[must_use]
    pub fn drop_cache(&self) -> u64 {
        let used = || self.property(c"rocksdb.block-cache-usage").unwrap_or(0);
        let before = used();
        let mut cache = self.store().cache.clone();
        cache.set_capacity(0);
        cache.set_capacity(self.store().cache_bytes);
        before.saturating_sub(used())
    }

    /// How often flushes and compactions have failed.
    #[must_use]
    pub fn background_errors(&self) -> u64 {
        self.property(c"rocksdb.background-errors").unwrap_or(0)
    }

    /// Numbers and sizes of tables and blob files, those that are being written included. What can't
    /// be listed counts as nothing: it is a figure for people.
    fn data_files(&self) -> impl Iterator<Item = (u64, u64)> {
        let files = std::fs::read_dir(self.path()).into_iter().flatten().flatten();
        files.filter_map(|file| {
            let path = file.path();
            let number = path.file_stem()?.to_str()?.parse().ok()?;
            let is_data = path.extension().is_some_and(|end| end == "sst" || end == "blob");
            is_data.then_some((number, file.metadata().ok()?.len()))
        })
    }

    fn file_bytes(&self) -> u64 {
        let bytes = |name| self.property(name).unwrap_or(0);
        bytes(c"rocksdb.total-sst-files-size") + bytes(c"rocksdb.total-blob-file-size")
    }
}
