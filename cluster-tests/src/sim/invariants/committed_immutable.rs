use quorate_protocol::core::Role;
use quorate_protocol::types::Seq;

use super::Invariant;
use crate::sim::ledger::{Fact, View};

/// What any node commits is what every node commits at that position, and a replica commits
/// nothing that no primary did (S9). Commit positions do not go back.
pub(super) struct CommittedImmutable;

impl Invariant for CommittedImmutable {
    fn name(&self) -> &'static str {
        "CommittedImmutable"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Committed { node, from, to, .. } = fact else {
            return Ok(());
        };
        let Some(process) = &view.nodes[*node].process else {
            return Ok(());
        };
        let name = node + 1;
        if to < from {
            return Err(format!("node {name} takes its commit position from {from} to {to}"));
        }
        for seq in (from.0 + 1..=to.0).map(Seq) {
            let held = process.log.at(seq);
            match view.ledger.committed_at(seq) {
                Some(committed) if held == Some(committed) => {}
                // A snapshot stands for what is before the log's start.
                Some(_) if seq < process.log.preceding().seq => {}
                None if held.is_some() && process.core.role() == Role::Primary => {}
                committed => {
                    return Err(format!(
                        "node {name} commits {held:?} at {seq}; committed there: {committed:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}
