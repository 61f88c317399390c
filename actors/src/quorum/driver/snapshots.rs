//! What the core says about snapshots, passed on to the thread that does it.

use quorate_protocol::core::{Snapshot, SnapshotRefused};
use quorate_protocol::types::{EntryId, NodeId};

use super::Driver;

impl Driver {
    /// Asked with every heartbeat of the primary, and logged once.
    pub(super) fn fetch_snapshot(&mut self, primary: NodeId, above: EntryId) {
        if self.lacks.replace(above) != Some(above) {
            tracing::info!(
                %primary, journal_starts_after = %above,
                "this node is behind the primary's journal: it needs a snapshot"
            );
        }
        if let Some(session) = self.sessions.get(&primary) {
            self.ports.fetch_snapshot(primary, *session, above);
        }
    }

    /// Ends in a restart of the node. Whether the log's suffix is kept is decided there again, by
    /// the same rule.
    pub(super) fn install_snapshot(&mut self, snapshot: &Snapshot) {
        tracing::info!(last = %snapshot.last, "installing a snapshot");
        self.ports.snapshots.install();
    }

    pub(super) fn discard_snapshot(&mut self, last: EntryId, reason: &SnapshotRefused) {
        tracing::warn!(%last, %reason, "a snapshot is not installed");
        self.ports.snapshots.discard();
    }
}
