//! The handle that others have of the journal, and how its thread starts and ends.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_protocol::entry::Entry;
use quorate_protocol::types::{Branch, Chain, ClusterId, EntryId, Generation, Incarnation, Seq};

use super::options::JournalHooks;
use super::progress::{Progress, ProgressCell};
use super::queue::{Command, Queue, Rejected};
use super::reader::JournalReader;
use super::recovery::OpenJournal;
use super::table::Table;
use super::witness::Witness;
use super::writer::Writer;

/// A running journal. Clones are handles of the same one.
#[derive(Clone, Debug)]
pub struct Journal {
    queue: Arc<Queue>,
    progress: Arc<ProgressCell>,
    reader: JournalReader,
    thread: Arc<WriterThread>,
}

/// The thread behind all handles; told to stop when the last one is gone.
#[derive(Debug)]
struct WriterThread {
    queue: Arc<Queue>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        self.queue.stop();
    }
}

/// Why a journal has failed. None of these can be retried.
#[derive(Debug, thiserror::Error)]
pub enum JournalFault {
    /// A system call failed.
    #[error("{operation} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// As the system reports it.
        source: io::Error,
    },
    /// Asked for something that would break the log: an error in this program.
    #[error("{0}")]
    Order(String),
    /// Its thread panicked.
    #[error("the writer thread panicked")]
    Panic,
}

impl Journal {
    /// Starts the writer on a thread named `journal`. Everything that was recovered counts as
    /// persisted on `branch`. The hard state of this life must be durable: what an earlier life
    /// recorded of the log outside the disk is overwritten here.
    ///
    /// # Errors
    /// If the system can't start a thread.
    pub fn start(
        open: OpenJournal,
        incarnation: Incarnation,
        branch: Branch,
        hooks: JournalHooks,
    ) -> io::Result<Self> {
        let witness = open_witness(&open, incarnation);
        let last = open.recovered().last;
        let progress = Progress { branch, in_memory: last, persisted: last };
        let progress = Arc::new(ProgressCell::new(progress));
        let queue_bytes_max = open.options.queue_bytes_max;
        let queue = Arc::new(Queue::new(queue_bytes_max, open.options.queue_commands_max));
        let table = Arc::new(Table::new(open.segments.clone(), last));
        let reader = JournalReader::new(Arc::clone(&table));
        let shared =
            Shared { queue: Arc::clone(&queue), progress: Arc::clone(&progress), table, witness };
        let mut writer = Writer::new(open, branch, shared, &hooks);
        let (its_queue, its_progress) = (Arc::clone(&queue), Arc::clone(&progress));
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || {
            let mut guard =
                FailGuard { hooks, queue: its_queue, progress: its_progress, armed: true };
            if let Err(fault) = writer.run() {
                guard.fail(&fault);
            }
            guard.armed = false;
        })?;
        let handle = Mutex::new(Some(thread));
        let thread = Arc::new(WriterThread { queue: Arc::clone(&queue), handle });
        Ok(Self { queue, progress, reader, thread })
    }

    /// Appends entries to the branch, in order. Never blocks. When their write and their sync
    /// have returned, [`Journal::progress`] says so.
    ///
    /// # Errors
    /// [`Rejected`], with the entries, when too much waits already or the journal has stopped.
    pub fn append(&self, branch: Branch, entries: Vec<Entry>) -> Result<(), Rejected> {
        self.queue.push(Command::Append { branch, entries })
    }

    /// Cuts the log from `from` on and continues it as `branch` (S8). What is cut is kept in the
    /// divergent folder. Appends to older branches must not follow.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn truncate(&self, from: Seq, branch: Branch) -> Result<(), Rejected> {
        self.queue.push(Command::Truncate { from, branch })
    }

    /// Restarts the log behind an entry that the state holds durably, as `branch`.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn start_after(&self, id: EntryId, chain: Chain, branch: Branch) -> Result<(), Rejected> {
        self.queue.push(Command::StartAfter { id, chain, branch })
    }

    /// Removes segments that hold only entries below `below`.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn trim(&self, below: Seq) -> Result<(), Rejected> {
        self.queue.push(Command::Trim { below })
    }

    /// Seals the current segment, if it holds anything, and starts the next.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn roll(&self) -> Result<(), Rejected> {
        self.queue.push(Command::Roll)
    }

    /// From now on new segments carry this cluster and generation.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn identify(&self, cluster: ClusterId, generation: Generation) -> Result<(), Rejected> {
        self.queue.push(Command::Identify { cluster, generation })
    }

    /// How far the journal is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.get()
    }

    /// Reads entries back.
    #[must_use]
    pub fn reader(&self) -> JournalReader {
        self.reader.clone()
    }

    /// How long the system call has been running that the writer is in now; zero when it is in
    /// none. Seen from outside, so that a sync that hangs is noticed.
    #[must_use]
    pub fn busy_for(&self) -> Duration {
        self.progress.busy_for()
    }

    /// Bytes of entries that wait for the writer.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.queue.waiting_bytes()
    }

    /// Writes and syncs what waits, marks it, and ends the thread. Waits for that as long as the
    /// disk takes; callers with a deadline run it on a thread of its own. Returns whether all is
    /// synced. Further calls return `false` at once.
    #[must_use]
    pub fn stop(&self) -> bool {
        self.queue.stop();
        let thread = self.thread.handle.lock().take();
        thread.is_some_and(|thread| thread.join().is_ok()) && !self.progress.has_failed()
    }
}

/// What the writer shares with handles and readers.
pub(super) struct Shared {
    pub(super) queue: Arc<Queue>,
    pub(super) progress: Arc<ProgressCell>,
    pub(super) table: Arc<Table>,
    pub(super) witness: Option<Witness>,
}

/// Reports a panic of the writer as the fault that it is.
struct FailGuard {
    hooks: JournalHooks,
    queue: Arc<Queue>,
    progress: Arc<ProgressCell>,
    armed: bool,
}

impl FailGuard {
    fn fail(&self, fault: &JournalFault) {
        self.progress.fail();
        // Told before anyone finds the queue closed: that would look like the reason.
        (self.hooks.fatal)(fault);
        self.queue.abandon();
    }
}

impl Drop for FailGuard {
    fn drop(&mut self) {
        if self.armed {
            self.fail(&JournalFault::Panic);
        }
    }
}

/// Without a record the node does its work all the same; only an unclean end of the process then
/// counts as a loss of memory.
fn open_witness(open: &OpenJournal, incarnation: Incarnation) -> Option<Witness> {
    let path = open.options.witness.as_deref()?;
    let recovered = open.recovered();
    let opened = Witness::open(path, incarnation).and_then(|witness| {
        witness.record(recovered.last, recovered.last_chain)?;
        Ok(witness)
    });
    opened
        .inspect_err(|error| {
            let path = path.display();
            tracing::warn!(%path, %error, "the log's end isn't recorded outside the disk");
        })
        .ok()
}
