//! Who belongs to the cluster, as far as this node knows, and who calls from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate_protocol::types::{DiskId, NodeId};
use quorate_protocol::wire::Hello;

use super::events::Refusal;
use super::receiver::PeerAddress;

/// Candidates that are remembered at once.
const CANDIDATES_MAX: usize = 32;

/// How long one is remembered that doesn't call again; it calls every two seconds.
const CANDIDATE_LIFE: Duration = Duration::from_secs(10);

/// Whom to talk to, and whom to turn away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// Whom to talk to; this node's own id is ignored.
    pub peers: Vec<PeerAddress>,
    /// Disks that members are bound to (S6). Empty on a node that knows no configuration: it then
    /// talks to its peers alone.
    pub disks: BTreeMap<NodeId, DiskId>,
    /// Ids that were removed for good, by a configuration in force.
    pub removed: BTreeSet<NodeId>,
    /// Whether every node that has a log is let in: one that joins doesn't know the members.
    pub open: bool,
}

/// A node with a certificate of this cluster and an empty disk, that is not a member yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id, by its certificate.
    pub node: NodeId,
    /// Its disk, which membership will be bound to.
    pub disk: DiskId,
    /// `host:port` of its QUIC endpoint.
    pub peer_addr: String,
    /// `host:port` of its cluster-mode listener.
    pub client_addr: String,
    /// `host:port` of its plain listener; empty where it has none.
    pub plain_addr: String,
}

/// The candidates that have called lately.
#[derive(Debug, Default)]
pub struct Candidates(Mutex<BTreeMap<NodeId, (Candidate, Instant)>>);

impl Candidates {
    /// Those that still call, by id.
    #[must_use]
    pub fn list(&self) -> Vec<Candidate> {
        let mut all = self.0.lock();
        all.retain(|_, (_, seen)| seen.elapsed() < CANDIDATE_LIFE);
        all.values().map(|(candidate, _)| candidate.clone()).collect()
    }

    pub(super) fn note(&self, hello: &Hello) {
        let mut all = self.0.lock();
        all.retain(|_, (_, seen)| seen.elapsed() < CANDIDATE_LIFE);
        if all.len() >= CANDIDATES_MAX && !all.contains_key(&hello.node) {
            return;
        }
        let candidate = Candidate {
            node: hello.node,
            disk: hello.disk,
            peer_addr: hello.peer_addr.clone(),
            client_addr: hello.client_addr.clone(),
            plain_addr: hello.plain_addr.clone(),
        };
        let newest = (candidate.clone(), Instant::now());
        let before = all.insert(hello.node, newest).map(|(candidate, _)| candidate);
        if before.as_ref() != Some(&candidate) {
            tracing::info!(
                node = %candidate.node, disk = %candidate.disk, address = candidate.peer_addr,
                "a node asks to become a member: `quorate members add` takes it in"
            );
        }
    }
}

impl Roster {
    /// Before a caller has said anything: its certificate alone.
    pub(super) fn admits(&self, known: &BTreeSet<NodeId>, peer: NodeId) -> Result<(), Refusal> {
        if self.removed.contains(&peer) {
            return Err(Refusal::Removed);
        }
        if known.contains(&peer) || self.takes_guests() {
            return Ok(());
        }
        Err(Refusal::Unknown)
    }

    /// Whether nodes are let in that aren't among the peers.
    pub(super) fn takes_guests(&self) -> bool {
        self.open || !self.disks.is_empty()
    }

    /// Once it has greeted. A node that this one doesn't know yet, but that has a log of the same
    /// cluster, was added by a configuration that has not arrived here.
    pub(super) fn judge(
        &self,
        known: &BTreeSet<NodeId>,
        candidates: &Candidates,
        hello: &Hello,
    ) -> Result<(), Refusal> {
        match self.disks.get(&hello.node) {
            Some(disk) if *disk != hello.disk => Err(Refusal::OtherDisk),
            Some(_) => Ok(()),
            None if known.contains(&hello.node) && self.disks.is_empty() => Ok(()),
            None if hello.formed => Ok(()),
            None if self.open => Err(Refusal::Unknown),
            None => {
                candidates.note(hello);
                Err(Refusal::Candidate)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(node: u64, disk: u128, formed: bool) -> Hello {
        Hello { node: NodeId(node), disk: DiskId(disk), formed, ..Hello::default() }
    }

    #[test]
    fn members_by_their_disk_strangers_as_candidates_and_removed_ones_not_at_all() {
        let (candidates, known) = (Candidates::default(), BTreeSet::from([NodeId(2)]));
        let roster = Roster {
            peers: Vec::new(),
            disks: BTreeMap::from([(NodeId(1), DiskId(11)), (NodeId(2), DiskId(22))]),
            removed: BTreeSet::from([NodeId(9)]),
            open: false,
        };
        assert_eq!(roster.admits(&known, NodeId(9)), Err(Refusal::Removed));
        for peer in [2, 7] {
            assert_eq!(roster.admits(&known, NodeId(peer)), Ok(()));
        }
        let judge = |hello: Hello| roster.judge(&known, &candidates, &hello);
        assert_eq!(judge(hello(2, 22, true)), Ok(()));
        // Its disk was replaced, or its directory wiped.
        assert_eq!(judge(hello(2, 33, false)), Err(Refusal::OtherDisk));
        assert_eq!(judge(hello(7, 77, true)), Ok(()));
        assert!(candidates.list().is_empty());
        assert_eq!(judge(hello(7, 77, false)), Err(Refusal::Candidate));
        let found: Vec<_> = candidates.list().iter().map(|one| (one.node, one.disk)).collect();
        assert_eq!(found, [(NodeId(7), DiskId(77))]);
    }

    #[test]
    fn without_a_configuration_only_configured_peers_are_talked_to() {
        let (candidates, known) = (Candidates::default(), BTreeSet::from([NodeId(2)]));
        let roster = Roster::default();
        assert_eq!(roster.admits(&known, NodeId(3)), Err(Refusal::Unknown));
        assert_eq!(roster.admits(&known, NodeId(2)), Ok(()));
        assert_eq!(roster.judge(&known, &candidates, &hello(2, 5, false)), Ok(()));
    }

    #[test]
    fn a_flood_of_candidates_is_bounded() {
        let candidates = Candidates::default();
        for node in 1..100 {
            candidates.note(&hello(node, 1, false));
        }
        assert_eq!(candidates.list().len(), CANDIDATES_MAX);
    }
}
