use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::types::{EntryId, Epoch};

use super::Invariant;
use crate::sim::ledger::{Fact, NODES_MAX, View};

/// S10: a configuration comes in force only where `b(old)` old voters and `b(new)` new ones have
/// it on disk; from then on every later primary holds it.
#[derive(Default)]
pub(super) struct JointRule {
    /// What each node last held to be in force.
    nodes: [Option<EntryId>; NODES_MAX],
}

impl Invariant for JointRule {
    fn name(&self) -> &'static str {
        "JointRule"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Stepped => self.look_at_all(view),
            Fact::BecamePrimary { node, epoch } => holds_all(view, *node, *epoch),
            _ => Ok(()),
        }
    }
}

impl JointRule {
    fn look_at_all(&mut self, view: View<'_>) -> Result<(), String> {
        for (index, node) in view.nodes.iter().enumerate() {
            let Some(process) = &node.process else {
                continue;
            };
            let configs = process.core.configs();
            let at = configs.in_force_at();
            if self.nodes[index] == Some(at) {
                continue;
            }
            self.nodes[index] = Some(at);
            let new = configs.in_force();
            let mut before = view.ledger.clusters.range(..at).rev();
            let old = before.find(|(id, _)| process.log.holds(**id));
            if let Some((_, old)) = old.filter(|(_, old)| old.generation == new.generation) {
                is_sealed(view, at, old)?;
                is_sealed(view, at, new)?;
            }
        }
        Ok(())
    }
}

/// Whether enough voters of a configuration have an entry on disk.
pub(super) fn is_sealed(view: View<'_>, id: EntryId, config: &ClusterEntry) -> Result<(), String> {
    let copies = view.ledger.copies.get(&id).copied().unwrap_or_default();
    let voters: Vec<usize> = config.voters().map(|voter| voter.0 as usize - 1).collect();
    let on_disk = voters.iter().filter(|voter| copies.disk[**voter]).count();
    let needed = config.policy.normal_form(voters.len()).sealing_copies();
    if on_disk >= needed {
        return Ok(());
    }
    Err(format!("configuration {id} is in force with {on_disk} of {needed} copies on {voters:?}"))
}

fn holds_all(view: View<'_>, node: usize, epoch: Epoch) -> Result<(), String> {
    let Some(process) = &view.nodes[node].process else {
        return Ok(());
    };
    let preceding = process.log.preceding().seq;
    // A node that does not know of a lossy recovery goes by what was given up (S12).
    let generation = process.core.configs().in_force().generation;
    let of_now = |id: &EntryId| {
        view.ledger.clusters.get(id).is_some_and(|cluster| cluster.generation >= generation)
    };
    for (id, by) in view.ledger.in_force.iter().filter(|(id, _)| of_now(id)) {
        if *by < epoch && id.seq > preceding && !process.log.holds(*id) {
            return Err(format!(
                "node {} leads epoch {epoch} without configuration {id}, in force since epoch {by}",
                node + 1
            ));
        }
    }
    Ok(())
}
