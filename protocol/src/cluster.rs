//! What the cluster agrees on about itself: members, policy and the timers that safety needs.
//! It lives in the log as `EntryKind::Cluster` and in snapshots, never in a node's own file (S10).

mod change;
mod token;

pub use change::{ChangeError, ClusterChange, MEMBERS_MAX, VOTERS_MAX};
pub use token::{JoinToken, TOKENS_MAX};

use bincode::{Decode, Encode};

use crate::policy::Policy;
use crate::types::{ClusterId, DiskId, Generation, NodeId};

/// Whether a member counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum MemberKind {
    /// Votes, and its copies count for the policy.
    Voter,
    /// Receives the log; neither votes nor counts.
    Learner,
}

/// One node of the cluster, bound to one disk (S6).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Member {
    /// The operator's number for it.
    pub node: NodeId,
    /// The data directory that this membership is bound to.
    pub disk: DiskId,
    /// Voter or learner.
    pub kind: MemberKind,
    /// `host:port` of its QUIC endpoint.
    pub peer_addr: String,
    /// `host:port` that clients reach its cluster-mode listener by.
    pub client_addr: String,
    /// `host:port` that clients reach its plain listener by; empty where it has none.
    pub plain_addr: String,
}

/// Timers that safety depends on (S11); equal on all nodes because they are in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct SafetyTimers {
    /// The shortest election timeout, in microseconds. A voter that heard a primary within it
    /// grants no vote.
    pub election_timeout_min_us: u64,
    /// How long a lease lasts, counted from when its heartbeat round was sent, in microseconds.
    pub lease_us: u64,
    /// How far two clocks may drift apart over one lease, in microseconds.
    pub drift_us: u64,
}

impl SafetyTimers {
    /// Defaults for a local network: 300 ms, 250 ms, 10 ms.
    pub const LAN: Self =
        Self { election_timeout_min_us: 300_000, lease_us: 250_000, drift_us: 10_000 };

    /// Whether a lease always ends before another node may be elected:
    /// `lease + drift < minimum election timeout`.
    #[must_use]
    pub fn are_safe(&self) -> bool {
        self.lease_us > 0
            && self.lease_us.saturating_add(self.drift_us) < self.election_timeout_min_us
    }
}

/// A cluster entry: the configuration from its position in the log on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterEntry {
    /// The cluster's id, the same in all of its entries.
    pub cluster: ClusterId,
    /// How many lossy recoveries the cluster went through (S12).
    pub generation: Generation,
    /// Gates entry kinds and features that older binaries don't know.
    pub version: u32,
    /// Sorted by node id; no id twice.
    pub members: Vec<Member>,
    /// When a write is acknowledged and who may lead.
    pub policy: Policy,
    /// Lease and election timers.
    pub timers: SafetyTimers,
    /// Ids that were members and must never return, sorted.
    pub removed: Vec<NodeId>,
    /// Invitations, by node id; no node twice.
    pub tokens: Vec<JoinToken>,
}

impl ClusterEntry {
    /// The member with this id.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node)
    }

    /// Ids of the voters, in order.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().filter(|m| m.kind == MemberKind::Voter).map(|m| m.node)
    }

    /// Whether this node is a voter on this disk.
    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.member(node).is_some_and(|member| member.kind == MemberKind::Voter)
    }

    /// Whether the pair is a member: another disk under a known id is not (S6).
    #[must_use]
    pub fn binds(&self, node: NodeId, disk: DiskId) -> bool {
        self.member(node).is_some_and(|member| member.disk == disk)
    }
}
