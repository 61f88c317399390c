//! Crashes between any two steps, simulated by copying the directory as it is at that moment.

use super::*;
use crate::storage::journal::cut::{Folders, Reason};

#[test]
fn entries_above_the_last_mark_are_written_again() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let running = Running::start(scratch.options());
    running.append(1, log.extend(1, 4, 100));
    running.append(1, log.extend(1, 4, 100));
    let crashed = scratch.crashed();
    running.stop();
    let recovered = assert_holds(&crashed.options(), &log);
    assert_eq!(recovered.proven, EntryId::new(Epoch(1), Seq(4)));
    assert_eq!(crashed.segments().len(), 2);
    assert_eq!(crashed.divergent().len(), 0);
    // The old segment has given back what it had reserved.
    let old = fs::metadata(&crashed.segments()[0]).expect("it is there").len();
    assert_eq!(old, 128 + 8 * 164 + 64);
}

#[test]
fn a_clean_stop_leaves_nothing_to_prove() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let running = Running::start(scratch.options());
    running.append(1, log.extend(1, 4, 100));
    running.stop();
    let recovered = assert_holds(&scratch.options(), &log);
    assert_eq!(recovered.proven, log.last());
    assert_eq!(scratch.segments().len(), 1);
}

#[test]
fn writing_goes_on_after_recovery() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    for epoch in 1..6 {
        let running = Running::start(scratch.options());
        running.append(1, log.extend(epoch, 7, 100));
        running.append(1, log.extend(epoch, 7, 100));
        let crashed = scratch.crashed();
        running.stop();
        assert_holds(&crashed.options(), &log);
    }
}

#[test]
fn a_torn_last_record_is_cut_at_every_length() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let running = Running::start(scratch.options());
    running.append(1, log.extend(1, 3, 40));
    let whole = log.clone();
    running.append(1, log.extend(1, 1, 70));
    let crashed = scratch.crashed();
    running.stop();
    let segment = crashed.segments().remove(0);
    let bytes = fs::read(&segment).expect("it can be read");
    let end = bytes.iter().rposition(|b| *b != 0).expect("it holds records") + 1;
    let start = end - 70 - 64;
    for cut in start..end {
        let copy = crashed.crashed();
        let mut torn = bytes.clone();
        torn[cut..].fill(0);
        fs::write(&copy.segments()[0], &torn).expect("it can be written");
        let recovered = assert_holds(&copy.options(), &whole);
        assert_eq!(recovered.damage, None, "cut at {cut}");
        assert_eq!(recovered.torn.is_some(), cut > start, "cut at {cut}");
        assert_eq!(copy.divergent().len(), usize::from(cut > start));
    }
}

#[test]
fn whatever_follows_a_bad_record_above_the_mark_is_cut_with_it() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let running = Running::start(scratch.options());
    running.append(1, log.extend(1, 2, 40));
    running.append(1, log.extend(1, 3, 40));
    let crashed = scratch.crashed();
    running.stop();
    let segment = crashed.segments().remove(0);
    let mut bytes = fs::read(&segment).expect("it can be read");
    let end = bytes.iter().rposition(|b| *b != 0).expect("it holds records") + 1;
    bytes[end - 2 * 104 + 70] ^= 1;
    fs::write(&segment, bytes).expect("it can be written");
    let recovered = assert_holds(&crashed.options(), &log.cut(4));
    assert_eq!(recovered.damage, None);
    assert!(recovered.torn.is_some());
}

#[test]
fn truncation_replaces_the_tail_and_keeps_it_aside() {
    for from in [2, 13, 14, 30, 61, 100, 101] {
        let scratch = Scratch::new();
        let mut log = Log::new();
        let running = Running::start(scratch.options());
        running.append(1, log.extend(1, 100, 500));
        running.truncate(from, 2);
        let progress = running.journal.progress();
        let mut kept = log.cut(from);
        assert_eq!((progress.in_memory, progress.persisted), (kept.last(), kept.last()));
        let crashed = scratch.crashed();
        assert_holds(&crashed.options(), &kept);
        running.append(2, kept.extend(2, 20, 500));
        assert_eq!(read_all(&running.journal.reader()), kept.entries);
        running.stop();
        assert_holds(&scratch.options(), &kept);
        assert_eq!(scratch.divergent().is_empty(), from == 101);
        for file in scratch.divergent() {
            let found = tail(&file, 1000).expect("it can be read");
            let last = found.last().expect("it holds what was cut");
            assert_eq!(last.chain, log.entries[last.id.seq.0 as usize - 1].chain);
            let faults = verify(&file).expect("it can be read").faults;
            assert_eq!(faults, Vec::new(), "{}", file.display());
        }
    }
}

