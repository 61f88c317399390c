//! What commands need from the state.
//!
//! # Order of keys
//!
//! `SCAN` must be stateless (a cursor is one `u64`, and must go on working on another node), must
//! not miss a key that exists throughout, and must end. So the state keeps its keys in the order
//! of ([`Position`], key): a store puts [`Position::to_bytes`] in front of each key that it
//! stores. A cursor is then the position to go on from.
//!
//! # Expiry
//!
//! A stored value may be past its expiry: commands treat it as absent ([`Head::is_live`]) and
//! overwrite or delete it. A store may return such values at any time and may drop them only by
//! deletes that are the same on all nodes.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::position::Position;
use super::token::TokenRecord;
use crate::types::Seq;

/// A stored value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The bytes.
    pub data: Bytes,
    /// After this moment, in milliseconds of cluster time since 1970, the key is absent.
    pub expires_at_ms: Option<u64>,
    /// The entry that wrote it; `WATCH` compares it.
    pub version: Seq,
}

/// A stored value without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Length of the value in bytes.
    pub bytes: u64,
    /// As in [`Value`].
    pub expires_at_ms: Option<u64>,
    /// As in [`Value`].
    pub version: Seq,
}

/// Looking up keys.
pub trait Lookup {
    /// What a look-up may fail with. It ends the command: the caller decides what it means.
    type Error;

    /// The stored value, past its expiry or not.
    ///
    /// # Errors
    /// The store's.
    fn get(&self, key: &[u8]) -> Result<Option<Value>, Self::Error>;

    /// As [`Lookup::get`] without the bytes; stores that can answer it cheaper override it.
    ///
    /// # Errors
    /// The store's.
    fn head(&self, key: &[u8]) -> Result<Option<Head>, Self::Error> {
        Ok(self.get(key)?.map(|value| value.head()))
    }

    /// Number of stored keys, exact; those past their expiry count until they are deleted.
    ///
    /// # Errors
    /// The store's.
    fn count(&self) -> Result<u64, Self::Error>;

    /// Highest position at which this key was removed, or any key that the store doesn't tell
    /// apart from it; `Seq::ZERO` if never. Coarse answers make a transaction that watches an
    /// absent key fail without need, never succeed wrongly. It is part of the replicated state:
    /// equal on all nodes.
    ///
    /// # Errors
    /// The store's.
    fn last_removal(&self, key: &[u8]) -> Result<Seq, Self::Error>;

    /// What is remembered of a write token.
    ///
    /// # Errors
    /// The store's.
    fn token(&self, token: &[u8]) -> Result<Option<TokenRecord>, Self::Error>;
}

/// Visiting keys in their order.
pub trait Visit: Lookup {
    /// Calls `visit` for each stored key at or after `from`, in the order of (position, key),
    /// from one point in time, until it breaks or the keys end.
    ///
    /// # Errors
    /// The store's.
    fn visit(
        &self,
        from: Position,
        visit: &mut dyn FnMut(&[u8], &Head) -> ControlFlow<()>,
    ) -> Result<(), Self::Error>;
}

/// The state that entries are applied to. Look-ups see everything put or deleted before.
pub trait Keyspace: Lookup {
    /// Stores a value. `replaced` is what [`Lookup::head`] says of this key now, so that a store
    /// can keep its count and its index of expiries without a second look-up.
    ///
    /// # Errors
    /// The store's.
    fn put(&mut self, key: &[u8], value: Value, replaced: Option<Head>) -> Result<(), Self::Error>;

    /// Deletes a stored key; `removed` is what [`Lookup::head`] says of it now. From here on
    /// [`Lookup::last_removal`] of it is at least `at`.
    ///
    /// # Errors
    /// The store's.
    fn delete(&mut self, key: &[u8], removed: Head, at: Seq) -> Result<(), Self::Error>;

    /// Deletes all keys. From here on [`Lookup::last_removal`] of every key is at least `at`.
    ///
    /// # Errors
    /// The store's.
    fn clear(&mut self, at: Seq) -> Result<(), Self::Error>;

    /// Remembers a token that isn't known. Of more than [`TOKENS_MAX`](super::TOKENS_MAX) the first
    /// in the order of (entry, token) is forgotten.
    ///
    /// # Errors
    /// The store's.
    fn put_token(&mut self, token: &[u8], record: TokenRecord) -> Result<(), Self::Error>;
}

impl Value {
    /// The value without its bytes.
    #[must_use]
    pub fn head(&self) -> Head {
        Head {
            bytes: self.data.len() as u64,
            expires_at_ms: self.expires_at_ms,
            version: self.version,
        }
    }
}

impl Head {
    /// Whether the key exists at this moment of cluster time. At the very millisecond of its
    /// expiry it still does.
    #[must_use]
    pub fn is_live(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_none_or(|at| now_ms <= at)
    }
}
