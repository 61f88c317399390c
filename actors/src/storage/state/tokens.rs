//! The table of write tokens: those of the round, over those that are stored.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_protocol::command::{TOKENS_MAX, TokenRecord};
use quorate_protocol::types::Seq;
use rocksdb::{IteratorMode, ReadOptions, WriteBatch};

use super::error::{Operation, StateError};
use super::keys;
use super::store::Store;

/// The table as the entries of the current round leave it.
#[derive(Debug)]
pub(super) struct Tokens {
    /// Tokens that are remembered.
    count: u64,
    count_max: u64,
    /// What the round put, by token.
    put: BTreeMap<Bytes, TokenRecord>,
    /// What it forgot of what is stored, by age.
    forgotten: BTreeSet<(Seq, Bytes)>,
}

impl Tokens {
    pub(super) fn open(store: &Store) -> Result<Self, StateError> {
        let stored = store.db.get(keys::TOKEN_COUNT);
        let stored = stored.map_err(|e| StateError::rocksdb(Operation::Get, b"tokens", e))?;
        let count = match stored {
            None => 0,
            Some(bytes) => {
                let bytes = bytes.try_into();
                let bytes = bytes.map_err(|_| StateError::BadRecord { record: "tokens" })?;
                u64::from_le_bytes(bytes)
            }
        };
        let (put, forgotten) = (BTreeMap::new(), BTreeSet::new());
        Ok(Self { count, count_max: TOKENS_MAX, put, forgotten })
    }

    pub(super) fn get(
        &self,
        store: &Store,
        token: &[u8],
    ) -> Result<Option<TokenRecord>, StateError> {
        if let Some(record) = self.put.get(token) {
            return Ok(Some(record.clone()));
        }
        let stored = read(store, &store.read_options, token)?;
        let kept = |record: &TokenRecord| {
            let age = (record.seq, Bytes::copy_from_slice(token));
            !self.forgotten.contains(&age)
        };
        Ok(stored.filter(kept))
    }

    /// Returns about how many bytes that adds to the round's batch.
    pub(super) fn put(
        &mut self,
        store: &Store,
        token: &[u8],
        record: TokenRecord,
    ) -> Result<usize, StateError> {
        let bytes = 2 * token.len() + 128 + record.to_bytes().len();
        self.put.insert(Bytes::copy_from_slice(token), record);
        self.count += 1;
        if self.count > self.count_max {
            self.forget_first(store)?;
            self.count -= 1;
        }
        Ok(bytes)
    }

    /// The first in the order of (entry, token): what is stored is older than what the round put.
    fn forget_first(&mut self, store: &Store) -> Result<(), StateError> {
        let mut options = ReadOptions::default();
        // Starting behind those forgotten before passes by their remains.
        let from = match self.forgotten.last() {
            Some((seq, token)) => [&keys::token_age(*seq, token)[..], &[0]].concat(),
            None => keys::TOKEN_AGE_START.to_vec(),
        };
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(keys::TOKEN_AGE_END);
        let scan = |error| StateError::rocksdb(Operation::Scan, b"tokens", error);
        let first = store.db.iterator_opt(IteratorMode::Start, options).next();
        match first.transpose().map_err(scan)? {
            Some((stored, _)) => {
                let (seq, token) = keys::read_token_age(&stored)
                    .ok_or(StateError::BadRecord { record: "tokens by age" })?;
                self.forgotten.insert((seq, Bytes::copy_from_slice(token)));
            }
            None => {
                let age = |(token, record): &(&Bytes, &TokenRecord)| (record.seq, (*token).clone());
                let first = self.put.iter().min_by_key(age).map(|(token, _)| token.clone());
                first.and_then(|token| self.put.remove(&token));
            }
        }
        Ok(())
    }

    /// Adds the round's changes to its batch.
    pub(super) fn write(&self, batch: &mut WriteBatch) {
        if self.put.is_empty() && self.forgotten.is_empty() {
            return;
        }
        for (seq, token) in &self.forgotten {
            batch.delete(keys::token(token));
            batch.delete(keys::token_age(*seq, token));
        }
        for (token, record) in &self.put {
            batch.put(keys::token(token), record.to_bytes());
            batch.put(keys::token_age(record.seq, token), []);
        }
        batch.put(keys::TOKEN_COUNT, self.count.to_le_bytes());
    }

    /// The round is written.
    pub(super) fn written(&mut self) {
        self.put.clear();
        self.forgotten.clear();
    }

    #[cfg(test)]
    pub(super) fn keep_at_most(&mut self, count_max: u64) {
        self.count_max = count_max;
    }
}

/// What is stored of a token.
pub(super) fn read(
    store: &Store,
    options: &ReadOptions,
    token: &[u8],
) -> Result<Option<TokenRecord>, StateError> {
    let stored = store.db.get_pinned_opt(keys::token(token), options);
    let stored = stored.map_err(|error| StateError::rocksdb(Operation::Get, b"a token", error))?;
    stored
        .map(|bytes| {
            TokenRecord::from_bytes(&bytes).ok_or(StateError::BadRecord { record: "token" })
        })
        .transpose()
}
