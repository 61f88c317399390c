use super::Invariant;
use crate::sim::ledger::{Fact, View};

/// S3: the votes of its epoch that reached a winner suffice, with memory loss as the voters'
/// disks told it when they voted.
pub(super) struct VoteQuorumSafe;

impl Invariant for VoteQuorumSafe {
    fn name(&self) -> &'static str {
        "VoteQuorumSafe"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::BecamePrimary { node, epoch } = fact else {
            return Ok(());
        };
        let mut votes = view.ledger.votes.get(epoch).cloned().unwrap_or_default();
        votes.insert(*node, view.nodes[*node].disk.hard.memory_loss);
        let intact = votes.values().filter(|lost| !**lost).count();
        let form = view.policy.normal_form(view.nodes.len());
        if form.elects(votes.len(), intact) {
            Ok(())
        } else {
            Err(format!("node {} leads epoch {epoch} by votes {votes:?}", node + 1))
        }
    }
}
