//! The thread itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_protocol::command::batch::DecodeError;
use quorate_protocol::command::execute::{ApplyError, Moment, apply_payload};
use quorate_protocol::entry::Entry;
use quorate_protocol::resp::Reply;
use quorate_protocol::types::{EntryId, EntryKind, Seq};

use super::handle::{ApplyOptions, ApplyParts};
use super::pause::Pauses;
use super::progress::{Activity, Progress};
use super::signal::{Signal, Target};
use crate::replication::ReadError;
use crate::storage::state::{StateError, StateWriter};
use crate::submit::{Applied, GateInput};

/// Expired keys that one entry removes at most. Part of what entries do, so it is the same on all
/// nodes and never an option: it bounds the time that an entry takes beyond its own commands.
pub const EXPIRED_PER_ENTRY_MAX: usize = 64;

/// A committed entry may not be readable for a moment; after this long it is missing.
const MISSING_AFTER: Duration = Duration::from_secs(10);
const MISSING_RETRY: Duration = Duration::from_millis(1);

/// Why the state can't be brought forward any more.
#[derive(Debug, thiserror::Error)]
pub enum ApplyFault {
    /// The state failed.
    #[error("applying entry {id}: {source}")]
    State {
        /// At which entry.
        id: EntryId,
        /// What failed, and at which key.
        source: StateError,
    },
    /// A committed entry can't be read.
    #[error("reading committed entry {seq}: {source}")]
    Log {
        /// Which one.
        seq: Seq,
        /// Why.
        source: ReadError,
    },
    /// A committed entry is neither in memory nor in the journal.
    #[error("committed entry {seq} is not in the log")]
    Missing {
        /// Which one.
        seq: Seq,
    },
    /// An entry of another history than that of the state.
    #[error("entry {id} does not continue the log that the state was made from")]
    Chain {
        /// Which one.
        id: EntryId,
    },
    /// A committed entry holds what this version can't carry out.
    #[error("entry {id} can't be decoded: {source}")]
    Payload {
        /// Which one.
        id: EntryId,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A mistake in this program.
    #[error("the apply thread panicked")]
    Panicked,
}

impl ApplyFault {
    /// The state's failure, if it is that the state can't be read back.
    #[must_use]
    pub fn loss(&self) -> Option<&StateError> {
        match self {
            Self::State { source, .. } => source.is_loss().then_some(source),
            Self::Log { .. }
            | Self::Missing { .. }
            | Self::Chain { .. }
            | Self::Payload { .. }
            | Self::Panicked => None,
        }
    }
}

/// One round as it went.
#[derive(Clone, Copy, Debug)]
pub struct RoundStats {
    /// Entries in it.
    pub entries: usize,
    /// About how many bytes the batch took.
    pub bytes: usize,
    /// Carrying out and writing, without waiting for the gate.
    pub took: Duration,
    /// The part of `took` that the write took.
    pub write: Duration,
    /// Keys removed because they had expired.
    pub expired: u64,
    /// Whether nothing waited for the thread before it.
    pub after_idle: bool,
}

/// Runs until told to stop; returns the writer, or `None` after a fault.
pub(super) fn run(
    parts: ApplyParts,
    options: ApplyOptions,
    signal: &Signal,
    (progress, pauses): (Arc<Progress>, Arc<Pauses>),
) -> Option<StateWriter> {
    let hooks = parts.hooks.clone();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        Loop { parts, options, progress, pauses, configured: false, was_idle: false }.run(signal)
    }))
    .unwrap_or(Err(ApplyFault::Panicked));
    match outcome {
        Ok(writer) => Some(writer),
        Err(fault) => {
            (hooks.fatal)(&fault);
            None
        }
    }
}

/// Brings the state forward by one entry, the next one. Nothing is written before
/// [`StateWriter::write`].
///
/// # Errors
/// The entry doesn't continue what the state was made from, can't be decoded, or the state fails.
pub(crate) fn apply_entry(
    writer: &mut StateWriter,
    entry: &Entry,
    replies: Option<&mut Vec<Reply>>,
) -> Result<(), ApplyFault> {
    let id = entry.id;
    if !entry.follows(writer.applied().chain) {
        return Err(ApplyFault::Chain { id });
    }
    match entry.kind {
        EntryKind::Commands => {
            writer
                .expire(entry.time.0, id.seq, EXPIRED_PER_ENTRY_MAX)
                .map_err(|source| ApplyFault::State { id, source })?;
            let at = Moment { now_ms: entry.time.0, seq: id.seq };
            apply_payload(&entry.payload, at, writer, replies).map_err(|error| match error {
                ApplyError::Decode(source) => ApplyFault::Payload { id, source },
                ApplyError::Store(source) => ApplyFault::State { id, source },
            })?;
        }
        EntryKind::Cluster | EntryKind::EpochStart | EntryKind::Mark => {}
    }
    writer.finish_entry(entry);
    Ok(())
}

