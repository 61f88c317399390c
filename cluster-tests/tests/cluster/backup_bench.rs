//! What backups cost and how fast they are: `make bench-backup`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use quorate_cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY_LIMIT};
use quorate_cluster_tests::resp::{Client, Value};
use serde_json::Value as Json;

use crate::archives::{back_up, elsewhere, json, restore, verify};
use crate::common::{self, noise};

const VALUE_BYTES: usize = 4 << 10;

/// Writes sent at once while the cluster is filled.
const ROUND: u64 = 256;

/// Writers of the foreground load, and how often each of them writes.
const WRITERS: u64 = 4;
const PERIOD: Duration = Duration::from_millis(4);

/// How long latency is measured without a backup, before and after each.
const WITHOUT: Duration = Duration::from_secs(10);

/// How long a schedule of one second is followed.
const FOLLOWED: Duration = Duration::from_secs(20);

fn bytes_wanted() -> u64 {
    let text =
        std::env::var("QUORATE_BENCH_BACKUP_BYTES").unwrap_or_else(|_| (1 << 30).to_string());
    text.parse().expect("QUORATE_BENCH_BACKUP_BYTES is a number")
}

fn set(key: u64, seed: u64) -> Vec<Vec<u8>> {
    vec![b"SET".to_vec(), format!("bench:{key}").into_bytes(), noise(seed, VALUE_BYTES)]
}

fn fill(client: &mut Client, keys: u64) {
    let mut next = 0;
    while next < keys {
        let round: Vec<_> = (next..keys.min(next + ROUND)).map(|key| set(key, key)).collect();
        next += round.len() as u64;
        let replies = client.pipeline(&round).expect("replies");
        assert!(replies.iter().all(|reply| *reply == Value::Simple("OK".into())), "{replies:?}");
    }
}

/// Writes at a fixed rate, whatever the answers take: a write that has to wait for the one before it
/// counts from when it was due.
struct Load {
    ended: Arc<AtomicBool>,
    took_us: Arc<Mutex<Histogram<u64>>>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(address: SocketAddr, keys: u64) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let took_us = Arc::new(Mutex::new(histogram()));
        let writer = |number: u64| {
            let (ended, took_us) = (ended.clone(), took_us.clone());
            thread::spawn(move || {
                let mut client = Client::connect(address, RECOVERY_LIMIT).expect("it listens");
                let (mut due, mut count) = (Instant::now(), number);
                while !ended.load(Ordering::Relaxed) {
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    let reply = client.command(&set(count * 7_919 % keys, count)).expect("a reply");
                    assert_eq!(reply, Value::Simple("OK".into()));
                    let took = due.elapsed().as_micros() as u64;
                    took_us.lock().expect("no writer has failed").saturating_record(took);
                    (due, count) = (due + PERIOD, count + WRITERS);
                }
            })
        };
        let writers = (0..WRITERS).map(writer).collect();
        Self { ended, took_us, writers }
    }

    /// What writes took since the last call.
    fn take(&self) -> Histogram<u64> {
        std::mem::replace(&mut self.took_us.lock().expect("no writer has failed"), histogram())
    }

    fn stop(self) {
        self.ended.store(true, Ordering::Relaxed);
        self.writers.into_iter().for_each(|writer| writer.join().expect("it went well"));
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds")
}

fn milliseconds(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1_000.0
}

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64() * 1_000.0
}

fn number(report: &Json, key: &str) -> f64 {
    report[key].as_f64().unwrap_or_else(|| panic!("{key}: {report}"))
}

fn megabytes_per_second(bytes: f64, seconds: f64) -> f64 {
    bytes / seconds / 1e6
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
    let keys = bytes_wanted() / VALUE_BYTES as u64;
    fill(&mut cluster.connect(primary), keys);
    cluster.wait_until_equal();
    let load = Load::start(cluster.client_address(primary), keys);
    let (mut with, mut without) = (histogram(), histogram());
    let mut target = cluster.dir().join("none");
    for round in 0..3 {
        load.take();
        thread::sleep(WITHOUT);
        without.add(load.take()).expect("the same bounds");
        target = cluster.dir().join(format!("archive-{round}"));
        let report = json(&back_up(&cluster, primary, &target, &[]));
        with.add(load.take()).expect("the same bounds");
        println!("{report}");
    }
    let lags = lags(&cluster, primary, &target);
    load.stop();
    cluster.wait_until_equal();
    let report = json(&back_up(&cluster, fast, &target, &[]));
    let (copied, took) = (number(&report, "bytes"), number(&report, "seconds"));

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
        megabytes_per_second(bytes, number(&restored, "seconds"))
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
