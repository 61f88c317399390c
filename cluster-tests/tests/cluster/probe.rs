//! A client that writes without a pause and remembers when it was told what.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use quorate_cluster_tests::history::{Outcome, UniqueWrite};
use quorate_cluster_tests::workload::Route;

/// The longest wait for a reply.
const REPLY_LIMIT: Duration = Duration::from_secs(10);

/// Between two writes.
const PAUSE: Duration = Duration::from_millis(2);

/// A running client.
pub(crate) struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(Instant, UniqueWrite)>>,
}

/// What one client saw of a fault.
#[derive(Debug)]
pub(crate) struct Seen {
    /// From the fault to the first write that was not confirmed, and what it was told; `None`
    /// where all were.
    pub(crate) first_refusal: Option<(Duration, String)>,
    /// The longest time without a confirmed write, from the fault on.
    pub(crate) longest_gap: Duration,
}

impl Probe {
    pub(crate) fn start(name: &str, nodes: &[SocketAddr]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut route = Route::new(nodes, REPLY_LIMIT);
        let (name, stopped) = (name.to_owned(), stop.clone());
        let thread = thread::spawn(move || {
            let mut seen = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let pair = (format!("{name}:{}", seen.len()), seen.len().to_string());
                let command = vec!["SET".to_owned(), pair.0.clone(), pair.1.clone()];
                let outcome = route.send_one(command);
                let answered = Instant::now();
                seen.push((answered, UniqueWrite { pairs: vec![pair], outcome, answered }));
                thread::sleep(PAUSE);
            }
            seen
        });
        Self { stop, thread }
    }

    /// Stops, and says what was seen of a fault at this moment; the writes are to be judged.
    pub(crate) fn finish(self, fault: Instant) -> (Seen, Vec<UniqueWrite>) {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.join().expect("the probe failed");
        let (mut last, mut longest_gap, mut first_refusal) = (fault, Duration::ZERO, None);
        for (at, write) in seen.iter().filter(|(at, _)| *at > fault) {
            match &write.outcome {
                Outcome::Done(_) => {
                    longest_gap = longest_gap.max(*at - last);
                    last = *at;
                }
                Outcome::Refused(text) if text.starts_with("MOVED") => {}
                Outcome::Refused(text) | Outcome::InDoubt(text) | Outcome::Lost(text) => {
                    first_refusal.get_or_insert_with(|| (*at - fault, text.clone()));
                }
            }
        }
        let history = seen.into_iter().map(|(_, write)| write).collect();
        (Seen { first_refusal, longest_gap }, history)
    }
}
