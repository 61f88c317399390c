//! The one writer of the state: a round of entries over what RocksDB holds, written as one batch.

use std::cell::{Ref, RefCell};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashTable;
use quorate_protocol::command::{Head, Keyspace, Lookup, TokenRecord, Value};
use quorate_protocol::entry::Entry;
use quorate_protocol::types::{EntryKind, Epoch, Seq};
use rocksdb::{ErrorKind, IteratorMode, ReadOptions, WriteBatch, WriteOptions};

use super::error::{Operation, StateError};
use super::heads::{Recent, RecentHeads};
use super::meta::{Applied, StoredCluster};
use super::reader::{StateReader, read_seq};
use super::tokens::Tokens;
use super::{keys, value};

/// The state as the entries of the current round leave it. Look-ups see what the round changed;
/// everyone else sees it after [`StateWriter::write`], all at once.
///
/// A key that is changed often in one round is written once.
pub struct StateWriter {
    reader: StateReader,
    /// After the entries of the round so far.
    applied: Applied,
    /// By bucket, the last entry that removed a key of it.
    removals: Vec<Seq>,
    /// No stored key expires before this moment.
    next_expiry_ms: u64,
    round: Round,
    tokens: Tokens,
    /// Of what is written, without the round.
    heads: RecentHeads,
    hasher: RandomState,
    /// The data key of the client's key that was looked at last.
    data_key: RefCell<Vec<u8>>,
    write_options: WriteOptions,
    stats: WriteStats,
}

/// What writing took so far, ever growing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteStats {
    /// Batches written.
    pub batches: u64,
    /// Keys removed because they had expired.
    pub expired: u64,
}

/// What one round changed. Its allocations are kept from round to round.
#[derive(Default)]
struct Round {
    /// In the order in which they were first changed.
    slots: Vec<Slot>,
    /// Indices into `slots`, by data key.
    index: HashTable<u32>,
    /// The data keys of `slots`, one behind the other.
    keys: Vec<u8>,
    /// The expiry index: whether the entry is there afterwards.
    expiries: BTreeMap<(u64, Bytes), bool>,
    /// Buckets whose last removal changed; may hold duplicates.
    removed_buckets: Vec<u16>,
    /// Everything that was stored before the round is gone.
    cleared: bool,
    cluster: Option<StoredCluster>,
    epochs: Vec<(Epoch, Seq)>,
    /// About what the batch will take.
    bytes: usize,
}

struct Slot {
    key: Range<usize>,
    /// The data key's.
    hash: u64,
    /// `None`: deleted.
    value: Option<Value>,
}

/// Retries of a write that RocksDB puts off start here and double.
const RETRY_FIRST: Duration = Duration::from_micros(500);
const RETRY_MAX: Duration = Duration::from_millis(50);

impl StateWriter {
    pub(super) fn new(reader: StateReader, applied: Applied) -> Result<Self, StateError> {
        let mut write_options = WriteOptions::default();
        write_options.disable_wal(true);
        // The apply loop waits, not a thread inside RocksDB that holds its locks.
        write_options.set_no_slowdown(true);
        let removals = read_removals(&reader)?;
        let tokens = Tokens::open(reader.store())?;
        let mut writer = Self {
            reader,
            applied,
            removals,
            next_expiry_ms: 0,
            round: Round::default(),
            tokens,
            heads: RecentHeads::default(),
            hasher: RandomState::new(),
            data_key: RefCell::default(),
            write_options,
            stats: WriteStats::default(),
        };
        let first = writer.stored_expiries(1)?.first().map(|(at_ms, _)| *at_ms);
        writer.next_expiry_ms = first.unwrap_or(u64::MAX);
        Ok(writer)
    }

    /// Reads of what is written.
    #[must_use]
    pub fn reader(&self) -> &StateReader {
        &self.reader
    }

