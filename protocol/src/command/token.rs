//! Write tokens: a write that carries one is carried out once, and a second one with the same token
//! gets the first one's reply.
//!
//! The table is part of the replicated state, so a record's bytes are a format:
//!
//! ```text
//!  0 time of the entry, in ms (8)   8 seq of the entry (8)   16 reply
//! reply: tag (1), then: text or bytes: length (4), bytes; integer, double: 8 bytes; array: count
//! (4), replies; map: count of pairs (4), replies. Numbers are little endian.
//! ```

use bytes::{Buf, BufMut, Bytes};

use crate::resp::Reply;
use crate::types::Seq;

/// Longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 128;

/// Tokens that are remembered: of more, the oldest are forgotten.
pub const TOKENS_MAX: u64 = 1_000_000;

/// How long a reply is repeated, in milliseconds of log time. A token that is older is known, and
/// its write is neither carried out nor answered.
pub const TOKEN_LIFE_MS: u64 = 3_600_000;

/// Longest reply that is kept, encoded: all tokens together take a few GB at most.
const REPLY_BYTES_MAX: usize = 4 << 10;

/// Depth of nested replies: a transaction, a read in it, its parts.
const DEPTH_MAX: usize = 8;

const EXPIRED: &str = "ERR token expired";
const TOO_LONG: &str =
    "ERR the write with this token was carried out; its reply is too long to repeat";

/// What is remembered of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// When the write was sealed, in milliseconds of cluster time.
    pub at_ms: u64,
    /// The entry that it is in.
    pub seq: Seq,
    /// What it was answered, encoded.
    reply: Bytes,
}

impl TokenRecord {
    /// Of a write that was just carried out.
    #[must_use]
    pub fn new(at_ms: u64, seq: Seq, reply: &Reply) -> Self {
        let mut out = Vec::new();
        put(&mut out, reply);
        if out.len() > REPLY_BYTES_MAX {
            out.clear();
            put(&mut out, &Reply::error(TOO_LONG));
        }
        Self { at_ms, seq, reply: out.into() }
    }

    /// Whether the reply is repeated at this moment.
    #[must_use]
    pub fn is_live(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.at_ms) <= TOKEN_LIFE_MS
    }

    /// What a second write with the token is answered.
    #[must_use]
    pub fn reply(&self, now_ms: u64) -> Reply {
        if !self.is_live(now_ms) {
            return Reply::error(EXPIRED);
        }
        take(&mut self.reply.clone(), 0).unwrap_or_else(|| Reply::error(EXPIRED))
    }

    /// Its bytes in the state.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + self.reply.len());
        bytes.put_u64_le(self.at_ms);
        bytes.put_u64_le(self.seq.0);
        bytes.extend_from_slice(&self.reply);
        bytes
    }

    /// Reads what `to_bytes` wrote; `None` for anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = Bytes::copy_from_slice(bytes);
        let at_ms = rest.try_get_u64_le().ok()?;
        let seq = Seq(rest.try_get_u64_le().ok()?);
        let mut reply = rest.clone();
        take(&mut reply, 0)?;
        reply.is_empty().then_some(Self { at_ms, seq, reply: rest })
    }
}

mod tag {
    pub(super) const SIMPLE: u8 = 1;
    pub(super) const ERROR: u8 = 2;
    pub(super) const INTEGER: u8 = 3;
    pub(super) const BULK: u8 = 4;
    pub(super) const NULL: u8 = 5;
    pub(super) const NULL_ARRAY: u8 = 6;
    pub(super) const ARRAY: u8 = 7;
    pub(super) const MAP: u8 = 8;
    pub(super) const DOUBLE: u8 = 9;
    pub(super) const BOOLEAN: u8 = 10;
}

fn put(out: &mut Vec<u8>, reply: &Reply) {
    let text = |out: &mut Vec<u8>, tag: u8, bytes: &[u8]| {
        out.put_u8(tag);
        out.put_u32_le(bytes.len() as u32);
        out.extend_from_slice(bytes);
    };
    let list = |out: &mut Vec<u8>, items: &[Reply]| {
        out.put_u8(tag::ARRAY);
        out.put_u32_le(items.len() as u32);
        for item in items {
            put(out, item);
        }
    };
    match reply {
        Reply::Simple(simple) => text(out, tag::SIMPLE, simple.as_bytes()),
        Reply::Error(error) => text(out, tag::ERROR, error.as_bytes()),
        Reply::Integer(number) => {
            out.put_u8(tag::INTEGER);
            out.put_i64_le(*number);
        }
        // No write is answered by the second one.
        Reply::Bulk(bytes) | Reply::Verbatim(_, bytes) => text(out, tag::BULK, bytes),
        Reply::Null => out.put_u8(tag::NULL),
        Reply::NullArray => out.put_u8(tag::NULL_ARRAY),
        // Nor by the last two.
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => list(out, items),
        Reply::Map(pairs) => {
            out.put_u8(tag::MAP);
            out.put_u32_le(pairs.len() as u32);
            for (key, value) in pairs {
                put(out, key);
                put(out, value);
            }
        }
        Reply::Double(number) => {
            out.put_u8(tag::DOUBLE);
            out.put_u64_le(number.to_bits());
        }
        Reply::Boolean(value) => {
            out.put_u8(tag::BOOLEAN);
            out.put_u8(u8::from(*value));
        }
    }
}

