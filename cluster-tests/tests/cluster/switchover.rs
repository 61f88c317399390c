//! Planned switchovers under load: how long nothing is acknowledged, and that nothing is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use quorate_cluster_tests::harness::{Cluster, RECOVERY_LIMIT, poll};
use quorate_cluster_tests::history::Outcome;
use quorate_cluster_tests::workload::{Route, UniqueWriters, WriterOptions};

use crate::common::{json, settle, wait_for_writes};

const RUNS: usize = 50;

/// One client that writes as fast as it is answered, and notes when it was.
fn probe(cluster: &Cluster, stop: &AtomicBool) -> Vec<Instant> {
    let mut route = Route::new(&cluster.client_addresses(), Duration::from_secs(10));
    let (mut acknowledged, mut count) = (Vec::new(), 0u64);
    while !stop.load(Ordering::Relaxed) {
        count += 1;
        let command = vec!["SET".to_owned(), "probe".to_owned(), count.to_string()];
        let outcome = route.send(&[command]).pop().expect("one outcome");
        if matches!(outcome, Outcome::Done(_)) {
            acknowledged.push(Instant::now());
        }
    }
    acknowledged
}

#[test]
fn fifty_switchovers_lose_nothing() {
    let cluster = Cluster::start("switchover");
    let options = WriterOptions { writers: 2, pipeline: 2, ..WriterOptions::default() };
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), options);
    wait_for_writes(&writers, 200);
    let stop = AtomicBool::new(false);
    let (acknowledged, orders) = thread::scope(|scope| {
        let probe = scope.spawn(|| probe(&cluster, &stop));
        let mut orders = Vec::new();
        for run in 0..RUNS {
            let asked = cluster.ids()[run % 3];
            let before = cluster.wait_for_primary();
            let began = Instant::now();
            let said = json(&cluster, asked, &["promote"]);
            orders.push((began, said["milliseconds"].as_f64().expect("a time")));
            assert_ne!(said["primary"].as_u64(), Some(before), "{said}");
            wait_for_writes(&writers, 50);
            poll(RECOVERY_LIMIT, "all to hear the new primary", || {
                (cluster.primary()? != before).then_some(())
            });
        }
        stop.store(true, Ordering::Relaxed);
        (probe.join().expect("no panic"), orders)
    });
    let mut gaps: Vec<f64> = orders
        .iter()
        .map(|(began, _)| {
            let after = acknowledged.partition_point(|at| at < began);
            let window = &acknowledged[after.saturating_sub(1)..];
            let until = *began + Duration::from_secs(2);
            let pairs = window.windows(2).take_while(|pair| pair[0] < until);
            let gaps = pairs.map(|pair| pair[1].duration_since(pair[0]).as_secs_f64() * 1_000.0);
            gaps.fold(0.0, f64::max)
        })
        .collect();
    gaps.sort_by(f64::total_cmp);
    let mut took: Vec<f64> = orders.iter().map(|(_, took)| *took).collect();
    took.sort_by(f64::total_cmp);
    println!(
        "{RUNS} switchovers under load: longest wait of one writer p50 {:.1} ms, p90 {:.1} ms, max {:.1} \
         ms; the order itself p50 {:.1} ms, max {:.1} ms",
        gaps[RUNS / 2],
        gaps[RUNS * 9 / 10],
        gaps[RUNS - 1],
        took[RUNS / 2],
        took[RUNS - 1],
    );
    settle(&cluster, writers);
}
