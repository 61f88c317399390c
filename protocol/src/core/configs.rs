//! The configurations in the log: one in force, and at most one that is appended but not yet in
//! force (S10).

use std::sync::Arc;

use crate::cluster::ClusterEntry;
use crate::types::{EntryId, Seq};

/// Cluster entries by position. Never empty: a node without a configuration has no core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Configs {
    in_force: (EntryId, Arc<ClusterEntry>),
    /// Entries after the one in force, in order.
    pending: Vec<(EntryId, Arc<ClusterEntry>)>,
}

impl Configs {
    /// `entries` as found in state and log, in order; those at or below `committed` are in force.
    #[must_use]
    pub fn new(entries: Vec<(EntryId, Arc<ClusterEntry>)>, committed: Seq) -> Self {
        let mut entries = entries.into_iter();
        let first = entries.next().expect("a formed cluster has a cluster entry");
        let mut configs = Self { in_force: first, pending: entries.collect() };
        configs.on_committed(committed);
        configs
    }

    /// The configuration that judges commits.
    #[must_use]
    pub fn in_force(&self) -> &Arc<ClusterEntry> {
        &self.in_force.1
    }

    /// The configuration that decides membership: the last one appended.
    #[must_use]
    pub fn newest(&self) -> &Arc<ClusterEntry> {
        self.pending.last().map_or(&self.in_force.1, |(_, entry)| entry)
    }

    /// Where the oldest entry that is not in force stands: nothing at or after it commits yet.
    #[must_use]
    pub fn pending_at(&self) -> Option<Seq> {
        self.pending.first().map(|(id, _)| id.seq)
    }

    /// Every configuration that a candidate must win under, and a lease must hold under.
    pub fn all(&self) -> impl Iterator<Item = &Arc<ClusterEntry>> {
        std::iter::once(&self.in_force.1).chain(self.pending.iter().map(|(_, entry)| entry))
    }

    /// A cluster entry was appended.
    pub fn push(&mut self, id: EntryId, entry: Arc<ClusterEntry>) {
        self.pending.push((id, entry));
    }

    /// Entries from `from` on were cut.
    pub fn truncate(&mut self, from: Seq) {
        self.pending.retain(|(id, _)| id.seq < from);
    }

    /// What is committed is in force.
    pub fn on_committed(&mut self, committed: Seq) {
        let count = self.pending.partition_point(|(id, _)| id.seq <= committed);
        if let Some(last) = self.pending.drain(..count).next_back() {
            self.in_force = last;
        }
    }
}
