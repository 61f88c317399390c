//! Neither a replica that stands still nor a client that doesn't read costs memory.

use std::env;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use quorate_cluster_tests::harness::{Cluster, ClusterOptions};
use quorate_cluster_tests::resp::{Client, ClientError, Value};

use crate::common::{metric, noise};

/// Caches that are full soon, so that what still grows is a leak.
const EXTRA: &str = "[storage]\njournal_cache_bytes = \"16MiB\"\njournal_segment_bytes = \"8MiB\"\n\
                     journal_retain_bytes = \"64MiB\"\n\
                     [storage.rocksdb]\nwrite_buffer_size = \"8MiB\"\nblock_cache_size = \"16MiB\"\n";

const CONNECTIONS: u64 = 16;
const PIPELINE: u64 = 16;
/// Keys that are written again and again: the data doesn't grow.
const KEYS: u64 = 20_000;
const VALUE_BYTES: usize = 300;

/// What may come on top of the first quarter's peak.
const SLACK_BYTES: u64 = 48 << 20;

const REPLY_LIMIT: Duration = Duration::from_secs(10);

/// Seconds of load; `make verify-long` sets ten minutes.
fn seconds() -> u64 {
    env::var("QUORATE_BOUNDED_SECONDS").ok().map_or(24, |text| text.parse().expect("a number"))
}

fn write(address: SocketAddr, connection: u64, stop: &AtomicBool, acknowledged: &AtomicU64) {
    let mut client = Client::connect(address, REPLY_LIMIT).expect("connect");
    let value = noise(connection, VALUE_BYTES);
    let mut count = connection;
    while !stop.load(Ordering::Relaxed) {
        let commands: Vec<_> = (0..PIPELINE)
            .map(|_| {
                count += CONNECTIONS;
                vec![b"SET".to_vec(), format!("key:{}", count % KEYS).into_bytes(), value.clone()]
            })
            .collect();
        let replies = client.pipeline(&commands).expect("replies");
        let ok = Value::Simple("OK".into());
        assert!(replies.iter().all(|reply| *reply == ok), "{replies:?}");
        acknowledged.fetch_add(PIPELINE, Ordering::Relaxed);
    }
}

/// Longer than a node waits for a client that takes nothing.
const CUT_LIMIT: Duration = Duration::from_secs(10);

/// Asks for more and more and reads none of it; comes back when it is cut. Returns how often.
fn never_read(address: SocketAddr, stop: &AtomicBool) -> u64 {
    let mut cut = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut client) = Client::connect(address, CUT_LIMIT) else { continue };
        let commands = vec![vec!["GET", "large"]; 64];
        let mut sent = client.send_all(&commands);
        while sent.is_ok() && !stop.load(Ordering::Relaxed) {
            sent = client.send_all(&commands);
        }
        assert!(!matches!(sent, Err(ClientError::Timeout(_))), "it must be cut: {sent:?}");
        cut += u64::from(sent.is_err());
    }
    cut
}

#[test]
fn a_stopped_replica_and_a_client_that_does_not_read_cost_no_memory() {
    let options = ClusterOptions { extra: EXTRA, ..ClusterOptions::default() };
    let mut cluster = Cluster::start_with("bounded", &options);
    let primary = cluster.wait_for_primary();
    let stopped = cluster.others(primary)[0];
    let running: Vec<u64> = cluster.others(stopped);
    let address = cluster.client_address(primary);
    let large = [b"SET".to_vec(), b"large".to_vec(), noise(1, 1 << 20)];
    cluster.connect(primary).command(&large).expect("an answer");
    cluster.pause(stopped);

    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut samples: Vec<(u64, Vec<u64>)> = Vec::new();
    let cut = thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let (stop, acknowledged) = (&stop, &acknowledged);
            scope.spawn(move || write(address, connection, stop, acknowledged));
        }
        let greedy = scope.spawn(|| never_read(address, &stop));
        let (began, mut before) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(seconds()) {
            thread::sleep(Duration::from_secs(1));
            let memory = |id: &u64| metric(&cluster, *id, "quorate_memory_used_bytes");
            let now = acknowledged.load(Ordering::Relaxed);
            samples.push((now - before, running.iter().map(memory).collect()));
            before = now;
        }
        stop.store(true, Ordering::Relaxed);
        greedy.join().expect("it went on")
    });

    let (per_second, quarter) = (samples.len() / 12, samples.len() / 4);
    for (second, (writes, memory)) in samples.iter().enumerate().step_by(per_second.max(1)) {
        let mib: Vec<u64> = memory.iter().map(|bytes| bytes >> 20).collect();
        println!("{second:>4} s: {writes:>6} writes/s, MiB of nodes {running:?}: {mib:?}");
    }
    let total = acknowledged.load(Ordering::Relaxed);
    println!("{total} writes; the client that doesn't read was cut {cut} times");
    assert!(cut > 0, "the client that doesn't read was never cut");
    assert!(samples.iter().all(|(writes, _)| *writes > 0), "writes went on in every second");
    for (index, id) in running.iter().enumerate() {
        let peak = |part: &[(u64, Vec<u64>)]| part.iter().map(|(_, memory)| memory[index]).max();
        let (first, later) = (peak(&samples[..quarter]), peak(&samples[quarter..]));
        assert!(later <= first.map(|bytes| bytes + SLACK_BYTES), "node {id}: {first:?}, {later:?}");
    }
    cluster.resume(stopped);
    cluster.wait_until_equal();
}
