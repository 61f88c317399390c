//! What clients asked for, what they were told, and what came of it.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use quorate_protocol::resp::Reply;
use quorate_protocol::types::{EntryId, Seq};

use super::session::KEYS;
use crate::history::{Condition, Operation, Outcome, RegisterHistory};
use crate::resp::Value;
use crate::sim::ledger::Ledger;

/// Places that one entry takes in the order of operations.
const ENTRY_PLACES: u64 = 1 << 20;

fn key_name(key: usize) -> String {
    format!("key:{key}")
}

/// One command that a client sent once; a repetition is another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::sim) struct AttemptId(pub(in crate::sim) usize);

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command {}", self.0)
    }
}

/// What a command does to its key. Values are unique; increments don't lead from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum Ask {
    /// `GET`
    Get,
    /// `SET`
    Set(u64),
    /// `SET … NX`, `XX` or `IFEQ`
    SetIf(Condition, u64),
    /// `INCR`
    Increment,
    /// `DEL`
    Delete,
}

impl Ask {
    /// Whether it may change the key.
    pub(in crate::sim) fn writes(self) -> bool {
        self != Self::Get
    }

    /// The command as a client sends it.
    pub(in crate::sim) fn request(self, key: usize, out: &mut Vec<u8>) {
        let key = key_name(key);
        let parts: Vec<String> = match self {
            Self::Get => vec!["GET".into(), key],
            Self::Set(value) => vec!["SET".into(), key, value.to_string()],
            Self::SetIf(Condition::Absent, value) => {
                vec!["SET".into(), key, value.to_string(), "NX".into()]
            }
            Self::SetIf(Condition::Present, value) => {
                vec!["SET".into(), key, value.to_string(), "XX".into()]
            }
            Self::SetIf(Condition::Equals(held), value) => {
                vec!["SET".into(), key, value.to_string(), "IFEQ".into(), held.to_string()]
            }
            Self::Increment => vec!["INCR".into(), key],
            Self::Delete => vec!["DEL".into(), key],
        };
        out.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
        for part in parts {
            out.extend_from_slice(format!("${}\r\n{part}\r\n", part.len()).as_bytes());
        }
    }

    /// The operation with what it returned; `None` for a reply that no such command has.
    fn completed(self, reply: &Value) -> Option<Operation> {
        let stored = |reply: &Value| match reply {
            Value::Simple(text) if text == "OK" => Some(true),
            reply if reply.is_null() => Some(false),
            _ => None,
        };
        match (self, reply) {
            (Self::Get, reply) if reply.is_null() => Some(Operation::Read(None)),
            (Self::Get, reply) => {
                let text = std::str::from_utf8(reply.bytes()?).ok()?;
                Some(Operation::Read(Some(text.parse().ok()?)))
            }
            (Self::Set(value), reply) => stored(reply)?.then_some(Operation::Write(value)),
            (Self::SetIf(condition, value), reply) => {
                Some(Operation::WriteIf(condition, value, Some(stored(reply)?)))
            }
            (Self::Increment, Value::Integer(sum)) => {
                Some(Operation::Increment(Some(u64::try_from(*sum).ok()?)))
            }
            (Self::Delete, Value::Integer(count)) => Some(Operation::Delete(Some(*count == 1))),
            (Self::Increment | Self::Delete, _) => None,
        }
    }

    /// The operation without a reply.
    fn unknown(self) -> Operation {
        match self {
            Self::Get => Operation::Read(None),
            Self::Set(value) => Operation::Write(value),
            Self::SetIf(condition, value) => Operation::WriteIf(condition, value, None),
            Self::Increment => Operation::Increment(None),
            Self::Delete => Operation::Delete(None),
        }
    }
}

