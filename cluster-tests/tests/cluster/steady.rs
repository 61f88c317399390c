//! Load without a fault.

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use quorate_cluster_tests::harness::Cluster;
use quorate_cluster_tests::history::Outcome;
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions, keys};

/// Minutes of load; `make verify-long` sets ten.
fn minutes() -> u64 {
    env::var("QUORATE_STEADY_MINUTES").ok().map_or(1, |text| text.parse().expect("a number"))
}

#[test]
fn no_election_happens_without_a_fault_under_full_load() {
    let cluster = Cluster::start("steady");
    let primary = cluster.wait_for_primary();
    let before = cluster.status(primary).expect("the primary answers");
    // The primary first, so that nobody is sent elsewhere.
    let mut nodes = vec![cluster.client_address(primary)];
    nodes.extend(cluster.others(primary).iter().map(|id| cluster.client_address(*id)));
    let deadline = Instant::now() + Duration::from_secs(60 * minutes());
    let mut acknowledged = 0;
    let mut round = 0;
    // In rounds, so that what the writers remember stays small.
    while Instant::now() < deadline {
        round += 1;
        let writers = UniqueWriters::start(
            &format!("w{round}"),
            &nodes,
            WriterOptions { writers: 32, pipeline: 8, pause: Duration::ZERO, ..Default::default() },
        );
        let end = deadline.min(Instant::now() + Duration::from_secs(15));
        while Instant::now() < end {
            thread::sleep(Duration::from_millis(500));
            for id in cluster.ids() {
                let status = cluster.status(id).expect("every node answers");
                assert_eq!(status.epoch, before.epoch, "an election after {acknowledged} writes");
            }
        }
        let history = writers.finish();
        let failed = history.iter().find(|write| !matches!(write.outcome, Outcome::Done(_)));
        assert!(failed.is_none(), "{failed:?}");
        acknowledged += history.len();
        let sample: Vec<String> = keys(&history).into_iter().step_by(97).collect();
        assert_eq!(cluster.read_all(&sample).len(), sample.len(), "sampled keys are there");
    }
    println!("{acknowledged} writes in epoch {}", before.epoch);
    cluster.wait_until_equal();
}
