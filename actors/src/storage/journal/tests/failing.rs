//! Failed system calls, without a faulty disk: devices that refuse one call.

use std::fs::OpenOptions;

use super::*;

/// A journal whose active segment is this device.
fn on_device(scratch: &Scratch, device: &str) -> Running {
    let mut open = OpenJournal::open(scratch.options()).expect("it opens");
    let file = OpenOptions::new().read(true).write(true).open(device).expect("it is there");
    open.active.file = Arc::new(file);
    Running::start_open(open)
}

fn assert_failed(running: &Running, operation: &str, log: &mut Log) {
    wait("the fault", || !running.faults.lock().is_empty());
    let faults = running.faults.lock().clone();
    assert!(faults.len() == 1 && faults[0].contains(operation), "{faults:?}");
    let rejected =
        running.journal.append(Branch(1), log.extend(1, 1, 1)).expect_err("it has failed");
    assert_eq!(rejected.why, RejectedWhy::Stopped);
    assert!(!running.journal.stop());
    assert_eq!(running.journal.progress().persisted, EntryId::ZERO);
    assert_eq!(running.faults.lock().len(), 1, "nothing is tried again");
}

#[test]
fn a_failed_write_publishes_nothing_and_ends_the_journal() {
    let (scratch, mut log) = (Scratch::new(), Log::new());
    // Every write to it fails for lack of space.
    let running = on_device(&scratch, "/dev/full");
    running.journal.append(Branch(1), log.extend(1, 2, 10)).expect("there is room");
    assert_failed(&running, "write", &mut log);
    assert_eq!(running.journal.progress().in_memory, EntryId::ZERO);
    assert_eq!(running.wakes.load(Ordering::SeqCst), 0);
}

#[test]
fn a_failed_sync_publishes_memory_only_and_ends_the_journal() {
    let (scratch, mut log) = (Scratch::new(), Log::new());
    // Takes every write and can't be synced.
    let running = on_device(&scratch, "/dev/null");
    let entries = log.extend(1, 2, 10);
    let last = log.last();
    running.journal.append(Branch(1), entries).expect("there is room");
    assert_failed(&running, "sync", &mut log);
    assert_eq!(running.journal.progress().in_memory, last);
    assert_eq!(running.groups.load(Ordering::SeqCst), 0);
}

#[test]
fn a_journal_works_with_and_without_a_record_outside_the_disk() {
    let (scratch, mut log) = (Scratch::new(), Log::new());
    let witness = scratch.path().join("witness");
    let options = JournalOptions { witness: Some(witness), ..scratch.options() };
    let running = Running::start(options);
    running.append(1, log.extend(1, 2, 10));
    assert_eq!(running.journal.progress().persisted, log.last());
    running.stop();
    // Without a folder for it, it is done without.
    let options = JournalOptions { witness: Some("/nowhere/x".into()), ..scratch.options() };
    let running = Running::start(options);
    running.append(1, log.extend(1, 2, 10));
    running.stop();
}
