//! Tables that are compacted on demand, that rot, and that go missing.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::*;
use crate::storage::options::Compression;

/// Keys of one round.
const KEYS: u64 = 200;

fn open_plain(dir: &Scratch) -> Result<(State, StateWriter), OpenError> {
    let options = RocksOptions { min_blob_size: 0, compression: Compression::None, ..small() };
    State::open(dir.path(), &options)
}

/// A round that sets the same keys as all others, flushed to a table of its own.
fn table(state: &State, writer: &mut StateWriter, seq: u64) {
    for n in 0..KEYS {
        let key = n.to_le_bytes();
        let value =
            Value { data: vec![seq as u8; 1_000].into(), expires_at_ms: None, version: Seq(seq) };
        let replaced = writer.head(&key).unwrap();
        writer.put(&key, value, replaced).unwrap();
    }
    writer.finish_entry(&entry(EntryKind::Commands, 1, seq, b""));
    writer.write().unwrap();
    state.reader().flush().unwrap();
}

fn files(dir: &Scratch) -> Vec<PathBuf> {
    let files = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "sst")).collect()
}

#[test]
fn compacting_drops_what_was_overwritten_and_a_cache_can_be_emptied() {
    let dir = Scratch::new();
    let (state, mut writer) = open_plain(&dir).unwrap();
    (1..=3).for_each(|seq| table(&state, &mut writer, seq));
    assert_eq!(state.reader().compact_progress(), None);
    let reader = state.reader().clone();
    let (seen, compacted) = std::thread::scope(|scope| {
        let compacting = scope.spawn(|| reader.compact().unwrap());
        let mut seen = None;
        while !compacting.is_finished() {
            seen = reader.compact_progress().or(seen);
        }
        (seen, compacting.join().unwrap())
    });
    assert_eq!(state.reader().compact_progress(), None, "it is over");
    let seen = seen.expect("it could be watched");
    assert!(seen.total_bytes > 0 && seen.done_bytes <= seen.total_bytes, "{seen:?}");
    assert!(compacted.after_bytes < compacted.before_bytes / 2, "{compacted:?}");
    for n in 0..KEYS {
        let value = state.reader().get(&n.to_le_bytes()).unwrap().expect("it is there");
        assert_eq!(value.data[..], [3; 1_000]);
    }
    let used = || state.reader().property(c"rocksdb.block-cache-usage").unwrap();
    let before = used();
    assert!(before > 100_000, "{before} bytes are cached");
    let freed = state.reader().drop_cache();
    assert!(freed > 100_000 && used() < before - 100_000, "{freed} of {before}");
}

#[test]
fn a_compaction_that_fails_in_the_background_is_told_and_the_damage_is_a_loss() {
    let dir = Scratch::new();
    let (state, mut writer) = open_plain(&dir).unwrap();
    table(&state, &mut writer, 1);
    for path in files(&dir) {
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        for at in (1_000..file.metadata().unwrap().len() * 8 / 10).step_by(2_000) {
            file.write_all_at(&[0xee; 8], at).unwrap();
        }
    }
    let failed = state.reader().compact().unwrap_err();
    assert!(
        matches!(&failed, CompactError::Background(count) if *count > 0)
            || matches!(&failed, CompactError::State(error) if error.is_loss()),
        "{failed}"
    );
    let found = state.reader().content_hash().unwrap_err();
    assert!(found.is_loss() && found.is_damage(), "{found}");
}

#[test]
fn a_table_that_is_missing_or_cut_is_found_when_the_state_is_opened() {
    for cut in [false, true] {
        let dir = Scratch::new();
        let (state, mut writer) = open_plain(&dir).unwrap();
        (1..=2).for_each(|seq| table(&state, &mut writer, seq));
        drop((state, writer));
        let victim = files(&dir).pop().expect("there are two");
        if cut {
            fs::OpenOptions::new().write(true).open(&victim).unwrap().set_len(500).unwrap();
        } else {
            fs::remove_file(&victim).unwrap();
        }
        let error = open_plain(&dir).unwrap_err();
        assert!(error.is_loss(), "{error}");
        assert!(error.to_string().contains(victim.file_name().unwrap().to_str().unwrap()));
    }
}
