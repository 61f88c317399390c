use super::Invariant;
use crate::sim::ledger::View;

/// When a healthy cluster is at rest nothing is left over: no reply, batch, read or deadline that
/// waits, and no command of a client that still hopes. Judged at the end of a run that settled.
///
/// Why nothing of journals: the calm phase waits for those of members, and only for them.
/// Why only then: without a primary a client waits for its own deadline, which is no leak.
pub(super) struct LedgerZeroAtQuiesce;

impl Invariant for LedgerZeroAtQuiesce {
    fn name(&self) -> &'static str {
        "LedgerZeroAtQuiesce"
    }

    fn conclude(&mut self, view: View<'_>, settled: bool) -> Result<(), String> {
        if !settled {
            return Ok(());
        }
        for (index, node) in view.nodes.iter().enumerate() {
            let Some(process) = &node.process else {
                continue;
            };
            let name = index + 1;
            if !process.front.is_idle() {
                return Err(format!("node {name} has commands under way: {:?}", process.front));
            }
        }
        Ok(())
    }
}
