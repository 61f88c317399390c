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
        let Some(process) = &view.nodes[*node].process else {
            return Ok(());
        };
        for config in process.core.configs().all() {
            let counted = config.voters().filter_map(|voter| votes.get(&(voter.0 as usize - 1)));
            let lost: Vec<bool> = counted.copied().collect();
            let intact = lost.iter().filter(|lost| !**lost).count();
            let form = config.policy.normal_form(config.voters().count());
            if !form.elects(lost.len(), intact) {
                return Err(format!(
                    "node {} leads epoch {epoch} by votes {votes:?} under {config:?}",
                    node + 1
                ));
            }
        }
        Ok(())
    }
}
