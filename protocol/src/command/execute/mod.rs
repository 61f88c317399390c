//! What commands do. The same payload, time and state give the same state and replies on every
//! node: nothing here reads a clock, a random source, a setting or the order of a hash map.
//!
//! A failed condition, a wrong argument or a value of the wrong form is a reply; only the store's
//! own failure ends an execution early, and then nothing that it did may be kept.

mod bits;
mod lcs;
mod read;
mod walk;
mod write;

use bytes::Bytes;
use thiserror::Error;

pub use read::execute_read;
pub use walk::execute_walk;
pub use write::execute_write;

use super::batch::{Batches, DecodeError};
use super::keyspace::{Keyspace, Lookup};
use super::model::{Exec, Once, Read, Seen, Step, Unit, Watched};
use super::token::TokenRecord;
use crate::resp::Reply;
use crate::types::Seq;

/// When commands run: fixed by the entry that they are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The entry's time, in milliseconds since 1970.
    pub now_ms: u64,
    /// The entry's position: the version of what it writes.
    pub seq: Seq,
}

/// Why a payload wasn't applied as a whole. None of it may be kept.
#[derive(Debug, Error)]
pub enum ApplyError<E> {
    /// It isn't what this version understands.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The store failed.
    #[error("{0}")]
    Store(E),
}

/// Applies the payload of a `Commands` entry. With `replies`, adds one for each unit; without,
/// skips what has no effect on the state.
pub fn apply_payload<K: Keyspace>(
    payload: &Bytes,
    at: Moment,
    keyspace: &mut K,
    mut replies: Option<&mut Vec<Reply>>,
) -> Result<(), ApplyError<K::Error>> {
    let mut budget = Budget::default();
    for batch in Batches::new(payload.clone()) {
        for unit in batch?.units() {
            let unit = unit?;
            if replies.is_none() && matches!(unit, Unit::Read(_)) {
                continue;
            }
            let reply = execute(&unit, at, keyspace, &mut budget).map_err(ApplyError::Store)?;
            if let Some(replies) = &mut replies {
                replies.push(reply);
            }
        }
    }
    Ok(())
}

/// Carries out one unit.
///
/// # Errors
/// The store's.
pub fn execute_unit<K: Keyspace>(
    unit: &Unit,
    at: Moment,
    keyspace: &mut K,
) -> Result<Reply, K::Error> {
    execute(unit, at, keyspace, &mut Budget::default())
}

/// What `WATCH` has to remember of a key, read from the state as of `applied`.
///
/// # Errors
/// The store's.
pub fn watch<L: Lookup>(
    key: Bytes,
    now_ms: u64,
    applied: Seq,
    lookup: &L,
) -> Result<Watched, L::Error> {
    let live = lookup.head(&key)?.filter(|head| head.is_live(now_ms));
    let seen = live.map_or(Seen::Absent(applied), |head| Seen::Version(head.version));
    Ok(Watched { key, seen })
}

/// Whether any watched key has changed since it was seen. A transaction without writes need not
/// go through the log: its connection asks this of the state that it reads from.
///
/// # Errors
/// The store's.
pub fn any_changed<L: Lookup>(
    watches: &[Watched],
    now_ms: u64,
    lookup: &L,
) -> Result<bool, L::Error> {
    for Watched { key, seen } in watches {
        let live = lookup.head(key)?.filter(|head| head.is_live(now_ms));
        let same = match (seen, live) {
            (Seen::Version(version), Some(head)) => head.version == *version,
            (Seen::Absent(seen_at), None) => lookup.last_removal(key)? <= *seen_at,
            (Seen::Version(_), None) | (Seen::Absent(_), Some(_)) => false,
        };
        if !same {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Bytes that the replies of one entry may take before its reads are refused. Pipelined reads of
/// large values would otherwise fill the memory with what no client has read yet.
const REPLY_BYTES_MAX: usize = 256 << 20;
const REPLY_TOO_LARGE: &str = "ERR the replies are too large, read less at once";

/// How much of [`REPLY_BYTES_MAX`] is used. It decides about replies only, never about the state.
#[derive(Default)]
struct Budget {
    bytes: usize,
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.bytes > REPLY_BYTES_MAX
    }

    fn spend(&mut self, reply: Reply) -> Reply {
        let data = |reply: &Reply| if let Reply::Bulk(data) = reply { data.len() } else { 0 };
        self.bytes += if let Reply::Array(items) = &reply {
            items.iter().map(data).sum()
        } else {
            data(&reply)
        };
        reply
    }
}

fn execute<K: Keyspace>(
    unit: &Unit,
    at: Moment,
    keyspace: &mut K,
    budget: &mut Budget,
) -> Result<Reply, K::Error> {
    match unit {
        Unit::Write(write) => execute_write(write, at, keyspace).map(|reply| budget.spend(reply)),
        Unit::Read(read) => execute_riding_read(read, at, keyspace, budget),
        Unit::Exec(exec) => execute_exec(exec, at, keyspace, budget),
        Unit::Once(once) => execute_once(once, at, keyspace).map(|reply| budget.spend(reply)),
    }
}

/// A write that failed on a condition of its own was carried out, too.
fn execute_once<K: Keyspace>(once: &Once, at: Moment, keyspace: &mut K) -> Result<Reply, K::Error> {
    if let Some(record) = keyspace.token(&once.token)? {
        return Ok(record.reply(at.now_ms));
    }
    // The reply becomes part of the state, so it must not depend on what else is answered here.
    let reply = execute(&once.unit, at, keyspace, &mut Budget::default())?;
    keyspace.put_token(&once.token, TokenRecord::new(at.now_ms, at.seq, &reply))?;
    Ok(reply)
}

fn execute_riding_read<K: Keyspace>(
    read: &Read,
    at: Moment,
    keyspace: &K,
    budget: &mut Budget,
) -> Result<Reply, K::Error> {
    if budget.is_spent() {
        return Ok(Reply::error(REPLY_TOO_LARGE));
    }
    execute_read(read, at.now_ms, keyspace).map(|reply| budget.spend(reply))
}

fn execute_exec<K: Keyspace>(
    exec: &Exec,
    at: Moment,
    keyspace: &mut K,
    budget: &mut Budget,
) -> Result<Reply, K::Error> {
    if any_changed(&exec.watches, at.now_ms, keyspace)? {
        return Ok(Reply::NullArray);
    }
    let mut replies = Vec::with_capacity(exec.steps.len());
    for step in &exec.steps {
        replies.push(match step {
            Step::Write(write) => {
                execute_write(write, at, keyspace).map(|reply| budget.spend(reply))?
            }
            Step::Read(read) => execute_riding_read(read, at, keyspace, budget)?,
        });
    }
    Ok(Reply::Array(replies))
}

#[cfg(test)]
mod tests;
