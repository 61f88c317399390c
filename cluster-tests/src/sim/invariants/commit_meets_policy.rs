use quorate_protocol::core::Role;
use quorate_protocol::types::{EntryId, EntryKind};

use super::Invariant;
use crate::sim::ledger::{Fact, NODES_MAX, View};

/// S4: when a primary commits, so many copies are or were on disks and in memories as the policy
/// says, of lives that are no older than those the primary has sessions with.
pub(super) struct CommitMeetsPolicy;

impl Invariant for CommitMeetsPolicy {
    fn name(&self) -> &'static str {
        "CommitMeetsPolicy"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Committed { node, from, to, acknowledgeable } = fact else {
            return Ok(());
        };
        let Some(process) = &view.nodes[*node].process else {
            return Ok(());
        };
        if process.core.role() != Role::Primary {
            return Ok(());
        }
        let name = node + 1;
        let form = view.policy.normal_form(view.nodes.len());
        let copies = |id: EntryId| count(view, *node, id);
        if let Some(id) = process.log.at(*acknowledgeable)
            && *acknowledgeable > process.log.preceding().seq
            && *acknowledgeable > process.acknowledgeable_at_win
        {
            let (memory, disk) = copies(id);
            if disk < form.persisted || memory < form.copies {
                return Err(format!(
                    "node {name} acknowledges {id} with {disk} copies on disk, {memory} in memory"
                ));
            }
        }
        let Some(id) = process.log.at(*to).filter(|_| to > from) else {
            return Ok(());
        };
        let (memory, disk) = copies(id);
        let by_policy = disk >= form.persisted && memory >= form.copies;
        let by_seal = view.ledger.kinds.get(&id) == Some(&EntryKind::EpochStart)
            && disk >= form.sealing_copies();
        let own = id.epoch == process.core.epoch();
        if own && (by_policy || by_seal) {
            return Ok(());
        }
        Err(format!(
            "node {name}, primary of epoch {}, commits {id} with {disk} copies on disk, {memory} \
             in memory",
            process.core.epoch()
        ))
    }
}

/// Copies in memory or on disk, and copies on disk, that `primary` may know of.
fn count(view: View<'_>, primary: usize, id: EntryId) -> (usize, usize) {
    let copies = view.ledger.copies.get(&id).copied().unwrap_or_default();
    let mut counts = (0, 0);
    for node in 0..view.nodes.len().min(NODES_MAX) {
        let Some(incarnation) = view.nodes[primary].known_incarnation(node) else {
            continue;
        };
        counts.1 += usize::from(copies.disk[node]);
        counts.0 += usize::from(copies.disk[node] || copies.memory_in[node] >= incarnation);
    }
    counts
}
