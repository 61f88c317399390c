//! The journal's thread.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_protocol::entry::Entry;
use quorate_protocol::record::RECORD_HEADER_BYTES;
use quorate_protocol::types::{Branch, Chain, ClusterId, EntryId, Generation, Seq};

use super::cut::{Folders, Reason};
use super::handle::{JournalFault, Shared};
use super::options::{GroupStats, JournalHooks, JournalOptions};
use super::progress::Progress;
use super::queue::{Command, Taken};
use super::recovery::OpenJournal;
use super::segment::{ActiveSegment, NewSegment, Start, capacity_for};
use super::table::Segment;
use crate::storage::durable::sync_dir;

/// Payloads above this go to the system call as they are; smaller ones are copied together.
const COPY_BYTES_MAX: usize = 16 << 10;

/// How long the writer waits before it tries again to make a segment on a full disk, and how often
/// it says so.
const FULL_DISK_WAIT: Duration = Duration::from_millis(100);
const FULL_DISK_WARN_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Writer {
    options: JournalOptions,
    folders: Folders,
    cluster: ClusterId,
    generation: Generation,
    shared: Shared,
    active: ActiveSegment,
    branch: Branch,
    /// The last entry that a mark in a file covers. Between groups everything written is synced.
    marked: EntryId,
    /// Headers and small payloads of the group being put together; kept for its capacity.
    staging: Vec<u8>,
    /// Whether nothing waited when work was last asked for.
    was_idle: bool,
    observe: Arc<dyn Fn(&GroupStats) + Send + Sync>,
    wake: Arc<dyn Fn() + Send + Sync>,
    wake_in_memory: Arc<AtomicBool>,
}

impl Writer {
    /// Goes on where opening left off.
    pub(super) fn new(
        open: OpenJournal,
        branch: Branch,
        shared: Shared,
        hooks: &JournalHooks,
    ) -> Self {
        Self {
            cluster: open.options.cluster,
            generation: open.options.generation,
            options: open.options,
            folders: open.folders,
            shared,
            marked: open.active.last,
            active: open.active,
            branch,
            staging: Vec::new(),
            was_idle: false,
            observe: Arc::clone(&hooks.observe),
            wake: Arc::clone(&hooks.wake),
            wake_in_memory: Arc::clone(&hooks.wake_in_memory),
        }
    }

