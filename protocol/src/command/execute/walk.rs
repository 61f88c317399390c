//! Commands that visit many keys.
//!
//! # SCAN
//!
//! A cursor is the [`Position`] to go on from, so it needs no memory on the server, holds on
//! every node, and survives a failover. Keys are visited in the order of their positions, which
//! never change: a key that is there from the first call to the last is answered exactly once,
//! whatever else is written. Every call goes past at least one position, so a scan ends. Keys of
//! one position are answered by one call.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::command::glob;
use crate::command::keyspace::{Head, Visit};
use crate::command::model::Walk;
use crate::command::position::{Position, SLOTS};
use crate::resp::Reply;

/// Most keys that one call of `SCAN` looks at, whatever its `COUNT`.
const SCAN_KEYS_MAX: u64 = 10_000;
/// One call of `SCAN` ends after so many bytes of keys.
const SCAN_BYTES_MAX: usize = 1 << 20;
/// Most bytes of keys in the answer of `KEYS` and `CLUSTER GETKEYSINSLOT`.
const KEYS_BYTES_MAX: usize = 64 << 20;
/// Keys past their expiry that `RANDOMKEY` passes over before it gives up.
const RANDOM_KEYS_MAX: u32 = 1000;

const TOO_MANY_KEYS: &str = "ERR too many keys for one reply, use SCAN";

/// Answers a walk from the state at `now_ms`, in milliseconds since 1970. `random` decides what
/// `RANDOMKEY` answers.
///
/// # Errors
/// The store's.
pub fn execute_walk<V: Visit>(
    walk: &Walk,
    now_ms: u64,
    random: u64,
    state: &V,
) -> Result<Reply, V::Error> {
    match walk {
        Walk::Scan { cursor, pattern, count, strings } => {
            let limits = ScanLimits { cursor: *cursor, count: *count, strings: *strings };
            scan(limits, pattern.as_deref(), now_ms, state)
        }
        Walk::Keys { pattern } => keys(pattern, now_ms, state),
        Walk::RandomKey => random_key(random, now_ms, state),
        Walk::CountKeysInSlot { slot } => {
            let mut count = 0;
            visit_slot(*slot, now_ms, state, &mut |_| {
                count += 1;
                ControlFlow::Continue(())
            })?;
            Ok(Reply::Integer(count))
        }
        Walk::GetKeysInSlot { slot, count } => {
            let mut found = Found::default();
            visit_slot(*slot, now_ms, state, &mut |key| {
                if found.keys.len() as u64 >= *count {
                    return ControlFlow::Break(());
                }
                found.add(key)
            })?;
            Ok(found.reply())
        }
    }
}

struct ScanLimits {
    cursor: u64,
    count: u64,
    strings: bool,
}

fn scan<V: Visit>(
    limits: ScanLimits,
    pattern: Option<&[u8]>,
    now_ms: u64,
    state: &V,
) -> Result<Reply, V::Error> {
    let count = limits.count.clamp(1, SCAN_KEYS_MAX);
    let (mut seen, mut bytes, mut last, mut next) = (0, 0, None, 0);
    let mut keys = Vec::new();
    state.visit(Position::from_cursor(limits.cursor), &mut |key, head| {
        let position = Position::of(key);
        if let Some(last) = last
            && (seen >= count || bytes >= SCAN_BYTES_MAX)
            && position != last
        {
            next = last.cursor_after();
            return ControlFlow::Break(());
        }
        last = Some(position);
        seen += 1;
        let matches = limits.strings
            && head.is_live(now_ms)
            && pattern.is_none_or(|pattern| glob::matches(pattern, key));
        if matches {
            bytes += key.len();
            keys.push(Reply::Bulk(Bytes::copy_from_slice(key)));
        }
        ControlFlow::Continue(())
    })?;
    Ok(Reply::Array(vec![Reply::bulk(next.to_string()), Reply::Array(keys)]))
}

fn keys<V: Visit>(pattern: &[u8], now_ms: u64, state: &V) -> Result<Reply, V::Error> {
    let mut found = Found::default();
    state.visit(Position::FIRST, &mut |key, head: &Head| {
        if head.is_live(now_ms) && glob::matches(pattern, key) {
            return found.add(key);
        }
        ControlFlow::Continue(())
    })?;
    Ok(found.reply())
}

/// The first live key after a random place, around the end.
fn random_key<V: Visit>(random: u64, now_ms: u64, state: &V) -> Result<Reply, V::Error> {
    let mut passed = 0;
    for from in [Position::random(random), Position::FIRST] {
        let mut found = None;
        state.visit(from, &mut |key, head| {
            if head.is_live(now_ms) {
                found = Some(Bytes::copy_from_slice(key));
                return ControlFlow::Break(());
            }
            passed += 1;
            if passed < RANDOM_KEYS_MAX {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        if let Some(key) = found {
            return Ok(Reply::Bulk(key));
        }
    }
    Ok(Reply::Null)
}

fn visit_slot<V: Visit>(
    slot: u16,
    now_ms: u64,
    state: &V,
    found: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(), V::Error> {
    if slot >= SLOTS {
        return Ok(());
    }
    let end = Position::of_slot(slot + 1);
    state.visit(Position::of_slot(slot), &mut |key, head| {
        if Position::of(key) >= end {
            return ControlFlow::Break(());
        }
        if head.is_live(now_ms) { found(key) } else { ControlFlow::Continue(()) }
    })
}

#[derive(Default)]
struct Found {
    keys: Vec<Reply>,
    bytes: usize,
}

impl Found {
    fn add(&mut self, key: &[u8]) -> ControlFlow<()> {
        self.bytes += key.len();
        if self.bytes > KEYS_BYTES_MAX {
            return ControlFlow::Break(());
        }
        self.keys.push(Reply::Bulk(Bytes::copy_from_slice(key)));
        ControlFlow::Continue(())
    }

    fn reply(self) -> Reply {
        if self.bytes > KEYS_BYTES_MAX {
            return Reply::error(TOO_MANY_KEYS);
        }
        Reply::Array(self.keys)
    }
}