    /// The position that the round reaches so far.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.applied
    }

    /// About how many bytes the round's batch takes.
    #[must_use]
    pub fn round_bytes(&self) -> usize {
        self.round.bytes
    }

    /// No key expires before this moment, in milliseconds of cluster time.
    #[must_use]
    pub fn next_expiry_ms(&self) -> u64 {
        self.next_expiry_ms
    }

    /// What writing took so far.
    #[must_use]
    pub fn stats(&self) -> WriteStats {
        self.stats
    }

    /// Moves the position over an entry whose commands, if it has any, are carried out.
    ///
    /// # Panics
    /// If an entry is left out: what follows would be wrong.
    pub fn finish_entry(&mut self, entry: &Entry) {
        assert_eq!(self.applied.id.seq.next(), entry.id.seq, "entries are applied in order");
        match entry.kind {
            EntryKind::Commands | EntryKind::Mark | EntryKind::EpochStart => {}
            EntryKind::Cluster => {
                self.round.bytes += entry.payload.len();
                self.round.cluster =
                    Some(StoredCluster { id: entry.id, payload: entry.payload.clone() });
            }
        }
        if entry.id.epoch != self.applied.id.epoch {
            self.round.epochs.push((entry.id.epoch, entry.id.seq));
        }
        self.applied.id = entry.id;
        self.applied.chain = entry.chain;
        self.applied.time = entry.time;
    }

    /// Removes keys that are expired at `now_ms`, the oldest first and at most `count_max`. The
    /// same on all nodes, because it follows from the log alone.
    ///
    /// # Errors
    /// RocksDB's.
    pub fn expire(&mut self, now_ms: u64, at: Seq, count_max: usize) -> Result<(), StateError> {
        if now_ms <= self.next_expiry_ms {
            return Ok(());
        }
        let mut due = self.stored_expiries(count_max + 1)?;
        let added = self.round.expiries.iter().filter(|(_, present)| **present);
        due.extend(added.take(count_max + 1).map(|((at_ms, key), _)| (*at_ms, key.clone())));
        due.sort_unstable();
        due.dedup();
        // Whatever comes after those that are removed now is the next; with none left, any later
        // expiry lowers this again when it is set.
        self.next_expiry_ms = u64::MAX;
        for (index, (at_ms, key)) in due.into_iter().enumerate() {
            if at_ms >= now_ms || index == count_max {
                self.next_expiry_ms = at_ms;
                break;
            }
            match self.head(&key)? {
                Some(head) if head.expires_at_ms == Some(at_ms) => {
                    self.delete(&key, head, at)?;
                    self.stats.expired += 1;
                }
                Some(_) | None => return Err(StateError::BadRecord { record: "expiry index" }),
            }
        }
        Ok(())
    }

    /// Writes the round and starts the next one. Retries as long as RocksDB is short of room:
    /// committed entries can't be given up.
    ///
    /// # Errors
    /// RocksDB's, where it isn't a matter of waiting. The state must not be used any further.
    pub fn write(&mut self) -> Result<(), StateError> {
        let (mut wait, mut stalled) = (RETRY_FIRST, None);
        let stalls = &self.reader.store().write_stalls;
        loop {
            match self.reader.store().db.write_opt(self.batch(), &self.write_options) {
                Ok(()) => break,
                Err(error) if is_stall(&error) => {
                    stalls.put_off(&mut stalled, &self.reader);
                    thread::sleep(wait);
                    wait = (wait * 2).min(RETRY_MAX);
                }
                Err(error) => {
                    let name = format!("entries through {}", self.applied.id);
                    return Err(StateError::rocksdb(Operation::Write, name.as_bytes(), error));
                }
            }
        }
        stalls.over(stalled);
        self.stats.batches += 1;
        for slot in &self.round.slots {
            let key = &self.round.keys[slot.key.clone()];
            self.heads.set(slot.hash, key, slot.value.as_ref().map(Value::head));
        }
        self.round.reset();
        self.tokens.written();
        Ok(())
    }

    /// Built anew for each attempt: RocksDB takes the batch by value, and keeping a copy of each
    /// would cost more than building the few that are put off again.
    fn batch(&self) -> WriteBatch {
        let round = &self.round;
        let mut batch = WriteBatch::with_capacity_bytes(round.bytes + 256);
        if round.cleared {
            batch.delete_range(keys::DATA_START, keys::DATA_END);
            batch.delete_range(keys::EXPIRY_START, keys::EXPIRY_END);
        }
        let mut buffer = Vec::new();
        for slot in &round.slots {
            let key = &round.keys[slot.key.clone()];
            match &slot.value {
                Some(value) => {
                    value::write(&mut buffer, value);
                    batch.put(key, &buffer);
                }
                None => batch.delete(key),
            }
        }
        for ((at_ms, key), present) in &round.expiries {
            keys::write_expiry(&mut buffer, *at_ms, key);
            match present {
                true => batch.put(&buffer, []),
                false => batch.delete(&buffer),
            }
        }
        for bucket in &round.removed_buckets {
            let removed = self.removals[usize::from(*bucket)];
            batch.put(keys::removal(*bucket), removed.0.to_le_bytes());
        }
        for (epoch, first) in &round.epochs {
            batch.put(keys::epoch(*epoch), first.0.to_le_bytes());
        }
        if let Some(cluster) = &round.cluster {
            batch.put(keys::CLUSTER, cluster.to_bytes());
        }
        self.tokens.write(&mut batch);
        batch.put(keys::APPLIED, self.applied.to_bytes());
        batch
    }

    /// The first entries of the stored expiry index that the round didn't remove.
    fn stored_expiries(&self, count_max: usize) -> Result<Vec<(u64, Bytes)>, StateError> {
        if self.round.cleared {
            return Ok(Vec::new());
        }
        // Starting at the first entry that may exist passes by the remains of removed ones.
        let mut from = Vec::new();
        keys::write_expiry(&mut from, self.next_expiry_ms, &[]);
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(keys::EXPIRY_END);
        let mut found = Vec::new();
        for item in self.reader.store().db.iterator_opt(IteratorMode::Start, options) {
            let (stored, _) =
                item.map_err(|error| StateError::rocksdb(Operation::Scan, b"expiry index", error))?;
            let (at_ms, key) = keys::read_expiry(&stored)
                .ok_or(StateError::BadRecord { record: "expiry index" })?;
            let entry = (at_ms, Bytes::copy_from_slice(key));
            if self.round.expiries.get(&entry) != Some(&false) {
                found.push(entry);
            }
            if found.len() == count_max {
                break;
            }
        }
        Ok(found)
    }

    fn data_key(&self, key: &[u8]) -> Ref<'_, Vec<u8>> {
        let known = self.data_key.borrow();
        if keys::read_data(&known) == Some(key) {
            return known;
        }
        drop(known);
        keys::write_data(&mut self.data_key.borrow_mut(), key);
        self.data_key.borrow()
    }

    /// What the round says of a key; `None` where it didn't touch it.
    fn changed(&self, hash: u64, data_key: &[u8]) -> Option<&Slot> {
        let index = self.round.index.find(hash, |index| self.round.key(*index) == data_key)?;
        self.round.slots.get(*index as usize)
    }

    fn change(&mut self, key: &[u8], value: Option<Value>) {
        drop(self.data_key(key));
        let data_key = self.data_key.borrow();
        let round = &mut self.round;
        let hash = self.hasher.hash_one(data_key.as_slice());
        round.bytes += value.as_ref().map_or(0, |value| value.data.len());
        let found = round.index.find(hash, |index| round.key(*index) == data_key.as_slice());
        if let Some(index) = found.copied() {
            let slot = &mut round.slots[index as usize];
            round.bytes -= slot.value.as_ref().map_or(0, |value| value.data.len());
            slot.value = value;
            return;
        }
        let start = round.keys.len();
        round.keys.extend_from_slice(&data_key);
        round.bytes += data_key.len() + SLOT_BYTES;
        let index = u32::try_from(round.slots.len()).expect("a round is bounded in bytes");
        round.slots.push(Slot { key: start..round.keys.len(), hash, value });
        let slots = &round.slots;
        round.index.insert_unique(hash, index, |index| slots[*index as usize].hash);
    }

    fn index_expiry(&mut self, at_ms: u64, key: &[u8], present: bool) {
        self.round.bytes += key.len() + SLOT_BYTES;
        self.round.expiries.insert((at_ms, Bytes::copy_from_slice(key)), present);
        if present {
            self.next_expiry_ms = self.next_expiry_ms.min(at_ms);
        }
    }
}

