//! Reading the state from any thread.

use std::ops::ControlFlow;
use std::sync::Arc;

use quorate_protocol::command::{Head, Lookup, Position, TokenRecord, Value, Visit};
use quorate_protocol::types::{EntryId, Epoch, Seq};
use rocksdb::{DBPinnableSlice, DBRawIterator, Direction, IteratorMode, ReadOptions, ReadTier};

use super::error::{Operation, StateError};
use super::meta::{Applied, StoredCluster};
use super::store::Store;
use super::{hash, keys, tokens, value};
use crate::scrub::RangeHashes;

/// Reads the state. Cheap to clone. Single keys are as of the last finished apply round; what
/// must be of one point in time goes through [`StateReader::snapshot`].
#[derive(Clone)]
pub struct StateReader {
    store: Arc<Store>,
}

/// The state at one point in time, between two apply rounds. Short-lived: it keeps RocksDB from
/// dropping what was overwritten since.
pub struct StateSnapshot<'a> {
    store: &'a Store,
    options: ReadOptions,
    /// Declared last: the options point into it, and are dropped first.
    snapshot: rocksdb::Snapshot<'a>,
}

/// What the state holds, in a form that nodes can compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHash {
    /// The position that it is of.
    pub id: EntryId,
    /// Keys that live at that entry's time.
    pub keys: u64,
    /// BLAKE3 over these keys, their values, expiries and versions, in order; then over the
    /// remembered write tokens, where there are any.
    pub hash: [u8; 32],
}

impl StateReader {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// The state between two rounds; for commands that look at more than one key.
    #[must_use]
    pub fn snapshot(&self) -> StateSnapshot<'_> {
        let snapshot = self.store.db.snapshot();
        let mut options = ReadOptions::default();
        options.set_snapshot(&snapshot);
        StateSnapshot { store: &self.store, options, snapshot }
    }

    /// How far the state is, read from the state itself.
    pub fn applied(&self) -> Result<Applied, StateError> {
        applied(&self.store, &self.store.read_options)
    }

    /// How far the state is on disk: what a restart would find. The journal is needed only above
    /// it.
    pub fn flushed(&self) -> Result<Applied, StateError> {
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::Persisted);
        applied(&self.store, &options)
    }

    /// The cluster entry in force in the state.
    pub fn cluster(&self) -> Result<Option<StoredCluster>, StateError> {
        let stored = record(&self.store, &self.store.read_options, keys::CLUSTER)?;
        stored
            .map(|bytes| StoredCluster::from_bytes(&bytes))
            .map(|cluster| cluster.ok_or(StateError::BadRecord { record: "cluster entry" }))
            .transpose()
    }

    /// The epoch of the entry at `seq`, where the state is beyond `seq` and knows it.
    pub fn epoch_of(&self, seq: Seq) -> Result<Option<Epoch>, StateError> {
        if seq > self.applied()?.id.seq {
            return Ok(None);
        }
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(keys::EPOCH_START);
        options.set_iterate_upper_bound(keys::EPOCH_END);
        let mode = IteratorMode::From(keys::EPOCH_END, Direction::Reverse);
        for item in self.store.db.iterator_opt(mode, options) {
            let (key, first) =
                item.map_err(|error| StateError::rocksdb(Operation::Scan, b"epochs", error))?;
            let epoch = keys::read_epoch(&key);
            let first = first.first_chunk::<8>().map(|first| u64::from_le_bytes(*first));
            let (Some(epoch), Some(first)) = (epoch, first) else {
                return Err(StateError::BadRecord { record: "epochs" });
            };
            if first <= seq.0 {
                return Ok(Some(epoch));
            }
        }
        Ok(None)
    }

    /// Hash over everything that lives at the applied position, from one point in time. Reads the
    /// whole state: for a blocking thread.
    pub fn content_hash(&self) -> Result<ContentHash, StateError> {
        hash::content_hash(&self.snapshot())
    }

    /// One of RocksDB's numbers; `None` where it has no such property.
    #[must_use]
    pub fn property(&self, name: &std::ffi::CStr) -> Option<u64> {
        self.store.db.property_int_value(name).ok().flatten()
    }

    /// The state's directory.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        self.store.db.path()
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }
}

impl StateSnapshot<'_> {
    /// How far the state was at this point.
    pub fn applied(&self) -> Result<Applied, StateError> {
        applied(self.store, &self.options)
    }

    /// Hash over everything that lives at the applied position. Reads the whole state.
    pub fn content_hash(&self) -> Result<ContentHash, StateError> {
        hash::content_hash(self)
    }

    /// Hashes of what lives at the applied position, by ranges of slots. Reads the whole state.
    pub(crate) fn range_hashes(&self) -> Result<RangeHashes, StateError> {
        hash::range_hashes(self)
    }

    /// Calls `visit` with each stored key and value, in order, until it breaks.
    pub(super) fn visit_values(
        &self,
        visit: &mut dyn FnMut(&[u8], Value) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        let mut iterator = self.iterator(keys::DATA_END);
        iterator.seek(keys::DATA_START);
        walk(&mut iterator, &mut |key, stored| {
            let value = value::read(stored)
                .map_err(|error| StateError::bad_value(Operation::Scan, key, error))?;
            Ok(visit(key, value))
        })
    }

    /// Calls `visit` with each remembered token and what is stored of it, in order.
    pub(super) fn visit_tokens(
        &self,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), StateError> {
        let mut iterator = self.iterator(keys::TOKEN_END);
        iterator.seek(keys::TOKEN_START);
        while let Some((key, record)) = iterator.item() {
            let token =
                keys::read_token(key).ok_or(StateError::BadRecord { record: "token key" })?;
            visit(token, record);
            iterator.next();
        }
        iterator.status().map_err(|error| StateError::rocksdb(Operation::Scan, b"tokens", error))
    }

    fn iterator(&self, end: &[u8]) -> DBRawIterator<'_> {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options.set_iterate_upper_bound(end);
        // A walk over everything must not push the working set out of the cache.
        options.fill_cache(false);
        self.store.db.raw_iterator_opt(options)
    }
}

