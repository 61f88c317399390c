//! Damage that marks prove, in every place.

use super::*;
use quorate_protocol::record::{RECORD_HEADER_BYTES, SyncMark};

/// A journal of several segments, stopped cleanly.
fn stopped(scratch: &Scratch) -> Log {
    let mut log = Log::new();
    let running = Running::start(scratch.options());
    let id = EntryId::new(Epoch(1), Seq(1));
    running.append(1, vec![log.seal(id, EntryKind::Cluster, Bytes::from_static(b"members"))]);
    for _ in 0..12 {
        running.append(1, log.extend(1, 4, 500));
    }
    running.stop();
    log
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("it can be read");
    bytes[at] ^= 0x10;
    fs::write(path, bytes).expect("it can be written");
}

fn assert_damaged(scratch: &Scratch, log: &Log, what: &str) {
    let open = OpenJournal::open(scratch.options()).expect("it opens");
    let recovered = open.recovered().clone();
    let damage = recovered.damage.clone().unwrap_or_else(|| panic!("{what}: not noticed"));
    assert!(recovered.last.seq < log.last().seq, "{what}: {recovered:?}");
    assert_eq!(damage.at, recovered.last.seq.next(), "{what}");
    let running = Running::start_open(open);
    let kept = log.cut(recovered.last.seq.0 + 1);
    assert_eq!(read_all(&running.journal.reader()), kept.entries, "{what}");
    running.stop();
    assert!(!scratch.divergent().is_empty(), "{what}");
    // Damage is remembered although the files look whole now.
    let open = OpenJournal::open(scratch.options()).expect("it opens");
    assert_eq!(open.recovered().damage, Some(damage), "{what}");
    assert_eq!(open.recovered().last, recovered.last, "{what}");
    let mut open = open;
    open.clear_damage().expect("it can be cleared");
    drop(open);
    let open = OpenJournal::open(scratch.options()).expect("it opens");
    assert_eq!(open.recovered().damage, None, "{what}");
}

#[test]
fn a_flipped_bit_below_a_mark_is_damage_wherever_it_is() {
    let scratch = Scratch::new();
    let log = stopped(&scratch);
    let segments = scratch.segments();
    assert!(segments.len() >= 3);
    for (n, _) in segments.iter().enumerate() {
        let used = inspect(&scratch.path().join("journal")).expect("it can be read").segments[n]
            .bytes_used as usize;
        // The last frame is a trailer or a mark for what stands before it: without it the
        // entries it covered are merely unproven.
        let last_frame = used - RECORD_HEADER_BYTES;
        for at in (0..last_frame).step_by(331) {
            let copy = scratch.crashed();
            flip(&copy.segments()[n], at);
            let what = format!("segment {n} byte {at}");
            if n + 2 >= segments.len() || at < 128 {
                assert_damaged(&copy, &log, &what);
            } else {
                assert_found_when_read(&copy, &log, &what);
            }
        }
    }
}

/// Older segments aren't read at a start: reading them, or verifying, finds the damage.
fn assert_found_when_read(scratch: &Scratch, log: &Log, what: &str) {
    let verified = verify(&scratch.path().join("journal")).expect("it can be read");
    assert!(verified.faults.iter().any(|fault| fault.synced), "{what}");
    let running = Running::start(scratch.options());
    let reader = running.journal.reader();
    assert_eq!(reader.last(), log.last());
    let mut corrupt = 0;
    for entry in &log.entries {
        match reader.read(entry.id.seq, 0) {
            Ok(read) => assert_eq!(read[0], *entry, "{what}"),
            Err(ReadError::Corrupt { .. }) => corrupt += 1,
            Err(error) => panic!("{what}: {error}"),
        }
    }
    // A damaged mark spoils nothing but the reading across it.
    assert!(corrupt >= 1, "{what}");
    running.stop();
}

