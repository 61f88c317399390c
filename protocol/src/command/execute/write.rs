//! Commands that change the keyspace.

use bytes::{Bytes, BytesMut};

use super::{Moment, bits};
use crate::command::VALUE_BYTES_MAX;
use crate::command::decimal::Decimal;
use crate::command::keyspace::{Head, Keyspace, Value};
use crate::command::model::{
    ExpireConditions, GetExExpiry, Set, SetCondition, SetExpiry, When, Write,
};
use crate::command::number::{format_i64, parse_i64};
use crate::resp::Reply;

pub(super) const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
const NOT_A_FLOAT: &str = "ERR value is not a valid float";
const OVERFLOW: &str = "ERR increment or decrement would overflow";
const NOT_FINITE: &str = "ERR increment would produce NaN or Infinity";
pub(super) const TOO_LONG: &str = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
const NO_SUCH_KEY: &str = "ERR no such key";

/// Carries out one write.
///
/// # Errors
/// The store's.
pub fn execute_write<K: Keyspace>(
    write: &Write,
    at: Moment,
    keyspace: &mut K,
) -> Result<Reply, K::Error> {
    let mut scene = Scene { at, keyspace };
    match write {
        Write::Set(set) => scene.set(set),
        Write::SetNx { key, value } => scene.set_nx(key, value),
        Write::MSet { pairs, only_if_none } => scene.set_many(pairs, *only_if_none),
        Write::GetDel { key } => scene.get_del(key),
        Write::GetEx { key, expiry } => scene.get_ex(key, *expiry),
        Write::Append { key, value } => scene.append(key, value),
        Write::SetRange { key, offset, value } => scene.set_range(key, *offset, value),
        Write::IncrBy { key, delta } => scene.incr_by(key, *delta),
        Write::IncrByFloat { key, delta } => scene.incr_by_float(key, delta),
        Write::Del { keys } => scene.del(keys),
        Write::DelIfEq { key, value } => scene.del_if_eq(key, value),
        Write::Expire { key, when, condition } => scene.expire(key, *when, *condition),
        Write::Persist { key } => scene.persist(key),
        Write::FlushAll => {
            keyspace.clear(at.seq)?;
            Ok(Reply::OK)
        }
        Write::Rename { from, to, only_if_none } => scene.rename(from, to, *only_if_none),
        Write::Copy { from, to, replace } => scene.copy(from, to, *replace),
        Write::SetBit { key, offset, bit } => bits::set_bit(&mut scene, key, *offset, *bit),
        Write::BitOp { operation, to, from } => bits::bit_op(&mut scene, *operation, to, from),
    }
}

/// A keyspace at a moment.
pub(super) struct Scene<'a, K> {
    pub(super) at: Moment,
    pub(super) keyspace: &'a mut K,
}

/// What is stored under a key, and what commands may see of it.
pub(super) struct Found {
    /// Past its expiry or not.
    pub(super) stored: Option<Head>,
    /// `None` if past its expiry.
    pub(super) live: Option<Value>,
}

impl Found {
    pub(super) fn expires_at_ms(&self) -> Option<u64> {
        self.live.as_ref().and_then(|value| value.expires_at_ms)
    }

    /// The bytes; empty if there is no value.
    pub(super) fn data(&self) -> &[u8] {
        self.live.as_ref().map_or(&[], |value| &value.data)
    }

    fn reply(self) -> Reply {
        self.live.map_or(Reply::Null, |value| Reply::Bulk(value.data))
    }
}