struct Loop {
    parts: ApplyParts,
    options: ApplyOptions,
    progress: Arc<Progress>,
    pauses: Arc<Pauses>,
    /// Whether a cluster entry was applied and is not flushed yet.
    configured: bool,
    /// Whether nothing waited when work was last asked for.
    was_idle: bool,
}

impl Loop {
    fn run(mut self, signal: &Signal) -> Result<StateWriter, ApplyFault> {
        loop {
            let applied = self.parts.writer.applied().id.seq;
            self.progress.enter(Activity::Idle);
            let target;
            (target, self.was_idle) = signal.wait_beyond(applied);
            if target.committed > applied {
                self.round(target)?;
                self.flush_configuration()?;
            } else if target.stop {
                return Ok(self.parts.writer);
            }
        }
    }

    /// What is flushed is what this node knows to be committed when it starts again. A
    /// configuration is to be among it soon: until then an election needs the one before it, too,
    /// whose members may be gone (S10).
    fn flush_configuration(&mut self) -> Result<(), ApplyFault> {
        if std::mem::take(&mut self.configured) {
            let id = self.parts.writer.applied().id;
            match self.parts.writer.reader().start_flush() {
                // It is tried again with the next one; a restart applies it anew until then.
                Err(source) if source.is_lack_of_space() => self.configured = true,
                flushing => flushing.map_err(|source| ApplyFault::State { id, source })?,
            }
        }
        Ok(())
    }

    /// One batch of entries, from the log to the gate.
    fn round(&mut self, target: Target) -> Result<(), ApplyFault> {
        let started = Instant::now();
        self.progress.begin_round();
        let before = self.parts.writer.stats();
        let (mut answers, mut entries) = (Vec::new(), 0);
        'round: loop {
            let first = self.parts.writer.applied().id.seq.next();
            if first > target.committed {
                break;
            }
            self.progress.enter(Activity::ReadingLog);
            self.progress.at(first);
            let fetched = self.fetch(first)?;
            self.progress.enter(Activity::Executing);
            for entry in fetched {
                if entry.id.seq > target.committed {
                    break 'round;
                }
                entries += 1;
                if target.tenure == Some(entry.id.epoch) {
                    let mut replies = Vec::new();
                    self.apply(&entry, Some(&mut replies))?;
                    answers.push(Applied { id: entry.id, replies });
                } else {
                    self.apply(&entry, None)?;
                }
                if entries >= self.options.round_entries_max
                    || self.pauses.is_at(entry.id.seq)
                    || self.parts.writer.round_bytes() >= self.options.round_bytes_max
                    || started.elapsed() >= self.options.round_time_max
                {
                    break 'round;
                }
            }
        }
        let (bytes, writing) = (self.parts.writer.round_bytes(), Instant::now());
        let id = self.parts.writer.applied().id;
        self.progress.enter(Activity::Writing);
        self.parts.writer.write().map_err(|source| ApplyFault::State { id, source })?;
        let after = self.parts.writer.stats();
        (self.parts.hooks.observe)(&RoundStats {
            entries,
            bytes,
            took: started.elapsed(),
            write: writing.elapsed(),
            expired: after.expired - before.expired,
            after_idle: self.was_idle,
        });
        self.publish(id.seq, answers);
        self.pauses.rest(id.seq);
        Ok(())
    }

    /// Readers first: whoever has the reply may read at once.
    fn publish(&self, applied: Seq, answers: Vec<Applied>) {
        self.parts.published.set_next_expiry_ms(self.parts.writer.next_expiry_ms());
        self.parts.published.set_applied(applied);
        if !answers.is_empty() {
            self.progress.enter(Activity::Answering);
            // A gate that is gone has answered everyone; the state goes on without it.
            let _ = self.parts.gate.blocking_send(GateInput::Applied(answers));
        }
        (self.parts.hooks.applied)(applied);
    }

    fn apply(&mut self, entry: &Entry, replies: Option<&mut Vec<Reply>>) -> Result<(), ApplyFault> {
        self.progress.at(entry.id.seq);
        self.configured |= entry.kind == EntryKind::Cluster;
        apply_entry(&mut self.parts.writer, entry, replies)
    }

    /// Entries from `first` on, which is committed.
    fn fetch(&self, first: Seq) -> Result<Vec<Entry>, ApplyFault> {
        let bytes_max = self.options.fetch_bytes_max;
        let deadline = Instant::now() + MISSING_AFTER;
        loop {
            // In memory until the journal has it, so one of the two answers.
            let entries = match self.parts.log.cached(first, bytes_max) {
                Some(entries) => entries,
                None => self
                    .parts
                    .log
                    .read(first, bytes_max)
                    .map_err(|source| ApplyFault::Log { seq: first, source })?,
            };
            if entries.first().is_some_and(|entry| entry.id.seq == first) {
                return Ok(entries);
            }
            if Instant::now() >= deadline {
                return Err(ApplyFault::Missing { seq: first });
            }
            std::thread::sleep(MISSING_RETRY);
        }
    }
}