/// How a node answered.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::sim) enum Answer {
    /// A write, or a read behind one, in a committed entry.
    Done {
        /// The entry.
        id: EntryId,
        /// The command's place in it.
        index: u32,
        /// What it came to.
        reply: Reply,
    },
    /// A read of the state.
    Read {
        /// The state's position.
        at: Seq,
        /// What it came to.
        reply: Reply,
    },
    /// It may have happened.
    InDoubt {
        /// The entry that holds it.
        id: EntryId,
        /// The command's place in it.
        index: u32,
        /// Why nobody knows.
        reason: &'static str,
    },
    /// It certainly did not happen.
    Refused(String),
}

impl Answer {
    /// As it goes to the client.
    pub(in crate::sim) fn to_reply(&self) -> Reply {
        match self {
            Self::Done { reply, .. } | Self::Read { reply, .. } => reply.clone(),
            Self::InDoubt { id, index, reason } => Reply::error(format!(
                "INDOUBT epoch={} seq={} index={index} reason={reason}",
                id.epoch, id.seq
            )),
            Self::Refused(text) => Reply::error(text.clone()),
        }
    }
}

/// An attempt and its fate.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Attempt {
    /// Over which connection.
    pub(in crate::sim) connection: u64,
    /// Which key.
    pub(in crate::sim) key: usize,
    /// What for.
    pub(in crate::sim) ask: Ask,
    /// When the client sent it, in microseconds.
    pub(in crate::sim) began_us: u64,
    /// The entry that holds it, and its place there.
    pub(in crate::sim) sealed: Option<(EntryId, u32)>,
    /// What the node answered.
    pub(in crate::sim) answer: Option<Answer>,
    /// When the client heard the answer, and how it took it.
    pub(in crate::sim) heard: Option<(u64, Outcome)>,
}

impl Attempt {
    /// Where it stands in the order of the log.
    fn place(&self) -> u64 {
        match (&self.answer, self.sealed) {
            (Some(Answer::Read { at, .. }), _) => at.next().0 * ENTRY_PLACES - 1,
            (_, Some((id, index))) => id.seq.0 * ENTRY_PLACES + u64::from(index),
            (_, None) => self.began_us,
        }
    }
}

/// All attempts of a run, in the order of their sending.
#[derive(Clone, Debug, Default)]
pub(in crate::sim) struct Record {
    attempts: Vec<Attempt>,
    restart: Option<Restart>,
}

/// A lossy recovery: what was acknowledged before may be gone, by an operator's word (S12).
#[derive(Clone, Copy, Debug)]
struct Restart {
    /// Attempts that came before.
    attempts: usize,
    at_us: u64,
    /// What was left of the committed log ended here.
    through: Seq,
    /// What the keys held there.
    values: [Option<u64>; KEYS],
}

impl Record {
    /// Adds an attempt.
    pub(in crate::sim) fn begin(
        &mut self,
        connection: u64,
        key: usize,
        ask: Ask,
        began_us: u64,
    ) -> AttemptId {
        let (sealed, answer, heard) = (None, None, None);
        self.attempts.push(Attempt { connection, key, ask, began_us, sealed, answer, heard });
        AttemptId(self.attempts.len() - 1)
    }

    /// Histories begin anew, with what is left of the committed log.
    pub(in crate::sim) fn restart(&mut self, ledger: &Ledger, at_us: u64) {
        let state = ledger.reference.state();
        self.restart = Some(Restart {
            attempts: self.attempts.len(),
            at_us,
            through: ledger.committed_through(),
            values: std::array::from_fn(|key| state.number(&key_name(key))),
        });
    }

    /// One attempt.
    pub(in crate::sim) fn get(&self, id: AttemptId) -> &Attempt {
        &self.attempts[id.0]
    }

    /// One attempt.
    pub(in crate::sim) fn get_mut(&mut self, id: AttemptId) -> &mut Attempt {
        &mut self.attempts[id.0]
    }

