//! `quorate drill failover` against a cluster whose nodes something else starts again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use quorate_cluster_tests::harness::Cluster;

use crate::common::quorate;

/// Runs a drill while ended nodes are started again; returns its JSON.
pub(crate) fn drill(cluster: &mut Cluster, admin: u64, arguments: &[&str]) -> serde_json::Value {
    let all = [&["drill", "failover", "--yes", "--json"], arguments].concat();
    let done = AtomicBool::new(false);
    let url = format!("http://{}", cluster.settings(admin).ports.admin);
    let output = thread::scope(|scope| {
        let drill = scope.spawn(|| {
            let mut command = std::process::Command::new(quorate_cluster_tests::harness::binary());
            let output = command.args(&all).args(["--admin", &url]).output();
            done.store(true, Ordering::Relaxed);
            output.expect("it starts")
        });
        while !done.load(Ordering::Relaxed) {
            cluster.restart_ended();
            thread::sleep(Duration::from_millis(20));
        }
        drill.join().expect("no panic")
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn check(report: &serde_json::Value, runs: usize) {
    println!("{}", report["summary"]);
    assert_eq!(
        (report["passed"].as_bool(), report["summary"]["lost"].as_u64()),
        (Some(true), Some(0))
    );
    assert_eq!(report["summary"]["linearizable"], true);
    let list = report["runs"].as_array().expect("a list");
    assert_eq!(list.len(), runs);
    for run in list {
        assert_ne!(run["node"], run["successor"], "{run}");
        for time in ["new_primary_ms", "first_refused_ms", "first_acknowledged_ms", "reconnect_ms"]
        {
            assert!(run[time].as_f64().is_some_and(|ms| ms > 0.0), "{time}: {run}");
        }
        let unavailable = run["unavailable_ms"].as_f64().expect("a number");
        // An election takes at least the shortest election timeout.
        assert!((200.0..20_000.0).contains(&unavailable), "{run}");
        assert!(run["acknowledged"].as_u64().is_some_and(|count| count >= 400), "{run}");
    }
}

#[test]
fn a_drill_needs_leave_and_then_finds_failovers_without_a_loss() {
    let mut cluster = Cluster::start("drill");
    let primary = cluster.wait_until_writable();
    let replica = cluster.others(primary)[0];
    let refused = quorate(&cluster, replica, &["drill", "failover"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("node.drill_allowed is not set"), "{text}");
    assert_eq!(cluster.primary(), Some(primary), "nothing was broken");
    // Any node passes the order on, and the primary itself takes it, too.
    check(&drill(&mut cluster, replica, &["--kill", "--runs", "2"]), 2);
    let primary = cluster.wait_until_writable();
    check(&drill(&mut cluster, primary, &["--pause", "--pause-ms", "2000"]), 1);
    cluster.wait_until_equal();
}