#[test]
fn truncation_can_cut_everything() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let running = Running::start(scratch.options());
    running.append(1, log.extend(1, 60, 500));
    running.truncate(1, 2);
    let crashed = scratch.crashed();
    assert_holds(&crashed.options(), &Log::new());
    let mut other = Log::new();
    running.append(2, other.extend(2, 3, 10));
    running.stop();
    assert_holds(&scratch.options(), &other);
}

#[test]
fn a_crash_between_the_steps_of_a_truncation_leaves_a_prefix() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let running = Running::start(scratch.options());
    running.append(1, log.extend(1, 60, 500));
    running.stop();
    let options = JournalOptions { must_exist: true, ..scratch.options() };
    let folders = Folders::of(&options);
    let mut segments = scratch.segments();
    assert!(segments.len() >= 4);
    // Each file from the end moves away before the cut one is replaced.
    while segments.len() > 1 {
        let last = segments.pop().expect("more than one is left");
        folders.archive(&last, Seq(2), Reason::Truncated).expect("it can be moved");
        let crashed = scratch.crashed();
        let options = JournalOptions { must_exist: true, ..crashed.options() };
        let open = OpenJournal::open(options).expect("it opens");
        let recovered = open.recovered();
        assert_eq!(recovered.damage, None);
        assert_eq!(recovered.last, log.cut(recovered.last.seq.0 + 1).last());
        assert!(recovered.last.seq >= Seq(2) && recovered.last.seq < Seq(60));
    }
    // The kept prefix under its temporary name is no segment yet.
    let leftover = segments[0].with_extension("qj.tmp");
    fs::copy(&segments[0], &leftover).expect("it can be copied");
    folders.archive_copy(&segments[0], Seq(2), Reason::Truncated).expect("it can be linked");
    let crashed = scratch.crashed();
    let open = OpenJournal::open(crashed.options()).expect("it opens");
    assert!(open.recovered().last.seq >= Seq(2));
    assert_eq!(files(&crashed.path().join("journal"), ".tmp").len(), 0);
}

#[test]
fn completions_of_an_older_branch_say_so() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let running = Running::start(scratch.options());
    let old = log.extend(1, 50, 100);
    running.journal.append(Branch(1), old).expect("there is room");
    running.journal.truncate(Seq(11), Branch(2)).expect("there is room");
    let mut kept = log.cut(11);
    let new = kept.extend(2, 5, 100);
    running.journal.append(Branch(2), new).expect("there is room");
    let mut seen = Vec::new();
    wait("the new branch's entries", || {
        let progress = running.journal.progress();
        if seen.last() != Some(&progress) {
            seen.push(progress);
        }
        progress.branch == Branch(2) && progress.persisted == kept.last()
    });
    for progress in seen {
        if progress.branch == Branch(2) {
            assert!(progress.in_memory.seq <= Seq(15), "{progress:?}");
            assert!(progress.persisted.seq >= Seq(10), "{progress:?}");
        }
    }
    running.stop();
    assert_holds(&scratch.options(), &kept);
}

#[test]
fn appends_of_an_older_branch_end_the_journal() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let running = Running::start(scratch.options());
    running.append(1, log.extend(1, 5, 10));
    running.truncate(3, 2);
    running.journal.append(Branch(1), log.extend(1, 1, 10)).expect("there is room");
    wait("the fault", || !running.faults.lock().is_empty());
    assert!(!running.journal.stop());
}

#[test]
fn a_log_restarts_behind_a_state_that_is_ahead() {
    for (count, ahead) in [(3, 9), (40, 41), (40, 90)] {
        let scratch = Scratch::new();
        let mut log = Log::new();
        let running = Running::start(scratch.options());
        running.append(1, log.extend(1, count, 500));
        running.stop();
        let (id, chain) = (EntryId::new(Epoch(4), Seq(ahead)), Chain(99));
        let open = OpenJournal::open(scratch.options()).expect("it opens");
        let open = open.start_after(id, chain).expect("it restarts");
        assert_eq!(open.recovered().first, Seq(ahead + 1));
        let mut behind = Log::after(id, chain);
        let running = Running::start_open(open);
        running.append(1, behind.extend(4, 4, 10));
        running.stop();
        assert_holds(&scratch.options(), &behind);
        assert!(!scratch.divergent().is_empty());
    }
}