impl Lookup for StateReader {
    type Error = StateError;

    fn get(&self, key: &[u8]) -> Result<Option<Value>, StateError> {
        get(&self.store, &self.store.read_options, key)
    }

    fn head(&self, key: &[u8]) -> Result<Option<Head>, StateError> {
        head(&self.store, &self.store.read_options, key)
    }

    fn count(&self) -> Result<u64, StateError> {
        Ok(self.applied()?.keys)
    }

    fn last_removal(&self, key: &[u8]) -> Result<Seq, StateError> {
        last_removal(&self.store, &self.store.read_options, key)
    }

    fn token(&self, token: &[u8]) -> Result<Option<TokenRecord>, StateError> {
        tokens::read(&self.store, &self.store.read_options, token)
    }
}

impl Visit for StateReader {
    fn visit(
        &self,
        from: Position,
        visit: &mut dyn FnMut(&[u8], &Head) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        self.snapshot().visit(from, visit)
    }
}

impl Lookup for StateSnapshot<'_> {
    type Error = StateError;

    fn get(&self, key: &[u8]) -> Result<Option<Value>, StateError> {
        get(self.store, &self.options, key)
    }

    fn head(&self, key: &[u8]) -> Result<Option<Head>, StateError> {
        head(self.store, &self.options, key)
    }

    fn count(&self) -> Result<u64, StateError> {
        Ok(self.applied()?.keys)
    }

    fn last_removal(&self, key: &[u8]) -> Result<Seq, StateError> {
        last_removal(self.store, &self.options, key)
    }

    fn token(&self, token: &[u8]) -> Result<Option<TokenRecord>, StateError> {
        tokens::read(self.store, &self.options, token)
    }
}

impl Visit for StateSnapshot<'_> {
    fn visit(
        &self,
        from: Position,
        visit: &mut dyn FnMut(&[u8], &Head) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        let mut iterator = self.iterator(keys::DATA_END);
        iterator.seek(keys::data_from(from));
        walk(&mut iterator, &mut |key, stored| {
            let head = value::read_head(stored)
                .map_err(|error| StateError::bad_value(Operation::Scan, key, error))?;
            Ok(visit(key, &head))
        })
    }
}

/// Goes on from where the iterator stands, until `visit` breaks or the data ends.
#[expect(clippy::type_complexity, reason = "one closure")]
fn walk(
    iterator: &mut DBRawIterator<'_>,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StateError>,
) -> Result<(), StateError> {
    while let Some((stored_key, stored)) = iterator.item() {
        let key =
            keys::read_data(stored_key).ok_or(StateError::BadRecord { record: "data key" })?;
        if visit(key, stored)?.is_break() {
            return Ok(());
        }
        iterator.next();
    }
    iterator.status().map_err(|error| StateError::rocksdb(Operation::Scan, b"data", error))
}

fn get(store: &Store, options: &ReadOptions, key: &[u8]) -> Result<Option<Value>, StateError> {
    let Some(stored) = pinned(store, options, key)? else {
        return Ok(None);
    };
    let value = value::read(&stored);
    value.map(Some).map_err(|error| StateError::bad_value(Operation::Get, key, error))
}

fn head(store: &Store, options: &ReadOptions, key: &[u8]) -> Result<Option<Head>, StateError> {
    let Some(stored) = pinned(store, options, key)? else {
        return Ok(None);
    };
    let head = value::read_head(&stored);
    head.map(Some).map_err(|error| StateError::bad_value(Operation::Get, key, error))
}

fn pinned<'a>(
    store: &'a Store,
    options: &ReadOptions,
    key: &[u8],
) -> Result<Option<DBPinnableSlice<'a>>, StateError> {
    thread_local! {
        static DATA_KEY: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    DATA_KEY.with_borrow_mut(|data_key| {
        keys::write_data(data_key, key);
        store
            .db
            .get_pinned_opt(&data_key, options)
            .map_err(|error| StateError::rocksdb(Operation::Get, key, error))
    })
}

fn last_removal(store: &Store, options: &ReadOptions, key: &[u8]) -> Result<Seq, StateError> {
    let mut data_key = Vec::new();
    keys::write_data(&mut data_key, key);
    let stored = record(store, options, &keys::removal(keys::removal_bucket(&data_key)))?;
    let removed = match stored {
        None => Seq::ZERO,
        Some(bytes) => read_seq(&bytes).ok_or(StateError::BadRecord { record: "removals" })?,
    };
    Ok(removed.max(applied(store, options)?.cleared))
}

/// A position as a record of its own.
pub(super) fn read_seq(bytes: &[u8]) -> Option<Seq> {
    Some(Seq(u64::from_le_bytes(bytes.try_into().ok()?)))
}

fn applied(store: &Store, options: &ReadOptions) -> Result<Applied, StateError> {
    match record(store, options, keys::APPLIED)? {
        None => Ok(Applied::default()),
        Some(bytes) => {
            Applied::from_bytes(&bytes).ok_or(StateError::BadRecord { record: "applied position" })
        }
    }
}

fn record(store: &Store, options: &ReadOptions, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
    store.db.get_opt(key, options).map_err(|error| StateError::rocksdb(Operation::Get, key, error))
}

impl std::fmt::Debug for StateReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateReader").field("path", &self.path()).finish()
    }
}
