//! What other processes read of a journal's files.

use super::*;

/// Everything that a follower has to tell.
fn look(follower: &mut Follower) -> Vec<Entry> {
    follower.look().expect("it can be read")
}

#[test]
fn a_follower_returns_every_entry_once_over_new_segments_and_cuts() {
    let (scratch, mut log) = (Scratch::new(), Log::new());
    let folder = scratch.options().dir;
    let running = Running::start(scratch.options());
    running.append(1, log.extend(1, 60, 500));
    assert!(scratch.segments().len() > 3);
    let (mut follower, newest) = Follower::open(&folder, 5).expect("it can be read");
    assert_eq!(newest, log.entries[55..]);
    assert_eq!(look(&mut follower), []);

    for round in 0..3 {
        let more = log.extend(1, 30, 500);
        running.append(1, more.clone());
        assert_eq!(look(&mut follower), more, "round {round}");
    }
    // In the middle of a segment, with whole segments behind it.
    let mut log = log.cut(70);
    running.truncate(70, 2);
    assert_eq!(look(&mut follower), []);
    let branch = log.extend(2, 100, 500);
    running.append(2, branch.clone());
    assert_eq!(look(&mut follower), branch);

    running.journal.trim(Seq(150)).expect("there is room");
    let more = log.extend(2, 5, 500);
    running.append(2, more.clone());
    assert_eq!(look(&mut follower), more);
    running.stop();
}

#[test]
fn a_follower_waits_for_a_record_that_is_half_written() {
    let (scratch, mut log) = (Scratch::new(), Log::new());
    let running = Running::start(scratch.options());
    running.append(1, log.extend(1, 3, 100));
    let (mut follower, _) = Follower::open(&scratch.options().dir, 1).expect("it can be read");
    running.stop();
    let path = scratch.segments().pop().expect("a segment");
    let whole = fs::read(&path).expect("it is there");
    let end = whole.iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
    let entry = log.extend(1, 1, 100).remove(0);
    let record = entry.record();
    for length in [1, 63, 64, 100] {
        let mut half = whole.clone();
        half[end..end + length].copy_from_slice(&record[..length]);
        fs::write(&path, &half).expect("it can be written");
        assert_eq!(look(&mut follower), [], "{length} bytes");
    }
    let mut full = whole;
    full[end..end + record.len()].copy_from_slice(&record);
    fs::write(&path, &full).expect("it can be written");
    assert_eq!(look(&mut follower), [entry]);
}

#[test]
fn what_was_cut_is_listed_with_its_reason_and_can_be_read() {
    let (scratch, mut log) = (Scratch::new(), Log::new());
    let options = scratch.options();
    let running = Running::start(options.clone());
    let whole = log.extend(1, 60, 500);
    running.append(1, whole.clone());
    assert!(divergent(&options.divergent).expect("it can be read").is_empty());
    running.truncate(30, 2);
    running.stop();
    let files = divergent(&options.divergent).expect("it can be read");
    assert_eq!(files.len(), scratch.divergent().len());
    let mut found = Vec::new();
    for file in &files {
        assert_eq!((file.reason, file.cut), (CutReason::Truncated, Seq(30)));
        assert_eq!((file.origin, &file.damage), (Some((ClusterId(7), Generation(0))), &None));
        let from = found.len();
        let damage = read_entries(&file.path, file.cut, |entry| {
            found.push(entry);
            true
        });
        assert_eq!(damage.expect("it can be read"), None);
        let tail = file.tail.expect("entries");
        assert_eq!((tail.first, tail.from), (found[from].id, found[from].time));
        assert_eq!(tail.entries as usize, found.len() - from);
        assert_eq!(Some(tail.last), found.last().map(|entry| entry.id));
    }
    found.sort_by_key(|entry| entry.id);
    assert_eq!(found, whole[29..]);
}

#[test]
fn a_damaged_file_is_read_up_to_the_damage() {
    let (scratch, mut log) = (Scratch::new(), Log::new());
    let options = scratch.options();
    let running = Running::start(options.clone());
    running.append(1, log.extend(1, 10, 500));
    running.truncate(3, 2);
    running.stop();
    let path = scratch.divergent().pop().expect("a file");
    let mut bytes = fs::read(&path).expect("it is there");
    // In the payload of the seventh entry.
    let at = bytes.windows(500).position(|window| window == [7; 500]).expect("it is there");
    bytes[at + 9] ^= 1;
    fs::write(&path, &bytes).expect("it can be written");
    let file = divergent_file(&path).expect("it can be read");
    let tail = file.tail.expect("entries");
    assert_eq!((tail.first.seq, tail.last.seq, tail.entries), (Seq(3), Seq(6), 4));
    assert!(file.damage.is_some_and(|damage| damage.starts_with("byte ")));
    let wrong = divergent_file(&scratch.segments()[0]).expect_err("it was not cut");
    assert_eq!(wrong.kind(), std::io::ErrorKind::InvalidInput);
}
