//! A node's part of a scrub on a real state, and the comparison of two of them.

use bytes::Bytes;
use quorate_protocol::command::{Keyspace, Value, slot};
use quorate_protocol::entry::Entry;
use quorate_protocol::types::{Chain, ClusterTime, EntryId, EntryKind, Epoch, NodeId};

use super::*;
use crate::scrub::compare;
use crate::storage::scratch::Scratch;
use crate::storage::state::{State, tests::small};

/// A state with a hundred keys, one of which has this value.
fn examiner(dir: &Scratch, name: &str, odd: &str) -> Arc<Examiner> {
    let path = dir.path().join(name);
    let (state, mut writer) = State::open(&path, &small()).expect("a new state");
    for n in 1..=100_u64 {
        let text = if n == 50 { odd } else { "the same" };
        let value = Value { data: text.to_owned().into(), expires_at_ms: None, version: Seq(1) };
        writer.put(format!("key {n}").as_bytes(), value, None).expect("put");
    }
    let id = EntryId::new(Epoch(1), Seq(1));
    let time = ClusterTime(1);
    let entry = Entry::seal(id, EntryKind::Commands, time, Chain::default(), Bytes::new());
    writer.finish_entry(&entry);
    writer.write().expect("written");
    let scratch = dir.path().join(format!("{name}-scrub"));
    let stamp = dir.path().join(format!("{name}-stamp"));
    Examiner::new(state.reader().clone(), ApplyHandle::default(), scratch, stamp)
}

#[test]
fn a_value_that_differs_is_found_in_its_slots() {
    let dir = Scratch::new();
    let nodes: Vec<_> = [("a", "the same"), ("b", "the same"), ("c", "another")]
        .into_iter()
        .zip(1..)
        .map(|((name, odd), node)| {
            let examined = examiner(&dir, name, odd).examine(Seq(1)).expect("it is there");
            assert_eq!(examined.fault, None);
            (NodeId(node), examined.hashes.expect("it can be read"))
        })
        .collect();
    assert!(nodes.iter().all(|(_, hashes)| hashes.keys() == 100));
    let found = compare(&nodes);
    let [difference] = &found[..] else { panic!("{found:?}") };
    assert_eq!(difference.nodes, [NodeId(3)]);
    let slot = slot(b"key 50");
    assert!((difference.first_slot..=difference.last_slot).contains(&slot));
    assert!(difference.last_slot - difference.first_slot < crate::scrub::SLOTS_PER_RANGE);
}

#[test]
fn a_position_that_is_not_reached_is_not_answered() {
    let dir = Scratch::new();
    let examiner = examiner(&dir, "a", "x");
    assert_eq!(examiner.examine(Seq(0)), Err(NotHere::Elsewhere));
    assert_eq!(examiner.examine(Seq(2)), Err(NotHere::Elsewhere));
    assert!(examiner.examine(Seq(1)).is_ok());
}

/// One flipped bit in the middle of a table.
#[test]
fn a_flipped_bit_in_a_file_is_a_fault() {
    let dir = Scratch::new();
    let examiner = examiner(&dir, "a", "x");
    examiner.state.flush().expect("flushed");
    let table = std::fs::read_dir(dir.path().join("a"))
        .expect("the state's folder")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|end| end == "sst"))
        .expect("a table was flushed");
    let mut bytes = std::fs::read(&table).expect("readable");
    bytes[100] ^= 1;
    std::fs::write(&table, bytes).expect("writable");
    let examined = examiner.examine(Seq(1)).expect("it is there");
    let fault = examined.fault.expect("a checksum doesn't match");
    assert!(fault.contains("mismatch") && fault.contains(".sst"), "{fault}");
}
