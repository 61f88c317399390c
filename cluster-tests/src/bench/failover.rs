//! How long nobody can write after the primary is killed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::harness::{Cluster, RECOVERY_LIMIT, poll};
use crate::history::Outcome;
use crate::workload::Route;

/// Clients that write meanwhile.
const WRITERS: usize = 8;

/// One failover.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FailoverRun {
    /// The longest time without a confirmed write, in milliseconds.
    pub gap_ms: f64,
}

#[derive(Debug, Default)]
struct Acknowledged {
    last: Option<Instant>,
    longest_gap: Duration,
    count: u64,
}

/// Kills the primary `runs` times under load.
///
/// # Panics
///
/// If the cluster does not come back.
pub fn measure_failovers(cluster: &mut Cluster, runs: usize) -> Vec<FailoverRun> {
    (0..runs).map(|run| measure_one(cluster, run)).collect()
}

fn measure_one(cluster: &mut Cluster, run: usize) -> FailoverRun {
    let primary = cluster.wait_until_writable();
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::new(Mutex::new(Acknowledged::default()));
    let addresses = cluster.client_addresses();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            let addresses = addresses.clone();
            thread::spawn(move || {
                write(&addresses, &format!("failover:{run}:{writer}"), &stop, &seen);
            })
        })
        .collect();
    let wait_for = |more: u64| {
        let goal = seen.lock().expect("no panic while held").count + more;
        poll(RECOVERY_LIMIT, "writers to go on", || {
            (seen.lock().expect("no panic while held").count >= goal).then_some(())
        });
    };
    wait_for(200);
    seen.lock().expect("no panic while held").longest_gap = Duration::ZERO;
    cluster.kill(primary);
    wait_for(200);
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().expect("no writer panics");
    }
    let gap = seen.lock().expect("no panic while held").longest_gap;
    cluster.start_node(primary);
    cluster.wait_until_equal();
    FailoverRun { gap_ms: gap.as_secs_f64() * 1000.0 }
}

fn write(addresses: &[SocketAddr], key: &str, stop: &AtomicBool, seen: &Mutex<Acknowledged>) {
    let mut route = Route::new(addresses, Duration::from_secs(10));
    while !stop.load(Ordering::Relaxed) {
        if let Outcome::Done(_) = route.send_one(vec!["SET", key, "value"]) {
            let now = Instant::now();
            let mut seen = seen.lock().expect("no panic while held");
            if let Some(last) = seen.last {
                seen.longest_gap = seen.longest_gap.max(now - last);
            }
            seen.last = Some(now);
            seen.count += 1;
        }
    }
}