impl<K: Keyspace> Scene<'_, K> {
    fn set(&mut self, set: &Set) -> Result<Reply, K::Error> {
        let needs_value = set.get || matches!(set.condition, SetCondition::IfEqual(_));
        let found = if needs_value { self.find(&set.key)? } else { self.find_head(&set.key)? };
        let write = match &set.condition {
            SetCondition::Always => true,
            SetCondition::IfNone => found.live.is_none(),
            SetCondition::IfSome => found.live.is_some(),
            SetCondition::IfEqual(value) => {
                found.live.as_ref().is_some_and(|live| live.data == *value)
            }
        };
        if write {
            let expires_at_ms = match set.expiry {
                SetExpiry::None => None,
                SetExpiry::Keep => found.expires_at_ms(),
                SetExpiry::At(when) => Some(self.millis(when)),
            };
            self.store(&set.key, set.value.clone(), expires_at_ms, found.stored)?;
        }
        Ok(match (set.get, write) {
            (true, _) => found.reply(),
            (false, true) => Reply::OK,
            (false, false) => Reply::Null,
        })
    }

    fn set_nx(&mut self, key: &Bytes, value: &Bytes) -> Result<Reply, K::Error> {
        let found = self.find_head(key)?;
        if found.live.is_some() {
            return Ok(Reply::Integer(0));
        }
        self.store(key, value.clone(), None, found.stored)?;
        Ok(Reply::Integer(1))
    }

    fn set_many(
        &mut self,
        pairs: &[(Bytes, Bytes)],
        only_if_none: bool,
    ) -> Result<Reply, K::Error> {
        if only_if_none {
            for (key, _) in pairs {
                if self.find_head(key)?.live.is_some() {
                    return Ok(Reply::Integer(0));
                }
            }
        }
        for (key, value) in pairs {
            let stored = self.keyspace.head(key)?;
            self.store(key, value.clone(), None, stored)?;
        }
        Ok(if only_if_none { Reply::Integer(1) } else { Reply::OK })
    }

    fn get_del(&mut self, key: &Bytes) -> Result<Reply, K::Error> {
        let found = self.find(key)?;
        if let (Some(stored), Some(_)) = (found.stored, &found.live) {
            self.keyspace.delete(key, stored, self.at.seq)?;
        }
        Ok(found.reply())
    }

    fn get_ex(&mut self, key: &Bytes, expiry: GetExExpiry) -> Result<Reply, K::Error> {
        let found = self.find(key)?;
        if let Some(value) = found.live.clone() {
            match expiry {
                GetExExpiry::Keep => {}
                GetExExpiry::Remove if value.expires_at_ms.is_none() => {}
                GetExExpiry::Remove => self.store(key, value.data, None, found.stored)?,
                GetExExpiry::At(when) => self.expire_at(key, value, when, found.stored)?,
            }
        }
        Ok(found.reply())
    }

    fn append(&mut self, key: &Bytes, tail: &Bytes) -> Result<Reply, K::Error> {
        let found = self.find(key)?;
        let len = found.data().len() + tail.len();
        if len > VALUE_BYTES_MAX {
            return Ok(Reply::error(TOO_LONG));
        }
        let data = if found.data().is_empty() {
            tail.clone()
        } else {
            let mut data = BytesMut::with_capacity(len);
            data.extend_from_slice(found.data());
            data.extend_from_slice(tail);
            data.freeze()
        };
        self.store(key, data, found.expires_at_ms(), found.stored)?;
        Ok(Reply::Integer(len as i64))
    }

    fn set_range(&mut self, key: &Bytes, offset: u64, part: &Bytes) -> Result<Reply, K::Error> {
        let found = self.find(key)?;
        let len = found.data().len();
        if part.is_empty() {
            return Ok(Reply::Integer(len as i64));
        }
        let end = offset.saturating_add(part.len() as u64);
        if end > VALUE_BYTES_MAX as u64 {
            return Ok(Reply::error(TOO_LONG));
        }
        let (offset, end) = (offset as usize, end as usize);
        let mut data = BytesMut::zeroed(len.max(end));
        data[..len].copy_from_slice(found.data());
        data[offset..end].copy_from_slice(part);
        let len = data.len();
        self.store(key, data.freeze(), found.expires_at_ms(), found.stored)?;
        Ok(Reply::Integer(len as i64))
    }

    fn incr_by(&mut self, key: &Bytes, delta: i64) -> Result<Reply, K::Error> {
        let found = self.find(key)?;
        let old = match &found.live {
            None => Some(0),
            Some(value) => parse_i64(&value.data),
        };
        let Some(old) = old else { return Ok(Reply::error(NOT_AN_INTEGER)) };
        let Some(new) = old.checked_add(delta) else { return Ok(Reply::error(OVERFLOW)) };
        self.store(key, format_i64(new), found.expires_at_ms(), found.stored)?;
        Ok(Reply::Integer(new))
    }

    fn incr_by_float(&mut self, key: &Bytes, delta: &Bytes) -> Result<Reply, K::Error> {
        let found = self.find(key)?;
        let old = match &found.live {
            None => Some(Decimal::ZERO),
            Some(value) => Decimal::parse(&value.data),
        };
        let infinite = Decimal::is_infinity(found.data()) || Decimal::is_infinity(delta);
        let (Some(old), Some(delta)) = (old, Decimal::parse(delta)) else {
            return Ok(Reply::error(if infinite { NOT_FINITE } else { NOT_A_FLOAT }));
        };
        let Some(new) = old.plus(&delta) else { return Ok(Reply::error(NOT_FINITE)) };
        let new = Bytes::from(new.to_string());
        self.store(key, new.clone(), found.expires_at_ms(), found.stored)?;
        Ok(Reply::Bulk(new))
    }

    fn del(&mut self, keys: &[Bytes]) -> Result<Reply, K::Error> {
        let mut deleted = 0;
        for key in keys {
            let head = self.keyspace.head(key)?.filter(|head| head.is_live(self.at.now_ms));
            if let Some(head) = head {
                self.keyspace.delete(key, head, self.at.seq)?;
                deleted += 1;
            }
        }
        Ok(Reply::Integer(deleted))
    }

    fn del_if_eq(&mut self, key: &Bytes, value: &Bytes) -> Result<Reply, K::Error> {
        let found = self.find(key)?;
        match (found.stored, found.live) {
            (Some(stored), Some(live)) if live.data == *value => {
                self.keyspace.delete(key, stored, self.at.seq)?;
                Ok(Reply::Integer(1))
            }
            _ => Ok(Reply::Integer(0)),
        }
    }

    fn expire(
        &mut self,
        key: &Bytes,
        when: When,
        condition: ExpireConditions,
    ) -> Result<Reply, K::Error> {
        let found = self.find(key)?;
        let stored = found.stored;
        let Some(value) = found.live else { return Ok(Reply::Integer(0)) };
        let new = self.millis(when);
        let allowed = match value.expires_at_ms {
            None => !condition.xx && !condition.gt,
            Some(old) => {
                let too_early = condition.gt && new <= old;
                let too_late = condition.lt && new >= old;
                !condition.nx && !too_early && !too_late
            }
        };
        if allowed {
            self.expire_at(key, value, when, stored)?;
        }
        Ok(Reply::Integer(i64::from(allowed)))
    }

    fn persist(&mut self, key: &Bytes) -> Result<Reply, K::Error> {
        let found = self.find(key)?;
        match found.live {
            Some(value) if value.expires_at_ms.is_some() => {
                self.store(key, value.data, None, found.stored)?;
                Ok(Reply::Integer(1))
            }
            _ => Ok(Reply::Integer(0)),
        }
    }

    fn rename(&mut self, from: &Bytes, to: &Bytes, only_if_none: bool) -> Result<Reply, K::Error> {
        let source = self.find(from)?;
        let (Some(stored), Some(value)) = (source.stored, source.live) else {
            return Ok(Reply::error(NO_SUCH_KEY));
        };
        if from == to {
            return Ok(if only_if_none { Reply::Integer(0) } else { Reply::OK });
        }
        let target = self.find_head(to)?;
        if only_if_none && target.live.is_some() {
            return Ok(Reply::Integer(0));
        }
        self.keyspace.delete(from, stored, self.at.seq)?;
        self.store(to, value.data, value.expires_at_ms, target.stored)?;
        Ok(if only_if_none { Reply::Integer(1) } else { Reply::OK })
    }

    fn copy(&mut self, from: &Bytes, to: &Bytes, replace: bool) -> Result<Reply, K::Error> {
        let Some(value) = self.find(from)?.live else { return Ok(Reply::Integer(0)) };
        let target = self.find_head(to)?;
        if target.live.is_some() && !replace {
            return Ok(Reply::Integer(0));
        }
        self.store(to, value.data, value.expires_at_ms, target.stored)?;
        Ok(Reply::Integer(1))
    }

    /// Looks a key up with its bytes.
    pub(super) fn find(&self, key: &[u8]) -> Result<Found, K::Error> {
        let value = self.keyspace.get(key)?;
        let stored = value.as_ref().map(Value::head);
        let live = value.filter(|_| stored.is_some_and(|head| head.is_live(self.at.now_ms)));
        Ok(Found { stored, live })
    }

    /// As [`Scene::find`], but a live value comes without its bytes.
    fn find_head(&self, key: &[u8]) -> Result<Found, K::Error> {
        let stored = self.keyspace.head(key)?;
        let live = stored.filter(|head| head.is_live(self.at.now_ms)).map(|head| Value {
            data: Bytes::new(),
            expires_at_ms: head.expires_at_ms,
            version: head.version,
        });
        Ok(Found { stored, live })
    }

    /// Stores a value; one that is past its expiry already is deleted instead.
    pub(super) fn store(
        &mut self,
        key: &[u8],
        data: Bytes,
        expires_at_ms: Option<u64>,
        stored: Option<Head>,
    ) -> Result<(), K::Error> {
        let value = Value { data, expires_at_ms, version: self.at.seq };
        if value.head().is_live(self.at.now_ms) {
            return self.keyspace.put(key, value, stored);
        }
        match stored {
            Some(stored) => self.keyspace.delete(key, stored, self.at.seq),
            None => Ok(()),
        }
    }

    /// Gives a live value an expiry; at or before now deletes it.
    fn expire_at(
        &mut self,
        key: &[u8],
        value: Value,
        when: When,
        stored: Option<Head>,
    ) -> Result<(), K::Error> {
        let at_ms = self.millis(when);
        match stored {
            Some(stored) if at_ms <= self.at.now_ms => {
                self.keyspace.delete(key, stored, self.at.seq)
            }
            stored => self.store(key, value.data, Some(at_ms), stored),
        }
    }

    /// The moment in milliseconds since 1970; before that is 0.
    fn millis(&self, when: When) -> u64 {
        match when {
            When::After(millis) => self.at.now_ms.saturating_add_signed(millis),
            When::At(millis) => u64::try_from(millis).unwrap_or(0),
        }
    }
}
