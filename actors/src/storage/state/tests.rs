//! The state against the model in memory, with restarts that lose what wasn't flushed.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use quorate_protocol::command::{
    Keyspace, Lookup, MemoryKeyspace, Position, TokenRecord, Value, Visit,
};
use quorate_protocol::entry::Entry;
use quorate_protocol::resp::Reply;
use quorate_protocol::types::{Chain, ClusterTime, EntryId, EntryKind, Epoch, Seq};

use super::*;
use crate::storage::options::RocksOptions;
use crate::storage::scratch::Scratch;

mod tables;

pub(crate) fn small() -> RocksOptions {
    RocksOptions { block_cache_size: 1 << 20, min_blob_size: 64, ..RocksOptions::default() }
}

fn open(dir: &Scratch) -> (State, StateWriter) {
    State::open(dir.path(), &small()).expect("the state opens")
}

fn entry(kind: EntryKind, epoch: u64, seq: u64, payload: &'static [u8]) -> Entry {
    Entry {
        id: EntryId::new(Epoch(epoch), Seq(seq)),
        kind,
        time: ClusterTime(1000 + seq),
        chain: Chain(u128::from(seq) << 64),
        payload_crc: 0,
        payload: Bytes::from_static(payload),
    }
}

/// One change of the keyspace, as a command would make it.
#[derive(Clone, Debug)]
enum Change {
    Put(u8, u8, Option<u8>),
    Delete(u8),
    Clear,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => (0..24u8, any::<u8>(), proptest::option::of(0..30u8))
            .prop_map(|(key, value, expiry)| Change::Put(key, value, expiry)),
        4 => (0..24u8).prop_map(Change::Delete),
        1 => Just(Change::Clear),
    ]
}

/// What happens between entries.
#[derive(Clone, Debug)]
enum Step {
    Entry(Vec<Change>),
    Write,
    Flush,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec(change(), 0..8).prop_map(Step::Entry),
        3 => Just(Step::Write),
        1 => Just(Step::Flush),
        1 => Just(Step::Restart),
    ]
}

fn carry_out<K: Keyspace>(keyspace: &mut K, change: &Change, at: Seq)
where
    K::Error: std::fmt::Debug,
{
    match change {
        Change::Put(key, value, expiry) => {
            let key = [b'k', *key];
            let value = Value {
                data: vec![*value; usize::from(*value)].into(),
                expires_at_ms: expiry.map(|after| 1000 + at.0 + u64::from(after)),
                version: at,
            };
            let replaced = keyspace.head(&key).unwrap();
            keyspace.put(&key, value, replaced).unwrap();
        }
        Change::Delete(key) => {
            let key = [b'k', *key];
            if let Some(head) = keyspace.head(&key).unwrap() {
                keyspace.delete(&key, head, at).unwrap();
            }
        }
        Change::Clear => keyspace.clear(at).unwrap(),
    }
}

const EXPIRED_MAX: usize = 2;

/// The oldest expired keys of the model.
fn expire_model(model: &mut MemoryKeyspace, now_ms: u64, at: Seq) {
    let mut due: Vec<_> = model
        .iter()
        .filter_map(|(key, value)| Some((value.expires_at_ms?, key.to_vec())))
        .filter(|(at_ms, _)| *at_ms < now_ms)
        .collect();
    due.sort();
    for (_, key) in due.into_iter().take(EXPIRED_MAX) {
        let head = model.head(&key).unwrap().expect("it is there");
        model.delete(&key, head, at).unwrap();
    }
}

fn assert_same<K: Visit>(found: &K, model: &MemoryKeyspace)
where
    K::Error: std::fmt::Debug,
{
    assert_eq!(found.count().unwrap(), model.count().unwrap());
    let mut listed = Vec::new();
    found
        .visit(Position::FIRST, &mut |key, head| {
            listed.push((key.to_vec(), *head));
            ControlFlow::Continue(())
        })
        .unwrap();
    let expected: Vec<_> = model.iter().map(|(key, value)| (key.to_vec(), value.head())).collect();
    assert_eq!(listed, expected);
    for (key, value) in model.iter() {
        assert_eq!(found.get(key).unwrap().as_ref(), Some(value));
    }
}

