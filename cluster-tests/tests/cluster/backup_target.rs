//! Directories to archive to that are full, slow, or go away.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use quorate_cluster_tests::harness::{
    Cluster, ClusterOptions, DiskCall, DiskFault, LoopDisk, RECOVERY_LIMIT, binary, poll,
};
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions};
use serde_json::{Value as Json, json};

use crate::archives::{Oracle, back_up, json as parsed, quorate, said, verify};
use crate::common::{self, metric, settle, wait_for_writes};

/// A part of the target's path, and of no other's.
const TARGET: &str = "/target-dir";

/// Where the archive ends, by what it lists; `verify` finds no fault in it.
fn assert_whole(target: &Path) -> Json {
    let path = target.display().to_string();
    let listed = parsed(&quorate(&["backup", "--json", "list", "--target", &path]));
    let whole = parsed(&verify(target, &[]));
    assert_eq!(whole["faults"], json!([]), "{whole}");
    assert_eq!(listed["head"]["archived"]["seq"], whole["archived_seq"]);
    whole
}

/// Nothing is there any more that a backup left which ended early.
fn assert_pruned(target: &Path) {
    let path = target.display().to_string();
    parsed(&quorate(&["backup", "--json", "prune", "--target", &path, "--keep-snapshots", "2"]));
    let whole = assert_whole(target);
    assert_eq!(whole["unlisted"], json!([]), "{whole}");
}

fn begin_backup(cluster: &Cluster, node: u64, target: &Path) -> Child {
    let admin = format!("http://{}", cluster.settings(node).ports.admin);
    let mut command = Command::new(binary());
    command.args(["backup", "--json", "--admin", &admin, "create", "--target"]).arg(target);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("start the binary")
}

#[test]
fn a_full_target_fails_backups_and_nothing_else_until_there_is_space() {
    if !LoopDisk::is_possible() {
        println!("skipped: mounting a file system takes root");
        return;
    }
    let mut cluster = Cluster::prepare("backup-full", &ClusterOptions::default());
    let (image, target) = (cluster.dir().join("image"), cluster.dir().join("target-dir"));
    let disk = LoopDisk::mount(&image, &target, 64 << 20);
    for id in cluster.ids() {
        cluster.settings_mut(id).extra = format!(
            "[archive]\ntarget = \"{}\"\ninterval = \"1s\"\nsnapshot_interval = \"1h\"\n",
            target.display()
        );
        cluster.settings(id).write();
        cluster.start_node(id);
    }
    let primary = cluster.wait_until_writable();
    let runs = |outcome: &str| {
        metric(&cluster, primary, &format!("quorate_backups_total{{outcome=\"{outcome}\"}}"))
    };
    poll(RECOVERY_LIMIT, "a backup", || (runs("good") > 0).then_some(()));
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, 300);
    disk.fill(0);
    let before = runs("failed");
    poll(RECOVERY_LIMIT, "two backups to fail", || (runs("failed") >= before + 2).then_some(()));
    let full = assert_whole(&target);
    wait_for_writes(&writers, 300);
    let said_of = said(&common::quorate(&cluster, primary, &["status", "--json"]));
    assert!(said_of.contains("No space left"), "{said_of}");
    let ordered = back_up(&cluster, primary, &target, &[]);
    println!("{}", said(&ordered));
    assert!(!ordered.status.success());
    assert!(said(&ordered).contains("No space left") || said(&ordered).contains("under way"));
    assert_eq!(assert_whole(&target)["archived_seq"], full["archived_seq"]);

    disk.relieve();
    let before = runs("good");
    poll(RECOVERY_LIMIT, "backups to go on", || (runs("good") >= before + 2).then_some(()));
    let seq = cluster.status(primary).expect("it runs").applied_seq;
    poll(RECOVERY_LIMIT, "the archive to have everything", || {
        (metric(&cluster, primary, "quorate_archive_archived_seq") >= seq).then_some(())
    });
    settle(&cluster, writers);
    for id in cluster.ids() {
        assert!(cluster.stop(id).success());
    }
    assert!(assert_whole(&target)["archived_seq"].as_u64() >= Some(seq));
    assert_pruned(&target);
}

/// Whichever file finds no space any more.
#[test]
fn a_target_that_runs_full_at_any_file_holds_a_whole_archive() {
    if !LoopDisk::is_possible() {
        println!("skipped: mounting a file system takes root");
        return;
    }
    let options = ClusterOptions { nodes: 1, ..ClusterOptions::default() };
    let cluster = Cluster::start_with("backup-runs-full", &options);
    let (image, target) = (cluster.dir().join("image"), cluster.dir().join("target-dir"));
    let disk = LoopDisk::mount(&image, &target, 16 << 20);
    let mut oracle = Oracle::new(&cluster);
    let mut before = parsed(&back_up(&cluster, 1, &target, &[]))["archived_seq"].clone();
    let mut failures = 0;
    for left in (0..).map(|step| step * (4 << 10)) {
        oracle.write(20);
        disk.fill(left);
        let made = back_up(&cluster, 1, &target, &[]);
        let whole = assert_whole(&target);
        disk.relieve();
        if made.status.success() {
            break;
        }
        assert!(said(&made).contains("No space left"), "{}", said(&made));
        failures += 1;
        assert_eq!(whole["archived_seq"], before, "with {left} bytes left");
        before = parsed(&back_up(&cluster, 1, &target, &["--no-snapshot"]))["archived_seq"].clone();
        assert_eq!(assert_whole(&target)["archived_seq"], before);
    }
    println!("{failures} backups found no space");
    assert!(failures > 3, "{failures}");
    assert_pruned(&target);
    drop(cluster);
    drop(disk);
}