    /// All of them.
    pub(in crate::sim) fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// How many outcomes that clients never learned were which, by mark.
    pub(in crate::sim) fn unknown_outcomes(&self, ledger: &Ledger) -> [(&'static str, u64); 2] {
        let mut counts =
            [("unknown outcome: it happened", 0), ("unknown outcome: it never happened", 0)];
        for attempt in &self.attempts {
            let unknown = attempt.heard.as_ref().is_none_or(|(_, outcome)| outcome.is_unknown());
            if unknown && attempt.ask.writes() {
                let happened =
                    attempt.sealed.is_some_and(|(id, _)| ledger.committed_at(id.seq) == Some(id));
                counts[usize::from(!happened)].1 += 1;
            }
        }
        counts
    }

    /// What clients saw of each key. The committed log resolves unknown outcomes: what is not in
    /// it never happened, and what is happened before the first later entry whose client has its
    /// answer. (In a correct system the log's order explains every history, so a history that
    /// this makes wrong is wrong.)
    ///
    /// # Errors
    /// A reply that its command can't have.
    pub(in crate::sim) fn histories(
        &self,
        ledger: &Ledger,
    ) -> Result<BTreeMap<usize, RegisterHistory>, String> {
        let mut histories: BTreeMap<usize, RegisterHistory> = BTreeMap::new();
        let mut unknown = Vec::new();
        let mut heard = Vec::new();
        if let Some(restart) = &self.restart {
            for (key, value) in restart.values.into_iter().enumerate() {
                let operation = value.map_or(Operation::Delete(None), Operation::Write);
                let place = restart.through.next().0 * ENTRY_PLACES - 2;
                let history = histories.entry(key).or_default();
                history.completed_at(operation, restart.at_us, restart.at_us, place);
            }
        }
        for (index, attempt) in self.attempts.iter().enumerate() {
            let history = histories.entry(attempt.key).or_default();
            if let Some(restart) = self.restart.filter(|restart| index < restart.attempts) {
                // It may come with what the surviving log holds beyond what was committed.
                if let Some((id, _)) = attempt.sealed
                    && attempt.ask.writes()
                    && id.seq > restart.through
                    && ledger.committed_at(id.seq) == Some(id)
                {
                    unknown.push((attempt.place(), attempt));
                }
                continue;
            }
            match &attempt.heard {
                Some((ended_us, Outcome::Done(reply))) => {
                    let operation = attempt.ask.completed(reply).ok_or_else(|| {
                        format!("{:?} of key {} returned {reply:?}", attempt.ask, attempt.key)
                    })?;
                    let place = attempt.place();
                    history.completed_at(operation, attempt.began_us, *ended_us, place);
                    heard.push((place, *ended_us));
                }
                Some((_, Outcome::Refused(_))) => {}
                Some((_, Outcome::InDoubt(_) | Outcome::Lost(_))) | None => {
                    if let Some((id, _)) = attempt.sealed
                        && attempt.ask.writes()
                        && ledger.committed_at(id.seq) == Some(id)
                    {
                        unknown.push((attempt.place(), attempt));
                    }
                }
            }
        }
        // From the end of the log on: by when everything so far was answered.
        heard.sort_unstable_by_key(|(at, _)| *at);
        unknown.sort_unstable_by_key(|(at, _)| *at);
        let mut by_us = u64::MAX;
        for (at, attempt) in unknown.into_iter().rev() {
            while let Some((_, ended_us)) = heard.pop_if(|(later, _)| *later > at) {
                by_us = by_us.min(ended_us);
            }
            let history = histories.entry(attempt.key).or_default();
            let began_us = self.restart.map_or(0, |r| r.at_us).max(attempt.began_us);
            if by_us == u64::MAX {
                history.unknown(attempt.ask.unknown(), began_us);
            } else {
                history.completed_at(attempt.ask.unknown(), began_us, by_us, at);
            }
        }
        Ok(histories)
    }
}

/// The value of a reply, as a client takes it off its connection.
pub(super) fn decode(input: &mut Bytes) -> Option<Value> {
    let (value, used) = crate::resp::parse(input).ok().flatten()?;
    let _ = input.split_to(used);
    Some(value)
}
