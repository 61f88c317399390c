//! What a run found.

use std::fmt;
use std::hash::Hasher;

use super::fault::Fault;
use super::plan::Plan;
use super::scenario::Scenario;
use super::world::Counts;

/// A broken property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub invariant: String,
    /// What was wrong.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// The result of one run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which run.
    pub scenario: Scenario,
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
    /// Faults that came at moments: when, and which.
    pub injected: Vec<(u64, String)>,
    /// Interesting branches, by how often they were taken.
    pub marks: Counts,
    /// Whether the damage went beyond what the policy promises to survive: then only wrong
    /// answers count.
    pub over_budget: bool,
    /// The same for the same seed.
    pub trace_hash: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} on {} nodes)", self.scenario, self.policy, self.nodes)?;
        match &self.violation {
            None => write!(f, ": no violation"),
            Some((violation, at_us)) => write!(f, ": at {at_us} us: {violation}"),
        }
    }
}

impl Outcome {
    pub(super) fn new(scenario: &Scenario, plan: &Plan) -> Self {
        Self {
            scenario: scenario.clone(),
            policy: plan.policy_name,
            nodes: plan.nodes,
            violation: None,
            simulated_us: 0,
            events: 0,
            faults: Counts::new(),
            injected: Vec::new(),
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

    pub(super) fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault.name()).or_default() += 1;
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
