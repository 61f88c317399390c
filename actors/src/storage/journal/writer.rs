//! The journal's thread, and the handle that others have of it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_protocol::entry::Entry;
use quorate_protocol::record::RECORD_HEADER_BYTES;
use quorate_protocol::types::{Branch, Chain, ClusterId, EntryId, Generation, Incarnation, Seq};

use super::cut::{Folders, Reason};
use super::options::{GroupStats, JournalHooks, JournalOptions};
use super::progress::{Progress, ProgressCell};
use super::queue::{Command, Queue, Rejected, Taken};
use super::reader::JournalReader;
use super::recovery::OpenJournal;
use super::segment::{ActiveSegment, NewSegment, Start, capacity_for};
use super::table::{Segment, Table};
use super::witness::Witness;
use crate::storage::durable::sync_dir;

/// Payloads above this go to the system call as they are; smaller ones are copied together.
const COPY_BYTES_MAX: usize = 16 << 10;

/// How long the writer waits before it tries again to make a segment on a full disk.
const FULL_DISK_WAIT: Duration = Duration::from_millis(100);

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
    #[error("journal: {operation} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// As the system reports it.
        source: io::Error,
    },
    /// Asked for something that would break the log: an error in this program.
    #[error("journal: {0}")]
    Order(String),
    /// Its thread panicked.
    #[error("journal: the writer thread panicked")]
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
        let table = Arc::new(Table::new(open.segments, last));
        let reader = JournalReader::new(Arc::clone(&table));
        let mut writer = Writer {
            cluster: open.options.cluster,
            generation: open.options.generation,
            options: open.options,
            folders: open.folders,
            queue: Arc::clone(&queue),
            progress: Arc::clone(&progress),
            table,
            witness,
            marked: open.active.last,
            active: open.active,
            branch,
            staging: Vec::new(),
            observe: Arc::clone(&hooks.observe),
            wake: Arc::clone(&hooks.wake),
            wake_in_memory: Arc::clone(&hooks.wake_in_memory),
        };
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || {
            let progress = Arc::clone(&writer.progress);
            let queue = Arc::clone(&writer.queue);
            let mut guard = FailGuard { hooks, queue, progress, armed: true };
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
        self.queue.abandon();
        (self.hooks.fatal)(fault);
    }
}

impl Drop for FailGuard {
    fn drop(&mut self) {
        if self.armed {
            self.fail(&JournalFault::Panic);
        }
    }
}

struct Writer {
    options: JournalOptions,
    folders: Folders,
    cluster: ClusterId,
    generation: Generation,
    queue: Arc<Queue>,
    progress: Arc<ProgressCell>,
    table: Arc<Table>,
    witness: Option<Witness>,
    active: ActiveSegment,
    branch: Branch,
    /// The last entry that a mark in a file covers. Between groups everything written is synced.
    marked: EntryId,
    /// Headers and small payloads of the group being put together; kept for its capacity.
    staging: Vec<u8>,
    observe: Arc<dyn Fn(&GroupStats) + Send + Sync>,
    wake: Arc<dyn Fn() + Send + Sync>,
    wake_in_memory: Arc<std::sync::atomic::AtomicBool>,
}

