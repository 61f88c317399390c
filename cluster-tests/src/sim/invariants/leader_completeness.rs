use quorate_protocol::core::Role;
use quorate_protocol::types::{Epoch, Seq};

use super::Invariant;
use crate::sim::ledger::{Fact, View};

/// What a primary commits is in the log of every primary of a later epoch, whether that one is
/// elected after the commit or was before it.
pub(super) struct LeaderCompleteness;

impl Invariant for LeaderCompleteness {
    fn name(&self) -> &'static str {
        "LeaderCompleteness"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::BecamePrimary { node, epoch } => holds_all(view, *node, *epoch),
            Fact::Committed { node, from, to, .. } => is_held_later(view, *node, *from, *to),
            _ => Ok(()),
        }
    }
}

fn holds_all(view: View<'_>, node: usize, epoch: Epoch) -> Result<(), String> {
    let Some(process) = &view.nodes[node].process else {
        return Ok(());
    };
    let preceding = process.log.preceding().seq;
    for (committed, by) in view.ledger.committed().iter().copied() {
        if by >= epoch || committed.seq < preceding {
            continue;
        }
        let held = process.log.at(committed.seq);
        if held != Some(committed) {
            return Err(format!(
                "node {} leads epoch {epoch} with {held:?}, where epoch {by} committed {committed}",
                node + 1
            ));
        }
    }
    Ok(())
}

fn is_held_later(view: View<'_>, node: usize, from: Seq, to: Seq) -> Result<(), String> {
    let Some(process) = &view.nodes[node].process else {
        return Ok(());
    };
    if process.core.role() != Role::Primary {
        return Ok(());
    }
    let later = process.core.epoch().next()..;
    for (epoch, tenure) in view.ledger.tenures.range(later) {
        for seq in (from.0 + 1..=to.0).map(Seq) {
            let held = tenure.log.at(seq);
            if seq > tenure.log.preceding().seq && held != process.log.at(seq) {
                return Err(format!(
                    "node {} commits {:?}, where the primary of epoch {epoch} holds {held:?}",
                    node + 1,
                    process.log.at(seq)
                ));
            }
        }
    }
    Ok(())
}