/// Whether RocksDB will take the write later. It says "incomplete" also when it has stopped for a
/// background error, which it never recovers from here.
fn is_stall(error: &rocksdb::Error) -> bool {
    error.kind() == ErrorKind::Incomplete && error.as_ref().contains("Write stall")
}

/// What a slot takes in the batch beside its key and value: lengths, tags, header.
const SLOT_BYTES: usize = 32;

impl Lookup for StateWriter {
    type Error = StateError;

    fn get(&self, key: &[u8]) -> Result<Option<Value>, StateError> {
        let data_key = self.data_key(key);
        let hash = self.hasher.hash_one(data_key.as_slice());
        if let Some(slot) = self.changed(hash, &data_key) {
            return Ok(slot.value.clone());
        }
        match self.heads.get(hash, &data_key) {
            Recent::Absent => Ok(None),
            Recent::Present(_) | Recent::Unknown => self.read(&data_key, key, value::read),
        }
    }

    fn head(&self, key: &[u8]) -> Result<Option<Head>, StateError> {
        let data_key = self.data_key(key);
        let hash = self.hasher.hash_one(data_key.as_slice());
        if let Some(slot) = self.changed(hash, &data_key) {
            return Ok(slot.value.as_ref().map(Value::head));
        }
        match self.heads.get(hash, &data_key) {
            Recent::Present(head) => Ok(Some(head)),
            Recent::Absent => Ok(None),
            Recent::Unknown => self.read(&data_key, key, value::read_head),
        }
    }

