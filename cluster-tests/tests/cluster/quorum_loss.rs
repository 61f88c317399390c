//! Fewer nodes than it takes.

use std::thread;
use std::time::{Duration, Instant};

use quorate_cluster_tests::harness::{Cluster, RECOVERY_LIMIT, poll};
use quorate_cluster_tests::resp::{Client, Value};
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions};

use crate::common::{judge_writes, wait_for_writes};

/// Several times the longest election timeout: what has not happened by then does not happen.
const LONG_ENOUGH: Duration = Duration::from_secs(4);

fn error_code(client: &mut Client, command: &[&str]) -> String {
    match client.command(command) {
        Ok(Value::Error(text)) => text.split(' ').next().unwrap_or_default().to_owned(),
        other => panic!("{command:?} was answered {other:?}"),
    }
}

#[test]
fn with_two_nodes_dead_writes_are_refused_and_reads_fenced() {
    let mut cluster = Cluster::start("kill-two");
    let primary = cluster.wait_for_primary();
    let mut client = cluster.connect(primary);
    assert_eq!(client.command(&["SET", "k", "before"]).expect("reply"), Value::Simple("OK".into()));
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, 300);
    for replica in cluster.others(primary) {
        cluster.kill(replica);
    }
    let killed = Instant::now();
    // While the primary still believes in itself it may refuse by NOREPLICAS; once it has
    // fenced itself, by CLUSTERDOWN. A write that was let in just before ends in doubt.
    let mut codes = Vec::new();
    poll(RECOVERY_LIMIT, "writes refused with CLUSTERDOWN", || {
        let code = error_code(&mut client, &["SET", "k", "after"]);
        if codes.last() != Some(&code) {
            codes.push(code.clone());
        }
        (code == "CLUSTERDOWN").then_some(())
    });
    println!("{codes:?}, fenced after {:?}", killed.elapsed());
    assert!(
        codes.iter().all(|code| ["INDOUBT", "NOREPLICAS", "CLUSTERDOWN"].contains(&code.as_str())),
        "{codes:?}"
    );
    assert_eq!(error_code(&mut client, &["GET", "k"]), "CLUSTERDOWN");
    let history = writers.finish();
    for replica in cluster.others(primary) {
        cluster.start_node(replica);
    }
    let verdict = judge_writes(&cluster, &history);
    assert!(verdict.refused > 0, "writers went on without a quorum: {verdict}");
}

#[test]
fn two_wiped_nodes_form_no_cluster_without_the_third() {
    let mut cluster = Cluster::start("wipe-two");
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, 300);
    let keeper = cluster.wait_for_primary();
    let wiped = cluster.others(keeper);
    for id in cluster.ids() {
        cluster.kill(id);
    }
    let history = writers.finish();
    for id in &wiped {
        cluster.wipe(*id);
        cluster.start_node(*id);
    }
    let deadline = Instant::now() + LONG_ENOUGH;
    while Instant::now() < deadline {
        assert_eq!(cluster.primary(), None, "a primary without data");
        for id in &wiped {
            if let Ok(mut client) = Client::connect(cluster.client_address(*id), LONG_ENOUGH) {
                let reply = client.command(&["SET", "k", "v"]).expect("a reply");
                assert!(reply.error().is_some(), "node {id} answered {reply:?}");
            }
        }
        thread::sleep(Duration::from_millis(200));
    }
    // The third node comes back, and still no two of them may outvote what it knows.
    cluster.start_node(keeper);
    let deadline = Instant::now() + LONG_ENOUGH;
    while Instant::now() < deadline {
        assert_eq!(cluster.primary(), None, "one node with data elects nobody");
        thread::sleep(Duration::from_millis(200));
    }
    let written = history.len();
    println!("{written} writes, and nobody served without them");
}