/// From any write, sync, rename or removal on nothing works there any more, as where a network file
/// system goes away.
#[test]
fn a_directory_that_goes_away_at_any_call_holds_a_whole_archive() {
    let options = ClusterOptions { nodes: 1, ..ClusterOptions::default() };
    let mut cluster = Cluster::prepare("backup-goes-away", &options);
    let fault = DiskFault::install(cluster.settings_mut(1));
    cluster.start_node(1);
    cluster.wait_until_writable();
    let target = cluster.dir().join(&TARGET[1..]);
    let mut oracle = Oracle::new(&cluster);
    parsed(&back_up(&cluster, 1, &target, &[]));
    // The log alone makes the same calls each time, so that none of them is left out; how many files a
    // snapshot has differs.
    for (further, least) in [(&["--no-snapshot"][..], 14), (&[], 30)] {
        let mut broken = Vec::new();
        for number in 1.. {
            oracle.write(5);
            let seq = cluster.status(1).expect("it runs").applied_seq;
            fault.away_from(number, DiskCall::Any, TARGET);
            let made = back_up(&cluster, 1, &target, further);
            fault.end();
            let whole = assert_whole(&target);
            if made.status.success() && fault.hits() == 0 {
                break;
            }
            // What follows `HEAD` is best effort; whether that was replaced may be unknown.
            if made.status.success() {
                assert!(whole["archived_seq"].as_u64() >= Some(seq), "call {number}: {whole}");
            } else {
                let step = said(&made).split(": ").nth(2).map(str::to_owned);
                assert!(said(&made).contains("Input/output error"), "{}", said(&made));
                broken.push(step.unwrap_or_default());
            }
            oracle.write(5);
            let next = parsed(&back_up(&cluster, 1, &target, &["--no-snapshot"]));
            assert!(next["archived_seq"].as_u64() > whole["archived_seq"].as_u64(), "{next}");
            assert_eq!(assert_whole(&target)["archived_seq"], next["archived_seq"]);
            assert_pruned(&target);
        }
        println!("{} backups ended early: {broken:?}", broken.len());
        assert!(broken.len() >= least, "{broken:?}");
    }
}

#[test]
fn a_slow_directory_holds_up_neither_writes_nor_a_stop() {
    let mut cluster = Cluster::prepare("backup-slow", &ClusterOptions::default());
    let mut faults = BTreeMap::new();
    for id in cluster.ids() {
        faults.insert(id, DiskFault::install(cluster.settings_mut(id)));
        cluster.start_node(id);
    }
    let primary = cluster.wait_until_writable();
    let fault = &faults[&primary];
    let target = cluster.dir().join(&TARGET[1..]);
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, 200);
    let began = Instant::now();
    parsed(&back_up(&cluster, primary, &target, &[]));
    let usual = began.elapsed();
    fault.slow(DiskCall::Any, TARGET);
    let began = Instant::now();
    let mut running = begin_backup(&cluster, primary, &target);
    wait_for_writes(&writers, 200);
    let before = writers.acknowledged();
    assert!(running.try_wait().expect("a child").is_none(), "{:?}", began.elapsed());
    parsed(&running.wait_with_output().expect("it ended"));
    let (took, hits) = (began.elapsed(), fault.hits());
    let written = writers.acknowledged() - before;
    println!("{hits} slow calls: {took:?} in place of {usual:?}, {written} writes meanwhile");
    assert!(took > Duration::from_millis(50) * u32::try_from(hits).expect("few") && hits > 20);
    assert!(written > 100, "{written}");
    assert_whole(&target);

    // A call that doesn't return at all, as of a network file system whose server is gone.
    fault.end();
    fault.hang(DiskCall::Any, TARGET);
    let running = begin_backup(&cluster, primary, &target);
    fault.wait_until_hit();
    wait_for_writes(&writers, 300);
    let second = back_up(&cluster, primary, &target, &[]);
    assert!(said(&second).contains("another backup is under way"), "{}", said(&second));
    let began = Instant::now();
    assert!(cluster.stop(primary).success());
    let took = began.elapsed();
    println!("stopped within {took:?} while a backup hung");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let given_up = running.wait_with_output().expect("it ended");
    assert!(!given_up.status.success(), "{}", said(&given_up));
    fault.end();
    assert_whole(&target);
    cluster.start_node(primary);
    let next = cluster.wait_until_writable();
    parsed(&back_up(&cluster, next, &target, &[]));
    settle(&cluster, writers);
    assert_whole(&target);
    assert_pruned(&target);
}
