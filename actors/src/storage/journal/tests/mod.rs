mod crash;
mod damage;
mod failing;
mod model;
mod reading;
mod writing;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_protocol::entry::Entry;
use quorate_protocol::types::{
    Branch, Chain, ClusterId, ClusterTime, EntryId, EntryKind, Epoch, Generation, Incarnation, Seq,
};

use super::*;
use crate::storage::scratch::{Scratch, wait};

/// A data directory, and what a journal in it is opened with.
trait JournalScratch {
    fn options(&self) -> JournalOptions;
    fn segments(&self) -> Vec<PathBuf>;
    fn divergent(&self) -> Vec<PathBuf>;
}

impl JournalScratch for Scratch {
    fn options(&self) -> JournalOptions {
        JournalOptions {
            cluster: ClusterId(7),
            segment_bytes: 8 << 10,
            idle_mark_after: Duration::from_hours(1),
            ..JournalOptions::in_data_dir(self.path())
        }
    }

    fn segments(&self) -> Vec<PathBuf> {
        files(&self.path().join("journal"), ".qj")
    }

    fn divergent(&self) -> Vec<PathBuf> {
        files(&self.path().join("divergent"), ".qj")
    }
}

fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .expect("the folder is there")
        .map(|file| file.expect("it can be listed").path())
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .collect();
    paths.sort();
    paths
}

/// Entries in order, each following the one before.
#[derive(Clone)]
pub(super) struct Log {
    pub(super) entries: Vec<Entry>,
    last: EntryId,
    chain: Chain,
}

impl Log {
    pub(super) fn new() -> Self {
        Self::after(EntryId::ZERO, Chain(0))
    }

    pub(super) fn after(last: EntryId, chain: Chain) -> Self {
        Self { entries: Vec::new(), last, chain }
    }

    /// Seals `count` more entries of `payload` bytes and returns them.
    pub(super) fn extend(&mut self, epoch: u64, count: usize, payload: usize) -> Vec<Entry> {
        (0..count)
            .map(|_| {
                let id = EntryId::new(Epoch(epoch), self.last.seq.next());
                let payload = vec![id.seq.0 as u8; payload];
                self.seal(id, EntryKind::Commands, payload.into())
            })
            .collect()
    }

    pub(super) fn seal(&mut self, id: EntryId, kind: EntryKind, payload: Bytes) -> Entry {
        let entry = Entry::seal(id, kind, ClusterTime(id.seq.0), self.chain, payload);
        self.last = id;
        self.chain = entry.chain;
        self.entries.push(entry.clone());
        entry
    }

    /// The log without what comes from `from` on.
    pub(super) fn cut(&self, from: u64) -> Self {
        let mut log = Self::new();
        for entry in self.entries.iter().take_while(|e| e.id.seq.0 < from) {
            log.last = entry.id;
            log.chain = entry.chain;
            log.entries.push(entry.clone());
        }
        log
    }

    pub(super) fn last(&self) -> EntryId {
        self.last
    }
}

/// A running journal and what its hooks were called with.
pub(super) struct Running {
    pub(super) journal: Journal,
    pub(super) wakes: Arc<AtomicUsize>,
    pub(super) faults: Arc<Mutex<Vec<String>>>,
    pub(super) groups: Arc<AtomicUsize>,
    pub(super) hooks: JournalHooks,
}

impl Running {
    pub(super) fn start(options: JournalOptions) -> Self {
        Self::start_open(OpenJournal::open(options).expect("it opens"))
    }

    pub(super) fn start_open(open: OpenJournal) -> Self {
        let wakes = Arc::new(AtomicUsize::new(0));
        let groups = Arc::new(AtomicUsize::new(0));
        let faults = Arc::new(Mutex::new(Vec::new()));
        let (w, f, g) = (Arc::clone(&wakes), Arc::clone(&faults), Arc::clone(&groups));
        let mut hooks = JournalHooks::new(
            Arc::new(move || {
                w.fetch_add(1, Ordering::SeqCst);
            }),
            Arc::new(move |fault| f.lock().push(fault.to_string())),
        );
        hooks.observe = Arc::new(move |_| {
            g.fetch_add(1, Ordering::SeqCst);
        });
        let journal =
            Journal::start(open, Incarnation(3), Branch(1), hooks.clone()).expect("it starts");
        Self { journal, wakes, faults, groups, hooks }
    }

    /// Appends and waits until it is synced.
    pub(super) fn append(&self, branch: u64, entries: Vec<Entry>) {
        let Some(last) = entries.last().map(|e| e.id) else { return };
        self.journal.append(Branch(branch), entries).expect("there is room");
        self.wait_persisted(branch, last);
    }

    pub(super) fn truncate(&self, from: u64, branch: u64) {
        self.journal.truncate(Seq(from), Branch(branch)).expect("there is room");
        wait("the new branch", || self.journal.progress().branch == Branch(branch));
    }

    pub(super) fn wait_persisted(&self, branch: u64, id: EntryId) {
        wait("persisted", || {
            let progress = self.journal.progress();
            progress.branch == Branch(branch) && progress.persisted == id
        });
    }

    pub(super) fn stop(self) {
        assert!(self.journal.stop());
        assert_eq!(*self.faults.lock(), Vec::<String>::new());
    }
}

/// Every entry that the journal can read.
pub(super) fn read_all(reader: &JournalReader) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut next = reader.first();
    while next <= reader.last().seq {
        let some = reader.read(next, 1000).expect("it can be read");
        next = some.last().expect("at least one").id.seq.next();
        entries.extend(some);
    }
    entries
}

/// Opens, compares all entries with the log, and checks that opening again changes nothing.
pub(super) fn assert_holds(options: &JournalOptions, log: &Log) -> Recovered {
    let open = OpenJournal::open(options.clone()).expect("it opens");
    let recovered = open.recovered().clone();
    assert_eq!(recovered.last, log.last());
    assert_eq!(recovered.last_chain, log.chain);
    let running = Running::start_open(open);
    assert_eq!(read_all(&running.journal.reader()), log.entries);
    running.stop();
    let again = OpenJournal::open(options.clone()).expect("it opens again");
    let expected = Recovered { torn: None, proven: log.last(), ..recovered.clone() };
    assert_eq!(*again.recovered(), expected, "recovery is idempotent");
    recovered
}
