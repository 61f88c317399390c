//! What a run found.

use std::hash::Hasher;

use super::plan::Plan;
use super::world::Counts;

/// A broken property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub invariant: String,
    /// What was wrong.
    pub what: String,
}

/// The result of one seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The policy's name.
    pub policy: &'static str,
    /// How many nodes.
    pub nodes: usize,
    /// The first violation, and when.
    pub violation: Option<(Violation, u64)>,
    /// Simulated time in microseconds.
    pub simulated_us: u64,
    /// Events handled.
    pub events: u64,
    /// Faults by class.
    pub faults: Counts,
    /// Interesting branches, by how often they were taken.
    pub marks: Counts,
    /// Whether the damage went beyond what the policy promises to survive: then only wrong
    /// answers count.
    pub over_budget: bool,
    /// The same for the same seed.
    pub trace_hash: u64,
}

impl Outcome {
    pub(super) fn new(seed: u64, plan: &Plan) -> Self {
        Self {
            seed,
            policy: plan.policy_name,
            nodes: plan.nodes,
            violation: None,
            simulated_us: 0,
            events: 0,
            faults: Counts::new(),
            marks: Counts::new(),
            over_budget: false,
            trace_hash: 0,
        }
    }

    pub(super) fn violate(&mut self, violation: Violation, at_us: u64) {
        self.violation.get_or_insert((violation, at_us));
    }

    pub(super) fn mark(&mut self, mark: &'static str) {
        *self.marks.entry(mark).or_default() += 1;
    }

    pub(super) fn fault(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }
}

/// FNV-1a: the same on every machine and in every version of Rust.
#[derive(Clone, Debug)]
pub(super) struct TraceHash(u64);

impl Default for TraceHash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for TraceHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
