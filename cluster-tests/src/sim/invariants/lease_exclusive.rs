use quorate_protocol::core::Role;

use super::Invariant;
use crate::sim::ledger::{Fact, View};

/// S11: while a node may serve reads under its lease, no later primary has committed anything.
pub(super) struct LeaseExclusive;

impl Invariant for LeaseExclusive {
    fn name(&self) -> &'static str {
        "LeaseExclusive"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Stepped = fact else { return Ok(()) };
        for (index, node) in view.nodes.iter().enumerate() {
            let Some(process) = &node.process else {
                continue;
            };
            if process.core.role() != Role::Primary
                || view.ledger.epoch_committed <= process.core.epoch()
            {
                continue;
            }
            let now = node.clock.read(view.now_us);
            if process.core.lease_until(now).is_some_and(|until| now < until) {
                return Err(format!(
                    "node {} holds a lease in epoch {}, while epoch {} commits",
                    index + 1,
                    process.core.epoch(),
                    view.ledger.epoch_committed
                ));
            }
        }
        Ok(())
    }
}
