use std::collections::BTreeMap;

use quorate_protocol::types::EntryId;

use super::Invariant;
use crate::sim::ledger::{Fact, View};

/// Two logs with the same entry at a position are the same below it: by induction, every entry
/// has one and the same predecessor wherever it is appended.
#[derive(Default)]
pub(super) struct LogMatching {
    predecessors: BTreeMap<EntryId, EntryId>,
}

impl Invariant for LogMatching {
    fn name(&self) -> &'static str {
        "LogMatching"
    }

    fn check(&mut self, _: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Pushed { id, previous } = fact else {
            return Ok(());
        };
        let known = *self.predecessors.entry(*id).or_insert(*previous);
        if known == *previous && id.seq == previous.seq.next() {
            Ok(())
        } else {
            Err(format!("entry {id} follows {known} here and {previous} there"))
        }
    }
}