    /// Works until there is nothing more to do or something fails.
    pub(super) fn run(&mut self) -> Result<(), JournalFault> {
        loop {
            let unmarked = self.marked != self.active.last;
            let wait = unmarked.then_some(self.options.idle_mark_after);
            self.was_idle = self.shared.queue.waiting_bytes() == 0;
            match self.shared.queue.take(self.options.group_bytes_max, wait) {
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
        let written = self.shared.progress.watched(|| active.write(&mut slices));
        written.map_err(|source| self.io_fault("write", source))?;
        let written_at = Instant::now();
        if let Some(mark) = mark {
            self.marked = mark.id;
        }
        let (first, last) = (&group[0], &group[group.len() - 1]);
        let persisted = self.active.last;
        let mut at = first_at;
        for entry in group {
            self.active.note(&entry.header(), at);
            at += entry.record_bytes() as u64;
        }
        self.shared.table.appended((first.id.seq, first_at), self.active.position, last.id);
        self.record()?;
        self.publish(last.id, persisted);
        if self.wake_in_memory.load(Ordering::Relaxed) {
            (self.wake)();
        }
        let active = &self.active;
        let synced = self.shared.progress.watched(|| active.sync());
        synced.map_err(|source| self.io_fault("sync", source))?;
        self.publish(last.id, last.id);
        (self.wake)();
        (self.observe)(&GroupStats {
            entries: group.len(),
            bytes: group.iter().map(Entry::record_bytes).sum(),
            write: written_at - began,
            sync: written_at.elapsed(),
            after_idle: std::mem::take(&mut self.was_idle),
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
        self.shared
            .progress
            .watched(|| {
                active.write(&mut [IoSlice::new(&mark.encode())])?;
                active.sync()
            })
            .map_err(|source| self.io_fault("mark", source))?;
        self.shared.table.extended(self.active.position);
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
            self.shared
                .progress
                .watched(|| active.seal())
                .map_err(|source| self.io_fault("seal", source))?;
            self.shared.table.extended(self.active.position);
        }
        let start = Start { header, capacity };
        let active = self
            .make_segment(start)
            .map_err(|source| self.folder_fault("create a segment in", source))?;
        let mut segments = self.shared.table.segments();
        if replaces {
            segments.pop();
        }
        segments.push(Segment::of(&active));
        let last = active.last;
        self.shared.table.replace(segments, last);
        self.marked = last;
        self.active = active;
        Ok(())
    }

    /// Waits while the disk is full: nothing has been written that could be lost, and the node
    /// goes on by itself once space is there. The wait shows as a stall.
    fn make_segment(&self, start: Start) -> io::Result<ActiveSegment> {
        let mut warn_at = Instant::now();
        self.shared.progress.watched(|| {
            loop {
                match NewSegment::begin(&self.folders.dir, start) {
                    Ok(new) => return new.publish(),
                    Err(error)
                        if error.kind() == io::ErrorKind::StorageFull
                            && !self.shared.queue.is_stopped() =>
                    {
                        if Instant::now() >= warn_at {
                            tracing::warn!(%error, "no space for the next journal segment");
                            warn_at = Instant::now() + FULL_DISK_WARN_EVERY;
                        }
                        std::thread::sleep(FULL_DISK_WAIT);
                    }
                    Err(error) => return Err(error),
                }
            }
        })
    }

    fn truncate(&mut self, from: Seq, branch: Branch) -> Result<(), JournalFault> {
        let bounds = self.shared.table.bounds();
        if from < bounds.first {
            return Err(JournalFault::Order(format!(
                "truncation from {from}, but the log starts at {}",
                bounds.first
            )));
        }
        self.branch = branch;
        if from <= bounds.last.seq {
            let segments = self.shared.table.segments();
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
            .start_after(&self.shared.table.segments(), (id, chain), identity)
            .map_err(|source| self.folder_fault("restart", source))?;
        self.branch = branch;
        self.switch(vec![Segment::of(&active)], active);
        self.record()?;
        self.publish(id, id);
        (self.wake)();
        Ok(())
    }

    fn switch(&mut self, segments: Vec<Segment>, active: ActiveSegment) {
        self.shared.table.replace(segments, active.last);
        self.marked = active.last;
        self.active = active;
    }

    /// Removes old segments from the front, so that a crash leaves no gap.
    fn trim(&mut self, below: Seq) -> Result<(), JournalFault> {
        let segments = self.shared.table.segments();
        let mut removed = false;
        for pair in segments.windows(2) {
            if pair[1].header.first() > below {
                break;
            }
            self.shared.table.forget_first();
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
        let Some(witness) = &self.shared.witness else { return Ok(()) };
        witness.record(self.active.last, self.active.chain).map_err(|source| {
            let path = self.options.witness.clone().unwrap_or_default();
            JournalFault::Io { operation: "record the log's end in", path, source }
        })
    }

    fn publish(&self, in_memory: EntryId, persisted: EntryId) {
        self.shared.progress.set(Progress { branch: self.branch, in_memory, persisted });
    }

    fn io_fault(&self, operation: &'static str, source: io::Error) -> JournalFault {
        JournalFault::Io { operation, path: self.active.path.clone(), source }
    }

    fn folder_fault(&self, operation: &'static str, source: io::Error) -> JournalFault {
        JournalFault::Io { operation, path: self.folders.dir.clone(), source }
    }
}

/// A part of a group's bytes.
enum Piece {
    Staged(Range<usize>),
    Payload(Bytes),
}
