use super::Invariant;
use crate::sim::ledger::{Fact, View};

/// A state that a node takes over as a whole, at boot or from a snapshot, is the one that the
/// committed log comes to at the position that is named with it.
///
/// Why only of nodes that know of every lossy recovery: what the others hold was given up (S12).
/// Why not leave it to `StateMachineSafety`: a state that is wrong where it is taken may be
/// overwritten, and so look right, before the node applies anything.
pub(super) struct SnapshotEquivalence;

impl Invariant for SnapshotEquivalence {
    fn name(&self) -> &'static str {
        "SnapshotEquivalence"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::StateTaken { node, through, digest } = fact else {
            return Ok(());
        };
        let known = view.nodes[*node].disk.config.1.generation;
        if view.ledger.clusters.values().any(|cluster| cluster.generation > known) {
            return Ok(());
        }
        let name = node + 1;
        let committed = view.ledger.committed_at(through.seq);
        if committed != Some(*through) {
            return Err(format!(
                "node {name} takes a state through {through}; committed there: {committed:?}"
            ));
        }
        if view.ledger.reference.digest(through.seq) == Some(*digest) {
            Ok(())
        } else {
            Err(format!("node {name} takes a state that is not the one after {through}"))
        }
    }
}
