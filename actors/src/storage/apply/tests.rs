//! The apply thread against the same commands carried out in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;
use quorate_protocol::command::batch::Encoder;
use quorate_protocol::command::execute::{Moment, apply_payload};
use quorate_protocol::command::{
    Exec, ExpireConditions, Keyspace, Lookup, MemoryKeyspace, Read, Set, SetCondition, SetExpiry,
    Step, Unit, When, Write,
};
use quorate_protocol::entry::Entry;
use quorate_protocol::resp::Reply;
use quorate_protocol::types::{Chain, ClusterTime, EntryId, EntryKind, Epoch, Seq};
use tokio::sync::mpsc;

use super::*;
use crate::replication::{EntrySource, ReadError};
use crate::storage::cache::LogCache;
use crate::storage::scratch::{Scratch, wait};
use crate::storage::state::{ContentHash, State, StateReader};
use crate::submit::GateInput;
use crate::view::Published;

/// A log whose older half is only in the journal.
#[derive(Default)]
struct Log {
    entries: Mutex<Vec<Entry>>,
    reads: AtomicUsize,
}

impl EntrySource for Log {
    fn cached(&self, first: Seq, bytes_max: usize) -> Option<Vec<Entry>> {
        let entries = self.entries.lock();
        let cache = LogCache::new(usize::MAX);
        for entry in &entries[entries.len() / 2..] {
            cache.push(entry.clone());
        }
        cache.range(first, bytes_max)
    }

    fn read(&self, first: Seq, _bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let entries = self.entries.lock();
        let from = first.prev().0 as usize;
        Ok(entries[from..entries.len().min(from + 3)].to_vec())
    }
}

impl Log {
    fn push(&self, epoch: u64, kind: EntryKind, payload: Bytes) -> EntryId {
        let mut entries = self.entries.lock();
        let seq = entries.len() as u64 + 1;
        let id = EntryId::new(Epoch(epoch), Seq(seq));
        let prev = entries.last().map_or(Chain(0), |entry| entry.chain);
        entries.push(Entry::seal(id, kind, ClusterTime(1_000_000 + 10 * seq), prev, payload));
        id
    }

    fn last(&self) -> Seq {
        Seq(self.entries.lock().len() as u64)
    }
}

/// A running apply thread with all that it needs.
struct Node {
    state: State,
    apply: Apply,
    published: Arc<Published>,
    gate: mpsc::Receiver<GateInput>,
    faults: Arc<Mutex<Vec<String>>>,
}

impl Node {
    fn start(dir: &Scratch, log: &Arc<Log>, options: ApplyOptions) -> Self {
        Self::start_on(dir, log.clone(), options, Arc::new(|_| ()))
    }

    fn start_on(
        dir: &Scratch,
        log: Arc<dyn EntrySource>,
        options: ApplyOptions,
        observe: Arc<dyn Fn(&RoundStats) + Send + Sync>,
    ) -> Self {
        let rocks = crate::storage::state::tests::small();
        let (state, writer) = State::open(dir.path(), &rocks).unwrap();
        let published = Published::new();
        let (sender, gate) = mpsc::channel(1024);
        let faults = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&faults);
        let hooks = ApplyHooks {
            observe,
            ..ApplyHooks::new(
                Arc::new(|_| ()),
                Arc::new(move |fault: &ApplyFault| seen.lock().push(fault.to_string())),
            )
        };
        let parts =
            ApplyParts { writer, log, published: Arc::clone(&published), gate: sender, hooks };
        let apply = Apply::spawn(parts, options).unwrap();
        Self { state, apply, published, gate, faults }
    }

    fn apply_all(&self, log: &Log, tenure: Option<Epoch>) {
        self.apply.handle().commit(log.last(), tenure);
        wait("the state to catch up", || self.published.applied() == log.last());
    }

    fn reader(&self) -> &StateReader {
        self.state.reader()
    }

    /// What the gate gets: `count` entries at least, after the position is published.
    fn answers(&mut self, count: usize) -> Vec<(EntryId, Vec<Reply>)> {
        let mut answers = Vec::new();
        wait("the answers", || {
            while let Ok(GateInput::Applied(applied)) = self.gate.try_recv() {
                answers.extend(applied.into_iter().map(|applied| (applied.id, applied.replies)));
            }
            answers.len() >= count
        });
        answers
    }

    /// Ends as a power cut does: nothing is flushed.
    fn crash(self) {
        drop(self.apply.stop());
    }
}

fn tiny_rounds() -> ApplyOptions {
    ApplyOptions {
        round_bytes_max: 200,
        round_entries_max: 3,
        round_time_max: Duration::from_mins(1),
        fetch_bytes_max: 300,
    }
}