fn take(bytes: &mut Bytes, depth: usize) -> Option<Reply> {
    if depth > DEPTH_MAX {
        return None;
    }
    let text = |bytes: &mut Bytes| {
        let length = bytes.try_get_u32_le().ok()? as usize;
        (length <= bytes.len()).then(|| bytes.split_to(length))
    };
    let string = |bytes: &mut Bytes| String::from_utf8(text(bytes)?.to_vec()).ok();
    // Each takes a byte at least: a count that lies allocates nothing.
    let count = |bytes: &mut Bytes| {
        let count = bytes.try_get_u32_le().ok()? as usize;
        (count <= bytes.len()).then_some(count)
    };
    Some(match bytes.try_get_u8().ok()? {
        tag::SIMPLE => match string(bytes)? {
            ok if ok == "OK" => Reply::OK,
            other => Reply::simple(other),
        },
        tag::ERROR => Reply::Error(string(bytes)?.into()),
        tag::INTEGER => Reply::Integer(bytes.try_get_i64_le().ok()?),
        tag::BULK => Reply::Bulk(text(bytes)?),
        tag::NULL => Reply::Null,
        tag::NULL_ARRAY => Reply::NullArray,
        tag::ARRAY => {
            let items = (0..count(bytes)?).map(|_| take(bytes, depth + 1));
            Reply::Array(items.collect::<Option<_>>()?)
        }
        tag::MAP => {
            let pairs = (0..count(bytes)?)
                .map(|_| Some((take(bytes, depth + 1)?, take(bytes, depth + 1)?)));
            Reply::Map(pairs.collect::<Option<_>>()?)
        }
        tag::DOUBLE => Reply::Double(f64::from_bits(bytes.try_get_u64_le().ok()?)),
        tag::BOOLEAN => Reply::Boolean(match bytes.try_get_u8().ok()? {
            0 => false,
            1 => true,
            _ => return None,
        }),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies() -> Vec<Reply> {
        let bulk = |text: &'static str| Reply::Bulk(text.into());
        vec![
            Reply::OK,
            Reply::simple("QUEUED"),
            Reply::error("WRONGTYPE no"),
            Reply::Integer(-7),
            bulk(""),
            bulk("value"),
            Reply::Null,
            Reply::NullArray,
            Reply::Double(0.1),
            Reply::Boolean(true),
            Reply::Array(vec![Reply::OK, Reply::Array(vec![bulk("a"), Reply::Null])]),
            Reply::Map(vec![(bulk("k"), Reply::Integer(1))]),
        ]
    }

    #[test]
    fn records_round_trip_and_nothing_else_is_read() {
        for reply in replies() {
            let record = TokenRecord::new(77, Seq(9), &reply);
            let bytes = record.to_bytes();
            assert_eq!(TokenRecord::from_bytes(&bytes), Some(record.clone()), "{reply:?}");
            assert_eq!(record.reply(77), reply);
            for length in 0..bytes.len() {
                assert_eq!(TokenRecord::from_bytes(&bytes[..length]), None, "{reply:?}");
            }
            assert_eq!(TokenRecord::from_bytes(&[&bytes[..], &[0]].concat()), None);
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0xff;
                // Whatever it is taken for, nothing panics and nothing large is made.
                let _ = TokenRecord::from_bytes(&damaged);
            }
        }
    }

    #[test]
    fn a_record_has_these_bytes() {
        let record = TokenRecord::new(0x0102, Seq(3), &Reply::Integer(5));
        let mut golden = vec![2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 3];
        golden.extend_from_slice(&5_i64.to_le_bytes());
        assert_eq!(record.to_bytes(), golden);
    }

    #[test]
    fn a_reply_is_repeated_for_an_hour_and_not_if_it_is_long() {
        let record = TokenRecord::new(1_000, Seq(9), &Reply::OK);
        assert_eq!(record.reply(1_000 + TOKEN_LIFE_MS), Reply::OK);
        assert_eq!(record.reply(1_001 + TOKEN_LIFE_MS), Reply::error(EXPIRED));
        let long = Reply::Bulk(vec![b'x'; REPLY_BYTES_MAX].into());
        assert_eq!(TokenRecord::new(1, Seq(1), &long).reply(1), Reply::error(TOO_LONG));
    }
}
