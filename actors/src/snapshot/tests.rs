//! A snapshot from one node's state to another node's next start, without the network.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_protocol::command::{Keyspace, Lookup, Value};
use quorate_protocol::entry::Entry;
use quorate_protocol::types::{
    Branch, Chain, ClusterTime, EntryId, EntryKind, Epoch, Incarnation, Seq,
};

use super::receiving::Receiving;
use super::remove_leftovers;
use super::source::{Checkpoint, Made, Offer, Source};
use crate::storage::JournalHold;
use crate::storage::identity::Current;
use crate::storage::journal::{Journal, JournalHooks, JournalOptions, OpenJournal};
use crate::storage::scratch::Scratch;
use crate::storage::state::{State, StateWriter, tests::small};
use crate::view::Published;

/// A node's state with some keys, and what makes snapshots of it.
struct Maker {
    source: Arc<Source>,
    writer: StateWriter,
    last: Entry,
}

fn first_entry() -> Entry {
    let id = EntryId::new(Epoch(1), Seq(1));
    let payload = Bytes::from_static(b"a cluster entry");
    Entry::seal(id, EntryKind::Cluster, ClusterTime(1), Chain::default(), payload)
}

impl Maker {
    fn new(dir: &Scratch) -> Self {
        let open = OpenJournal::open(JournalOptions::in_data_dir(dir.path())).unwrap();
        let hooks = JournalHooks::new(Arc::new(|| ()), Arc::new(|fault| panic!("{fault}")));
        let journal = Journal::start(open, Incarnation(1), Branch(0), hooks).unwrap();
        let (state, mut writer) = State::open(&dir.path().join("state/1"), &small()).unwrap();
        let last = first_entry();
        writer.finish_entry(&last);
        writer.write().unwrap();
        let source = Source {
            dir: dir.path().join("snapshots"),
            state: state.reader().clone(),
            journal: journal.reader(),
            published: Published::new(),
            hold: Arc::new(JournalHold::default()),
            stats: Arc::default(),
            stopping: Arc::new(AtomicBool::new(false)),
            made: Mutex::new(Made::Nothing),
        };
        source.published.set_committed_epoch(Epoch(9));
        Self { source: Arc::new(source), writer, last }
    }

    /// Applies entries of one key each, without flushing anything.
    fn apply(&mut self, count: u64) {
        for _ in 0..count {
            let id = EntryId::new(Epoch(2), self.last.id.seq.next());
            let time = ClusterTime(1000 + id.seq.0);
            let payload = Bytes::new();
            self.last = Entry::seal(id, EntryKind::Commands, time, self.last.chain, payload);
            // From 64 bytes on into a blob file.
            let data = vec![id.seq.0 as u8; id.seq.0 as usize * 10].into();
            let value = Value { data, expires_at_ms: None, version: id.seq };
            self.writer.put(format!("key {}", id.seq).as_bytes(), value, None).unwrap();
            self.writer.finish_entry(&self.last);
        }
        self.writer.write().unwrap();
    }

    async fn snapshot(&self, above: EntryId) -> Arc<Checkpoint> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.source.offer(above) {
                Offer::Ready(checkpoint) => return checkpoint,
                Offer::Failed => panic!("the snapshot can't be made"),
                Offer::Preparing => {
                    assert!(Instant::now() < deadline, "the snapshot isn't made");
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        }
    }
}

/// What a transfer does.
fn receive(checkpoint: &Checkpoint, data_dir: &Path) -> Receiving {
    let dir = data_dir.join("snapshots/receiving");
    let receiving = Receiving::begin(&dir, &checkpoint.bytes).unwrap();
    for index in 0..receiving.manifest().files.len() {
        let Some(mut file) = receiving.file(index).unwrap() else { continue };
        let (mut source, size) = checkpoint.open(index as u32).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut source, &mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, size);
        file.write(&bytes[file.offset() as usize..]).unwrap();
        file.finish().unwrap();
    }
    receiving
}

#[tokio::test]
async fn a_snapshot_is_of_the_position_in_it_and_becomes_the_state_at_the_next_start() {
    let (ours, theirs) = (Scratch::new(), Scratch::new());
    let mut maker = Maker::new(&ours);
    maker.apply(50);
    let checkpoint = maker.snapshot(EntryId::new(Epoch(2), Seq(40))).await;
    // The live state has moved on since.
    let (last, hash) = (maker.last.clone(), maker.source.state.content_hash().unwrap());
    maker.apply(7);
    assert_eq!((checkpoint.manifest.last, checkpoint.manifest.chain), (last.id, last.chain));
    assert_eq!(checkpoint.manifest.epoch, Epoch(9));
    assert_eq!(checkpoint.manifest.config, (first_entry().id, first_entry().payload));
    assert_eq!(maker.source.hold.first(), Some(last.id.seq.next()));

    let data_dir = theirs.path();
    drop(State::open(&Current::state_dir(data_dir, None), &small()).unwrap());
    let receiving = receive(&checkpoint, data_dir);
    receiving.finish().unwrap();
    let current = receiving.install(data_dir).unwrap();
    assert_eq!(Current::load(data_dir).unwrap(), Some(current));
    assert_eq!((current.instance, current.preceding, current.epoch), (2, last.id, Epoch(9)));
    let (state, writer) =
        State::open(&Current::state_dir(data_dir, Some(&current)), &small()).unwrap();
    assert_eq!(state.applied_at_open().id, last.id);
    assert_eq!(state.reader().content_hash().unwrap(), hash);
    assert_eq!(state.reader().count().unwrap(), 50);
    remove_leftovers(data_dir, Some(&current)).unwrap();
    assert!(!data_dir.join("state/1").exists());
    drop((state, writer));
}

