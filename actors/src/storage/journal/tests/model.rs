//! Random histories of writing, cutting and crashing, against a list of entries.

use proptest::prelude::*;
use quorate_protocol::record::RECORD_HEADER_BYTES;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append {
        entries: usize,
        payload: usize,
    },
    /// Cuts this many entries from the end.
    Truncate {
        back: usize,
    },
    Roll,
    /// Trims what lies further back than this.
    Trim {
        keep: usize,
    },
    /// Ends without a stop, all written bytes intact.
    Kill,
    /// Ends with a power cut: from somewhere above the last mark on, bytes are zero or wrong.
    PowerCut {
        at: prop::sample::Index,
        flip: Option<u8>,
    },
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    let power_cut = (any::<prop::sample::Index>(), prop::option::of(0..8u8));
    prop_oneof![
        6 => (1..6usize, 0..900usize)
            .prop_map(|(entries, payload)| Step::Append { entries, payload }),
        2 => (0..12usize).prop_map(|back| Step::Truncate { back }),
        1 => Just(Step::Roll),
        1 => (0..20usize).prop_map(|keep| Step::Trim { keep }),
        1 => Just(Step::Kill),
        2 => power_cut.prop_map(|(at, flip)| Step::PowerCut { at, flip }),
        1 => Just(Step::Stop),
    ]
}

struct Model {
    scratch: Scratch,
    running: Running,
    log: Log,
    branch: u64,
    epoch: u64,
    first: Seq,
}

impl Model {
    fn new() -> Self {
        let scratch = Scratch::new();
        let running = Running::start(options(&scratch));
        Self { scratch, running, log: Log::new(), branch: 1, epoch: 1, first: Seq(1) }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Append { entries, payload } => {
                self.append(*entries, *payload);
            }
            Step::Truncate { back } => {
                let floor = self.first.prev();
                let keep = Seq(self.log.last().seq.0.saturating_sub(*back as u64)).max(floor);
                if keep == floor && floor > Seq::ZERO {
                    // The model can't restart its list behind entries that it trimmed.
                    return;
                }
                self.branch += 1;
                self.epoch += 1;
                self.log = self.log.cut(keep.0 + 1);
                self.running.truncate(keep.0 + 1, self.branch);
            }
            Step::Roll => {
                self.running.journal.roll().expect("there is room");
                self.append(1, 1);
            }
            Step::Trim { keep } => {
                let below = Seq(self.log.last().seq.0.saturating_sub(*keep as u64));
                self.running.journal.trim(below).expect("there is room");
                self.append(1, 1);
                let first = self.running.journal.reader().first();
                assert!(first >= self.first && first <= below.max(self.first));
                self.first = first;
            }
            Step::Kill => {
                let crashed = self.scratch.crashed();
                self.restart(crashed, self.log.last().seq);
            }
            Step::PowerCut { at, flip } => {
                let crashed = self.scratch.crashed();
                let proven = tear(&crashed, *at, *flip);
                self.restart(crashed, proven);
            }
            Step::Stop => {
                assert!(self.running.journal.stop());
                let stopped = self.scratch.crashed();
                self.restart(stopped, self.log.last().seq);
            }
        }
    }

    /// When it returns, the writer has done everything that it was asked for.
    fn append(&mut self, entries: usize, payload: usize) {
        let entries = self.log.extend(self.epoch, entries, payload);
        self.running.append(self.branch, entries);
    }

    /// Goes on in a copy of the directory. Everything through `proven` must be there.
    fn restart(&mut self, scratch: Scratch, proven: Seq) {
        let open = OpenJournal::open(options(&scratch)).expect("it opens");
        let recovered = open.recovered().clone();
        assert_eq!(recovered.damage, None);
        assert_eq!(recovered.first, self.first);
        assert!(recovered.last.seq >= proven, "{recovered:?} lost entries before {proven}");
        self.log = self.log.cut(recovered.last.seq.0 + 1);
        assert_eq!(recovered.last, self.log.last());
        // Recovery has synced what it found: a second crash finds the same, all of it proven.
        let again = OpenJournal::open(options(&scratch.crashed())).expect("it opens");
        assert_eq!(again.recovered().last, recovered.last);
        assert_eq!(again.recovered().proven, recovered.last);
        let _ = self.running.journal.stop();
        self.running = Running::start_open(open);
        self.scratch = scratch;
        self.branch = 1;
    }

    fn check(&self) {
        let entries = read_all(&self.running.journal.reader());
        let skipped = self.first.0 as usize - 1;
        assert_eq!(entries, self.log.entries[skipped..]);
        assert_eq!(*self.running.faults.lock(), Vec::<String>::new());
        assert!(self.running.journal.stop());
        let verified = verify(&self.scratch.path().join("journal")).expect("it can be read");
        assert_eq!(verified.faults, Vec::new());
    }
}

