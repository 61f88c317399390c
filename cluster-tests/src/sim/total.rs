//! What many runs did together.

use std::fmt;

use serde_json::json;

use super::report::Outcome;
use super::world::Counts;

/// Sums over runs.
#[derive(Clone, Debug, Default)]
pub struct Total {
    /// Runs.
    pub seeds: u64,
    /// Runs with a violation.
    pub violations: u64,
    /// Runs whose damage went beyond what their policy survives.
    pub over_budget: u64,
    /// Simulated time in microseconds.
    pub simulated_us: u64,
    /// Events handled.
    pub events: u64,
    /// Faults by class.
    pub faults: Counts,
    /// Branches by how often they were taken.
    pub marks: Counts,
    /// Runs by policy and size.
    clusters: std::collections::BTreeMap<String, u64>,
}

impl Total {
    /// Adds a run.
    pub fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.violations += u64::from(outcome.violation.is_some());
        self.over_budget += u64::from(outcome.over_budget);
        self.simulated_us += outcome.simulated_us;
        self.events += outcome.events;
        for (fault, count) in &outcome.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        for (mark, count) in &outcome.marks {
            *self.marks.entry(mark).or_default() += count;
        }
        let cluster = format!("{} on {} nodes", outcome.policy, outcome.nodes);
        *self.clusters.entry(cluster).or_default() += 1;
    }

    /// How often a mark was hit.
    #[must_use]
    pub fn mark(&self, mark: &str) -> u64 {
        self.marks.get(mark).copied().unwrap_or(0)
    }

    /// One line for the ledger of long runs.
    #[must_use]
    pub fn ledger_line(&self, commit: &str, elapsed_s: f64) -> String {
        json!({
            "commit": commit,
            "elapsed_s": elapsed_s.round(),
            "seeds": self.seeds,
            "simulated_s": self.simulated_us / 1_000_000,
            "crash_restarts": self.mark("restart"),
            "leader_changes": self.mark("election won"),
            "cluster_changes": self.mark("membership changed"),
            "policy_changes": self.mark("policy changed"),
            "snapshot_installs": self.mark("snapshot installed"),
            "memory_loss_elections": self.mark("election won by a vote with memory loss"),
            "violations": self.violations,
        })
        .to_string()
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated_us as f64 / 3.6e9;
        writeln!(
            f,
            "{} seeds, {hours:.1} h simulated, {} events, {} elections, {} over budget, {} \
             violations",
            self.seeds,
            self.events,
            self.mark("election won"),
            self.over_budget,
            self.violations
        )?;
        for (title, counts) in [("faults", &self.faults), ("marks", &self.marks)] {
            writeln!(f, "{title}:")?;
            for (name, count) in counts {
                writeln!(f, "  {count:>10} {name}")?;
            }
        }
        writeln!(f, "clusters:")?;
        for (name, count) in &self.clusters {
            writeln!(f, "  {count:>10} {name}")?;
        }
        Ok(())
    }
}
