use std::collections::BTreeMap;

use quorate_protocol::core::Role;
use quorate_protocol::types::{Epoch, Incarnation, Seq};

use super::Invariant;
use crate::sim::ledger::{Fact, NODES_MAX, View};
use crate::sim::node::{Node, Process};

/// S5: a node that may have lost its memory says so no longer only when its disk holds the log of
/// the current epoch's primary through what that primary had when both were there: at the node's
/// boot, or when the primary won, whichever came later. A primary by itself: when an entry of its
/// own epoch is committed.
///
/// Why only a lower bound for what it must hold: the primary may have fixed its `R` later, and
/// nobody but itself knows when.
#[derive(Default)]
pub(super) struct MemoryLossRule {
    lives: [Option<Life>; NODES_MAX],
    /// Where the log of each primary ended when it won.
    won_at: BTreeMap<Epoch, Seq>,
}

struct Life {
    incarnation: Incarnation,
    lost: bool,
    /// Where the logs of primaries ended when it began.
    lasts: BTreeMap<Epoch, Seq>,
}

impl Invariant for MemoryLossRule {
    fn name(&self) -> &'static str {
        "MemoryLossRule"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::BecamePrimary { node, epoch } => {
                if let Some(process) = &view.nodes[*node].process {
                    self.won_at.insert(*epoch, process.log.last().seq);
                }
                Ok(())
            }
            Fact::Stepped => {
                for (index, node) in view.nodes.iter().enumerate() {
                    if let Some(process) = &node.process {
                        self.look_at(view, index, node, process)?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl MemoryLossRule {
    fn look_at(
        &mut self,
        view: View<'_>,
        index: usize,
        node: &Node,
        process: &Process,
    ) -> Result<(), String> {
        let lost = process.core.hard_state().memory_loss;
        let incarnation = node.disk.incarnation;
        let life = self.lives[index].as_mut().filter(|life| life.incarnation == incarnation);
        let Some(life) = life else {
            let tenures = view.ledger.tenures.iter();
            let lasts = tenures.map(|(epoch, tenure)| (*epoch, tenure.log.last().seq)).collect();
            self.lives[index] = Some(Life { incarnation, lost, lasts });
            return Ok(());
        };
        if !std::mem::replace(&mut life.lost, lost) || lost {
            return Ok(());
        }
        let epoch = process.core.epoch();
        if process.core.role() == Role::Primary {
            let mut own = view.ledger.committed().iter().rev();
            return if own.any(|(id, _)| id.epoch == epoch) {
                Ok(())
            } else {
                Err(format!("node {} leads epoch {epoch} and has its memory back", index + 1))
            };
        }
        let through = life.lasts.get(&epoch).or_else(|| self.won_at.get(&epoch));
        let tenure = view.ledger.tenures.get(&epoch);
        let (Some(through), Some(tenure)) = (through.copied(), tenure) else {
            return Err(format!("node {} has its memory back, without a primary", index + 1));
        };
        let journal = &node.disk.journal;
        let on_disk = through <= node.disk.flushed.seq
            || through <= journal.synced() && journal.cached.at(through) == tenure.log.at(through);
        if on_disk {
            return Ok(());
        }
        Err(format!(
            "node {} has its memory back in epoch {epoch}, without {through}; synced through {}",
            index + 1,
            journal.synced()
        ))
    }
}
