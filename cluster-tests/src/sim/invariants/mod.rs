//! What must hold after every event, one property to a file. Each judges by the simulated disks
//! and by what was said, never by what a node believes.

mod acked_is_real;
mod commit_meets_policy;
mod committed_immutable;
mod election_safety;
mod joint_rule;
mod leader_completeness;
mod lease_exclusive;
mod log_matching;
mod memory_loss_told;
mod monotone;
mod reads_linearizable;
mod vote_once_durable;
mod vote_quorum_safe;

use super::ledger::{Fact, View};

/// A property of the cluster.
pub(super) trait Invariant {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Judges one fact.
    ///
    /// # Errors
    /// What is wrong, in words.
    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String>;
}

/// All of them.
pub(super) fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::<election_safety::ElectionSafety>::default(),
        Box::<vote_once_durable::VoteOnceDurable>::default(),
        Box::new(vote_quorum_safe::VoteQuorumSafe),
        Box::<log_matching::LogMatching>::default(),
        Box::new(leader_completeness::LeaderCompleteness),
        Box::new(committed_immutable::CommittedImmutable),
        Box::<joint_rule::JointRule>::default(),
        Box::new(commit_meets_policy::CommitMeetsPolicy),
        Box::new(acked_is_real::AckedIsReal),
        Box::<memory_loss_told::MemoryLossTold>::default(),
        Box::<monotone::Monotone>::default(),
        Box::new(lease_exclusive::LeaseExclusive),
        Box::new(reads_linearizable::ReadsLinearizable),
    ]
}
