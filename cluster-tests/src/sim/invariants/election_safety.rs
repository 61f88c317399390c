use std::collections::BTreeMap;

use quorate_protocol::core::message::Message;
use quorate_protocol::types::Epoch;

use super::Invariant;
use crate::sim::ledger::{Fact, View};

/// At most one node leads an epoch: by winning it, and by what it sends as its primary.
#[derive(Default)]
pub(super) struct ElectionSafety {
    leaders: BTreeMap<Epoch, usize>,
}

impl Invariant for ElectionSafety {
    fn name(&self) -> &'static str {
        "ElectionSafety"
    }

    fn check(&mut self, _: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        let (epoch, node) = match fact {
            Fact::BecamePrimary { node, epoch } => (*epoch, *node),
            Fact::Sent { from, message: Message::Append(append), .. } => (append.epoch, *from),
            _ => return Ok(()),
        };
        let leader = *self.leaders.entry(epoch).or_insert(node);
        if leader == node {
            Ok(())
        } else {
            Err(format!("nodes {} and {} lead epoch {epoch}", leader + 1, node + 1))
        }
    }
}
