//! Writers of unique values.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::route::{Route, is_ok};
use crate::history::{Outcome, UniqueWrite};
use crate::resp::Value;

/// How hard the writers push.
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    /// Connections, each on its own thread.
    pub writers: usize,
    /// Commands that each sends at once.
    pub pipeline: usize,
    /// A pause after each exchange.
    pub pause: Duration,
    /// The longest wait for a reply.
    pub timeout: Duration,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            writers: 8,
            pipeline: 4,
            pause: Duration::from_millis(1),
            timeout: Duration::from_secs(10),
        }
    }
}

/// Running writers. Two of three single commands are a `SET`; the third sets three keys by `MSET`, and
/// there are transactions of three keys: these must happen wholly or not at all.
#[derive(Debug)]
pub struct UniqueWriters {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<UniqueWrite>>>,
}

impl UniqueWriters {
    /// Starts them. `name` must differ from that of any other writers on the same cluster.
    #[must_use]
    pub fn start(name: &str, nodes: &[SocketAddr], options: WriterOptions) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let threads = (0..options.writers)
            .map(|index| {
                let writer = Writer {
                    prefix: format!("{name}:{index}"),
                    route: Route::new(nodes, options.timeout),
                    options,
                    count: 0,
                    history: Vec::new(),
                };
                let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
                thread::spawn(move || writer.run(&stop, &acknowledged))
            })
            .collect();
        Self { stop, acknowledged, threads }
    }

    /// Writes confirmed so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Stops the writers and returns what they were told.
    ///
    /// # Panics
    ///
    /// If a writer saw something that no client may see.
    #[must_use]
    pub fn finish(self) -> Vec<UniqueWrite> {
        self.finish_each().into_iter().flatten().collect()
    }

    /// The same, for each writer in the order of its writes.
    ///
    /// # Panics
    ///
    /// If a writer saw something that no client may see.
    #[must_use]
    pub fn finish_each(mut self) -> Vec<Vec<UniqueWrite>> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).map(|thread| thread.join().expect("a writer failed")).collect()
    }
}

impl Drop for UniqueWriters {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Writer {
    prefix: String,
    route: Route,
    options: WriterOptions,
    count: u64,
    history: Vec<UniqueWrite>,
}

impl Writer {
    fn run(mut self, stop: &AtomicBool, acknowledged: &AtomicU64) -> Vec<UniqueWrite> {
        while !stop.load(Ordering::Relaxed) {
            let done = if self.count % 9 == 8 { self.transaction() } else { self.pipeline() };
            acknowledged.fetch_add(done, Ordering::Relaxed);
            if !self.options.pause.is_zero() {
                thread::sleep(self.options.pause);
            }
        }
        self.history
    }

    /// Returns how many were confirmed.
    fn pipeline(&mut self) -> u64 {
        let writes: Vec<_> = (0..self.options.pipeline)
            .map(|_| {
                let keys = if self.count % 3 == 2 { 3 } else { 1 };
                self.next_pairs(keys)
            })
            .collect();
        let commands: Vec<Vec<String>> = writes
            .iter()
            .map(|pairs| {
                let mut command = vec![if pairs.len() == 1 { "SET" } else { "MSET" }.to_owned()];
                command.extend(pairs.iter().flat_map(|(key, value)| [key.clone(), value.clone()]));
                command
            })
            .collect();
        let outcomes = self.route.send(&commands);
        let answered = Instant::now();
        let mut done = 0;
        for (pairs, outcome) in writes.into_iter().zip(outcomes) {
            assert!(
                !matches!(outcome, Outcome::Done(_)) || is_ok(&outcome),
                "a SET or MSET was answered {outcome:?}"
            );
            done += u64::from(is_ok(&outcome));
            self.history.push(UniqueWrite { pairs, outcome, answered });
        }
        done
    }

    fn transaction(&mut self) -> u64 {
        let pairs = self.next_pairs(3);
        let mut commands = vec![vec!["MULTI".to_owned()]];
        for (key, value) in &pairs {
            commands.push(vec!["SET".to_owned(), key.clone(), value.clone()]);
        }
        commands.push(vec!["EXEC".to_owned()]);
        let outcome = self.route.send(&commands).pop().expect("one outcome per command");
        if let Outcome::Done(reply) = &outcome {
            let ok = Value::Simple("OK".into());
            let all = reply
                .elements()
                .is_some_and(|all| all.len() == 3 && all.iter().all(|one| *one == ok));
            assert!(all, "a transaction of three SETs was answered {reply:?}");
        }
        let done = matches!(outcome, Outcome::Done(_));
        self.history.push(UniqueWrite { pairs, outcome, answered: Instant::now() });
        u64::from(done)
    }

    fn next_pairs(&mut self, keys: usize) -> Vec<(String, String)> {
        let number = self.count;
        self.count += 1;
        (0..keys)
            .map(|part| {
                let key = format!("{}:{number}:{part}", self.prefix);
                let value = format!("value-of-{key}");
                (key, value)
            })
            .collect()
    }
}

/// All keys of a history.
#[must_use]
pub fn keys(history: &[UniqueWrite]) -> Vec<String> {
    history.iter().flat_map(|write| write.pairs.iter().map(|(key, _)| key.clone())).collect()
}

/// How often each reason for a refusal or a doubt was given.
#[must_use]
pub fn reasons(history: &[UniqueWrite]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for write in history {
        let reason = match &write.outcome {
            Outcome::Done(_) => continue,
            Outcome::Refused(text) | Outcome::InDoubt(text) => {
                text.split(' ').next().unwrap_or_default().to_owned()
            }
            Outcome::Lost(_) => "connection lost".to_owned(),
        };
        *counts.entry(reason).or_insert(0) += 1;
    }
    counts
}
