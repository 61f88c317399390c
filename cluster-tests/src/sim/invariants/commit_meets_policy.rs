use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::core::Role;
use quorate_protocol::types::{EntryId, EntryKind};

use super::Invariant;
use crate::sim::ledger::{Fact, View};

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
        let config = process.core.configs().in_force().clone();
        let form = config.policy.normal_form(config.voters().count());
        let copies = |id: EntryId| count(view, &config, *node, id);
        if let Some(id) = process.log.at(*acknowledgeable)
            && *acknowledgeable > process.log.preceding().seq
            && *acknowledgeable > process.acknowledgeable_before
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
        let is_command = |id: &EntryId| view.ledger.kind(*id) == Some(EntryKind::Commands);
        let by_policy = disk >= form.persisted && memory >= form.copies;
        let by_seal = !is_command(&id) && disk >= form.sealing_copies();
        let own = id.epoch == process.core.epoch();
        if own && (by_policy || by_seal) {
            // What a sealed entry takes along is of earlier epochs, or no command.
            let unmet = process.log.range(from.next(), *to).iter().find(|id| {
                let (memory, disk) = copies(**id);
                let met = disk >= form.persisted && memory >= form.copies;
                id.epoch == process.core.epoch() && is_command(id) && !met
            });
            return unmet.map_or(Ok(()), |unmet| {
                Err(format!("node {name} commits {unmet} by sealing {id}"))
            });
        }
        Err(format!(
            "node {name}, primary of epoch {}, commits {id} with {disk} copies on disk, {memory} \
             in memory",
            process.core.epoch()
        ))
    }
}

/// Copies in memory or on disk, and copies on disk, that `primary` may know of.
fn count(view: View<'_>, config: &ClusterEntry, primary: usize, id: EntryId) -> (usize, usize) {
    let copies = view.ledger.copies.get(&id).copied().unwrap_or_default();
    let mut counts = (0, 0);
    for voter in config.voters() {
        let node = voter.0 as usize - 1;
        let Some(incarnation) = view.nodes[primary].known_incarnation(node) else {
            continue;
        };
        counts.1 += usize::from(copies.disk[node]);
        counts.0 += usize::from(copies.disk[node] || copies.memory_in[node] >= incarnation);
    }
    counts
}