/// Damage costs nothing where the state holds, on disk, all that the damaged segments held.
#[test]
fn damage_below_the_flushed_state_is_set_aside() {
    let scratch = Scratch::new();
    let log = stopped(&scratch);
    let segments = scratch.segments();
    let n = segments.len() - 2;
    let header = survey_headers(&scratch)[n + 1];
    let covering = |copy: &Scratch, seq: Seq| JournalOptions {
        covered: Covered(Arc::new(move || seq)),
        ..copy.options()
    };
    let damaged = || {
        let copy = scratch.crashed();
        flip(&copy.segments()[n], 300);
        copy
    };
    for beyond in [0, 1] {
        let copy = damaged();
        let covered = Seq(header.preceding.seq.0 + beyond);
        let open = OpenJournal::open(covering(&copy, covered)).expect("it opens");
        let recovered = open.recovered().clone();
        assert_eq!((recovered.damage.as_ref(), recovered.last), (None, log.last()));
        assert_eq!(recovered.preceding, header.preceding);
        assert!(recovered.repaired.is_some_and(|damage| damage.at <= header.preceding.seq));
        let running = Running::start_open(open);
        let kept: Vec<Entry> =
            log.entries.iter().filter(|entry| entry.id > header.preceding).cloned().collect();
        assert_eq!(read_all(&running.journal.reader()), kept);
        running.stop();
        assert_eq!(copy.divergent().len(), n + 1, "nothing is thrown away");
        let open = OpenJournal::open(copy.options()).expect("it opens");
        assert_eq!((&open.recovered().damage, &open.recovered().repaired), (&None, &None));
    }
    // One entry of the damaged segment is nowhere else.
    let copy = damaged();
    let short = header.preceding.seq.prev();
    let open = OpenJournal::open(covering(&copy, short)).expect("it opens");
    assert!(open.recovered().damage.is_some() && open.recovered().repaired.is_none());
    // What was recorded as a loss stays one.
    drop(open);
    let open = OpenJournal::open(covering(&copy, log.last().seq)).expect("it opens");
    assert!(open.recovered().damage.is_some() && open.recovered().repaired.is_none());
}

fn survey_headers(scratch: &Scratch) -> Vec<quorate_protocol::record::SegmentHeader> {
    let read = |path: PathBuf| {
        let file = fs::File::open(path).expect("it can be opened");
        survey::read_header(&file).expect("read").expect("a header")
    };
    scratch.segments().into_iter().map(read).collect()
}

#[test]
fn a_damaged_index_is_done_without() {
    let scratch = Scratch::new();
    let log = stopped(&scratch);
    let segment = scratch.segments().remove(0);
    let len = fs::metadata(&segment).expect("it is there").len() as usize;
    let whole = OpenJournal::open(scratch.crashed().options()).expect("it opens");
    for back in 1..200 {
        let copy = scratch.crashed();
        flip(&copy.segments()[0], len - back);
        let open = OpenJournal::open(copy.options()).expect("it opens");
        assert_eq!(open.recovered(), whole.recovered(), "{back} bytes from the end");
    }
    assert_holds(&scratch.options(), &log);
}

/// A write that the disk put where another record stands: what is there is whole and right, and not
/// what belongs there.
#[test]
fn a_misdirected_write_is_damage() {
    let scratch = Scratch::new();
    let log = stopped(&scratch);
    let newest = scratch.segments().last().expect("a segment").clone();
    let entries = tail(&scratch.path().join("journal"), 40).expect("it can be read");
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        entries.iter().filter(|entry| entry.payload_bytes == 500).partition(|e| e.path == newest);
    assert!(here.len() > 2 && elsewhere.len() > 2, "{} {}", here.len(), elsewhere.len());
    let record = RECORD_HEADER_BYTES + 500;
    for (from, to) in [(here[0], here[1]), (here[2], here[1]), (elsewhere[0], here[1])] {
        let copy = scratch.crashed();
        let there = |entry: &EntrySummary| {
            copy.path().join("journal").join(entry.path.file_name().expect("a name"))
        };
        let source = fs::read(there(from)).expect("it can be read");
        let mut target = fs::read(there(to)).expect("it can be read");
        let (from_at, to_at) = (from.offset as usize, to.offset as usize);
        target[to_at..to_at + record].copy_from_slice(&source[from_at..from_at + record]);
        fs::write(there(to), target).expect("it can be written");
        assert_damaged(&copy, &log, &format!("{} over {}", from.id, to.id));
    }
}

