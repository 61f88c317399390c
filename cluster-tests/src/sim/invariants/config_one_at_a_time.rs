use std::collections::BTreeSet;

use quorate_protocol::core::Role;
use quorate_protocol::types::EntryId;

use super::Invariant;
use super::joint_rule::is_sealed;
use crate::sim::ledger::{Fact, View};
use crate::sim::node::Process;

/// S10: a primary proposes a configuration only after an entry of its own epoch is committed, and
/// after the one before it is in force: on disk with so many voters of the configuration that it
/// replaced, and of its own, that no later primary lacks it.
///
/// Why only when the entry is new: a replica that receives it later proposes nothing.
#[derive(Default)]
pub(super) struct ConfigOneAtATime {
    seen: BTreeSet<EntryId>,
}

impl Invariant for ConfigOneAtATime {
    fn name(&self) -> &'static str {
        "ConfigOneAtATime"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Pushed { id, .. } = fact else {
            return Ok(());
        };
        let Some(new) = view.ledger.clusters.get(id) else {
            return Ok(());
        };
        let Some(tenure) = view.ledger.tenures.get(&id.epoch).filter(|_| self.seen.insert(*id))
        else {
            return Ok(());
        };
        if !view.ledger.committed().iter().any(|(committed, _)| committed.epoch == id.epoch) {
            return Err(format!("{id} is proposed before an entry of its epoch is committed"));
        }
        let leads = |process: &&Process| {
            process.core.role() == Role::Primary && process.core.epoch() == id.epoch
        };
        let mut leading = view.nodes.iter().filter_map(|node| node.process.as_ref()).filter(leads);
        if let Some(primary) = leading.next().filter(|primary| primary.log.holds(*id)) {
            let others = view.ledger.configs_of(primary).len() - 1;
            if others > 1 {
                return Err(format!("{id} is proposed beside {others} configurations"));
            }
        }
        let mut earlier = view.ledger.clusters.range(..*id).rev();
        let mut held = earlier.by_ref().filter(|(earlier, _)| tenure.log.holds(**earlier));
        let Some((at, before)) =
            held.next().filter(|(_, before)| before.generation == new.generation)
        else {
            return Ok(());
        };
        let replaced = held.next().map_or(before, |(_, replaced)| replaced);
        for config in [replaced, before] {
            is_sealed(view, *at, config)
                .map_err(|what| format!("{id} is proposed beside {at}: {what}"))?;
        }
        Ok(())
    }
}
