use quorate_protocol::types::Incarnation;

use super::Invariant;
use crate::sim::ledger::{Fact, NODES_MAX, View};

/// S5: a node that does not say that it lost its memory holds every committed entry that it ever
/// held: when it boots without memory loss, and when it leaves it.
#[derive(Default)]
pub(super) struct MemoryLossTold {
    /// Each node's life, and whether its disk says memory loss.
    nodes: [(Incarnation, bool); NODES_MAX],
}

impl Invariant for MemoryLossTold {
    fn name(&self) -> &'static str {
        "MemoryLossTold"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Stepped = fact else { return Ok(()) };
        for (index, node) in view.nodes.iter().enumerate() {
            let now = (node.disk.incarnation, node.disk.hard.memory_loss);
            let before = std::mem::replace(&mut self.nodes[index], now);
            if now != before && !now.1 {
                holds_all(view, index)?;
            }
        }
        Ok(())
    }
}

fn holds_all(view: View<'_>, index: usize) -> Result<(), String> {
    let Some(process) = &view.nodes[index].process else {
        return Ok(());
    };
    for (id, _) in view.ledger.committed() {
        let copies = view.ledger.copies.get(id).copied().unwrap_or_default();
        let had = copies.memory_in[index] > 0 || copies.disk[index];
        if had && id.seq > process.log.preceding().seq && !process.log.holds(*id) {
            return Err(format!("node {} lost {id} and doesn't tell", index + 1));
        }
    }
    Ok(())
}