fn apply(writer: &mut StateWriter, log: &[Vec<Change>]) {
    let entry = entry(EntryKind::Commands, 1, log.len() as u64, b"");
    let changes = &log[log.len() - 1];
    writer.expire(entry.time.0, entry.id.seq, EXPIRED_MAX).unwrap();
    for change in changes {
        carry_out(writer, change, entry.id.seq);
    }
    writer.finish_entry(&entry);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_state_is_the_model_whatever_the_rounds_and_restarts(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let dir = Scratch::new();
        let (mut state, mut writer) = open(&dir);
        let (mut model, mut log) = (MemoryKeyspace::default(), Vec::<Vec<Change>>::new());
        for step in steps.into_iter().chain([Step::Write]) {
            match step {
                Step::Entry(changes) => {
                    log.push(changes);
                    apply(&mut writer, &log);
                    let seq = Seq(log.len() as u64);
                    expire_model(&mut model, 1000 + seq.0, seq);
                    log[log.len() - 1].iter().for_each(|c| carry_out(&mut model, c, seq));
                    prop_assert_eq!(writer.count().unwrap(), model.count().unwrap());
                    for (key, value) in model.iter() {
                        let found = writer.get(key).unwrap();
                        prop_assert_eq!(found.as_ref(), Some(value));
                    }
                }
                Step::Write => {
                    writer.write().unwrap();
                    assert_same(state.reader(), &model);
                }
                Step::Flush => state.reader().flush().unwrap(),
                Step::Restart => {
                    let flushed = state.reader().flushed().unwrap();
                    drop((state, writer));
                    (state, writer) = open(&dir);
                    prop_assert_eq!(state.applied_at_open(), flushed);
                    for length in flushed.id.seq.0 as usize + 1..=log.len() {
                        apply(&mut writer, &log[..length]);
                    }
                }
            }
        }
        let expected = state.reader().content_hash().unwrap();
        let live = |value: &Value| value.head().is_live(1000 + log.len() as u64);
        prop_assert_eq!(expected.keys, model.iter().filter(|(_, v)| live(v)).count() as u64);

        // Another node, which applies everything in one round, comes to the same.
        let other = Scratch::new();
        let (second, mut writer) = open(&other);
        (1..=log.len()).for_each(|length| apply(&mut writer, &log[..length]));
        writer.write().unwrap();
        prop_assert_eq!(second.reader().content_hash().unwrap(), expected);
        for key in 0..24 {
            let key = [b'k', key];
            let removal = |state: &State| state.reader().last_removal(&key).unwrap();
            prop_assert_eq!(removal(&state), removal(&second));
            prop_assert!(removal(&state) <= model.last_removal(&key).unwrap());
        }
    }
}

#[test]
fn an_unflushed_round_is_lost_whole_and_a_flushed_one_kept_whole() {
    let dir = Scratch::new();
    let (state, mut writer) = open(&dir);
    assert_eq!(state.applied_at_open(), Applied::default());
    let log = [vec![Change::Put(1, 1, None)], vec![Change::Put(2, 2, None)]];
    apply(&mut writer, &log[..1]);
    writer.write().unwrap();
    state.reader().flush().unwrap();
    apply(&mut writer, &log[..2]);
    writer.write().unwrap();
    assert_eq!(state.reader().applied().unwrap().id.seq, Seq(2));
    assert_eq!(state.reader().flushed().unwrap().id.seq, Seq(1));
    drop((state, writer));

    let (state, writer) = open(&dir);
    assert_eq!(state.applied_at_open().id.seq, Seq(1));
    assert_eq!(state.applied_at_open().keys, 1);
    assert!(writer.get(b"k\x01").unwrap().is_some());
    assert_eq!(writer.get(b"k\x02").unwrap(), None);
}

#[test]
fn a_snapshot_stays_at_its_point_while_the_state_moves_on() {
    let dir = Scratch::new();
    let (state, mut writer) = open(&dir);
    let log = [vec![Change::Put(1, 1, None)], vec![Change::Clear]];
    apply(&mut writer, &log[..1]);
    writer.write().unwrap();
    let snapshot = state.reader().snapshot();
    apply(&mut writer, &log[..2]);
    writer.write().unwrap();
    assert_eq!(state.reader().count().unwrap(), 0);
    assert_eq!(snapshot.count().unwrap(), 1);
    assert!(snapshot.get(b"k\x01").unwrap().is_some());
    assert_eq!(snapshot.applied().unwrap().id.seq, Seq(1));
}

#[test]
fn cluster_entry_and_epochs_are_part_of_the_state() {
    let dir = Scratch::new();
    let (state, mut writer) = open(&dir);
    assert_eq!(state.reader().cluster().unwrap(), None);
    let log = [
        entry(EntryKind::EpochStart, 3, 1, b""),
        entry(EntryKind::Cluster, 3, 2, b"configuration"),
        entry(EntryKind::Commands, 3, 3, b""),
        entry(EntryKind::EpochStart, 7, 4, b""),
        entry(EntryKind::Mark, 7, 5, b""),
    ];
    for entry in &log {
        writer.finish_entry(entry);
    }
    writer.write().unwrap();
    let reader = state.reader();
    assert_eq!(reader.cluster().unwrap().unwrap().payload, "configuration");
    assert_eq!(reader.cluster().unwrap().unwrap().id, log[1].id);
    assert_eq!(reader.applied().unwrap().chain, log[4].chain);
    let epochs: Vec<_> = (0..=6).map(|seq| reader.epoch_of(Seq(seq)).unwrap()).collect();
    let [three, seven] = [Some(Epoch(3)), Some(Epoch(7))];
    assert_eq!(epochs, [None, three, three, three, seven, seven, None]);
}

