use quorate_protocol::types::Seq;

use super::Invariant;
use crate::sim::ledger::{Fact, View};

/// Whoever wins holds every committed entry.
pub(super) struct LeaderCompleteness;

impl Invariant for LeaderCompleteness {
    fn name(&self) -> &'static str {
        "LeaderCompleteness"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::BecamePrimary { node, epoch } = fact else {
            return Ok(());
        };
        let Some(process) = &view.nodes[*node].process else {
            return Ok(());
        };
        let first = process.log.preceding().seq.0.max(1);
        for seq in (first..=view.ledger.committed_through().0).map(Seq) {
            let (held, committed) = (process.log.at(seq), view.ledger.committed_at(seq));
            if held != committed {
                return Err(format!(
                    "node {} leads epoch {epoch} with {held:?} at {seq}, where {committed:?} is \
                     committed",
                    node + 1
                ));
            }
        }
        Ok(())
    }
}
