//! What clients notice while something else goes on: a fill, a steady load, and what it took.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use quorate_cluster_tests::harness::{Cluster, RECOVERY_LIMIT};
use quorate_cluster_tests::resp::{Client, Value};

use crate::common::noise;

pub(crate) const VALUE_BYTES: usize = 4 << 10;

/// Writes sent at once while a cluster is filled.
const ROUND: u64 = 256;

/// How hard clients push.
#[derive(Clone, Copy)]
pub(crate) struct Push {
    pub(crate) writers: u64,
    pub(crate) readers: u64,
    /// How often each of them asks.
    pub(crate) period: Duration,
}

/// How many bytes are wanted, by a variable; 1 GiB without it.
pub(crate) fn bytes_wanted(variable: &str) -> u64 {
    let text = std::env::var(variable).unwrap_or_else(|_| (1 << 30).to_string());
    text.parse().unwrap_or_else(|_| panic!("{variable} is a number"))
}

pub(crate) fn set(key: u64, seed: u64) -> Vec<Vec<u8>> {
    vec![b"SET".to_vec(), name(key), noise(seed, VALUE_BYTES)]
}

fn name(key: u64) -> Vec<u8> {
    format!("bench:{key}").into_bytes()
}

/// Sets each of so many keys once, and waits until all nodes hold them.
pub(crate) fn fill(cluster: &Cluster, primary: u64, keys: u64) {
    let mut client = cluster.connect(primary);
    let mut next = 0;
    while next < keys {
        let to = keys.min(next + ROUND);
        write(&mut client, next..to, 0);
        next = to;
    }
    cluster.wait_until_equal();
}

/// Sets these keys in one go; the values of another `salt` are others.
pub(crate) fn write(client: &mut Client, keys: std::ops::Range<u64>, salt: u64) {
    let round: Vec<_> = keys.map(|key| set(key, key ^ (salt << 32))).collect();
    let replies = client.pipeline(&round).expect("replies");
    assert!(replies.iter().all(|reply| *reply == Value::Simple("OK".into())), "{replies:?}");
}

/// Clients that ask at a fixed rate, whatever the answers take: one that has to wait for the answer
/// before counts from when it was due.
pub(crate) struct Load {
    ended: Arc<AtomicBool>,
    writes: Arc<Mutex<Histogram<u64>>>,
    reads: Arc<Mutex<Histogram<u64>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Writers and readers of keys that [`fill`] has set.
    pub(crate) fn start(address: SocketAddr, keys: u64, push: Push) -> Self {
        let Push { writers, readers, period } = push;
        let ended = Arc::new(AtomicBool::new(false));
        let writes = Arc::new(Mutex::new(histogram()));
        let reads = Arc::new(Mutex::new(histogram()));
        let writers = (0..writers).map(|number| {
            let step = writers;
            run((address, period), &ended, &writes, move |client, count| {
                let count = number + count * step;
                let reply = client.command(&set(count * 7_919 % keys, count)).expect("a reply");
                assert_eq!(reply, Value::Simple("OK".into()));
            })
        });
        let readers = (0..readers).map(|number| {
            let step = readers;
            run((address, period), &ended, &reads, move |client, count| {
                let key = (number + count * step) * 104_729 % keys;
                let reply = client.command(&[b"GET".to_vec(), name(key)]).expect("a reply");
                assert_eq!(reply.bytes().map(<[u8]>::len), Some(VALUE_BYTES));
            })
        });
        let clients = writers.chain(readers).collect();
        Self { ended, writes, reads, clients }
    }

    /// What writes took since the last call.
    pub(crate) fn take_writes(&self) -> Histogram<u64> {
        take(&self.writes)
    }

    /// What reads took since the last call.
    pub(crate) fn take_reads(&self) -> Histogram<u64> {
        take(&self.reads)
    }

    pub(crate) fn stop(self) {
        self.ended.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| client.join().expect("it went well"));
    }
}

fn run(
    (address, period): (SocketAddr, Duration),
    ended: &Arc<AtomicBool>,
    took_us: &Arc<Mutex<Histogram<u64>>>,
    ask: impl Fn(&mut Client, u64) + Send + 'static,
) -> JoinHandle<()> {
    let (ended, took_us) = (ended.clone(), took_us.clone());
    thread::spawn(move || {
        let mut client = Client::connect(address, RECOVERY_LIMIT).expect("it listens");
        let (mut due, mut count) = (Instant::now(), 0);
        while !ended.load(Ordering::Relaxed) {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            ask(&mut client, count);
            let took = due.elapsed().as_micros() as u64;
            took_us.lock().expect("no client has failed").saturating_record(took);
            (due, count) = (due + period, count + 1);
        }
    })
}

fn take(took_us: &Mutex<Histogram<u64>>) -> Histogram<u64> {
    std::mem::replace(&mut took_us.lock().expect("no client has failed"), histogram())
}

pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds")
}

pub(crate) fn milliseconds(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1_000.0
}

pub(crate) fn megabytes_per_second(bytes: f64, took: Duration) -> f64 {
    bytes / took.as_secs_f64() / 1e6
}

/// Of the machine, over a minute: what else ran while something was measured.
pub(crate) fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