#[test]
fn a_foreign_layout_is_refused_with_its_reason() {
    let dir = Scratch::new();
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    let mut db = rocksdb::DB::open(&options, dir.path()).unwrap();
    db.create_cf("other", &options).unwrap();
    drop(db);
    let refused = State::open(dir.path(), &small()).unwrap_err();
    assert!(matches!(refused, OpenError::ColumnFamilies { .. }), "{refused}");
    assert!(refused.to_string().contains("other"), "{refused}");

    let dir = Scratch::new();
    let db = rocksdb::DB::open(&options, dir.path()).unwrap();
    db.put(keys::FORMAT, 99u32.to_le_bytes()).unwrap();
    drop(db);
    let refused = State::open(dir.path(), &small()).unwrap_err();
    assert!(matches!(refused, OpenError::Format { found: 99, .. }), "{refused}");
}

#[test]
fn a_damaged_value_is_named_and_counts_as_damage() {
    let dir = Scratch::new();
    let (state, writer) = open(&dir);
    let mut key = Vec::new();
    keys::write_data(&mut key, b"bad\n");
    state.reader().store().db.put(&key, [77]).unwrap();
    let error = writer.head(b"bad\n").unwrap_err();
    assert!(error.is_damage());
    assert!(error.to_string().contains("get of `bad\\n`"), "{error}");
    let error = state.reader().content_hash().unwrap_err();
    assert!(error.to_string().contains("scan of `bad\\n`"), "{error}");
}

/// A table with many keys has a filter that is larger than the cache. Read anew for each look-up,
/// it makes one round of the apply loop take minutes.
#[test]
fn the_filter_of_a_large_table_is_not_read_again_for_each_look_up() {
    const KEYS: u64 = 100_000;
    let dir = Scratch::new();
    // A filter has ten bits for each key.
    let options = RocksOptions { block_cache_size: 64 << 10, ..small() };
    let (state, mut writer) = State::open(dir.path(), &options).expect("the state opens");
    for n in 0..KEYS {
        let value = Value { data: Bytes::new(), version: Seq(1), expires_at_ms: None };
        writer.put(format!("key {n}").as_bytes(), value, None).expect("it is put");
    }
    writer.finish_entry(&entry(EntryKind::Commands, 1, 1, b""));
    writer.write().expect("it is written");
    state.reader().flush().expect("it is flushed");
    // Out of level 0, whose tables RocksDB may treat better than the others.
    state.reader().store().db.compact_range(None::<&[u8]>, None::<&[u8]>);

    rocksdb::perf::set_perf_stats(rocksdb::perf::PerfStatsLevel::EnableCount);
    let mut counted = rocksdb::perf::PerfContext::default();
    counted.reset();
    let absent = 0..1_000u64;
    let count = absent.end;
    for n in absent {
        assert!(writer.head(format!("no key {n}").as_bytes()).expect("it is read").is_none());
    }
    let bytes = counted.metric(rocksdb::perf::PerfMetric::BlockReadByte);
    rocksdb::perf::set_perf_stats(rocksdb::perf::PerfStatsLevel::Disable);
    // One in a hundred look-ups reads a block of data, of 4 KiB.
    assert!(bytes < count * 4096 / 10, "{count} look-ups of absent keys read {bytes} bytes");
}

#[test]
fn writes_that_are_put_off_are_counted_and_go_through() {
    const ROUND_KEYS: u64 = 4_000;
    let dir = Scratch::new();
    // The smallest memtables, so that flushes fall behind.
    let options = RocksOptions { write_buffer_size: Some(64 << 10), ..small() };
    let (state, mut writer) = State::open(dir.path(), &options).expect("the state opens");
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut seq = 0;
    while state.reader().write_stalls().0 == 0 {
        assert!(Instant::now() < deadline, "no write was put off in {seq} rounds");
        seq += 1;
        for n in 0..ROUND_KEYS {
            let data = Bytes::from_static(&[7; 50]);
            let value = Value { data, version: Seq(seq), expires_at_ms: None };
            writer.put(format!("key {seq} {n}").as_bytes(), value, None).expect("it is put");
        }
        writer.finish_entry(&entry(EntryKind::Commands, 1, seq, b""));
        writer.write().expect("it is written");
    }
    assert_eq!(state.reader().write_stalls().1, Duration::ZERO, "none is being put off now");
    assert_eq!(state.reader().count().expect("it is read"), seq * ROUND_KEYS);
    let causes = state.reader().stall_causes();
    assert!(causes.contains("write_stopped=") && causes.contains("level0_files="), "{causes}");
}

