use std::collections::BTreeSet;

use quorate_protocol::types::EntryId;

use super::Invariant;
use crate::sim::ledger::{Acknowledged, Damage, View};
use crate::sim::node::Node;

/// A write that a client was told is done is still somewhere, unless more copies were destroyed
/// than its policy promises to survive: `m` machines lost their memory or disk, and `k` of them
/// their disk. Judged at the end of a run, within the budget and beyond it.
///
/// Why only of acknowledged writes: of the others nothing was promised. Why by the trace of
/// damage: a node's own belief in its losses is what an election goes by, and what may be wrong.
pub(super) struct DurabilityContract;

impl Invariant for DurabilityContract {
    fn name(&self) -> &'static str {
        "DurabilityContract"
    }

    fn conclude(&mut self, view: View<'_>, _settled: bool) -> Result<(), String> {
        for (id, acknowledged) in &view.ledger.acknowledged {
            let held = view.nodes.iter().any(|node| holds(view, node, *id));
            if !held && !is_beyond(view, acknowledged) {
                return Err(format!(
                    "{id} was acknowledged with {:?} and is nowhere; since then: {:?}",
                    acknowledged.form,
                    &view.ledger.damage[acknowledged.damage_before..]
                ));
            }
        }
        Ok(())
    }
}

/// Whether the node would have the entry after a restart of its process.
fn holds(view: View<'_>, node: &Node, id: EntryId) -> bool {
    let in_state = id.seq <= node.disk.flushed.seq && view.ledger.committed_at(id.seq) == Some(id);
    !node.disk.is_damaged() && (in_state || node.disk.journal.cached.holds(id))
}

fn is_beyond(view: View<'_>, acknowledged: &Acknowledged) -> bool {
    let since = &view.ledger.damage[acknowledged.damage_before..];
    let on_disk = since.iter().filter(|(_, damage)| *damage == Damage::Disk);
    let mut disks: BTreeSet<usize> = on_disk.map(|(node, _)| *node).collect();
    // Damage from before that nobody had found takes the copy away all the same.
    disks.extend((0..view.nodes.len()).filter(|node| view.nodes[*node].disk.is_damaged()));
    let any: BTreeSet<usize> =
        since.iter().map(|(node, _)| *node).chain(disks.iter().copied()).collect();
    any.len() >= acknowledged.form.copies && disks.len() >= acknowledged.form.persisted
}
