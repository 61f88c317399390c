//! A deterministic simulator of a cluster: the real replication core on simulated disks, links
//! and clocks, with faults drawn from a seed and invariants checked after every event.
//!
//! ```text
//!  plan ──► world ──► core::step ──► runtime ──► disk, network, clients
//!    │        ▲                        │
//!  chaos ─────┘                        └──► ledger ──► invariants
//! ```
//!
//! One thread, one generator of chance, virtual time: the same seed gives the same run, byte for
//! byte. A run has two phases: with faults, in which nothing may ever be wrong, and a calm one, in
//! which what the rules say must work has to work.

mod batch;
mod chaos;
mod clients;
mod clock;
mod connections;
mod disk;
mod fault;
mod invariants;
mod ledger;
mod liveness;
mod log;
mod machines;
mod marks;
mod network;
mod node;
mod operator;
mod plan;
mod random;
mod report;
mod runtime;
mod scenario;
mod shrink;
mod snapshots;
mod state;
mod total;
mod transport;
mod wire;
mod world;

pub use batch::{kill_all, run_seeds};
pub use fault::Fault;
pub use marks::{JUDGED_FROM, missing};
pub use report::{Outcome, Violation};
pub use scenario::Scenario;
pub use shrink::shrink;
pub use total::Total;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs one scenario. A panic of the core is a violation like any other.
pub fn run(scenario: &Scenario) -> Outcome {
    run_world(world::World::new(scenario, false))
}

/// The same, printing every event and command.
pub fn trace(scenario: &Scenario) -> Outcome {
    run_world(world::World::new(scenario, true))
}

fn run_world(mut world: world::World) -> Outcome {
    let end = catch_unwind(AssertUnwindSafe(|| {
        let faults_us = world.faults_us();
        world.run_until(faults_us);
        world.settle();
        world.conclude();
    }));
    if let Err(panic) = end {
        let what = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        world.fail("NoPanic", what);
    }
    world.into_outcome()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use quorate_protocol::mutants::Mutant;

    use super::*;

    /// Seeds that a mistake may survive. More than the slowest needs today, because any change of
    /// the simulator gives every seed another run.
    const MUTANT_SEEDS: u64 = 5_000;

    #[test]
    fn thousands_of_seeds_break_no_invariant_and_reach_every_branch() {
        let mut total = Total::default();
        run_seeds(0..JUDGED_FROM, 2, |outcome| {
            if let Some((violation, at_us)) = &outcome.violation {
                panic!("{} at {at_us} us: {violation}", outcome.scenario);
            }
            total.add(outcome);
            true
        });
        assert_eq!(missing(&total), Vec::<&str>::new(), "no seed reached these");
    }

    #[test]
    fn same_seed_gives_the_same_run_and_another_seed_another() {
        let hash = |seed| {
            let outcome = run(&Scenario::of(seed));
            (outcome.trace_hash, outcome.events, outcome.simulated_us)
        };
        for seed in [1, 77, 4_000_000_000] {
            assert_eq!(hash(seed), hash(seed));
        }
        assert_ne!(hash(1).0, hash(2).0);
    }

    /// Runs that once failed. A line is a scenario, and after `#` what was wrong.
    #[test]
    fn what_once_failed_stays_right() {
        let corpus = include_str!("../../corpus/seeds.txt");
        let lines = corpus.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        for line in lines {
            let (scenario, why) = line.split_once('#').expect("a line says why");
            let outcome = run(&scenario.parse().expect("a scenario"));
            assert_eq!(outcome.violation, None, "{scenario}: {why}");
        }
    }

    /// Seeds that find a mistake that few seeds find. Where one no longer does, it costs time only.
    fn known_seeds() -> BTreeMap<Mutant, u64> {
        let lines = include_str!("../../corpus/mutants.txt").lines();
        let known = lines.filter(|line| !line.starts_with('#')).map(|line| {
            let (name, seed) = line.split_once(' ').expect("a line is a mistake and a seed");
            let named = |mutant: &&Mutant| format!("{mutant:?}") == name;
            let mutant = Mutant::ALL.iter().find(named);
            let mutant = mutant.unwrap_or_else(|| panic!("no mistake is called {name}"));
            (*mutant, seed.parse().expect("a seed"))
        });
        known.collect()
    }

    /// The tests of the tests: every deliberate mistake is found.
    #[test]
    fn every_mutant_is_killed() {
        let results = kill_all(Mutant::ALL, &known_seeds(), 0..MUTANT_SEEDS, 2);
        let survivors: Vec<Mutant> = results
            .iter()
            .filter(|(_, found)| found.is_none())
            .map(|(mutant, _)| *mutant)
            .collect();
        assert_eq!(survivors, [], "these mistakes are not found by {MUTANT_SEEDS} seeds");
        assert!(results.len() >= 50, "only {} mistakes", results.len());
    }
}