impl Writer {
    fn run(&mut self) -> Result<(), JournalFault> {
        loop {
            let unmarked = self.marked != self.active.last;
            let wait = unmarked.then_some(self.options.idle_mark_after);
            match self.queue.take(self.options.group_bytes_max, wait) {
                Taken::Work(commands) => self.work(commands)?,
                Taken::Idle => self.mark()?,
                Taken::Stopped => {
                    if unmarked {
                        self.mark()?;
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Does commands in order; appends that follow each other form one group.
    fn work(&mut self, commands: VecDeque<Command>) -> Result<(), JournalFault> {
        let mut group = Vec::new();
        for command in commands {
            match command {
                Command::Append { branch, entries } => {
                    if branch != self.branch {
                        return Err(JournalFault::Order(format!(
                            "entries of branch {branch} while branch {} is current",
                            self.branch
                        )));
                    }
                    if group.is_empty() {
                        group = entries;
                    } else {
                        group.extend(entries);
                    }
                }
                Command::Truncate { from, branch } => {
                    self.append(std::mem::take(&mut group))?;
                    self.truncate(from, branch)?;
                }
                Command::StartAfter { id, chain, branch } => {
                    self.append(std::mem::take(&mut group))?;
                    self.start_after(id, chain, branch)?;
                }
                Command::Trim { below } => {
                    self.append(std::mem::take(&mut group))?;
                    self.trim(below)?;
                }
                Command::Roll => {
                    self.append(std::mem::take(&mut group))?;
                    if self.active.count > 0 {
                        self.roll(0)?;
                    }
                }
                Command::Identify { cluster, generation } => {
                    self.cluster = cluster;
                    self.generation = generation;
                }
            }
        }
        self.append(group)
    }

    /// Writes entries in as many groups as the segments' room demands; mostly one.
    fn append(&mut self, entries: Vec<Entry>) -> Result<(), JournalFault> {
        let mut rest = entries.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest
                .iter()
                .take_while(|entry| {
                    bytes += entry.record_bytes() as u64;
                    self.active.has_room(bytes)
                })
                .count();
            if fits == 0 {
                self.roll(capacity_for(&rest[0]))?;
                continue;
            }
            let (group, later) = rest.split_at(fits);
            self.write_group(group)?;
            rest = later;
        }
        Ok(())
    }

    /// One write, publish in memory, one sync, publish persisted.
    fn write_group(&mut self, group: &[Entry]) -> Result<(), JournalFault> {
        let mark = (self.marked != self.active.last).then(|| self.active.mark());
        let pieces = self.stage(mark.map(|mark| mark.encode()), group)?;
        let mut slices: Vec<IoSlice<'_>> = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Staged(range) => IoSlice::new(&self.staging[range.clone()]),
                Piece::Payload(payload) => IoSlice::new(payload),
            })
            .collect();
        let mark_bytes = if mark.is_some() { RECORD_HEADER_BYTES as u64 } else { 0 };
        let first_at = self.active.position + mark_bytes;
        let began = Instant::now();
        let active = &mut self.active;
        let written = self.progress.watched(|| active.write(&mut slices));
        written.map_err(|source| self.io_fault("write", source))?;
        let written_at = Instant::now();
        if let Some(mark) = mark {
            self.marked = mark.id;
        }
        let (first, last) = (&group[0], &group[group.len() - 1]);
        let persisted = self.active.last;
        self.active.note(last.id, last.chain, group.len() as u64);
        self.table.appended((first.id.seq, first_at), self.active.position, last.id);
        self.record()?;
        self.publish(last.id, persisted);
        if self.wake_in_memory.load(Ordering::Relaxed) {
            (self.wake)();
        }
        let active = &self.active;
        let synced = self.progress.watched(|| active.sync());
        synced.map_err(|source| self.io_fault("sync", source))?;
        self.publish(last.id, last.id);
        (self.wake)();
        (self.observe)(&GroupStats {
            entries: group.len(),
            bytes: group.iter().map(Entry::record_bytes).sum(),
            write: written_at - began,
            sync: written_at.elapsed(),
        });
        Ok(())
    }

    /// Checks that the entries continue the log, and lays them out for the write.
    fn stage(
        &mut self,
        mark: Option<[u8; RECORD_HEADER_BYTES]>,
        group: &[Entry],
    ) -> Result<Vec<Piece>, JournalFault> {
        self.staging.clear();
        self.staging.extend(mark.iter().flatten());
        let mut pieces = Vec::new();
        let mut staged_from = 0;
        let (mut last, mut chain) = (self.active.last, self.active.chain);
        for entry in group {
            let in_order = entry.id.seq == last.seq.next() && entry.id.epoch >= last.epoch;
            if !in_order || !entry.follows(chain) {
                return Err(JournalFault::Order(format!(
                    "entry {} can't follow entry {last}",
                    entry.id
                )));
            }
            (last, chain) = (entry.id, entry.chain);
            self.staging.extend_from_slice(&entry.header().encode());
            if entry.payload.len() <= COPY_BYTES_MAX {
                self.staging.extend_from_slice(&entry.payload);
            } else {
                pieces.push(Piece::Staged(staged_from..self.staging.len()));
                pieces.push(Piece::Payload(entry.payload.clone()));
                staged_from = self.staging.len();
            }
        }
        if staged_from < self.staging.len() {
            pieces.push(Piece::Staged(staged_from..self.staging.len()));
        }
        Ok(pieces)
    }

    /// Adds a mark for everything that is synced, and syncs the mark.
    fn mark(&mut self) -> Result<(), JournalFault> {
        if !self.active.has_room(0) {
            return self.roll(0);
        }
        let mark = self.active.mark();
        let active = &mut self.active;
        self.progress
            .watched(|| {
                active.write(&mut [IoSlice::new(&mark.encode())])?;
                active.sync()
            })
            .map_err(|source| self.io_fault("mark", source))?;
        self.marked = mark.id;
        Ok(())
    }

    /// Seals the segment and starts the next one, with room for at least `capacity` bytes. A
    /// segment without entries is only replaced by a larger one.
    fn roll(&mut self, capacity: u64) -> Result<(), JournalFault> {
        let capacity = capacity.max(self.options.segment_bytes);
        let replaces = self.active.count == 0;
        let mut header = if replaces { self.active.header } else { self.active.next_header() };
        header.cluster = self.cluster;
        header.generation = self.generation;
        if !replaces {
            let active = &mut self.active;
            self.progress
                .watched(|| active.seal())
                .map_err(|source| self.io_fault("seal", source))?;
        }
        let start = Start { header, capacity };
        let active = self
            .make_segment(start)
            .map_err(|source| self.folder_fault("create a segment in", source))?;
        let mut segments = self.table.segments();
        if replaces {
            segments.pop();
        }
        segments.push(Segment::of(&active, Vec::new()));
        let last = active.last;
        self.table.replace(segments, last);
        self.marked = last;
        self.active = active;
        Ok(())
    }

    /// Waits while the disk is full: nothing has been written that could be lost, and the node
    /// goes on by itself once space is there. The wait shows as a stall.
    fn make_segment(&self, start: Start) -> io::Result<ActiveSegment> {
        self.progress.watched(|| {
            loop {
                match NewSegment::begin(&self.folders.dir, start) {
                    Ok(new) => return new.publish(),
                    Err(error)
                        if error.kind() == io::ErrorKind::StorageFull
                            && !self.queue.is_stopped() =>
                    {
                        tracing::warn!(%error, "no space for the next journal segment");
                        std::thread::sleep(FULL_DISK_WAIT);
                    }
                    Err(error) => return Err(error),
                }
            }
        })
    }

    fn truncate(&mut self, from: Seq, branch: Branch) -> Result<(), JournalFault> {
        let bounds = self.table.bounds();
        if from < bounds.first {
            return Err(JournalFault::Order(format!(
                "truncation from {from}, but the log starts at {}",
                bounds.first
            )));
        }
        self.branch = branch;
        if from <= bounds.last.seq {
            let segments = self.table.segments();
            let (segments, active) = self
                .folders
                .truncate(&segments, from, Reason::Truncated)
                .map_err(|source| self.folder_fault("truncate", source))?;
            self.switch(segments, active);
        }
        self.record()?;
        self.publish(self.active.last, self.active.last);
        (self.wake)();
        Ok(())
    }

    fn start_after(
        &mut self,
        id: EntryId,
        chain: Chain,
        branch: Branch,
    ) -> Result<(), JournalFault> {
        let identity = (self.cluster, self.generation);
        let active = self
            .folders
            .start_after(&self.table.segments(), (id, chain), identity)
            .map_err(|source| self.folder_fault("restart", source))?;
        self.branch = branch;
        self.switch(vec![Segment::of(&active, Vec::new())], active);
        self.record()?;
        self.publish(id, id);
        (self.wake)();
        Ok(())
    }

    fn switch(&mut self, segments: Vec<Segment>, active: ActiveSegment) {
        self.table.replace(segments, active.last);
        self.marked = active.last;
        self.active = active;
    }

    /// Removes old segments from the front, so that a crash leaves no gap.
    fn trim(&mut self, below: Seq) -> Result<(), JournalFault> {
        let segments = self.table.segments();
        let mut removed = false;
        for pair in segments.windows(2) {
            if pair[1].header.first() > below {
                break;
            }
            self.table.forget_first();
            std::fs::remove_file(&pair[0].path)
                .and_then(|()| sync_dir(&self.folders.dir))
                .map_err(|source| self.folder_fault("trim", source))?;
            removed = true;
        }
        if removed {
            tracing::debug!(below = below.0, "journal trimmed");
        }
        Ok(())
    }

    /// Records the log's end outside the disk, before it is published.
    fn record(&self) -> Result<(), JournalFault> {
        let Some(witness) = &self.witness else { return Ok(()) };
        witness.record(self.active.last, self.active.chain).map_err(|source| {
            let path = self.options.witness.clone().unwrap_or_default();
            JournalFault::Io { operation: "record the log's end in", path, source }
        })
    }

    fn publish(&self, in_memory: EntryId, persisted: EntryId) {
        self.progress.set(Progress { branch: self.branch, in_memory, persisted });
    }

    fn io_fault(&self, operation: &'static str, source: io::Error) -> JournalFault {
        JournalFault::Io { operation, path: self.active.path.clone(), source }
    }

    fn folder_fault(&self, operation: &'static str, source: io::Error) -> JournalFault {
        JournalFault::Io { operation, path: self.folders.dir.clone(), source }
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

/// A part of a group's bytes.
enum Piece {
    Staged(Range<usize>),
    Payload(Bytes),
}
