use super::Invariant;
use crate::sim::ledger::View;

/// When a healthy cluster is at rest all its members have the same log and the same state. That
/// it comes to rest at all is demanded by the calm phase itself, under the same name.
///
/// Why only of members: a removed node keeps what it had.
pub(super) struct Converges;

impl Invariant for Converges {
    fn name(&self) -> &'static str {
        "Converges"
    }

    fn conclude(&mut self, view: View<'_>, settled: bool) -> Result<(), String> {
        let primary = view.nodes.iter().filter(|node| node.is_primary());
        let primary = primary.filter_map(|node| node.process.as_ref()).next_back();
        let Some(primary) = primary.filter(|_| settled) else {
            return Ok(());
        };
        let config = primary.core.configs().in_force();
        let (last, digest) = (primary.log.last(), primary.state.digest());
        for node in view.nodes.iter().filter(|node| config.member(node.id).is_some()) {
            let Some(process) = &node.process else {
                continue;
            };
            if process.log.last() != last || process.state.digest() != digest {
                return Err(format!(
                    "node {} is at {}, its primary at {last}; states differ: {}",
                    node.id,
                    process.log.last(),
                    process.state.digest() != digest
                ));
            }
        }
        Ok(())
    }
}