/// A refused attempt counts against RocksDB's rate as if it had written, so that a write which is
/// tried again and again never goes through while the rate is in force.
#[test]
fn a_store_that_falls_behind_is_stopped_but_never_slowed_down() {
    let dir = Scratch::new();
    let options = RocksOptions { level0_stop_writes_trigger: Some(30), ..small() };
    let opened = State::open(dir.path(), &options).expect("the state opens");
    let files = std::fs::read_dir(dir.path()).expect("it is there");
    let written = files
        .map(|file| file.expect("it is there").path())
        .filter(|path| path.to_string_lossy().contains("OPTIONS-"))
        .max()
        .expect("RocksDB writes down its options");
    let text = std::fs::read_to_string(written).expect("it is read");
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("{name} is missing")).to_owned()
    };
    assert_eq!(value("level0_stop_writes_trigger"), "30");
    assert_eq!(value("level0_slowdown_writes_trigger"), "30");
    assert_eq!(
        value("soft_pending_compaction_bytes_limit"),
        value("hard_pending_compaction_bytes_limit")
    );
    drop(opened);
}

fn put_token(writer: &mut StateWriter, seq: u64, name: &str) {
    let record = TokenRecord::new(1_000, Seq(seq), &Reply::Integer(7));
    writer.put_token(name.as_bytes(), record).expect("put");
}

#[test]
fn tokens_are_remembered_by_rounds_readers_and_restarts_and_the_oldest_forgotten() {
    let dir = Scratch::new();
    let (state, mut writer) = open(&dir);
    writer.keep_at_most_tokens(4);
    let known = |writer: &StateWriter| -> Vec<char> {
        let held = |name: &char| writer.token(name.to_string().as_bytes()).unwrap().is_some();
        ('a'..='k').filter(held).collect()
    };
    // One round with fewer, one that forgets of what is stored, one that forgets of its own.
    for (seq, names, left) in
        [(1, "abc", "abc"), (2, "de", "bcde"), (3, "f", "cdef"), (4, "ghijk", "hijk")]
    {
        for name in names.chars() {
            put_token(&mut writer, seq, &name.to_string());
        }
        let left: Vec<char> = left.chars().collect();
        assert_eq!(known(&writer), left, "within round {seq}");
        writer.finish_entry(&entry(EntryKind::Commands, 1, seq, b""));
        writer.write().expect("written");
        assert_eq!(known(&writer), left, "after round {seq}");
        for name in 'a'..='k' {
            let read = state.reader().token(name.to_string().as_bytes()).expect("readable");
            assert_eq!(read.is_some(), left.contains(&name), "{name} after round {seq}");
        }
    }
    let record = state.reader().token(b"k").expect("readable").expect("remembered");
    assert_eq!((record.seq, record.reply(1_000)), (Seq(4), Reply::Integer(7)));
    // Emptying the database is about keys.
    writer.clear(Seq(5)).expect("cleared");
    writer.finish_entry(&entry(EntryKind::Commands, 1, 5, b""));
    writer.write().expect("written");
    state.reader().flush().expect("flushed");
    drop((state, writer));
    let (_state, mut writer) = open(&dir);
    assert_eq!(known(&writer), ['h', 'i', 'j', 'k']);
    writer.keep_at_most_tokens(4);
    put_token(&mut writer, 6, "a");
    assert_eq!(known(&writer), ['a', 'i', 'j', 'k'], "the count is kept, too");
}

#[test]
fn hashes_tell_states_apart_that_remember_other_tokens() {
    let hashes = |tokens: &[(&str, u64)]| {
        let dir = Scratch::new();
        let (state, mut writer) = open(&dir);
        for (name, seq) in tokens {
            put_token(&mut writer, *seq, name);
        }
        writer.finish_entry(&entry(EntryKind::Commands, 1, 1, b""));
        writer.write().expect("written");
        let reader = state.reader();
        let ranges = reader.snapshot().range_hashes().expect("readable").ranges;
        (reader.content_hash().expect("readable").hash, ranges)
    };
    let (whole, ranges) = hashes(&[("a", 1), ("b", 2)]);
    assert_eq!(hashes(&[("b", 2), ("a", 1)]), (whole, ranges.clone()));
    for other in [&[][..], &[("a", 1)], &[("a", 1), ("b", 3)], &[("a", 1), ("c", 2)]] {
        let (other_whole, other_ranges) = hashes(other);
        assert_ne!(other_whole, whole, "{other:?}");
        let odd = (0..ranges.len()).filter(|range| ranges[*range] != other_ranges[*range]);
        assert!((1..=2).contains(&odd.count()), "named to the slots of the tokens: {other:?}");
    }
}
