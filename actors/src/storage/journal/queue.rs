//! Commands on their way to the writer. Bounded by bytes and by count; pushing never blocks, and
//! costs a system call only when the writer sleeps.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use quorate_protocol::entry::Entry;
use quorate_protocol::types::{Branch, Chain, ClusterId, EntryId, Generation, Seq};

/// How many commands without entries may wait beyond the limit for commands: they are what
/// relieves a full queue or ends it.
const CONTROL_COMMANDS_RESERVE: usize = 64;

#[derive(Debug)]
pub(super) enum Command {
    Append { branch: Branch, entries: Vec<Entry> },
    Truncate { from: Seq, branch: Branch },
    StartAfter { id: EntryId, chain: Chain, branch: Branch },
    Trim { below: Seq },
    Roll,
    Identify { cluster: ClusterId, generation: Generation },
}

impl Command {
    fn bytes(&self) -> usize {
        match self {
            Self::Append { entries, .. } => entries.iter().map(Entry::record_bytes).sum(),
            Self::Truncate { .. }
            | Self::StartAfter { .. }
            | Self::Trim { .. }
            | Self::Roll
            | Self::Identify { .. } => 0,
        }
    }
}

/// A command that the queue didn't take; for an append, with its entries.
#[derive(Debug, thiserror::Error)]
#[error("the journal took nothing: {why}")]
pub struct Rejected {
    /// The entries of the append that was refused; empty for other commands.
    pub entries: Vec<Entry>,
    /// Why.
    pub why: RejectedWhy,
}

/// Why a command wasn't taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectedWhy {
    /// Too much waits already. Try again after the next wake.
    #[error("its queue is full")]
    Full,
    /// The journal was stopped or has failed.
    #[error("it has stopped")]
    Stopped,
}

/// What the writer finds when it asks for work.
#[derive(Debug)]
pub(super) enum Taken {
    /// Commands in order, up to the byte limit but at least one.
    Work(VecDeque<Command>),
    /// Nothing came in time.
    Idle,
    /// Nothing waits and nothing will come.
    Stopped,
}

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    bytes_max: usize,
    commands_max: usize,
}

#[derive(Debug, Default)]
struct State {
    commands: VecDeque<Command>,
    bytes: usize,
    stopped: bool,
}

impl Queue {
    pub(super) fn new(bytes_max: usize, commands_max: usize) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), bytes_max, commands_max }
    }

    /// An append is taken if anything below the limits is free, so that one larger than the
    /// whole queue gets through too.
    pub(super) fn push(&self, command: Command) -> Result<(), Rejected> {
        let mut state = self.state.lock();
        let why = if state.stopped {
            Some(RejectedWhy::Stopped)
        } else if self.is_full(&state, &command) {
            Some(RejectedWhy::Full)
        } else {
            None
        };
        if let Some(why) = why {
            let entries = match command {
                Command::Append { entries, .. } => entries,
                Command::Truncate { .. }
                | Command::StartAfter { .. }
                | Command::Trim { .. }
                | Command::Roll
                | Command::Identify { .. } => Vec::new(),
            };
            return Err(Rejected { entries, why });
        }
        state.bytes += command.bytes();
        state.commands.push_back(command);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    pub(super) fn take(&self, bytes_max: usize, wait: Option<Duration>) -> Taken {
        let mut state = self.state.lock();
        while state.commands.is_empty() {
            if state.stopped {
                return Taken::Stopped;
            }
            match wait {
                None => self.arrived.wait(&mut state),
                Some(wait) => {
                    let timed_out = self.arrived.wait_for(&mut state, wait).timed_out();
                    if timed_out && state.commands.is_empty() && !state.stopped {
                        return Taken::Idle;
                    }
                }
            }
        }
        if state.bytes <= bytes_max {
            state.bytes = 0;
            return Taken::Work(std::mem::take(&mut state.commands));
        }
        let (mut taken, mut bytes) = (VecDeque::new(), 0);
        while let Some(command) = state.commands.front() {
            bytes += command.bytes();
            if bytes > bytes_max && !taken.is_empty() {
                break;
            }
            let command = state.commands.pop_front().expect("front was there");
            state.bytes -= command.bytes();
            taken.push_back(command);
        }
        Taken::Work(taken)
    }

    /// What waits is still handed out; nothing more is taken.
    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.arrived.notify_all();
    }

    /// Drops what waits.
    pub(super) fn abandon(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        state.commands.clear();
        state.bytes = 0;
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.state.lock().bytes
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    fn is_full(&self, state: &State, command: &Command) -> bool {
        match command {
            Command::Append { .. } => {
                state.bytes >= self.bytes_max || state.commands.len() >= self.commands_max
            }
            Command::Truncate { .. }
            | Command::StartAfter { .. }
            | Command::Trim { .. }
            | Command::Roll
            | Command::Identify { .. } => {
                state.commands.len() >= self.commands_max + CONTROL_COMMANDS_RESERVE
            }
        }
    }
}
