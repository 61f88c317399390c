//! Many seeds on a few threads; what comes of them comes in the order of the seeds.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;

use quorate_protocol::mutants::Mutant;

use super::report::Outcome;
use super::scenario::Scenario;

/// Outcomes that may wait for those of earlier seeds.
const WAITING_MAX: usize = 64;

/// Runs seeds, each whole in one thread, until `each` returns false or they are through.
pub fn run_seeds(seeds: Range<u64>, threads: usize, mut each: impl FnMut(&Outcome) -> bool) {
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let (send, receive) = sync_channel::<Outcome>(WAITING_MAX);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (send, next, stop) = (send.clone(), &next, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || send.send(super::run(&Scenario::of(seed))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        let mut due = seeds.start;
        let mut early = BTreeMap::new();
        for outcome in &receive {
            early.insert(outcome.scenario.seed, outcome);
            while let Some(outcome) = early.remove(&due) {
                due += 1;
                if !stop.load(Ordering::Relaxed) && !each(&outcome) {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
    });
}

/// The first of `seeds` that finds a mistake, and what of it is wrong; in this thread.
fn kill(mutant: Mutant, mut seeds: impl Iterator<Item = u64>) -> Option<Outcome> {
    Mutant::activate(Some(mutant));
    let run = |seed| Some(super::run(&Scenario::of(seed))).filter(|o| o.violation.is_some());
    let found = seeds.find_map(run);
    Mutant::activate(None);
    found
}

/// Tries each mistake on the seed that `known` names for it and then on `seeds`, on a few threads;
/// the results come in the order of the mistakes.
pub fn kill_all(
    mutants: &[Mutant],
    known: &BTreeMap<Mutant, u64>,
    seeds: Range<u64>,
    threads: usize,
) -> Vec<(Mutant, Option<Outcome>)> {
    let next = AtomicU64::new(0);
    let (send, receive) = sync_channel(mutants.len());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (send, next, seeds) = (send.clone(), &next, seeds.clone());
            scope.spawn(move || {
                while let Some(mutant) =
                    mutants.get(next.fetch_add(1, Ordering::Relaxed) as usize).copied()
                {
                    let found =
                        kill(mutant, known.get(&mutant).copied().into_iter().chain(seeds.clone()));
                    send.send((mutant, found)).expect("the receiver waits for every mistake");
                }
            });
        }
    });
    drop(send);
    let mut results: Vec<_> = receive.into_iter().collect();
    results.sort_by_key(|(mutant, _)| *mutant);
    results
}
