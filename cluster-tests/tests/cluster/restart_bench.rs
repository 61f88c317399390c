//! How long a node takes to be back: `make bench-nodes`.

use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use quorate_cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY_LIMIT, poll};
use quorate_cluster_tests::http;
use serde_json::Value as Json;

use crate::common::{metric, quorate};
use crate::foreground::{VALUE_BYTES, bytes_wanted, fill, load_average, write};

/// Restarts of each kind.
const RUNS: usize = 5;

/// Between two looks at a node that starts.
const LOOK_PERIOD: Duration = Duration::from_millis(2);

/// Keys written at once: 1 MiB of values.
const ROUND: u64 = (1 << 20) / VALUE_BYTES as u64;

/// Values behind the last flush, in rounds. The state is flushed by itself once a restart would have to
/// read more than a segment of 64 MiB, or the memtable is full.
const BEHIND_ROUNDS: u64 = 58;

/// How a node ends before it is started again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Killed,
    /// And nothing of its files is in memory, as after a reboot.
    KilledAndForgotten,
    Stopped,
}

/// What one restart took, from the process's start.
struct Restart {
    startup: Duration,
    ready: Duration,
    /// Until all that it held before was in its state again.
    applied: Duration,
    steps: Json,
    /// Bytes of the journal behind the last flush.
    behind_bytes: u64,
}

struct Subject {
    cluster: Cluster,
    node: u64,
    primary: u64,
    keys: u64,
    rounds: u64,
}

impl Subject {
    fn new(nodes: usize, bytes: u64) -> Self {
        let options = ClusterOptions { nodes, ..ClusterOptions::default() };
        let cluster = Cluster::start_with("restart-bench", &options);
        let primary = cluster.wait_until_writable();
        let node = cluster.others(primary).first().copied().unwrap_or(primary);
        let keys = bytes / VALUE_BYTES as u64;
        fill(&cluster, primary, keys);
        Self { cluster, node, primary, keys, rounds: 0 }
    }

    /// Overwrites 1 MiB of values.
    fn write_round(&mut self) {
        let first = self.rounds * ROUND % (self.keys - ROUND + 1);
        self.rounds += 1;
        let mut client = self.cluster.connect(self.primary);
        write(&mut client, first..first + ROUND, self.rounds);
    }

    fn metric(&self, name: &str) -> u64 {
        metric(&self.cluster, self.node, name)
    }

    /// Leaves as much of the journal behind the last flush as there may be: almost a segment.
    fn fall_behind(&mut self) -> u64 {
        let segments = self.metric("quorate_journal_segments");
        while self.metric("quorate_journal_segments") == segments {
            self.write_round();
        }
        self.cluster.wait_until_equal();
        let flushed = quorate(&self.cluster, self.node, &["storage", "flush"]);
        assert!(flushed.status.success(), "{flushed:?}");
        let before = self.metric("quorate_journal_bytes_total");
        let flushed = self.metric("quorate_state_flushed_seq");
        for _ in 0..BEHIND_ROUNDS {
            self.write_round();
        }
        let goal = self.cluster.status(self.primary).expect("it runs").committed_seq;
        poll(RECOVERY_LIMIT, "the node to hold it", || {
            (self.cluster.status(self.node)?.applied_seq >= goal).then_some(())
        });
        assert_eq!(self.metric("quorate_state_flushed_seq"), flushed, "flushed meanwhile");
        self.metric("quorate_journal_bytes_total") - before
    }

    fn restart(&mut self, end: End) -> Restart {
        let behind_bytes = self.fall_behind();
        let held = self.cluster.status(self.node).expect("it runs").applied_seq;
        match end {
            End::Killed | End::KilledAndForgotten => self.cluster.kill(self.node),
            End::Stopped => assert!(self.cluster.stop(self.node).success()),
        }
        if end == End::KilledAndForgotten {
            forget(&self.cluster.settings(self.node).data_dir());
        }
        let admin = self.cluster.settings(self.node).ports.admin;
        let began = Instant::now();
        self.cluster.start_node(self.node);
        let wait_for = |path: &str| {
            let deadline = began + RECOVERY_LIMIT;
            loop {
                match http::get(admin, path, RECOVERY_LIMIT) {
                    Ok(answer) if answer.status == 200 => return (began.elapsed(), answer.body),
                    other => assert!(Instant::now() < deadline, "{path}: {other:?}"),
                }
                thread::sleep(LOOK_PERIOD);
            }
        };
        let (startup, said) = wait_for("/health/startup");
        let (ready, _) = wait_for("/health/ready");
        let applied = poll(RECOVERY_LIMIT, "what it held to be applied", || {
            let applied = self.cluster.status(self.node)?.applied_seq;
            (applied >= held).then(|| began.elapsed())
        });
        let said: Json = serde_json::from_str(&said).expect("JSON");
        let steps = said["cold_start_seconds"].clone();
        self.primary = self.cluster.wait_until_writable();
        self.cluster.wait_until_equal();
        Restart { startup, ready, applied, steps, behind_bytes }
    }
}

/// Drops what the kernel has of these files.
fn forget(dir: &Path) {
    for entry in fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry")) {
        let path = entry.path();
        if path.is_dir() {
            forget(&path);
        } else {
            let file = File::open(&path).expect("open it");
            file.sync_all().expect("nothing of it may be dirty");
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).expect("forget it");
        }
    }
}

fn median_and_most(mut figures: Vec<f64>) -> (f64, f64) {
    figures.sort_by(f64::total_cmp);
    (figures[figures.len() / 2], figures[figures.len() - 1])
}

fn report(name: &str, runs: &[Restart]) {
    let behind = runs.iter().map(|run| run.behind_bytes).min().unwrap_or_default();
    println!(
        "{name}: {} runs, at least {:.1} MB of journal behind the last flush before, load average {}",
        runs.len(),
        behind as f64 / 1e6,
        load_average()
    );
    let line = |what: &str, figures: Vec<f64>| {
        let (median, most) = median_and_most(figures);
        println!("  {what:<20} {:>8.0} ms median, {:.0} ms at most", median * 1e3, most * 1e3);
    };
    line("/health/startup", runs.iter().map(|run| run.startup.as_secs_f64()).collect());
    line("/health/ready", runs.iter().map(|run| run.ready.as_secs_f64()).collect());
    line("all applied", runs.iter().map(|run| run.applied.as_secs_f64()).collect());
    let steps = runs[0].steps.as_object().expect("an object");
    for step in steps.keys() {
        let took: Vec<f64> = runs.iter().filter_map(|run| run.steps[step].as_f64()).collect();
        if !took.is_empty() {
            line(step, took);
        }
    }
}

#[test]
#[ignore = "measures; run by make bench-nodes"]
fn figures_of_restarts() {
    let bytes = bytes_wanted("QUORATE_BENCH_BYTES");
    for (nodes, whose) in [(3, "a replica of three"), (1, "the only node")] {
        let mut subject = Subject::new(nodes, bytes);
        println!("{whose}, {:.0} MB in {} keys", bytes as f64 / 1e6, subject.keys);
        for (how, end) in [
            ("killed", End::Killed),
            ("killed, nothing cached", End::KilledAndForgotten),
            ("stopped in order", End::Stopped),
        ] {
            let runs: Vec<Restart> = (0..RUNS).map(|_| subject.restart(end)).collect();
            report(how, &runs);
        }
    }
}
