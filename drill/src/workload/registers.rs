//! Clients that read and write a few registers, for the linearizability checker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::route::Route;
use crate::history::{Operation, Outcome, RegisterHistory, check_register};
use crate::resp::Value;

/// How the clients behave.
#[derive(Clone, Copy, Debug)]
pub struct RegisterOptions {
    /// Registers.
    pub keys: usize,
    /// Clients that follow the primary.
    pub clients: usize,
    /// A pause after each operation.
    pub pause: Duration,
    /// The longest wait for a reply.
    pub timeout: Duration,
}

impl Default for RegisterOptions {
    fn default() -> Self {
        Self {
            keys: 4,
            clients: 6,
            pause: Duration::from_millis(2),
            timeout: Duration::from_secs(10),
        }
    }
}

/// Running clients. Besides those that follow the primary, one client stays at each node and
/// only reads, so that a node that wrongly believes to be primary is found out.
#[derive(Debug)]
pub struct RegisterClients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<Observation>>>,
    keys: usize,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    next_value: AtomicU64,
    began: Instant,
    name: String,
}

#[derive(Clone, Copy, Debug)]
struct Observation {
    key: usize,
    operation: Operation,
    began: u64,
    /// `None`: a write of unknown outcome.
    ended: Option<u64>,
}

impl RegisterClients {
    /// Starts them. `name` must differ from that of any other clients on the same cluster.
    #[must_use]
    pub fn start(name: &str, nodes: &[SocketAddr], options: RegisterOptions) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            next_value: AtomicU64::new(1),
            began: Instant::now(),
            name: name.to_owned(),
        });
        let mut threads = Vec::new();
        for seed in 0..options.clients {
            let shared = Arc::clone(&shared);
            let route = Route::new(nodes, options.timeout);
            threads
                .push(thread::spawn(move || shared.client(route, options, seed as u64 + 1, true)));
        }
        for (seed, node) in (100..).zip(nodes) {
            let shared = Arc::clone(&shared);
            let route = Route::new(&[*node], options.timeout);
            threads.push(thread::spawn(move || shared.client(route, options, seed, false)));
        }
        Self { shared, threads, keys: options.keys }
    }

    /// The keys of the registers.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        (0..self.keys).map(|key| self.shared.key(key)).collect()
    }

    /// Stops the clients and returns one history per register.
    ///
    /// # Panics
    ///
    /// If a client saw something that no client may see.
    #[must_use]
    pub fn finish(mut self) -> Vec<RegisterHistory> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut histories = vec![RegisterHistory::default(); self.keys];
        for thread in self.threads.drain(..) {
            for seen in thread.join().expect("a client failed") {
                match (seen.ended, seen.operation) {
                    (Some(ended), operation) => {
                        histories[seen.key].completed(operation, seen.began, ended);
                    }
                    (None, write) => histories[seen.key].unknown(write, seen.began),
                }
            }
        }
        histories
    }

    /// Stops the clients and checks every register.
    ///
    /// # Panics
    ///
    /// If one of them is not linearizable.
    pub fn finish_and_check(self) -> usize {
        let mut operations = 0;
        for (key, history) in self.finish().iter().enumerate() {
            operations += history.len();
            if let Err(error) = check_register(history) {
                panic!("register {key} of {} operations: {error}", history.len());
            }
        }
        operations
    }
}

impl Drop for RegisterClients {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn key(&self, register: usize) -> String {
        format!("{}:register:{register}", self.name)
    }

    fn client(
        &self,
        mut route: Route,
        options: RegisterOptions,
        seed: u64,
        writes: bool,
    ) -> Vec<Observation> {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut seen = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let key = (random % options.keys as u64) as usize;
            let name = self.key(key);
            if writes && (random >> 32).is_multiple_of(2) {
                seen.extend(self.write(&mut route, key, name));
            } else {
                seen.extend(self.read(&mut route, key, name));
            }
            thread::sleep(options.pause);
        }
        seen
    }

    fn write(&self, route: &mut Route, key: usize, name: String) -> Option<Observation> {
        let value = self.next_value.fetch_add(1, Ordering::Relaxed);
        let began = self.now();
        let outcome = route.send_one(vec!["SET".to_owned(), name, value.to_string()]);
        let ended = match outcome {
            Outcome::Done(_) => Some(self.now()),
            Outcome::InDoubt(_) | Outcome::Lost(_) => None,
            // It must never be read; the checker finds it if it is.
            Outcome::Refused(_) => return None,
        };
        Some(Observation { key, operation: Operation::Write(value), began, ended })
    }

    fn read(&self, route: &mut Route, key: usize, name: String) -> Option<Observation> {
        let began = self.now();
        let Outcome::Done(reply) = route.send_one(vec!["GET".to_owned(), name]) else {
            return None;
        };
        let value = if reply.is_null() { None } else { Some(number(&reply)) };
        Some(Observation { key, operation: Operation::Read(value), began, ended: Some(self.now()) })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).expect("tests are short")
    }
}

fn number(reply: &Value) -> u64 {
    reply
        .bytes()
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("a register held {reply:?}"))
}
