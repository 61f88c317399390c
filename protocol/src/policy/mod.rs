//! Durability policies: when a write is acknowledged, and which votes suffice to lead.
//!
//! One rule serves both sides, so a policy can't promise what a failover then breaks: a policy
//! is reduced to its [`NormalForm`], commits are judged by [`Policy::evaluate`], and elections by
//! [`NormalForm::elects`] (S3). The set-level facts behind the election rule are proven
//! exhaustively for up to six voters in this module's tests.
//!
//! - `grammar`: text to policy and back, presets.
//! - `evaluate`: cursors to a position, the degraded flag and the blocker.
//! - `election`: normal form, the election rule, and how many copies seal an entry.
//! - `explain`: which failures lose data, and which block writes, reads and elections.
//! - `simulate`: the same for given nodes, and for where their cursors are.
//! - `latency`: how long an entry waits for its copies, from when each was there.

mod election;
mod evaluate;
mod explain;
mod grammar;
mod latency;
mod simulate;

pub use election::NormalForm;
pub use evaluate::{Blocker, Cursors, Evaluation, Unmet};
pub use explain::{
    Combinations, Condition, Consequences, Counts, Explanation, FailureSet, Failures, PrimaryIn,
    Weakness,
};
pub use grammar::PolicyError;
pub use latency::{CopyTimes, predicted_median};
pub use simulate::{Forecast, Lost, Scenario};

use bincode::{Decode, Encode};

/// How many voters a clause asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Threshold {
    /// So many copies; at least 1.
    Count(u8),
    /// More than half of the voters.
    Majority,
    /// Every voter.
    All,
}

impl Threshold {
    /// The number of copies among `voters`.
    #[must_use]
    pub fn copies(self, voters: usize) -> usize {
        match self {
            Self::Count(count) => usize::from(count),
            Self::Majority => voters / 2 + 1,
            Self::All => voters,
        }
    }
}

/// What a clause speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// `fdatasync` returned.
    Persisted,
    /// `write(2)` returned, or more.
    InMemory,
}

impl Level {
    /// The level's name in the grammar.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Persisted => "persisted",
            Self::InMemory => "in_memory",
        }
    }
}

/// When a write is acknowledged: at most one clause for each level, at least one in all. Counts
/// are copies on voters, the primary included; which nodes hold them does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Policy {
    /// Copies on disk.
    pub persisted: Option<Threshold>,
    /// Copies in memory or on disk.
    pub in_memory: Option<Threshold>,
}

impl Policy {
    /// `persisted>=1`: fast, and a failover is manual.
    pub const LOCAL: Self = Self { persisted: Some(Threshold::Count(1)), in_memory: None };
    /// `in_memory>=2`: survives any one node, not a power cut of all.
    pub const MEMORY: Self = Self { persisted: None, in_memory: Some(Threshold::Count(2)) };
    /// `persisted>=1 && in_memory>=2`: survives any one node, and a power cut of all.
    pub const HYBRID: Self =
        Self { persisted: Some(Threshold::Count(1)), in_memory: Some(Threshold::Count(2)) };
    /// `persisted>=majority`: survives any minority, and a power cut of all.
    pub const MAJORITY: Self = Self { persisted: Some(Threshold::Majority), in_memory: None };
    /// `persisted>=all`.
    pub const ALL: Self = Self { persisted: Some(Threshold::All), in_memory: None };

    /// The clauses, in the order in which they print.
    pub fn clauses(&self) -> impl Iterator<Item = (Level, Threshold)> {
        let persisted = self.persisted.map(|threshold| (Level::Persisted, threshold));
        let in_memory = self.in_memory.map(|threshold| (Level::InMemory, threshold));
        persisted.into_iter().chain(in_memory)
    }

    /// What this policy, as a session's own, adds to the cluster's; `None` where it is met
    /// whenever that one is.
    #[must_use]
    pub fn beyond(&self, cluster: &Self, voters: usize) -> Option<Self> {
        let (own, given) = (self.normal_form(voters), cluster.normal_form(voters));
        let more = own.persisted > given.persisted || own.copies > given.copies;
        more.then_some(*self)
    }

    /// Whether cursors in memory decide anything that cursors on disk don't.
    #[must_use]
    pub fn needs_memory(&self, voters: usize) -> bool {
        let normal = self.normal_form(voters);
        normal.copies > normal.persisted
    }
}
