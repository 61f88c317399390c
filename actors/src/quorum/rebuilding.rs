//! A node whose state is lost and whose journal doesn't reach back to the beginning: it fetches a
//! snapshot from any member, puts it in force and restarts. Until then it neither votes nor counts,
//! since it could not carry out what it would help to commit.

use std::collections::BTreeMap;

use quorate_protocol::core::Snapshot;
use quorate_protocol::types::{EntryId, Generation, MonoTime, NodeId};

use super::actor::Phase;
use super::driver::DriverParts;
use super::ports::Fatal;
use crate::clock;
use crate::replication::{PeerEvent, Session};
use crate::view::{Absence, View};

/// Between two requests. While a transfer is under way they are ignored.
const ASK_PERIOD_US: u64 = 500_000;

/// A node without a state.
pub(crate) struct RebuildingDriver {
    parts: DriverParts,
    /// The snapshot must end here or later: the journal starts behind it.
    above: EntryId,
    generation: Generation,
    /// Members that can be asked.
    sessions: BTreeMap<NodeId, Session>,
    /// Who was asked last.
    asked: Option<NodeId>,
    ask_due: MonoTime,
    /// A snapshot is being put in force, which ends in a restart.
    installing: bool,
}

impl RebuildingDriver {
    pub(crate) fn new(parts: DriverParts, above: EntryId, generation: Generation) -> Self {
        Self {
            parts,
            above,
            generation,
            sessions: BTreeMap::new(),
            asked: None,
            ask_due: MonoTime(0),
            installing: false,
        }
    }

    /// One round. The phase ends with the process.
    pub(super) fn round(mut self: Box<Self>) -> Result<Phase, Fatal> {
        self.parts.queues.refuse_all();
        let mut events = Vec::new();
        self.parts.ports.peers.drain(&mut events);
        for event in events {
            self.on_peer_event(event)?;
        }
        if let Some(snapshot) = self.parts.ports.snapshots.take_fetched() {
            self.judge(&snapshot);
        }
        if !self.installing && clock::now() >= self.ask_due {
            self.ask_due = clock::now().plus(ASK_PERIOD_US);
            self.ask();
        }
        self.publish();
        Ok(Phase::Rebuilding(self))
    }

    fn on_peer_event(&mut self, event: PeerEvent) -> Result<(), Fatal> {
        match event {
            PeerEvent::Connected { peer, session, hello }
            | PeerEvent::Greeted { peer, session, hello } => {
                if hello.formed {
                    self.sessions.insert(peer, session);
                }
            }
            PeerEvent::Disconnected { peer, session } => {
                if self.sessions.get(&peer) == Some(&session) {
                    self.sessions.remove(&peer);
                }
            }
            PeerEvent::Refused { peer, reason } => {
                self.parts.ports.refused(peer, &reason)?;
            }
            // Without a state there is nothing to say to them.
            PeerEvent::Message { .. }
            | PeerEvent::Formation { .. }
            | PeerEvent::Sent { .. }
            | PeerEvent::Unavailable { .. } => {}
        }
        Ok(())
    }

    /// A snapshot holds only committed entries, so it is as good from one member as from another:
    /// they are asked in turn.
    fn ask(&mut self) {
        let after = |asked: &NodeId| self.sessions.range(*asked..).find(|(peer, _)| *peer > asked);
        let next = self.asked.as_ref().and_then(after).or_else(|| self.sessions.iter().next());
        let Some((peer, session)) = next.map(|(peer, session)| (*peer, *session)) else { return };
        self.asked = Some(peer);
        self.parts.ports.fetch_snapshot(peer, session, self.above);
    }

    /// The part of the core's judgement that doesn't depend on a state; what the journal holds
    /// above the snapshot is kept or cut at the start, where the two are put together.
    fn judge(&mut self, snapshot: &Snapshot) {
        let cluster = self.parts.ports.data_dir.lock().identity().cluster;
        let config = &snapshot.config.1;
        let ours = Some(config.cluster) == cluster && config.generation == self.generation;
        if ours && snapshot.last.seq >= self.above.seq && snapshot.epoch >= snapshot.last.epoch {
            tracing::info!(last = %snapshot.last, "rebuilding the state from a snapshot");
            self.installing = true;
            self.parts.ports.snapshots.install();
        } else {
            tracing::warn!(last = %snapshot.last, above = %self.above, "a snapshot is of no use");
            self.parts.ports.snapshots.discard();
        }
    }

    fn publish(&self) {
        let waiting = match self.asked {
            None => {
                format!("a member to fetch a snapshot from that ends at {} or later", self.above)
            }
            Some(peer) => format!("a snapshot from node {peer}, ending at {} or later", self.above),
        };
        if self.parts.published.view().waiting.as_ref() == Some(&waiting) {
            return;
        }
        self.parts.published.set_view(View {
            node: self.parts.ports.node,
            incarnation: self.parts.ports.incarnation,
            waiting: Some(waiting),
            absence: Absence::SnapshotInstall,
            ..View::default()
        });
    }
}
