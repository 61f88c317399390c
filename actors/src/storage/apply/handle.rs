//! Starting, driving and ending the apply thread.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use quorate_protocol::types::{Epoch, Seq};
use tokio::sync::mpsc;

use super::pause::{Paused, Pauses};
use super::progress::{Busy, Progress};
use super::signal::Signal;
use super::thread::{self, ApplyFault, RoundStats};
use crate::replication::EntrySource;
use crate::storage::state::StateWriter;
use crate::submit::GateInput;
use crate::view::Published;

/// Tells the apply thread how far it may go. Cheap to clone; never blocks.
#[derive(Clone, Debug, Default)]
pub struct ApplyHandle {
    signal: Arc<Signal>,
    progress: Arc<Progress>,
    pauses: Arc<Pauses>,
}

/// The running thread.
#[derive(Debug)]
pub struct Apply {
    handle: ApplyHandle,
    thread: JoinHandle<Option<StateWriter>>,
}

/// What the thread works with.
pub struct ApplyParts {
    /// The state. Its applied position is where the thread starts.
    pub writer: StateWriter,
    /// The log: from memory, or from the journal.
    pub log: Arc<dyn EntrySource>,
    /// Where the applied position is published.
    pub published: Arc<Published>,
    /// Who answers the clients.
    pub gate: mpsc::Sender<GateInput>,
    /// Whom to tell.
    pub hooks: ApplyHooks,
}

/// What the thread calls, on itself. None of them may block.
#[derive(Clone)]
pub struct ApplyHooks {
    /// The state now holds everything through this position, and it is published.
    pub applied: Arc<dyn Fn(Seq) + Send + Sync>,
    /// The state can't be brought forward any more and the thread ends. The node must hand over
    /// and rebuild its state; it may not answer from it.
    pub fatal: Arc<dyn Fn(&ApplyFault) + Send + Sync>,
    /// A round is done.
    pub observe: Arc<dyn Fn(&RoundStats) + Send + Sync>,
}

/// Bounds of one round. They shape speed, never the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplyOptions {
    /// A round ends after the entry with which its batch takes this many bytes.
    pub round_bytes_max: usize,
    /// A round ends after this many entries, so that their clients don't wait for all others.
    pub round_entries_max: usize,
    /// A round ends after the entry during which this time is over, so that slow look-ups show as
    /// slow progress and not as none.
    pub round_time_max: Duration,
    /// Record bytes taken from the log at once, though always one entry.
    pub fetch_bytes_max: usize,
}

impl Apply {
    /// Starts the thread, named `apply`. It does nothing until [`ApplyHandle::commit`].
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn spawn(parts: ApplyParts, options: ApplyOptions) -> std::io::Result<Self> {
        let signal = Arc::new(Signal::default());
        let progress = Arc::new(Progress::default());
        let pauses = Arc::new(Pauses::default());
        let handle = ApplyHandle {
            signal: Arc::clone(&signal),
            progress: Arc::clone(&progress),
            pauses: Arc::clone(&pauses),
        };
        parts.published.set_next_expiry_ms(parts.writer.next_expiry_ms());
        parts.published.set_applied(parts.writer.applied().id.seq);
        let thread = std::thread::Builder::new()
            .name("apply".to_owned())
            .spawn(move || thread::run(parts, options, &signal, (progress, pauses)))?;
        Ok(Self { handle, thread })
    }

    /// How to drive it.
    #[must_use]
    pub fn handle(&self) -> &ApplyHandle {
        &self.handle
    }

    /// Applies everything that is committed so far, ends the thread and waits for it. Blocks.
    /// `None` if it ended by a fault.
    #[must_use]
    pub fn stop(self) -> Option<StateWriter> {
        self.handle.signal.set(|target| target.stop = true);
        self.thread.join().ok().flatten()
    }
}

impl ApplyHandle {
    /// Everything through `through` is committed. `tenure` is this node's epoch while it is
    /// primary: replies to commands of that epoch's entries go to the gate.
    pub fn commit(&self, through: Seq, tenure: Option<Epoch>) {
        self.signal.set(|target| {
            target.committed = target.committed.max(through);
            target.tenure = tenure;
        });
    }

    /// Has the thread pause right after `seq`, and waits until it does, is there anyway, or `limit`
    /// is over. It goes on when the result is dropped. `applied` tells how far the state is.
    pub(crate) fn pause_at(
        &self,
        seq: Seq,
        limit: Duration,
        applied: impl Fn() -> Seq,
    ) -> Paused<'_> {
        self.pauses.pause_at(seq, limit, applied)
    }

    /// What the thread is in, while there is something to apply.
    #[must_use]
    pub fn busy(&self) -> Option<Busy> {
        self.progress.busy()
    }
}

impl Default for ApplyOptions {
    /// 1 MiB, 512 entries, 50 ms, 256 KiB.
    fn default() -> Self {
        Self {
            round_bytes_max: 1 << 20,
            round_entries_max: 512,
            round_time_max: Duration::from_millis(50),
            fetch_bytes_max: 256 << 10,
        }
    }
}

impl ApplyHooks {
    /// Hooks that do nothing but what `applied` and `fatal` do.
    #[must_use]
    pub fn new(
        applied: Arc<dyn Fn(Seq) + Send + Sync>,
        fatal: Arc<dyn Fn(&ApplyFault) + Send + Sync>,
    ) -> Self {
        Self { applied, fatal, observe: Arc::new(|_| ()) }
    }
}

impl std::fmt::Debug for ApplyHooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApplyHooks").finish_non_exhaustive()
    }
}
