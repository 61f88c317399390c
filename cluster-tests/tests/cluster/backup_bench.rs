//! What backups cost and how fast they are: `make bench-backup`.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quorate_cluster_tests::harness::{Cluster, ClusterOptions};
use serde_json::Value as Json;

use crate::archives::{back_up, elsewhere, json, restore, verify};
use crate::common;
use crate::foreground::{
    Load, Push, VALUE_BYTES, bytes_wanted, fill, histogram, megabytes_per_second, milliseconds,
};

/// The foreground load.
const PUSH: Push = Push { writers: 4, readers: 0, period: Duration::from_millis(4) };

/// How long latency is measured without a backup, before and after each.
const WITHOUT: Duration = Duration::from_secs(10);

/// How long a schedule of one second is followed.
const FOLLOWED: Duration = Duration::from_secs(20);

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64() * 1_000.0
}

fn number(report: &Json, key: &str) -> f64 {
    report[key].as_f64().unwrap_or_else(|| panic!("{key}: {report}"))
}

fn seconds(report: &Json) -> Duration {
    Duration::from_secs_f64(number(report, "seconds"))
}

/// Seconds by which the archive is behind just before each backup of a schedule of one second is done.
fn lags(cluster: &Cluster, node: u64, target: &std::path::Path) -> Vec<f64> {
    let (mut lags, mut archived_ms) = (Vec::new(), None::<f64>);
    let until = Instant::now() + FOLLOWED;
    while Instant::now() < until {
        let next = Instant::now() + Duration::from_secs(1);
        let report = json(&back_up(cluster, node, target, &["--no-snapshot"]));
        if let Some(before) = archived_ms.replace(number(&report, "archived_time_ms")) {
            lags.push((now_ms() - before) / 1_000.0);
        }
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    lags.sort_by(f64::total_cmp);
    lags
}

#[test]
#[ignore = "measures; run by make bench-backup"]
fn figures_of_backups() {
    let mut cluster = Cluster::prepare("backup-bench", &ClusterOptions::default());
    // One node is held back by nothing: it tells how fast a backup can be.
    let fast = 3;
    let unlimited = ("QUORATE_ARCHIVE__BYTES_PER_SECOND".to_owned(), "1024GiB".to_owned());
    cluster.settings_mut(fast).environment.push(unlimited);
    for id in cluster.ids() {
        cluster.start_node(id);
    }
    if cluster.wait_until_writable() == fast {
        let promoted = common::quorate(&cluster, fast, &["promote", "--to", "1"]);
        assert!(promoted.status.success(), "{promoted:?}");
    }
    let primary = cluster.wait_until_writable();
    assert_ne!(primary, fast);
    let keys = bytes_wanted("QUORATE_BENCH_BACKUP_BYTES") / VALUE_BYTES as u64;
    fill(&cluster, primary, keys);
    let load = Load::start(cluster.client_address(primary), keys, PUSH);
    let (mut with, mut without) = (histogram(), histogram());
    let mut target = cluster.dir().join("none");
    for round in 0..3 {
        load.take_writes();
        thread::sleep(WITHOUT);
        without.add(load.take_writes()).expect("the same bounds");
        target = cluster.dir().join(format!("archive-{round}"));
        let report = json(&back_up(&cluster, primary, &target, &[]));
        with.add(load.take_writes()).expect("the same bounds");
        println!("{report}");
    }
    let lags = lags(&cluster, primary, &target);
    load.stop();
    cluster.wait_until_equal();
    let report = json(&back_up(&cluster, fast, &target, &[]));
    let (copied, took) = (number(&report, "bytes"), seconds(&report));

    let began = Instant::now();
    let verified = json(&verify(&target, &[]));
    let verify_took = began.elapsed().as_secs_f64();
    assert_eq!(verified["faults"], serde_json::json!([]));
    let settings = elsewhere(&cluster, "restored");
    let restored = json(&restore(&settings, &target, "latest"));
    assert_eq!(restored["keys"].as_u64().map(|found| found >= keys), Some(true), "{restored}");
    let bytes = number(&verified, "bytes");
    println!("data                     {:>10.0} MB in {keys} keys", bytes / 1e6);
    println!("backup, without a limit  {:>10.1} MB/s", megabytes_per_second(copied, took));
    println!(
        "restore                  {:>10.1} MB/s",
        megabytes_per_second(bytes, seconds(&restored))
    );
    println!("verify                   {verify_took:>10.1} s");
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        let (with, without) = (milliseconds(&with, quantile), milliseconds(&without, quantile));
        println!(
            "writes, {name:<5}            {without:>10.2} ms without, {with:.2} ms during a backup, \
             ratio {:.2}",
            with / without
        );
    }
    println!(
        "of writes                {:>10} without, {} during a backup",
        without.len(),
        with.len()
    );
    println!(
        "lag, a backup a second   {:>10.2} s median, {:.2} s at most",
        lags[lags.len() / 2],
        lags[lags.len() - 1]
    );
}