    fn count(&self) -> Result<u64, StateError> {
        Ok(self.applied.keys)
    }

    fn last_removal(&self, key: &[u8]) -> Result<Seq, StateError> {
        let bucket = keys::removal_bucket(&self.data_key(key));
        Ok(self.removals[usize::from(bucket)].max(self.applied.cleared))
    }

    fn token(&self, token: &[u8]) -> Result<Option<TokenRecord>, StateError> {
        self.tokens.get(self.reader.store(), token)
    }
}

impl Keyspace for StateWriter {
    fn put(&mut self, key: &[u8], value: Value, replaced: Option<Head>) -> Result<(), StateError> {
        let old = replaced.and_then(|head| head.expires_at_ms);
        if old != value.expires_at_ms {
            if let Some(at_ms) = old {
                self.index_expiry(at_ms, key, false);
            }
            if let Some(at_ms) = value.expires_at_ms {
                self.index_expiry(at_ms, key, true);
            }
        }
        if replaced.is_none() {
            self.applied.keys += 1;
        }
        self.change(key, Some(value));
        Ok(())
    }

    fn delete(&mut self, key: &[u8], removed: Head, at: Seq) -> Result<(), StateError> {
        if let Some(at_ms) = removed.expires_at_ms {
            self.index_expiry(at_ms, key, false);
        }
        self.applied.keys -= 1;
        self.change(key, None);
        let bucket = keys::removal_bucket(&self.data_key(key));
        let last = &mut self.removals[usize::from(bucket)];
        if *last != at {
            *last = at;
            self.round.removed_buckets.push(bucket);
        }
        Ok(())
    }

    fn clear(&mut self, at: Seq) -> Result<(), StateError> {
        self.round.forget_changes();
        self.round.cleared = true;
        self.heads.clear();
        self.applied.keys = 0;
        self.applied.cleared = at;
        self.next_expiry_ms = u64::MAX;
        Ok(())
    }

    fn put_token(&mut self, token: &[u8], record: TokenRecord) -> Result<(), StateError> {
        self.round.bytes += self.tokens.put(self.reader.store(), token, record)?;
        Ok(())
    }
}

impl StateWriter {
    #[cfg(test)]
    pub(super) fn keep_at_most_tokens(&mut self, count_max: u64) {
        self.tokens.keep_at_most(count_max);
    }

    fn read<T>(
        &self,
        data_key: &[u8],
        key: &[u8],
        read: fn(&[u8]) -> Result<T, super::BadValue>,
    ) -> Result<Option<T>, StateError> {
        if self.round.cleared {
            return Ok(None);
        }
        let store = self.reader.store();
        let stored = store
            .db
            .get_pinned_opt(data_key, &store.read_options)
            .map_err(|error| StateError::rocksdb(Operation::Get, key, error))?;
        stored
            .map(|stored| read(&stored))
            .transpose()
            .map_err(|error| StateError::bad_value(Operation::Get, key, error))
    }
}

impl Round {
    fn key(&self, index: u32) -> &[u8] {
        &self.keys[self.slots[index as usize].key.clone()]
    }

    /// Forgets what was put and deleted, but not the rest.
    fn forget_changes(&mut self) {
        self.slots.clear();
        self.index.clear();
        self.keys.clear();
        self.expiries.clear();
        self.bytes = 0;
    }

    fn reset(&mut self) {
        self.forget_changes();
        self.removed_buckets.clear();
        self.cleared = false;
        self.cluster = None;
        self.epochs.clear();
    }
}

fn read_removals(reader: &StateReader) -> Result<Vec<Seq>, StateError> {
    let mut removals = vec![Seq::ZERO; keys::REMOVAL_BUCKETS];
    for (bucket, removed) in removals.iter_mut().enumerate() {
        let key = keys::removal(bucket as u16);
        let stored = reader
            .store()
            .db
            .get(key)
            .map_err(|error| StateError::rocksdb(Operation::Get, b"removals", error))?;
        if let Some(bytes) = stored {
            *removed = read_seq(&bytes).ok_or(StateError::BadRecord { record: "removals" })?;
        }
    }
    Ok(removals)
}

impl std::fmt::Debug for StateWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateWriter")
            .field("reader", &self.reader)
            .field("applied", &self.applied)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}