fn options(scratch: &Scratch) -> JournalOptions {
    JournalOptions { segment_bytes: 3 << 10, ..scratch.options() }
}

/// Damages the last segment somewhere behind its last mark. Returns what the marks prove.
fn tear(scratch: &Scratch, at: prop::sample::Index, flip: Option<u8>) -> Seq {
    let dir = scratch.path().join("journal");
    let found = inspect(&dir).expect("it can be read");
    let last = found.segments.last().expect("there is always one");
    let behind_mark = tail(&last.path, 10_000)
        .expect("it can be read")
        .into_iter()
        .find(|entry| entry.id.seq > last.proven.seq)
        .map_or(last.bytes_used, |entry| entry.offset) as usize;
    let mut bytes = fs::read(&last.path).expect("it can be read");
    let used = last.bytes_used as usize;
    if last.closed || behind_mark >= used {
        return found.log.proven.seq;
    }
    // A group may begin with a mark for the one before; the entry stands behind it.
    assert!(behind_mark >= 128 && used - behind_mark >= RECORD_HEADER_BYTES);
    let at = behind_mark + at.index(used - behind_mark);
    match flip {
        Some(bit) => bytes[at] ^= 1 << bit,
        None => bytes[at..].fill(0),
    }
    fs::write(&last.path, bytes).expect("it can be written");
    found.log.proven.seq
}

/// One way to spoil a file.
#[derive(Clone, Debug)]
enum Spoil {
    Bytes { at: prop::sample::Index, with: Vec<u8> },
    CutTo(prop::sample::Index),
    Remove,
    CopyOver(prop::sample::Index),
}

fn spoil() -> impl Strategy<Value = (prop::sample::Index, Spoil)> {
    let at = any::<prop::sample::Index>;
    let kind = prop_oneof![
        6 => (at(), prop::collection::vec(any::<u8>(), 1..200))
            .prop_map(|(at, with)| Spoil::Bytes { at, with }),
        1 => at().prop_map(Spoil::CutTo),
        1 => Just(Spoil::Remove),
        1 => at().prop_map(Spoil::CopyOver),
    ];
    (at(), kind)
}

fn apply(scratch: &Scratch, which: prop::sample::Index, spoil: &Spoil) {
    let segments = scratch.segments();
    if segments.is_empty() {
        return;
    }
    let path = which.get(&segments);
    let mut bytes = fs::read(path).expect("it can be read");
    match spoil {
        Spoil::Bytes { at, with } if !bytes.is_empty() => {
            let at = at.index(bytes.len());
            let len = with.len().min(bytes.len() - at);
            bytes[at..at + len].copy_from_slice(&with[..len]);
        }
        Spoil::Bytes { .. } => {}
        Spoil::CutTo(len) => bytes.truncate(len.index(bytes.len() + 1)),
        Spoil::Remove => return fs::remove_file(path).expect("it can be removed"),
        Spoil::CopyOver(other) => bytes = fs::read(other.get(&segments)).expect("it is there"),
    }
    fs::write(path, bytes).expect("it can be written");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_is_spoilt_what_is_read_is_part_of_the_log(
        groups in prop::collection::vec((1..5usize, 0..900usize), 1..12),
        spoils in prop::collection::vec(spoil(), 1..4),
        clean: bool,
    ) {
        let scratch = Scratch::new();
        let mut log = Log::new();
        let running = Running::start(options(&scratch));
        for (entries, payload) in groups {
            running.append(1, log.extend(1, entries, payload));
        }
        let spoilt = if clean {
            running.stop();
            scratch.crashed()
        } else {
            let crashed = scratch.crashed();
            running.stop();
            crashed
        };
        for (which, spoil) in &spoils {
            apply(&spoilt, *which, spoil);
        }
        let _ = verify(&spoilt.path().join("journal"));
        let Ok(open) = OpenJournal::open(options(&spoilt)) else {
            // Only a version number that happens to be higher is refused outright.
            return Ok(());
        };
        let recovered = open.recovered().clone();
        let running = Running::start_open(open);
        let reader = running.journal.reader();
        for seq in reader.first().0..=reader.last().seq.0 {
            match reader.read(Seq(seq), 0) {
                Ok(read) => prop_assert_eq!(&read[0], &log.entries[seq as usize - 1]),
                Err(ReadError::Corrupt { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        running.stop();
        let again = OpenJournal::open(options(&spoilt)).expect("it opens again");
        // What was an old segment may be among the newest now, and its damage be found.
        prop_assert!(again.recovered().last.seq <= recovered.last.seq);
        if recovered.damage.is_some() {
            prop_assert_eq!(&again.recovered().damage, &recovered.damage);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_journal_holds_what_was_appended_less_what_was_cut(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut model = Model::new();
        for step in &steps {
            model.run(step);
        }
        model.check();
    }
}