#[test]
fn a_lost_segment_is_damage() {
    let scratch = Scratch::new();
    let log = stopped(&scratch);
    let count = scratch.segments().len();
    // Without its first segments a journal looks like a trimmed one: the state's position tells.
    for n in 1..count - 1 {
        let copy = scratch.crashed();
        fs::remove_file(&copy.segments()[n]).expect("it can be removed");
        assert_damaged(&copy, &log, &format!("segment {n}"));
    }
}

#[test]
fn a_journal_that_must_exist_and_does_not_is_damage() {
    let scratch = Scratch::new();
    let options = JournalOptions { must_exist: true, ..scratch.options() };
    let open = OpenJournal::open(options.clone()).expect("it opens");
    assert_eq!(open.recovered().damage.as_ref().map(|damage| damage.at), Some(Seq(1)));
    drop(open);
    let open = OpenJournal::open(options).expect("it opens");
    assert!(open.recovered().damage.is_some(), "it is remembered");
}

#[test]
fn a_payload_that_looks_like_a_mark_proves_nothing() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let running = Running::start(scratch.options());
    running.append(1, log.extend(1, 2, 10));
    let whole = log.clone();
    let forged = SyncMark { nonce: 0, id: EntryId::new(Epoch(1), Seq(1000)), chain: Chain(1) };
    let id = EntryId::new(Epoch(1), Seq(3));
    let payload = Bytes::copy_from_slice(&forged.encode());
    running.append(1, vec![log.seal(id, EntryKind::Commands, payload)]);
    let crashed = scratch.crashed();
    running.stop();
    let segment = crashed.segments().remove(0);
    let bytes = fs::read(&segment).expect("it can be read");
    let end = bytes.iter().rposition(|b| *b != 0).expect("it holds records") + 1;
    flip(&segment, end - 64 - 64 + 20);
    let recovered = assert_holds(&crashed.options(), &whole);
    assert_eq!(recovered.damage, None);
    assert!(recovered.torn.is_some());
}

#[test]
fn reading_a_damaged_record_names_file_and_offset() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let running = Running::start(scratch.options());
    running.append(1, log.extend(1, 3, 100));
    flip(&scratch.segments()[0], 128 + 164 + 80);
    let reader = running.journal.reader();
    assert_eq!(reader.read(Seq(1), 100).expect("the first is fine").len(), 1);
    match reader.read(Seq(2), 100) {
        Err(ReadError::Corrupt { offset, path, .. }) => {
            assert_eq!((offset, path), (128 + 164, scratch.segments()[0].clone()));
        }
        other => panic!("{other:?}"),
    }
    assert!(running.journal.stop());
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let scratch = Scratch::new();
    stopped(&scratch);
    let segment = &scratch.segments()[1];
    let mut bytes = fs::read(segment).expect("it can be read");
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..124]);
    bytes[124..128].copy_from_slice(&crc.to_le_bytes());
    fs::write(segment, bytes).expect("it can be written");
    let before = scratch.segments();
    match OpenJournal::open(scratch.options()) {
        Err(OpenError::Newer { version: 2, path }) => assert_eq!(path, *segment),
        other => panic!("{other:?}"),
    }
    assert_eq!(scratch.segments(), before, "nothing was changed");
}

#[test]
fn a_record_that_is_cut_off_is_an_error_and_not_an_endless_read() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let running = Running::start(scratch.options());
    running.append(1, log.extend(1, 3, 200));
    running.stop();
    // In the payload of the last entry, then in its header.
    for missing in [150, 310] {
        let mut open = OpenJournal::open(scratch.options()).expect("it opens");
        open.segments.last_mut().expect("one").end -= missing;
        let running = Running::start_open(open);
        let error = running.journal.reader().read(Seq(3), 1_000).expect_err("it is cut off");
        assert!(matches!(error, ReadError::Corrupt { .. }), "{missing}: {error}");
        drop(running);
    }
}
