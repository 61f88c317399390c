//! Opening, flushing and closing RocksDB.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rocksdb::{Cache, ColumnFamilyDescriptor, DB, FlushOptions, ReadOptions};

use super::compact::CompactionStart;
use super::error::{OpenError, Operation, StateError};
use super::keys;
use super::meta::Applied;
use super::reader::StateReader;
use super::stall::WriteStalls;
use super::writer::StateWriter;
use crate::storage::options::RocksOptions;

const DEFAULT_FAMILY: &str = rocksdb::DEFAULT_COLUMN_FAMILY_NAME;

/// The open state. Dropping the last reader and writer closes RocksDB.
pub struct State {
    reader: StateReader,
    applied_at_open: Applied,
}

/// RocksDB and what reads of it share.
pub(crate) struct Store {
    pub(crate) db: DB,
    pub(crate) read_options: ReadOptions,
    /// To empty it; RocksDB holds its own reference.
    pub(super) cache: Cache,
    /// Its capacity.
    pub(super) cache_bytes: usize,
    /// Held by a compaction on demand.
    pub(super) compacting: Mutex<()>,
    /// What the compaction on demand that is under way began with.
    pub(super) compaction: Mutex<Option<CompactionStart>>,
    pub(super) write_stalls: WriteStalls,
    /// Whom failed accesses are reported to.
    pub(super) observer: OnceLock<Observer>,
}

/// Learns of failed accesses.
type Observer = Box<dyn Fn(&StateError) + Send + Sync>;

impl State {
    /// Opens the state in `path`, or makes an empty one. It holds what the last completed flush
    /// left, so [`State::applied_at_open`] is also a flushed position.
    ///
    /// # Errors
    /// See [`OpenError`]: nothing is repaired or guessed.
    pub fn open(path: &Path, options: &RocksOptions) -> Result<(Self, StateWriter), OpenError> {
        let failed = |source| OpenError::RocksDb { path: path.to_owned(), source };
        std::fs::create_dir_all(path)
            .map_err(|source| OpenError::Directory { path: path.to_owned(), source })?;
        let (rocks, cache) = options.to_rocksdb()?;
        if path.join("CURRENT").exists() {
            // Only within one family is a flush atomic without a WAL, and only then do data and
            // position stay at one point.
            let families = DB::list_cf(&rocks, path).map_err(failed)?;
            if families != [DEFAULT_FAMILY] {
                return Err(OpenError::ColumnFamilies { path: path.to_owned(), families });
            }
        }
        let family = ColumnFamilyDescriptor::new(DEFAULT_FAMILY, rocks.clone());
        let db = DB::open_cf_descriptors(&rocks, path, [family]).map_err(failed)?;
        check_tables(path, &db).map_err(failed)??;
        let store = Arc::new(Store {
            db,
            read_options: ReadOptions::default(),
            cache,
            cache_bytes: options.block_cache_size,
            compacting: Mutex::default(),
            compaction: Mutex::default(),
            write_stalls: WriteStalls::default(),
            observer: OnceLock::new(),
        });
        let reader = StateReader::new(store);
        let applied_at_open = check_format(path, &reader)?;
        let writer = StateWriter::new(reader.clone(), applied_at_open)?;
        Ok((Self { reader, applied_at_open }, writer))
    }

    /// Reads of the state.
    #[must_use]
    pub fn reader(&self) -> &StateReader {
        &self.reader
    }

    /// How far the state was when it was opened: the log is to be applied from the next entry on.
    #[must_use]
    pub fn applied_at_open(&self) -> Applied {
        self.applied_at_open
    }
}

impl StateReader {
    /// Reports failed accesses here from now on; only the first call counts.
    pub fn on_error(&self, observer: impl Fn(&StateError) + Send + Sync + 'static) {
        let _ = self.store().observer.set(Box::new(observer));
    }

    /// For whoever runs commands on a reader: an access failed.
    pub fn report(&self, error: &StateError) {
        if let Some(observer) = self.store().observer.get() {
            observer(error);
        }
    }

    /// Writes everything that is applied now to disk and waits for it. Blocks.
    pub fn flush(&self) -> Result<(), StateError> {
        self.flush_with(true)
    }

    /// Starts writing what is applied to disk. May still block while RocksDB is short of room.
    pub fn start_flush(&self) -> Result<(), StateError> {
        self.flush_with(false)
    }

    /// Ends flushes and compactions and waits for them: nothing may be written afterwards.
    pub fn stop_background_work(&self) {
        self.store().db.cancel_all_background_work(true);
    }

    fn flush_with(&self, wait: bool) -> Result<(), StateError> {
        if self.has_given_up_flushing() {
            return Err(StateError::FlushGivenUp);
        }
        let mut options = FlushOptions::default();
        options.set_wait(wait);
        self.store()
            .db
            .flush_opt(&options)
            .map_err(|error| StateError::rocksdb(Operation::Flush, b"state", error))
    }
}

/// Without paranoid checks RocksDB finds out that a table is gone when it is asked for a key in it.
fn check_tables(path: &Path, db: &DB) -> Result<Result<(), OpenError>, rocksdb::Error> {
    for table in db.live_files()? {
        let path = path.join(table.name.trim_start_matches('/'));
        if !std::fs::metadata(&path).is_ok_and(|found| found.len() == table.size as u64) {
            return Ok(Err(OpenError::Table { path }));
        }
    }
    Ok(Ok(()))
}

/// Writes the format's version into an empty store and compares it in another.
fn check_format(path: &Path, reader: &StateReader) -> Result<Applied, OpenError> {
    let db = &reader.store().db;
    let failed = |source| OpenError::RocksDb { path: path.to_owned(), source };
    let stored = db.get(keys::FORMAT).map_err(failed)?;
    let applied = reader.applied()?;
    let wrong =
        |found| OpenError::Format { path: path.to_owned(), found, known: keys::FORMAT_VERSION };
    match stored {
        None if applied == Applied::default() => {
            let mut options = rocksdb::WriteOptions::default();
            options.disable_wal(true);
            db.put_opt(keys::FORMAT, keys::FORMAT_VERSION.to_le_bytes(), &options)
                .map_err(failed)?;
        }
        None => return Err(wrong(0)),
        Some(bytes) => {
            let found = bytes.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
            if found != keys::FORMAT_VERSION || bytes.len() != 4 {
                return Err(wrong(found));
            }
        }
    }
    Ok(applied)
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("reader", &self.reader)
            .field("applied_at_open", &self.applied_at_open)
            .finish()
    }
}