#[tokio::test]
async fn a_crash_before_the_commit_leaves_the_old_state_in_force() {
    let (ours, theirs) = (Scratch::new(), Scratch::new());
    let mut maker = Maker::new(&ours);
    maker.apply(5);
    let checkpoint = maker.snapshot(EntryId::ZERO).await;
    let data_dir = theirs.path();
    drop(State::open(&Current::state_dir(data_dir, None), &small()).unwrap());
    let receiving = receive(&checkpoint, data_dir);
    receiving.finish().unwrap();
    // The files were moved to where they belong, and CURRENT was not written.
    fs::rename(data_dir.join("snapshots/receiving/files"), data_dir.join("state/2")).unwrap();

    let crashed = theirs.crashed();
    let data_dir = crashed.path();
    assert_eq!(Current::load(data_dir).unwrap(), None);
    fs::create_dir(data_dir.join("snapshots/made-0")).unwrap();
    remove_leftovers(data_dir, None).unwrap();
    assert!(data_dir.join("state/1").exists());
    assert!(!data_dir.join("state/2").exists() && !data_dir.join("snapshots/made-0").exists());
    // The next attempt begins with what is still there.
    let receiving = receive(&checkpoint, data_dir);
    receiving.finish().unwrap();
    assert_eq!(receiving.install(data_dir).unwrap().instance, 2);
}

#[tokio::test]
async fn files_of_another_position_than_the_manifest_says_are_refused() {
    let (ours, theirs) = (Scratch::new(), Scratch::new());
    let mut maker = Maker::new(&ours);
    maker.apply(5);
    let checkpoint = maker.snapshot(EntryId::ZERO).await;
    let mut manifest = checkpoint.manifest.clone();
    manifest.last.seq = manifest.last.seq.next();
    let dir = theirs.path().join("snapshots/receiving");
    receive(&checkpoint, theirs.path());
    // The same files under another manifest.
    let kept = theirs.path().join("kept");
    fs::rename(dir.join("files"), &kept).unwrap();
    let receiving = Receiving::begin(&dir, &manifest.encode().0).unwrap();
    fs::remove_dir_all(dir.join("files")).unwrap();
    fs::rename(&kept, dir.join("files")).unwrap();
    let error = receiving.finish().unwrap_err();
    assert!(error.to_string().contains("another position"), "{error}");
}

#[tokio::test]
async fn a_snapshot_that_can_not_be_made_is_not_tried_again_at_once() {
    let dir = Scratch::new();
    let maker = Maker::new(&dir);
    fs::write(dir.path().join("snapshots"), "in the way").unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !matches!(maker.source.offer(EntryId::ZERO), Offer::Failed) {
        assert!(Instant::now() < deadline, "it isn't found out");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    fs::remove_file(dir.path().join("snapshots")).unwrap();
    assert!(matches!(maker.source.offer(EntryId::ZERO), Offer::Failed));
    assert_eq!(maker.source.hold.first(), None, "the journal is kept for nobody");
}

#[tokio::test]
async fn a_panic_while_a_snapshot_is_made_is_noticed() {
    let dir = Scratch::new();
    let maker = Maker::new(&dir);
    let task = tokio::task::spawn_blocking(|| panic!("on purpose"));
    *maker.source.made.lock() = Made::Making(task);
    let deadline = Instant::now() + Duration::from_secs(20);
    let expire = || catch_unwind(AssertUnwindSafe(|| maker.source.expire()));
    while expire().is_ok() {
        assert!(Instant::now() < deadline, "nobody notices");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn one_snapshot_serves_all_who_ask_until_it_is_too_old() {
    let dir = Scratch::new();
    let mut maker = Maker::new(&dir);
    maker.apply(5);
    let first = maker.snapshot(EntryId::ZERO).await;
    maker.apply(5);
    let second = maker.snapshot(EntryId::new(Epoch(2), Seq(3))).await;
    assert_eq!(first.id, second.id);
    // One that ends too early is replaced, and its folder goes with its last user.
    let third = maker.snapshot(maker.last.id).await;
    assert_eq!(third.manifest.last, maker.last.id);
    assert!(maker.source.get(&first.id).is_none() && maker.source.get(&third.id).is_some());
    let folders = || fs::read_dir(dir.path().join("snapshots")).unwrap().count();
    assert_eq!(folders(), 2);
    drop((first, second));
    assert_eq!(folders(), 1);
}
