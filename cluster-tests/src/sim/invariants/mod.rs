//! What must hold after every event, or at the end of a run, one property to a file. Each judges
//! by the simulated disks and by what was said, never by what a node believes.
//!
//! Facts that say nothing about a property are none of its business, so that a new kind of fact
//! changes only the properties that it is for: the one place where `_ =>` is right.

mod acked_is_real;
mod commit_meets_policy;
mod committed_immutable;
mod config_one_at_a_time;
mod converges;
mod durability_contract;
mod election_safety;
mod joint_rule;
mod leader_completeness;
mod lease_exclusive;
mod ledger_zero_at_quiesce;
mod linearizable;
mod log_matching;
mod memory_bound;
mod memory_loss_rule;
mod memory_loss_told;
mod monotone;
mod per_connection_order;
mod reads_linearizable;
mod reply_truth;
mod snapshot_equivalence;
mod state_machine_safety;
mod vote_once_durable;
mod vote_quorum_safe;
mod vote_silence;

#[cfg(test)]
mod tests;

use quorate_protocol::core::Tuning;

use super::ledger::{Fact, View};

/// A property of the cluster.
pub(super) trait Invariant {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Judges one fact.
    ///
    /// # Errors
    /// What is wrong, in words.
    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        let _ = (view, fact);
        Ok(())
    }

    /// Judges the run at its end. `settled`: the calm phase ended as it must, with nothing under
    /// way; without it the damage was beyond what the policy survives.
    ///
    /// # Errors
    /// What is wrong, in words.
    fn conclude(&mut self, view: View<'_>, settled: bool) -> Result<(), String> {
        let _ = (view, settled);
        Ok(())
    }
}

/// All of them, for nodes of this tuning.
pub(super) fn all(tuning: Tuning) -> Vec<Box<dyn Invariant>> {
    vec![
        Box::<election_safety::ElectionSafety>::default(),
        Box::<vote_once_durable::VoteOnceDurable>::default(),
        Box::new(vote_quorum_safe::VoteQuorumSafe),
        Box::<vote_silence::VoteSilence>::default(),
        Box::<memory_loss_rule::MemoryLossRule>::default(),
        Box::<log_matching::LogMatching>::default(),
        Box::new(leader_completeness::LeaderCompleteness),
        Box::new(committed_immutable::CommittedImmutable),
        Box::<joint_rule::JointRule>::default(),
        Box::new(commit_meets_policy::CommitMeetsPolicy),
        Box::<acked_is_real::AckedIsReal>::default(),
        Box::<memory_loss_told::MemoryLossTold>::default(),
        Box::<monotone::Monotone>::default(),
        Box::new(lease_exclusive::LeaseExclusive),
        Box::new(reads_linearizable::ReadsLinearizable),
        Box::new(state_machine_safety::StateMachineSafety),
        Box::new(snapshot_equivalence::SnapshotEquivalence),
        Box::new(reply_truth::ReplyTruth),
        Box::<per_connection_order::PerConnectionOrder>::default(),
        Box::new(memory_bound::MemoryBound::of(tuning)),
        Box::<config_one_at_a_time::ConfigOneAtATime>::default(),
        Box::new(converges::Converges),
        Box::new(durability_contract::DurabilityContract),
        Box::new(ledger_zero_at_quiesce::LedgerZeroAtQuiesce),
        Box::new(linearizable::Linearizable),
    ]
}
