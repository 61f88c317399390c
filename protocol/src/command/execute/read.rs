//! Commands that read single keys.

use bytes::Bytes;

use super::{REPLY_BYTES_MAX, REPLY_TOO_LARGE, bits, lcs};
use crate::command::keyspace::{Lookup, Value};
use crate::command::model::{ObjectProperty, Read, TtlForm};
use crate::command::number::parse_i64;
use crate::resp::Reply;

const NO_LFU: &str = "ERR An LFU maxmemory policy is not selected, access frequency not tracked. \
    Please note that when switching between policies at runtime LRU and LFU data will take some \
    time to adjust.";
const WALK_IN_TRANSACTION: &str = "ERR Command not allowed inside a transaction";

/// Longest value that Redis stores within its object.
const EMBEDDED_BYTES_MAX: usize = 44;
/// What a key costs beside its own and its value's bytes: header, position, index.
const KEY_OVERHEAD_BYTES: u64 = 40;

/// Answers a read from the state at `now_ms`, in milliseconds since 1970.
///
/// A [`Read::Walk`] isn't a read of single keys: it is answered by
/// [`super::execute_walk`], and here by an error.
///
/// # Errors
/// The store's.
pub fn execute_read<L: Lookup>(read: &Read, now_ms: u64, lookup: &L) -> Result<Reply, L::Error> {
    let view = View { now_ms, lookup };
    match read {
        Read::Get { key } => view.get(key),
        Read::MGet { keys } => view.get_many(keys),
        Read::StrLen { key } => view.str_len(key),
        Read::GetRange { key, start, end } => view.get_range(key, *start, *end),
        Read::Exists { keys } => view.exists(keys),
        Read::Type { key } => Ok(Reply::simple(if view.is_live(key)? { "string" } else { "none" })),
        Read::Ttl { key, form } => view.ttl(key, *form),
        Read::Object { key, property } => view.object(key, *property),
        Read::MemoryUsage { key } => view.memory_usage(key),
        Read::DbSize => Ok(Reply::Integer(lookup.count()? as i64)),
        Read::GetBit { key, offset } => {
            Ok(bits::get_bit(&view.data(key)?.unwrap_or_default(), *offset))
        }
        Read::BitCount { key, range } => {
            Ok(bits::bit_count(&view.data(key)?.unwrap_or_default(), *range))
        }
        Read::BitPos { key, bit, range, end_given } => {
            Ok(bits::bit_pos(view.data(key)?.as_deref(), *bit, *range, *end_given))
        }
        Read::Lcs(query) => {
            let first = view.data(&query.first)?.unwrap_or_default();
            let second = view.data(&query.second)?.unwrap_or_default();
            Ok(lcs::lcs(query, &first, &second))
        }
        Read::Walk(_) => Ok(Reply::error(WALK_IN_TRANSACTION)),
    }
}

struct View<'a, L> {
    now_ms: u64,
    lookup: &'a L,
}

impl<L: Lookup> View<'_, L> {
    fn get(&self, key: &[u8]) -> Result<Reply, L::Error> {
        Ok(self.data(key)?.map_or(Reply::Null, Reply::Bulk))
    }

    fn get_many(&self, keys: &[Bytes]) -> Result<Reply, L::Error> {
        let mut bytes = 0;
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            let value = self.data(key)?;
            bytes += value.as_ref().map_or(0, Bytes::len);
            if bytes > REPLY_BYTES_MAX {
                return Ok(Reply::error(REPLY_TOO_LARGE));
            }
            values.push(value.map_or(Reply::Null, Reply::Bulk));
        }
        Ok(Reply::Array(values))
    }

    fn str_len(&self, key: &[u8]) -> Result<Reply, L::Error> {
        let head = self.lookup.head(key)?.filter(|head| head.is_live(self.now_ms));
        Ok(Reply::Integer(head.map_or(0, |head| head.bytes as i64)))
    }

    fn get_range(&self, key: &[u8], start: i64, end: i64) -> Result<Reply, L::Error> {
        let data = self.data(key)?.unwrap_or_default();
        if start < 0 && end < 0 && start > end {
            return Ok(Reply::Bulk(Bytes::new()));
        }
        Ok(Reply::Bulk(match bounds(start, end, data.len()) {
            None => Bytes::new(),
            Some((first, last)) => data.slice(first..=last),
        }))
    }

    fn exists(&self, keys: &[Bytes]) -> Result<Reply, L::Error> {
        let mut count = 0;
        for key in keys {
            count += i64::from(self.is_live(key)?);
        }
        Ok(Reply::Integer(count))
    }

    fn ttl(&self, key: &[u8], form: TtlForm) -> Result<Reply, L::Error> {
        let head = self.lookup.head(key)?.filter(|head| head.is_live(self.now_ms));
        Ok(Reply::Integer(match head.map(|head| head.expires_at_ms) {
            None => -2,
            Some(None) => -1,
            Some(Some(at)) => {
                let left = at.saturating_sub(self.now_ms);
                let answer = match form {
                    TtlForm::Seconds => left.saturating_add(500) / 1000,
                    TtlForm::Millis => left,
                    TtlForm::AtSeconds => at.saturating_add(500) / 1000,
                    TtlForm::AtMillis => at,
                };
                i64::try_from(answer).unwrap_or(i64::MAX)
            }
        }))
    }

    fn object(&self, key: &[u8], property: ObjectProperty) -> Result<Reply, L::Error> {
        let Some(data) = self.data(key)? else { return Ok(Reply::Null) };
        Ok(match property {
            ObjectProperty::Encoding if parse_i64(&data).is_some() => Reply::bulk("int"),
            ObjectProperty::Encoding if data.len() <= EMBEDDED_BYTES_MAX => Reply::bulk("embstr"),
            ObjectProperty::Encoding => Reply::bulk("raw"),
            ObjectProperty::RefCount => Reply::Integer(1),
            ObjectProperty::IdleTime => Reply::Integer(0),
            ObjectProperty::Frequency => Reply::error(NO_LFU),
        })
    }

    fn memory_usage(&self, key: &[u8]) -> Result<Reply, L::Error> {
        let head = self.lookup.head(key)?.filter(|head| head.is_live(self.now_ms));
        Ok(head.map_or(Reply::Null, |head| {
            Reply::Integer((key.len() as u64 + head.bytes + KEY_OVERHEAD_BYTES) as i64)
        }))
    }

    fn data(&self, key: &[u8]) -> Result<Option<Bytes>, L::Error> {
        let live = |value: &Value| value.head().is_live(self.now_ms);
        Ok(self.lookup.get(key)?.filter(live).map(|value| value.data))
    }

    fn is_live(&self, key: &[u8]) -> Result<bool, L::Error> {
        Ok(self.lookup.head(key)?.is_some_and(|head| head.is_live(self.now_ms)))
    }
}

/// First and last index of a range whose ends may be negative, counted from the end; `None` if it
/// is empty.
pub(super) fn bounds(start: i64, end: i64, len: usize) -> Option<(usize, usize)> {
    let len = len as i64;
    let from_end = |at: i64| if at < 0 { at.saturating_add(len).max(0) } else { at };
    let (start, end) = (from_end(start), from_end(end).min(len - 1));
    (start <= end && len > 0).then_some((start as usize, end as usize))
}
