//! Restarts and upgrades of a cluster that goes on: `deploy/rolling-restart.sh` with redis-py as its
//! users run it, and two versions side by side.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use quorate_cluster_tests::harness::{Cluster, RECOVERY_LIMIT, binary, poll};
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions};

use crate::common::{json, judge_writes, quorate, wait_for_writes};
use crate::redis_py::Script;

#[test]
fn a_rolling_restart_fails_no_write_of_a_cluster_client() {
    let mut cluster = Cluster::start("rolling");
    let entry = cluster.client_address(1).to_string();
    let script = Script::start(&[entry]);
    script.wait_for_commands(500);
    let before: Vec<u64> = cluster
        .ids()
        .iter()
        .map(|id| cluster.status(*id).expect("it answers").incarnation)
        .collect();
    let urls: Vec<String> = cluster
        .ids()
        .iter()
        .map(|id| format!("http://{}", cluster.settings(*id).ports.admin))
        .collect();
    let done = AtomicBool::new(false);
    let output = thread::scope(|scope| {
        let restart = scope.spawn(|| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/rolling-restart.sh");
            let output = Command::new(path).args(&urls).env("QUORATE", binary()).output();
            done.store(true, Ordering::Relaxed);
            output.expect("bash starts")
        });
        // The service manager.
        while !done.load(Ordering::Relaxed) {
            cluster.restart_ended();
            thread::sleep(Duration::from_millis(20));
        }
        restart.join().expect("no panic")
    });
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{text}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    script.wait_for_commands(500);
    for (id, before) in cluster.ids().into_iter().zip(before) {
        let status = cluster.status(id).expect("it answers");
        assert_eq!(status.incarnation, before + 1, "node {id} was restarted once");
    }
    let report = script.finish();
    println!("{} SETs acknowledged, none failed", report.acknowledged_sets.len());
    assert!(report.errors.is_empty(), "{} errors: {:?}", report.errors.len(), report.errors);
    assert_eq!((report.in_doubt_sets.len(), report.in_doubt_incrs), (0, 0));
    let keys: Vec<String> = report.acknowledged_sets.keys().cloned().collect();
    assert_eq!(cluster.read_all(&keys), report.acknowledged_sets);
    cluster.wait_until_equal();
}

/// Has a node start as a binary of the next version would.
fn upgrade(cluster: &mut Cluster, id: u64) {
    let variable = ("QUORATE_PRETEND_CLUSTER_VERSION".to_owned(), "2".to_owned());
    cluster.settings_mut(id).environment.push(variable);
}

#[test]
fn two_versions_run_in_one_cluster_until_the_upgrade_is_finished() {
    let mut cluster = Cluster::start("upgrade");
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, 300);
    for id in [1, 2] {
        assert!(cluster.stop(id).success());
        upgrade(&mut cluster, id);
        cluster.start_node(id);
        cluster.wait_until_writable();
        wait_for_writes(&writers, 300);
    }
    // A newer primary can't leave the older node behind, and an older one has nothing to raise.
    poll(RECOVERY_LIMIT, "a newer node to lead", || {
        quorate(&cluster, 3, &["promote", "--to", "1"]);
        (cluster.primary() == Some(1)).then_some(())
    });
    let refused = quorate(&cluster, 3, &["upgrade", "finish"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("node 3 follows cluster versions up to 1, not 2"), "{text}");
    // The older binary may return as long as that holds.
    assert!(cluster.stop(2).success());
    cluster.settings_mut(2).environment.clear();
    cluster.start_node(2);
    cluster.wait_until_writable();
    wait_for_writes(&writers, 300);
    for id in [2, 3] {
        assert!(cluster.stop(id).success());
        upgrade(&mut cluster, id);
        cluster.start_node(id);
        cluster.wait_until_writable();
    }
    wait_for_writes(&writers, 300);
    let finished = poll(RECOVERY_LIMIT, "the upgrade to finish", || {
        let output = quorate(&cluster, 2, &["upgrade", "finish", "--json"]);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    });
    println!("{}", finished.trim());
    for id in cluster.ids() {
        poll(RECOVERY_LIMIT, "the version to be known everywhere", || {
            (json(&cluster, id, &["status"])["cluster_version"] == 2).then_some(())
        });
    }
    assert_eq!(json(&cluster, 2, &["upgrade", "finish"])["raised"], false, "once");
    // Now it may not.
    assert!(cluster.stop(3).success());
    cluster.settings_mut(3).environment.clear();
    cluster.start_node(3);
    let status = cluster.process(3).wait_for_end(RECOVERY_LIMIT).expect("it ends");
    assert!(!status.success());
    let log = cluster.process(3).log();
    let both = "cluster version 2 is in force, and this binary follows 1 at most";
    assert!(log.contains(both), "{}", cluster.process(3).log_end(5));
    upgrade(&mut cluster, 3);
    cluster.restart_ended();
    let history = writers.finish();
    judge_writes(&cluster, &history);
}
