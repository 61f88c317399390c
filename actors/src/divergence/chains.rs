//! Where a node looks its own chain up.

use std::sync::Arc;

use quorate_protocol::types::Seq;

use super::compare::ChainPoint;
use crate::storage::journal::JournalReader;
use crate::storage::state::StateReader;
use crate::view::Published;

/// A node's own chain, by position. Blocks for a read of the disk.
#[derive(Debug)]
pub(crate) struct Chains {
    pub(crate) journal: JournalReader,
    pub(crate) state: StateReader,
    pub(crate) published: Arc<Published>,
}

impl Chains {
    /// What this node holds at `seq`, or at its commit position where that is lower; `None` where
    /// that was trimmed, or nothing is known to be committed.
    pub(crate) fn committed(&self, seq: Seq) -> Option<ChainPoint> {
        let seq = seq.min(self.published.committed());
        if seq == Seq::ZERO { None } else { self.at(seq) }
    }

    /// What this node holds at `seq`, by its journal or else by its state.
    pub(crate) fn at(&self, seq: Seq) -> Option<ChainPoint> {
        let entries = self.journal.read(seq, 1).ok();
        let entry = entries.and_then(|entries| entries.into_iter().next());
        let written = entry.map(|entry| ChainPoint { id: entry.id, chain: entry.chain });
        written.or_else(|| self.applied().filter(|applied| applied.id.seq == seq))
    }

    /// What the state holds.
    pub(crate) fn applied(&self) -> Option<ChainPoint> {
        let applied = self.state.applied().ok()?;
        Some(ChainPoint { id: applied.id, chain: applied.chain })
    }

    /// What journal and state hold at the state's position, where these are different.
    pub(crate) fn contradiction(&self) -> Option<(ChainPoint, ChainPoint)> {
        let state = self.applied()?;
        let journal = self.at(state.id.seq)?;
        // Another entry at that position is a tail that the journal hasn't cut yet.
        (journal.id == state.id && journal.chain != state.chain).then_some((journal, state))
    }
}
