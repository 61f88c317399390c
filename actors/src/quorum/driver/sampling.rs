//! What the sampler of copies is shown.

use quorate_protocol::core::Role;
use quorate_protocol::policy::Cursors;
use quorate_protocol::types::{NodeId, Seq};

use super::super::copies::Seen;
use super::Driver;
use crate::clock;
use crate::submit::Waiting;

impl Driver {
    /// An entry of this tenure that clients wait for was sealed.
    pub(super) fn watch_entry(&mut self, seq: Seq, waiting: &[Waiting]) {
        let Some(middle) = waiting.get(waiting.len() / 2) else { return };
        let seen = Seen {
            seq,
            commands: waiting.iter().map(|waiting| waiting.count).sum(),
            queued: middle.accepted.elapsed(),
            cluster_ms: self.published.cluster_time_ms(),
            memory_reported: self.needs_memory,
        };
        self.copies.sealed(clock::now(), seen);
    }

    /// Shows the sampler how far every voter that answers is, while it watches an entry.
    pub(super) fn watch_copies(&mut self) {
        if self.copies.is_idle() || self.core.role() != Role::Primary {
            return;
        }
        // Later than the round's own time: here is where a commit would have been noticed.
        let now = clock::now();
        let config = self.core.configs().in_force();
        let is_voter = |node: NodeId| config.voters().any(|voter| voter == node);
        let progress = self.ports.journal.progress();
        let own = Cursors {
            node: self.ports.node,
            in_memory: progress.in_memory.seq,
            persisted: self.core.log().persisted(),
        };
        let peers = self.core.peers(now).into_iter().filter(|peer| peer.in_view);
        let peers = peers.map(|peer| Cursors {
            node: peer.node,
            in_memory: peer.in_memory,
            persisted: peer.persisted,
        });
        let cursors: Vec<Cursors> =
            std::iter::once(own).chain(peers).filter(|one| is_voter(one.node)).collect();
        let in_force = (config.policy, config.voters().count());
        self.copies.observe(now, &cursors, in_force);
    }
}
