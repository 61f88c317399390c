use super::Invariant;
use crate::sim::ledger::{Fact, View};

/// A read shows every write that was acknowledged, and everything that another read showed,
/// before it began; and nothing that is not committed.
pub(super) struct ReadsLinearizable;

impl Invariant for ReadsLinearizable {
    fn name(&self) -> &'static str {
        "ReadsLinearizable"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Read { at, floor, node } = fact else {
            return Ok(());
        };
        if at < floor {
            return Err(format!("node {} answers from {at}, clients had seen {floor}", node + 1));
        }
        if *at > view.ledger.committed_through() {
            return Err(format!("node {} answers from {at}, which is not committed", node + 1));
        }
        Ok(())
    }
}