fn payload(units: &[Unit]) -> Bytes {
    let mut encoder = Encoder::new();
    for unit in units {
        encoder.unit(unit);
    }
    encoder.finish().bytes
}

fn key() -> impl Strategy<Value = Bytes> {
    (0..12u8).prop_map(|n| Bytes::from(format!("key{n}")))
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        (0..100i64).prop_map(|n| Bytes::from(n.to_string())),
        proptest::collection::vec(any::<u8>(), 0..90).prop_map(Bytes::from),
    ]
}

fn expiry() -> impl Strategy<Value = SetExpiry> {
    prop_oneof![
        3 => Just(SetExpiry::None),
        1 => Just(SetExpiry::Keep),
        3 => (1..60i64).prop_map(|ms| SetExpiry::At(When::After(ms))),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    let set = (key(), value(), expiry(), any::<bool>()).prop_map(|(key, value, expiry, get)| {
        Write::Set(Set { key, value, condition: SetCondition::Always, expiry, get })
    });
    let expire = (key(), -5..80i64).prop_map(|(key, ms)| Write::Expire {
        key,
        when: When::After(ms),
        condition: ExpireConditions::default(),
    });
    let rename = (key(), key(), any::<bool>()).prop_map(|(from, to, only_if_none)| Write::Rename {
        from,
        to,
        only_if_none,
    });
    let pairs = proptest::collection::vec((key(), value()), 1..3);
    prop_oneof![
        6 => set,
        2 => (key(), value()).prop_map(|(key, value)| Write::SetNx { key, value }),
        2 => pairs.prop_map(|pairs| Write::MSet { pairs, only_if_none: false }),
        2 => (key(), value()).prop_map(|(key, value)| Write::Append { key, value }),
        3 => (key(), -9..9i64).prop_map(|(key, delta)| Write::IncrBy { key, delta }),
        2 => proptest::collection::vec(key(), 1..3).prop_map(|keys| Write::Del { keys }),
        1 => key().prop_map(|key| Write::GetDel { key }),
        3 => expire,
        1 => key().prop_map(|key| Write::Persist { key }),
        1 => rename,
        1 => Just(Write::FlushAll),
    ]
}

fn read() -> impl Strategy<Value = Read> {
    prop_oneof![
        key().prop_map(|key| Read::Get { key }),
        proptest::collection::vec(key(), 1..3).prop_map(|keys| Read::Exists { keys }),
        Just(Read::DbSize),
    ]
}

fn unit() -> impl Strategy<Value = Unit> {
    let step = prop_oneof![write().prop_map(Step::Write), read().prop_map(Step::Read)];
    prop_oneof![
        6 => write().prop_map(Unit::Write),
        2 => read().prop_map(Unit::Read),
        1 => proptest::collection::vec(step, 0..4)
            .prop_map(|steps| Unit::Exec(Exec { watches: Vec::new(), steps })),
    ]
}

/// The same log, carried out in memory: all replies, and how many keys are stored at the end.
fn carry_out_in_memory(log: &Log) -> (Vec<(EntryId, Vec<Reply>)>, MemoryKeyspace) {
    let (mut model, mut answers) = (MemoryKeyspace::default(), Vec::new());
    for entry in log.entries.lock().iter() {
        let mut replies = Vec::new();
        if entry.kind == EntryKind::Commands {
            expire(&mut model, entry);
            let at = Moment { now_ms: entry.time.0, seq: entry.id.seq };
            apply_payload(&entry.payload, at, &mut model, Some(&mut replies)).unwrap();
        }
        answers.push((entry.id, replies));
    }
    (answers, model)
}

fn expire(model: &mut MemoryKeyspace, entry: &Entry) {
    let mut due: Vec<_> = model
        .iter()
        .filter_map(|(key, value)| Some((value.expires_at_ms?, key.to_vec())))
        .filter(|(at_ms, _)| *at_ms < entry.time.0)
        .collect();
    due.sort();
    for (_, key) in due.into_iter().take(EXPIRED_PER_ENTRY_MAX) {
        let head = model.head(&key).unwrap().expect("it is there");
        model.delete(&key, head, entry.id.seq).unwrap();
    }
}

/// Applies the whole log on an empty node and hashes what comes out.
fn hash_of(log: &Arc<Log>, options: ApplyOptions) -> ContentHash {
    let dir = Scratch::new();
    let node = Node::start(&dir, log, options);
    node.apply_all(log, None);
    let hash = node.reader().content_hash().unwrap();
    node.crash();
    hash
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn replies_and_state_are_those_of_the_model_through_lost_writes(
        lives in proptest::collection::vec(
            (proptest::collection::vec(proptest::collection::vec(unit(), 0..6), 0..20), any::<bool>()),
            1..4,
        ),
    ) {
        let (dir, log) = (Scratch::new(), Arc::new(Log::default()));
        let mut answers = Vec::new();
        for (epoch, (entries, flush)) in (1u64..).zip(&lives) {
            let mut node = Node::start(&dir, &log, tiny_rounds());
            answers.push((log.push(epoch, EntryKind::EpochStart, Bytes::new()), Vec::new()));
            for units in entries {
                log.push(epoch, EntryKind::Commands, payload(units));
            }
            node.apply_all(&log, Some(Epoch(epoch)));
            let answered = node.answers(entries.len() + 1);
            prop_assert_eq!(&answered[0], answers.last().unwrap());
            answers.extend_from_slice(&answered[1..]);
            if *flush {
                node.reader().flush().unwrap();
            }
            prop_assert_eq!(node.faults.lock().len(), 0);
            node.crash();
        }
        let (expected, model) = carry_out_in_memory(&log);
        prop_assert_eq!(answers, expected);

        let node = Node::start(&dir, &log, ApplyOptions::default());
        node.apply_all(&log, None);
        let hash = node.reader().content_hash().unwrap();
        prop_assert_eq!(node.reader().count().unwrap(), model.count().unwrap());
        for (key, value) in model.iter() {
            let found = node.reader().get(key).unwrap();
            prop_assert_eq!(found.as_ref(), Some(value));
        }
        node.crash();
        prop_assert_eq!(hash_of(&log, ApplyOptions::default()), hash);
        prop_assert_eq!(hash_of(&log, tiny_rounds()), hash);
    }
}

fn set(key: &str, value: &str) -> Unit {
    Unit::Write(Write::Set(Set {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        condition: SetCondition::Always,
        expiry: SetExpiry::None,
        get: false,
    }))
}

#[test]
fn only_entries_of_the_own_tenure_are_answered() {
    let (dir, log) = (Scratch::new(), Arc::new(Log::default()));
    log.push(1, EntryKind::Commands, payload(&[set("a", "1")]));
    let own = log.push(2, EntryKind::Commands, payload(&[set("a", "2"), set("b", "3")]));
    let mut node = Node::start(&dir, &log, ApplyOptions::default());
    node.apply_all(&log, Some(Epoch(2)));
    let ok = Reply::Simple("OK".into());
    assert_eq!(node.answers(1), [(own, vec![ok.clone(), ok])]);
    node.crash();
}

#[test]
fn rounds_are_bounded_in_entries_and_bytes_and_hold_whole_entries() {
    let (dir, log) = (Scratch::new(), Arc::new(Log::default()));
    for n in 0..20 {
        let units: Vec<_> = (0..5).map(|unit| set(&format!("{n}-{unit}"), "value")).collect();
        log.push(1, EntryKind::Commands, payload(&units));
    }
    for (bytes, entries, rounds) in [(1, 100, 20), (1 << 20, 4, 5), (1 << 20, 100, 1)] {
        let options =
            ApplyOptions { round_bytes_max: bytes, round_entries_max: entries, ..tiny_rounds() };
        let dir = dir.crashed();
        let node = Node::start(&dir, &log, options);
        node.apply_all(&log, None);
        let writer = node.apply.stop().expect("no fault");
        assert_eq!(writer.stats().batches, rounds);
        assert_eq!(writer.count().unwrap(), 100);
    }
    assert!(log.reads.load(Ordering::Relaxed) > 0, "the older half is read from the journal");
}

#[test]
fn what_cannot_be_decoded_stops_the_thread_and_names_the_entry() {
    let (dir, log) = (Scratch::new(), Arc::new(Log::default()));
    log.push(1, EntryKind::Commands, payload(&[set("a", "1")]));
    log.push(1, EntryKind::Commands, Bytes::from_static(b"\x09\0\0\0nonsense"));
    let node = Node::start(&dir, &log, ApplyOptions { round_entries_max: 1, ..tiny_rounds() });
    node.apply.handle().commit(log.last(), None);
    wait("the fault", || !node.faults.lock().is_empty());
    assert!(node.faults.lock()[0].contains("entry 1.2"), "{:?}", node.faults.lock());
    assert_eq!(node.published.applied(), Seq(1));
    assert!(node.apply.stop().is_none());
}

#[test]
fn a_stop_finishes_what_is_committed() {
    let (dir, log) = (Scratch::new(), Arc::new(Log::default()));
    for _ in 0..50 {
        log.push(1, EntryKind::Commands, payload(&[set("a", "1")]));
    }
    let node = Node::start(&dir, &log, tiny_rounds());
    node.apply.handle().commit(log.last(), None);
    let writer = node.apply.stop().expect("no fault");
    assert_eq!(writer.applied().id.seq, log.last());
}

#[test]
fn what_is_not_committed_is_not_applied() {
    let (dir, log) = (Scratch::new(), Arc::new(Log::default()));
    for n in 0..10 {
        log.push(1, EntryKind::Commands, payload(&[set("a", &n.to_string())]));
    }
    let node = Node::start(&dir, &log, ApplyOptions::default());
    node.apply.handle().commit(Seq(7), None);
    let writer = node.apply.stop().expect("no fault");
    assert_eq!(writer.applied().id.seq, Seq(7));
    assert_eq!(writer.get(b"a").unwrap().unwrap().data, "6");
}

#[test]
fn an_entry_of_another_history_ends_the_thread_before_it_does_anything() {
    let (dir, log) = (Scratch::new(), Arc::new(Log::default()));
    log.push(1, EntryKind::EpochStart, Bytes::new());
    log.push(1, EntryKind::EpochStart, Bytes::new());
    log.entries.lock()[1].chain = Chain(7);
    let node = Node::start(&dir, &log, ApplyOptions { round_entries_max: 1, ..tiny_rounds() });
    node.apply.handle().commit(log.last(), None);
    wait("the fault", || !node.faults.lock().is_empty());
    let fault = node.faults.lock()[0].clone();
    assert!(fault.contains("entry 1.2 does not continue"), "{fault}");
}

/// A log that gives nothing until it is opened.
struct Closed {
    log: Arc<Log>,
    door: Arc<Mutex<()>>,
}

impl EntrySource for Closed {
    fn cached(&self, first: Seq, bytes_max: usize) -> Option<Vec<Entry>> {
        drop(self.door.lock());
        self.log.cached(first, bytes_max)
    }

    fn read(&self, first: Seq, bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        self.log.read(first, bytes_max)
    }
}

fn log_of(entries: u64) -> Arc<Log> {
    let log = Arc::new(Log::default());
    for n in 0..entries {
        let key = Bytes::from(format!("key {n}"));
        let write = Write::SetNx { key, value: Bytes::from_static(b"v") };
        log.push(1, EntryKind::Commands, payload(&[Unit::Write(write)]));
    }
    log
}

#[test]
fn a_loop_that_stands_still_says_what_it_waits_for() {
    let (dir, log) = (Scratch::new(), log_of(2));
    let door = Arc::new(Mutex::new(()));
    let closed = Arc::new(Closed { log: log.clone(), door: door.clone() });
    let node = Node::start_on(&dir, closed, ApplyOptions::default(), Arc::new(|_| ()));
    let handle = node.apply.handle().clone();
    assert_eq!(handle.busy(), None);
    let shut = door.lock();
    handle.commit(log.last(), None);
    wait("the loop to ask for entries", || {
        handle.busy().is_some_and(|busy| busy.since > Duration::from_millis(1))
    });
    let busy = handle.busy().expect("it waits");
    assert_eq!((busy.activity, busy.seq), (Activity::ReadingLog, Seq(1)));
    drop(shut);
    wait("the loop to be done", || handle.busy().is_none());
    assert_eq!(node.published.applied(), Seq(2));
    node.crash();
}

/// With slow look-ups a round of many entries took longer than anyone waited for it.
#[test]
fn a_slow_round_publishes_what_it_has_done() {
    let (dir, log) = (Scratch::new(), log_of(20));
    let rounds = Arc::new(AtomicUsize::new(0));
    let counted = rounds.clone();
    let observe = Arc::new(move |round: &RoundStats| {
        assert_eq!(round.entries, 1);
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let options = ApplyOptions { round_time_max: Duration::ZERO, ..ApplyOptions::default() };
    let node = Node::start_on(&dir, log.clone(), options, observe);
    node.apply_all(&log, None);
    node.crash();
    assert_eq!(rounds.load(Ordering::Relaxed), 20);
}

#[test]
fn an_applied_configuration_is_flushed_soon() {
    let dir = Scratch::new();
    let log = Arc::new(Log::default());
    let node = Node::start(&dir, &log, ApplyOptions::default());
    log.push(1, EntryKind::EpochStart, Bytes::new());
    node.apply_all(&log, None);
    assert_eq!(node.reader().flushed().unwrap().id, EntryId::ZERO);
    let id = log.push(1, EntryKind::Cluster, Bytes::new());
    node.apply_all(&log, None);
    wait("the flush", || node.reader().flushed().unwrap().id == id);
    node.crash();
}
