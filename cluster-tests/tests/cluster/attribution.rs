//! What it costs to know what each write waited for.
//!
//! Two clusters, or two runs of one, differ by more than what is looked for. So it is switched on and
//! off all the time under one load, and each moment is compared with its neighbour: whatever else
//! drifts meanwhile drifts for both. The median of these comparisons counts.

use std::env;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use quorate_cluster_tests::harness::Cluster;
use quorate_cluster_tests::resp::{Client, Value};

use crate::common::{metric, noise};

/// Each write is a batch of its own: what is noted is noted of batches.
const CONNECTIONS: u64 = 64;

const REPLY_LIMIT: Duration = Duration::from_secs(10);

/// One moment with it, or without.
const WINDOW: Duration = Duration::from_millis(500);
/// What was under way when it was switched.
const SETTLING: Duration = Duration::from_millis(50);

/// Pairs of moments. `make verify-long` sets more, and then the bound is checked.
const PAIRS: usize = 6;
const PAIRS_TO_JUDGE: usize = 60;

/// The most that it may cost.
const COST_MAX: f64 = 0.03;

fn pairs() -> usize {
    env::var("QUORATE_ATTRIBUTION_PAIRS").ok().map_or(PAIRS, |text| text.parse().expect("a number"))
}

fn write(address: SocketAddr, connection: u64, stop: &AtomicBool, acknowledged: &AtomicU64) {
    let mut client = Client::connect(address, REPLY_LIMIT).expect("connect");
    let (key, value) = (format!("key:{connection}").into_bytes(), noise(connection, 100));
    let command = [b"SET".to_vec(), key, value];
    while !stop.load(Ordering::Relaxed) {
        let reply = client.command(&command).expect("a reply");
        assert_eq!(reply, Value::Simple("OK".into()));
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

fn switch(client: &mut Client, on: bool) {
    let value = if on { "yes" } else { "no" };
    let reply = client.command(&["CONFIG", "SET", "attribution", value]).expect("a reply");
    assert_eq!(reply, Value::Simple("OK".into()));
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    f64::midpoint(figures[(figures.len() - 1) / 2], figures[figures.len() / 2])
}

/// Writes per second without and with it, in neighbouring moments.
fn measure(client: &mut Client, acknowledged: &AtomicU64, pairs: usize) -> Vec<[f64; 2]> {
    let mut moment = |on: bool| {
        switch(client, on);
        thread::sleep(SETTLING);
        let (began, before) = (Instant::now(), acknowledged.load(Ordering::Relaxed));
        thread::sleep(WINDOW);
        let writes = acknowledged.load(Ordering::Relaxed) - before;
        writes as f64 / began.elapsed().as_secs_f64()
    };
    let mut pair = |number: usize| {
        // Neither is always the first.
        let with_first = number % 2 == 1;
        let (first, second) = (moment(with_first), moment(!with_first));
        if with_first { [second, first] } else { [first, second] }
    };
    (0..pairs).map(&mut pair).collect()
}

#[test]
fn attribution_is_switched_while_clients_write_and_costs_next_to_nothing() {
    let cluster = Cluster::start("attribution");
    let primary = cluster.wait_until_writable();
    let address = cluster.client_address(primary);
    let mut client = cluster.connect(primary);
    let counted = || metric(&cluster, primary, "quorate_write_total_seconds_count");
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let pairs = thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let (stop, acknowledged) = (&stop, &acknowledged);
            scope.spawn(move || write(address, connection, stop, acknowledged));
        }
        switch(&mut client, false);
        thread::sleep(2 * SETTLING);
        let before = counted();
        thread::sleep(WINDOW);
        assert_eq!(counted(), before, "nothing is noted while it is off");
        let rates = measure(&mut client, &acknowledged, pairs());
        switch(&mut client, true);
        thread::sleep(2 * SETTLING);
        assert!(counted() > before, "it is again");
        stop.store(true, Ordering::Relaxed);
        rates
    });
    let off = median(pairs.iter().map(|[off, _]| *off).collect());
    let on = median(pairs.iter().map(|[_, on]| *on).collect());
    let cost = 1.0 - median(pairs.iter().map(|[off, on]| on / off).collect());
    let pairs = pairs.len();
    println!(
        "{pairs} pairs: {off:.0} writes/s without, {on:.0} with; it costs {:.2} %",
        100.0 * cost
    );
    assert!(pairs < PAIRS_TO_JUDGE || cost <= COST_MAX, "it costs {:.2} %", 100.0 * cost);
}
