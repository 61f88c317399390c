//! A keyspace in memory: the model that stores are tested against.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::ControlFlow;

use super::keyspace::{Head, Keyspace, Lookup, Value, Visit};
use super::position::Position;
use super::token::{TOKENS_MAX, TokenRecord};
use crate::types::Seq;

/// Keys and values in a `BTreeMap`. Everything it answers is exact but removals, of which it
/// keeps only the latest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryKeyspace {
    values: BTreeMap<(Position, Vec<u8>), Value>,
    last_removal: Seq,
    tokens: BTreeMap<Vec<u8>, TokenRecord>,
}

impl MemoryKeyspace {
    /// All stored keys and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Value)> {
        self.values.iter().map(|((_, key), value)| (key.as_slice(), value))
    }
}

impl Lookup for MemoryKeyspace {
    type Error = Infallible;

    fn get(&self, key: &[u8]) -> Result<Option<Value>, Infallible> {
        Ok(self.values.get(&place(key)).cloned())
    }

    fn count(&self) -> Result<u64, Infallible> {
        Ok(self.values.len() as u64)
    }

    fn last_removal(&self, _key: &[u8]) -> Result<Seq, Infallible> {
        Ok(self.last_removal)
    }

    fn token(&self, token: &[u8]) -> Result<Option<TokenRecord>, Infallible> {
        Ok(self.tokens.get(token).cloned())
    }
}

impl Visit for MemoryKeyspace {
    fn visit(
        &self,
        from: Position,
        visit: &mut dyn FnMut(&[u8], &Head) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        for ((_, key), value) in self.values.range((from, Vec::new())..) {
            if visit(key, &value.head()).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Keyspace for MemoryKeyspace {
    fn put(&mut self, key: &[u8], value: Value, replaced: Option<Head>) -> Result<(), Infallible> {
        let old = self.values.insert(place(key), value);
        assert_eq!(old.map(|value| value.head()), replaced, "put was told the truth");
        Ok(())
    }

    fn delete(&mut self, key: &[u8], removed: Head, at: Seq) -> Result<(), Infallible> {
        let old = self.values.remove(&place(key));
        assert_eq!(old.map(|value| value.head()), Some(removed), "delete was told the truth");
        self.last_removal = at;
        Ok(())
    }

    fn clear(&mut self, at: Seq) -> Result<(), Infallible> {
        self.values.clear();
        self.last_removal = at;
        Ok(())
    }

    fn put_token(&mut self, token: &[u8], record: TokenRecord) -> Result<(), Infallible> {
        let known = self.tokens.insert(token.to_vec(), record);
        assert_eq!(known, None, "a token is put once");
        if self.tokens.len() as u64 > TOKENS_MAX {
            let age = |(token, record): &(&Vec<u8>, &TokenRecord)| (record.seq, (*token).clone());
            let first = self.tokens.iter().min_by_key(age).map(|(token, _)| token.clone());
            first.and_then(|token| self.tokens.remove(&token));
        }
        Ok(())
    }
}

fn place(key: &[u8]) -> (Position, Vec<u8>) {
    (Position::of(key), key.to_vec())
}
