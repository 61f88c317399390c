//! `deploy/rolling-restart.sh`, with redis-py as its users run it.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use quorate_cluster_tests::harness::{Cluster, binary};

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
