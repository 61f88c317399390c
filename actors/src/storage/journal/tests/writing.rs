use super::*;

#[test]
fn entries_survive_restart_roll_and_large_payloads() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let running = Running::start(scratch.options());
    running.append(1, log.extend(1, 40, 300));
    running.append(1, log.extend(1, 1, 100_000));
    running.append(1, log.extend(2, 3, 20_000));
    running.append(1, log.extend(3, 5, 0));
    assert_eq!(read_all(&running.journal.reader()), log.entries);
    running.stop();
    assert!(scratch.segments().len() > 4);
    let recovered = assert_holds(&scratch.options(), &log);
    assert_eq!(
        recovered.epochs,
        vec![(Seq(1), Epoch(1)), (Seq(42), Epoch(2)), (Seq(45), Epoch(3))]
    );
    assert_eq!(recovered.torn, None);
    assert_eq!(recovered.damage, None);
    let verified = verify(&scratch.path().join("journal")).expect("it can be read");
    assert_eq!((verified.entries, verified.last), (49, log.last()));
    assert_eq!(verified.faults, Vec::new());
}

#[test]
fn cluster_entries_come_back_with_their_payload() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let running = Running::start(scratch.options());
    let id = EntryId::new(Epoch(1), Seq(1));
    let first = log.seal(id, EntryKind::Cluster, Bytes::from_static(b"members"));
    running.append(1, vec![first]);
    running.append(1, log.extend(1, 2, 10));
    running.stop();
    let recovered = assert_holds(&scratch.options(), &log);
    assert_eq!(recovered.clusters, vec![(id, Bytes::from_static(b"members"))]);
}

#[test]
fn progress_passes_memory_before_disk_and_wakes_only_as_asked() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let running = Running::start(scratch.options());
    running.append(1, log.extend(1, 1, 10));
    wait("both wakes", || running.wakes.load(Ordering::SeqCst) == 2);
    wait("its report", || running.groups.load(Ordering::SeqCst) == 1);
    running.hooks.wake_in_memory.store(false, Ordering::SeqCst);
    running.append(1, log.extend(1, 1, 10));
    wait("its report", || running.groups.load(Ordering::SeqCst) == 2);
    assert_eq!(running.wakes.load(Ordering::SeqCst), 3);
    running.stop();
}

#[test]
fn reads_start_anywhere_and_keep_to_their_limit() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let options = JournalOptions { segment_bytes: 1 << 20, ..scratch.options() };
    let running = Running::start(options);
    running.append(1, log.extend(1, 3000, 200));
    let reader = running.journal.reader();
    for first in [1u64, 2, 999, 2999, 3000] {
        let some = reader.read(Seq(first), 2000).expect("it can be read");
        let at = first as usize - 1;
        let expected = &log.entries[at..(at + some.len())];
        assert_eq!(some, expected);
        assert!(some.len() <= 2000 / 264 && !some.is_empty());
    }
    assert_eq!(reader.read(Seq(1), 0).expect("it can be read").len(), 1);
    assert!(matches!(
        reader.read(Seq(3001), 10),
        Err(ReadError::Ahead { last }) if last == log.last()
    ));
    running.stop();
}

#[test]
fn readers_follow_the_writer_while_it_writes() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let running = Running::start(scratch.options());
    let batches: Vec<_> = (0..100).map(|_| log.extend(1, 5, 50)).collect();
    let reader = running.journal.reader();
    let follower = std::thread::spawn(move || {
        let (mut entries, mut next) = (Vec::new(), Seq(1));
        wait("all entries", || {
            match reader.read(next, 4096) {
                Ok(some) => {
                    next = some.last().expect("at least one").id.seq.next();
                    entries.extend(some);
                }
                Err(ReadError::Ahead { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            next == Seq(501)
        });
        entries
    });
    for batch in batches {
        running.journal.append(Branch(1), batch).expect("there is room");
    }
    assert_eq!(follower.join().expect("the follower ends"), log.entries);
    running.stop();
}

#[test]
fn trimming_keeps_everything_from_the_position_on() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let running = Running::start(scratch.options());
    running.append(1, log.extend(1, 100, 500));
    running.journal.trim(Seq(50)).expect("there is room");
    running.append(1, log.extend(1, 1, 10));
    let reader = running.journal.reader();
    let first = reader.first();
    assert!(first > Seq(30) && first <= Seq(50), "{first}");
    assert!(matches!(
        reader.read(first.prev(), 10),
        Err(ReadError::Compacted { first: now }) if now == first
    ));
    running.stop();
    let open = OpenJournal::open(scratch.options()).expect("it opens");
    let before = &log.entries[first.0 as usize - 2];
    assert_eq!(open.recovered().first, first);
    assert_eq!(open.recovered().preceding, before.id);
    assert_eq!(open.recovered().preceding_chain, before.chain);
}

#[test]
fn a_full_queue_gives_the_entries_back() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let running = Running::start(JournalOptions { queue_bytes_max: 0, ..scratch.options() });
    let entries = log.extend(1, 2, 10);
    let rejected = running
        .journal
        .append(Branch(1), entries.clone())
        .expect_err("nothing fits into a queue of no bytes");
    assert_eq!((rejected.entries, rejected.why), (entries, RejectedWhy::Full));
    running.journal.roll().expect("commands without entries still fit");
    running.stop();
}

#[test]
fn a_stopped_journal_takes_nothing() {
    let scratch = Scratch::new();
    let running = Running::start(scratch.options());
    assert!(running.journal.stop());
    let rejected = running.journal.roll().expect_err("it has stopped");
    assert_eq!(rejected.why, RejectedWhy::Stopped);
    assert!(!running.journal.stop());
}

#[test]
fn entries_out_of_order_end_the_journal() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let running = Running::start(scratch.options());
    let entries = log.extend(1, 3, 10);
    running.journal.append(Branch(1), entries[1..].to_vec()).expect("there is room");
    wait("the fault", || !running.faults.lock().is_empty());
    assert!(running.faults.lock()[0].contains("can't follow"), "{:?}", running.faults.lock());
    let rejected = running.journal.append(Branch(1), entries).expect_err("it has failed");
    assert_eq!(rejected.why, RejectedWhy::Stopped);
    assert!(!running.journal.stop());
    assert_eq!(running.journal.progress().in_memory, EntryId::ZERO);
}

#[test]
fn an_idle_writer_marks_what_it_has_synced() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let options = JournalOptions { idle_mark_after: Duration::from_millis(1), ..scratch.options() };
    let running = Running::start(options);
    running.append(1, log.extend(1, 3, 10));
    let dir = scratch.path().join("journal");
    wait("the mark", || inspect(&dir).is_ok_and(|found| found.log.proven == log.last()));
    let found = inspect(&dir).expect("it can be read");
    assert_eq!((found.segments[0].marks, found.segments[0].entries), (1, 3));
    running.stop();
}

#[test]
fn tail_lists_the_last_entries() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let running = Running::start(scratch.options());
    running.append(1, log.extend(1, 60, 400));
    let entries = tail(&scratch.path().join("journal"), 3).expect("it can be read");
    let ids: Vec<u64> = entries.iter().map(|e| e.id.seq.0).collect();
    assert_eq!(ids, vec![58, 59, 60]);
    assert_eq!(entries[2].chain, log.entries[59].chain);
    running.stop();
}
