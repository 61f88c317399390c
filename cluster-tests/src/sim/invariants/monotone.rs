use quorate_protocol::types::{Branch, Epoch, Incarnation, Seq};

use super::Invariant;
use crate::sim::ledger::{Fact, NODES_MAX, View};

/// Epochs and incarnations never go back, on disk through any crash; positions never go back
/// within a life, cursors not within a branch; and each stays within the next.
#[derive(Default)]
pub(super) struct Monotone {
    disks: [(Epoch, Incarnation); NODES_MAX],
    lives: [Life; NODES_MAX],
}

#[derive(Clone, Copy, Default)]
struct Life {
    incarnation: Incarnation,
    epoch: Epoch,
    committed: Seq,
    acknowledgeable: Seq,
    branch: Branch,
    in_memory: Seq,
    persisted: Seq,
}

impl Invariant for Monotone {
    fn name(&self) -> &'static str {
        "Monotone"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Stepped = fact else { return Ok(()) };
        for (index, node) in view.nodes.iter().enumerate() {
            let name = index + 1;
            let disk = (node.disk.hard.epoch, node.disk.incarnation);
            if disk.0 < self.disks[index].0 || disk.1 < self.disks[index].1 {
                return Err(format!("node {name}: disk goes back to {disk:?}"));
            }
            self.disks[index] = disk;
            let Some(process) = &node.process else {
                continue;
            };
            let core = &process.core;
            let log = core.log();
            let now = Life {
                incarnation: node.disk.incarnation,
                epoch: core.epoch(),
                committed: core.committed(),
                acknowledgeable: core.acknowledgeable(),
                branch: log.branch(),
                in_memory: log.in_memory(),
                persisted: log.persisted(),
            };
            let ordered = now.persisted <= now.in_memory
                && now.in_memory <= log.last().seq
                && now.acknowledgeable <= now.committed
                && process.applied <= now.committed
                && now.committed <= log.last().seq;
            if !ordered || log.last() != process.log.last() {
                return Err(format!(
                    "node {name}: persisted {} in_memory {} last {} ({}) acknowledgeable {} \
                     committed {} applied {}",
                    now.persisted,
                    now.in_memory,
                    log.last(),
                    process.log.last(),
                    now.acknowledgeable,
                    now.committed,
                    process.applied
                ));
            }
            let before = std::mem::replace(&mut self.lives[index], now);
            if before.incarnation != now.incarnation {
                continue;
            }
            let back = now.epoch < before.epoch
                || now.committed < before.committed
                || now.acknowledgeable < before.acknowledgeable
                || now.branch < before.branch
                || now.branch == before.branch
                    && (now.in_memory < before.in_memory || now.persisted < before.persisted);
            if back {
                return Err(format!("node {name}: a position went back"));
            }
        }
        Ok(())
    }
}
