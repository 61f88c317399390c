use std::collections::BTreeMap;

use quorate_protocol::core::message::Message;

use super::Invariant;
use crate::sim::ledger::{Fact, View};

/// S3: the votes of its epoch that reached a winner suffice, with memory loss as the voters'
/// disks told it when they voted; and no one raises an epoch without as many pre-votes of one
/// round, unless a primary asked for it.
pub(super) struct VoteQuorumSafe;

impl Invariant for VoteQuorumSafe {
    fn name(&self) -> &'static str {
        "VoteQuorumSafe"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::BecamePrimary { node, epoch } => {
                let votes = view.ledger.votes.get(epoch).cloned().unwrap_or_default();
                suffice(view, *node, votes, &format!("leads epoch {epoch}"))
            }
            Fact::Sent { from, message: Message::Vote(request), .. }
                if request.transfer.is_none() =>
            {
                let asked = (*from, request.round.saturating_sub(1));
                let votes = view.ledger.pre_votes.get(&asked).cloned().unwrap_or_default();
                suffice(view, *from, votes, &format!("stands for epoch {}", request.epoch))
            }
            _ => Ok(()),
        }
    }
}

/// Whether votes, with the node's own, elect it under every configuration in its log.
fn suffice(
    view: View<'_>,
    node: usize,
    mut votes: BTreeMap<usize, bool>,
    what: &str,
) -> Result<(), String> {
    let Some(process) = &view.nodes[node].process else {
        return Ok(());
    };
    let own = view.nodes[node].disk.hard.memory_loss;
    votes.entry(node).or_insert(own);
    for config in view.ledger.configs_of(process) {
        let counted = config.voters().filter_map(|voter| votes.get(&(voter.0 as usize - 1)));
        let lost: Vec<bool> = counted.copied().collect();
        let intact = lost.iter().filter(|lost| !**lost).count();
        let form = config.policy.normal_form(config.voters().count());
        if !form.elects(lost.len(), intact) {
            return Err(format!(
                "node {} {what} by votes {votes:?} under {}",
                node + 1,
                config.policy
            ));
        }
    }
    Ok(())
}
