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

mod chaos;
mod clients;
mod clock;
mod disk;
mod invariants;
mod ledger;
mod liveness;
mod log;
mod network;
mod node;
mod plan;
mod random;
mod report;
mod runtime;
mod world;

pub use report::{Outcome, Violation};

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs one seed. A panic of the core is a violation like any other.
pub fn run(seed: u64, trace: bool) -> Outcome {
    let mut world = world::World::new(seed, trace);
    let end = catch_unwind(AssertUnwindSafe(|| {
        let faults_us = world.faults_us();
        world.run_until(faults_us);
        world.settle();
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

    use super::*;

    /// Branches that hundreds of seeds must reach: a run that misses one checks less than it says.
    const MARKS: [&str; 14] = [
        "boot with memory loss",
        "boot with the state ahead of the journal",
        "confirmed read",
        "election won",
        "election won with memory loss",
        "entry committed before the primary's disk has it",
        "leased read",
        "memory loss cleared",
        "one node stays dead",
        "over budget: no election is safe",
        "read refused by the second check",
        "replies in doubt",
        "tail cut",
        "vote with memory loss",
    ];

    #[test]
    fn hundreds_of_seeds_break_no_invariant_and_reach_every_branch() {
        let mut marks = BTreeMap::new();
        for seed in 0..800 {
            let outcome = run(seed, false);
            if let Some((violation, at_us)) = outcome.violation {
                panic!("seed {seed} at {at_us} us: {}: {}", violation.invariant, violation.what);
            }
            for (mark, count) in outcome.marks {
                *marks.entry(mark).or_insert(0) += count;
            }
        }
        for mark in MARKS {
            assert!(marks.contains_key(mark), "no seed reached: {mark}");
        }
    }

    #[test]
    fn same_seed_gives_the_same_run_and_another_seed_another() {
        let hash = |seed| {
            let outcome = run(seed, false);
            (outcome.trace_hash, outcome.events, outcome.simulated_us)
        };
        for seed in [1, 77, 4_000_000_000] {
            assert_eq!(hash(seed), hash(seed));
        }
        assert_ne!(hash(1).0, hash(2).0);
    }
}
