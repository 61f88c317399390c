use super::Invariant;
use crate::sim::ledger::{Fact, View};

/// Every node that applies a position applies the committed entry there, ends with the same
/// state, and gets the same replies (Raft's State Machine Safety; S9).
///
/// Compared with the state that the committed log comes to, and not between nodes: a run in which
/// only one node applies an entry must be judged, too.
pub(super) struct StateMachineSafety;

impl Invariant for StateMachineSafety {
    fn name(&self) -> &'static str {
        "StateMachineSafety"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Applied { node, id, digest, replies } = fact else {
            return Ok(());
        };
        let name = node + 1;
        let committed = view.ledger.committed_at(id.seq);
        if committed != Some(*id) {
            return Err(format!("node {name} applies {id}; committed there: {committed:?}"));
        }
        let reference = &view.ledger.reference;
        if reference.digest(id.seq) != Some(*digest) {
            return Err(format!("node {name} has another state than the log after {id}"));
        }
        if reference.replies(id.seq) != Some(*replies) {
            return Err(format!("node {name} answers {replies:?} for {id}"));
        }
        Ok(())
    }
}
