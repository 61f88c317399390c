//! How fast a node joins, and what clients notice of it: `make bench-nodes`.

use std::thread;
use std::time::{Duration, Instant};

use quorate_cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY_LIMIT, Receiving};
use quorate_cluster_tests::http;
use serde_json::Value as Json;

use crate::common::token;
use crate::foreground::{
    Load, Push, VALUE_BYTES, bytes_wanted, fill, load_average, megabytes_per_second, milliseconds,
};

/// The foreground load: what the machine bears with ease, so that waits are not those for a turn.
const PUSH: Push = Push { writers: 4, readers: 4, period: Duration::from_millis(10) };

/// How long latency is measured before the node joins, and after it has.
const WITHOUT: Duration = Duration::from_secs(10);

/// Between two looks at how far the node is: asking takes time from what is measured.
const LOOK_PERIOD: Duration = Duration::from_millis(50);

/// How long a node may take to join.
const JOIN_LIMIT: Duration = Duration::from_mins(10);

/// The node that joins.
const NEW: u64 = 4;

/// Every node may sign.
const SIGNERS: &str = "ca_key = \"../pki/ca.key\"\n";

/// When what was reached.
struct Course {
    /// `quorate join` was started.
    began: Instant,
    /// The transfer of the snapshot: its begin, its end, and its bytes.
    transfer: (Instant, Instant, u64),
    voter: Instant,
}

fn start(bytes_per_second: &str) -> Cluster {
    let options = ClusterOptions { extra: SIGNERS, ..ClusterOptions::default() };
    let mut cluster = Cluster::prepare("join-bench", &options);
    for id in cluster.ids() {
        let name = "QUORATE_PEER__SNAPSHOT_BYTES_PER_SECOND".to_owned();
        cluster.settings_mut(id).environment.push((name, bytes_per_second.to_owned()));
        cluster.start_node(id);
    }
    cluster.wait_until_writable();
    cluster
}

fn is_voter(cluster: &Cluster, asked: u64, node: u64) -> bool {
    let admin = cluster.settings(asked).ports.admin;
    let Ok(answer) = http::get(admin, "/members", RECOVERY_LIMIT) else { return false };
    let listed: Json = serde_json::from_str(&answer.body).expect("JSON");
    let mut members = listed["members"].as_array().into_iter().flatten();
    members.any(|one| one["node"] == node && one["kind"] == "voter")
}

/// Has a node join, and follows it until it votes.
fn join(cluster: &mut Cluster, primary: u64) -> Course {
    let file = token(cluster, primary, NEW, &[]);
    let began = Instant::now();
    cluster.join_by_token(NEW, &file, primary);
    let (mut seen, mut transfer) = (None::<(Instant, Receiving)>, None);
    loop {
        let now = Instant::now();
        assert!(now < began + JOIN_LIMIT, "the node hasn't joined: {:?}", cluster.status(NEW));
        let receiving = cluster.status(NEW).and_then(|status| status.receiving);
        match (receiving, seen) {
            (Some(receiving), None) => seen = Some((now, receiving)),
            (None, Some((from, receiving))) if transfer.is_none() => {
                transfer = Some((from, now, receiving.total_bytes));
            }
            (Some(_), Some(_)) | (None, _) => {}
        }
        if is_voter(cluster, primary, NEW) {
            let transfer = transfer.expect("a node joins by a snapshot");
            return Course { began, transfer, voter: Instant::now() };
        }
        thread::sleep(LOOK_PERIOD);
    }
}

/// One join into a cluster of its own.
fn measure(rate: &str, bytes: u64) {
    let mut cluster = start(rate);
    let primary = cluster.wait_until_writable();
    let keys = bytes / VALUE_BYTES as u64;
    fill(&cluster, primary, keys);
    let load = Load::start(cluster.client_address(primary), keys, PUSH);
    let measured = |time: Duration| {
        thread::sleep(time);
        (load.take_writes(), load.take_reads())
    };
    // What the fill left to do goes on for a while.
    measured(WITHOUT);
    let before = measured(WITHOUT);
    let average = load_average();
    let course = join(&mut cluster, primary);
    let during = measured(Duration::ZERO);
    let after = measured(WITHOUT);
    load.stop();
    cluster.wait_until_equal();

    report(rate, &course, bytes, &average);
    for (what, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        for (kind, [before, during, after]) in [
            ("writes", [&before.0, &during.0, &after.0].map(|of| milliseconds(of, quantile))),
            ("reads", [&before.1, &during.1, &after.1].map(|of| milliseconds(of, quantile))),
        ] {
            println!(
                "  {:<26} {before:>8.2} ms before, {during:.2} ms during, \
                 ratio {:.2}; {after:.2} ms with four nodes",
                format!("{kind}, {what}"),
                during / before
            );
        }
    }
}

fn report(rate: &str, course: &Course, bytes: u64, average: &str) {
    let Course { began, transfer: (from, to, total), voter } = *course;
    let line = |what: &str, took: Duration, bytes: Option<u64>| {
        let bytes = bytes.map_or_else(String::new, |bytes| {
            let rate = megabytes_per_second(bytes as f64, took);
            format!(", {:.0} MB, {rate:.1} MB/s", bytes as f64 / 1e6)
        });
        println!("  {what:<26} {:>8.2} s{bytes}", took.as_secs_f64());
    };
    println!("at most {rate} a second, load average {average}");
    line("until the transfer begins", from.duration_since(began), None);
    line("transfer", to.duration_since(from), Some(total));
    line("from then on to a vote", voter.duration_since(to), None);
    line("whole join", voter.duration_since(began), Some(bytes));
}

#[test]
#[ignore = "measures; run by make bench-nodes"]
fn figures_of_joins() {
    let bytes = bytes_wanted("QUORATE_BENCH_BYTES");
    for rate in ["64MiB", "1GiB"] {
        measure(rate, bytes);
    }
}