#[test]
fn a_crash_after_the_restarted_log_is_published_keeps_it() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let running = Running::start(scratch.options());
    running.append(1, log.extend(1, 40, 500));
    running.stop();
    let before = scratch.crashed();
    let (id, chain) = (EntryId::new(Epoch(4), Seq(90)), Chain(99));
    let open = OpenJournal::open(scratch.options()).expect("it opens");
    drop(open.start_after(id, chain).expect("it restarts"));
    // The new segment has its name, none of the old ones has moved.
    let new = scratch.segments().remove(0);
    let target = before.path().join("journal").join(new.file_name().expect("it has a name"));
    fs::copy(&new, target).expect("it can be copied");
    assert_holds(&before.options(), &Log::after(id, chain));
    assert_eq!(before.segments().len(), 1);
}

#[test]
fn restarting_a_running_journal_drops_its_entries() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let running = Running::start(scratch.options());
    running.append(1, log.extend(1, 40, 500));
    let (id, chain) = (EntryId::new(Epoch(2), Seq(30)), Chain(5));
    running.journal.start_after(id, chain, Branch(2)).expect("there is room");
    running.wait_persisted(2, id);
    let mut behind = Log::after(id, chain);
    running.append(2, behind.extend(2, 30, 500));
    assert_eq!(running.journal.reader().first(), Seq(31));
    running.stop();
    assert_holds(&scratch.options(), &behind);
}

#[test]
fn the_record_outside_the_disk_proves_an_intact_tail_only() {
    let scratch = Scratch::new();
    let mut log = Log::new();
    let witness = scratch.path().join("witness");
    let options = JournalOptions { witness: Some(witness.clone()), ..scratch.options() };
    let running = Running::start(options.clone());
    running.append(1, log.extend(1, 4, 100));
    running.append(1, log.extend(1, 4, 100));
    let intact = scratch.crashed();
    let witnessed = |scratch: &Scratch| {
        let witness = Some(scratch.path().join("witness"));
        let options = JournalOptions { witness, ..scratch.options() };
        let open = OpenJournal::open(options).expect("it opens");
        open.recovered().witnessed
    };
    // A kill: what was written is there.
    assert_eq!(witnessed(&intact.crashed()), Some(Incarnation(3)));
    // Written pages that the kernel dropped: the tail is shorter.
    let dropped = intact.crashed();
    let segment = dropped.segments().remove(0);
    let mut bytes = fs::read(&segment).expect("it can be read");
    let end = bytes.iter().rposition(|b| *b != 0).expect("it holds records") + 1;
    bytes[end - 164..].fill(0);
    fs::write(&segment, bytes).expect("it can be written");
    assert_eq!(witnessed(&dropped), None);
    // A reboot: the record is gone.
    let rebooted = intact.crashed();
    fs::remove_file(rebooted.path().join("witness")).expect("it was there");
    assert_eq!(witnessed(&rebooted), None);
    // A truncation moves the record back.
    running.truncate(3, 2);
    assert_eq!(witnessed(&scratch.crashed()), Some(Incarnation(3)));
    running.stop();
    assert_eq!(witnessed(&scratch), Some(Incarnation(3)));
}

#[test]
fn the_divergent_folder_keeps_to_its_cap_and_to_the_newest() {
    let scratch = Scratch::new();
    let options = JournalOptions { divergent_bytes_max: 40 << 10, ..scratch.options() };
    let mut log = Log::new();
    let running = Running::start(options);
    for round in 0..20 {
        let branch = round + 2;
        running.append(branch - 1, log.extend(round + 1, 10, 500));
        let from = log.last().seq.0;
        running.truncate(from, branch);
        log = log.cut(from);
        // Names carry the position of the cut, so the newest is the one with the highest.
        let newest = format!("-cut{from}-truncated-");
        let files = scratch.divergent();
        assert!(files.iter().any(|file| file.to_string_lossy().contains(&newest)));
        let bytes: u64 = files.iter().map(|file| fs::metadata(file).expect("there").len()).sum();
        assert!(bytes <= 48 << 10, "{bytes} bytes in {files:?}");
    }
    running.stop();
    assert_holds(&scratch.options(), &log);
}
