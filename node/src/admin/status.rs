//! `/status` as data: written by a node, read by `quorate status` and `quorate dev`.

use quorate_actors::snapshot::{SnapshotProgress, SnapshotSending};
use quorate_actors::view::{PeerView, Role, View};
use quorate_protocol::cluster::{Member, MemberKind};
use quorate_protocol::types::NodeId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::health::{Purpose, readiness_of};
use super::lifecycle::ColdStart;
use super::{NodeView, Positions};

/// Certificates that end sooner than this are warned of.
pub(crate) const EXPIRY_WARNING_DAYS: i64 = 30;

/// What one node knows of itself and of its cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Status {
    /// This node's number.
    pub(crate) node: u64,
    /// The cluster's name, as this node is configured.
    pub(crate) cluster_name: String,
    /// The cluster's id; none before it is formed.
    pub(crate) cluster_id: Option<String>,
    /// Lossy recoveries that the cluster went through.
    #[serde(default)]
    pub(crate) generation: u64,
    /// The binary's version.
    pub(crate) version: String,
    /// starting, ready, draining, shutting_down, stopped.
    pub(crate) phase: String,
    /// Why this node can't serve a linearizable read, itself or by way of another.
    #[serde(default)]
    pub(crate) reason: Option<String>,
    /// Seconds since the process started.
    pub(crate) uptime_seconds: f64,
    /// How long the steps of the start took, in seconds.
    #[serde(default)]
    pub(crate) cold_start_seconds: ColdStart,
    /// How many times this node has started.
    pub(crate) incarnation: u64,
    /// primary, replica, candidate or learner.
    pub(crate) role: String,
    /// The current epoch.
    pub(crate) epoch: u64,
    /// The primary of the epoch, where one was heard lately.
    pub(crate) primary: Option<u64>,
    /// The durability policy in force.
    pub(crate) policy: Option<String>,
    /// What all members follow; it rises by `quorate upgrade finish`.
    #[serde(default)]
    pub(crate) cluster_version: Option<u32>,
    /// Why the policy can't be met now.
    pub(crate) degraded: Option<String>,
    /// Why this node refuses writes for trouble of its own.
    pub(crate) unhealthy: Option<String>,
    /// Whether this node refuses writes that need space.
    pub(crate) disk_full: bool,
    /// Whole days until the first certificate in use expires; negative once one has.
    #[serde(default)]
    pub(crate) certificate_days: Option<i64>,
    /// Whether the journal is archived outside the node: off.
    pub(crate) archive: String,
    /// What the cluster waits for before it is formed.
    pub(crate) waiting: Option<String>,
    /// Whether this node may have lost entries that it acknowledged from memory.
    pub(crate) memory_loss: bool,
    /// Last entry of the log here: its epoch and position.
    pub(crate) last_epoch: u64,
    /// Its position.
    pub(crate) last_seq: u64,
    /// Highest synced position here.
    pub(crate) persisted_seq: u64,
    /// Commit position as known here.
    pub(crate) committed_seq: u64,
    /// Up to here the policy in force is met.
    pub(crate) acknowledgeable_seq: u64,
    /// Position that the state holds.
    pub(crate) applied_seq: u64,
    /// The snapshot that this node is receiving, as it has fallen behind the journal.
    #[serde(default)]
    pub(crate) receiving: Option<Receiving>,
    /// The snapshots that this node is sending to others.
    #[serde(default)]
    pub(crate) sending: Vec<Sending>,
    /// How far a compaction on demand is, while one is under way here.
    #[serde(default)]
    pub(crate) compacting: Option<Compacting>,
    /// Which voters hold a different log, and what all of them hold, as of the last comparison.
    #[serde(default)]
    pub(crate) divergence: Option<String>,
    /// All members, this node included, by id.
    pub(crate) members: Vec<MemberStatus>,
}

/// A compaction that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Compacting {
    /// Bytes of files that were written since it began.
    pub(crate) done_bytes: u64,
    /// Bytes of files when it began.
    pub(crate) total_bytes: u64,
}

/// One member, as the answering node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct MemberStatus {
    /// Its number.
    pub(crate) node: u64,
    /// voter or learner.
    pub(crate) kind: String,
    /// primary, replica, or unknown where it isn't connected.
    pub(crate) role: String,
    /// Whether the answering node has a session with it, or is it.
    pub(crate) connected: bool,
    /// `host:port` of its QUIC endpoint.
    pub(crate) peer_addr: String,
    /// `host:port` for cluster-mode clients.
    pub(crate) client_addr: String,
    /// `host:port` for plain clients; empty without.
    pub(crate) plain_addr: String,
    /// Cursors, where the answering node knows them: its own, and on the primary everyone's.
    pub(crate) cursors: Option<Cursors>,
}

/// A snapshot on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Receiving {
    /// From which node.
    pub(crate) from: u64,
    /// The last position in it.
    pub(crate) last_seq: u64,
    /// Bytes that are here.
    pub(crate) received_bytes: u64,
    /// Bytes in all.
    pub(crate) total_bytes: u64,
}

impl From<SnapshotProgress> for Receiving {
    fn from(progress: SnapshotProgress) -> Self {
        let SnapshotProgress { from, last, total_bytes, received_bytes } = progress;
        Self { from: from.0, last_seq: last.seq.0, received_bytes, total_bytes }
    }
}

/// A snapshot on its way to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Sending {
    /// To which node.
    pub(crate) to: u64,
    /// The last position in it.
    pub(crate) last_seq: u64,
    /// Bytes that were sent.
    pub(crate) sent_bytes: u64,
    /// Bytes in all.
    pub(crate) total_bytes: u64,
}

impl From<SnapshotSending> for Sending {
    fn from(sending: SnapshotSending) -> Self {
        let SnapshotSending { to, last, total_bytes, sent_bytes } = sending;
        Self { to: to.0, last_seq: last.seq.0, sent_bytes, total_bytes }
    }
}

/// How far a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Cursors {
    /// In memory up to here.
    pub(crate) in_memory_seq: u64,
    /// On disk up to here.
    pub(crate) persisted_seq: u64,
    /// Executed up to here.
    pub(crate) applied_seq: u64,
}

impl Status {
    /// What the node says now.
    pub(super) fn of(node: &dyn NodeView, cluster_name: &str) -> Self {
        let view = node.view();
        let positions = node.positions();
        let health = node.health();
        Self {
            node: view.node.0,
            cluster_name: cluster_name.to_owned(),
            cluster_id: view.cluster.map(|id| id.to_string()),
            generation: view.config.as_ref().map_or(0, |config| config.generation.0),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            phase: node.phase().to_string(),
            reason: readiness_of(node, Purpose::Any).reason,
            uptime_seconds: node.lifecycle().uptime().as_secs_f64(),
            cold_start_seconds: ColdStart::of(node.lifecycle()),
            incarnation: view.incarnation.0,
            role: role(&view).to_owned(),
            epoch: view.epoch.0,
            primary: view.primary.map(|id| id.0),
            policy: view.config.as_ref().map(|config| config.policy.to_string()),
            cluster_version: view.config.as_ref().map(|config| config.version),
            degraded: view.degraded.clone(),
            unhealthy: health.unhealthy.clone(),
            disk_full: health.disk_full,
            certificate_days: node.certificate_days(),
            archive: node.archive().to_string(),
            waiting: view.waiting.clone(),
            memory_loss: view.memory_loss,
            last_epoch: view.last.epoch.0,
            last_seq: view.last.seq.0,
            persisted_seq: view.persisted.0,
            committed_seq: positions.committed,
            acknowledgeable_seq: positions.acknowledgeable,
            applied_seq: positions.applied,
            receiving: node.receiving().map(Receiving::from),
            sending: node.sending().into_iter().map(Sending::from).collect(),
            compacting: node.compacting().map(|progress| Compacting {
                done_bytes: progress.done_bytes,
                total_bytes: progress.total_bytes,
            }),
            divergence: node.divergence(),
            members: members(&view, positions),
        }
    }
}

/// All members as the node sees them.
pub(super) fn members(view: &View, positions: Positions) -> Vec<MemberStatus> {
    let Some(config) = &view.config else { return Vec::new() };
    config.members.iter().map(|member| member_status(view, positions, member)).collect()
}

fn member_status(view: &View, positions: Positions, member: &Member) -> MemberStatus {
    let own = member.node == view.node;
    let peer = view.peers.iter().find(|peer| peer.node == member.node);
    let connected = own || peer.is_some_and(|peer| peer.connected);
    MemberStatus {
        node: member.node.0,
        kind: match member.kind {
            MemberKind::Voter => "voter".to_owned(),
            MemberKind::Learner => "learner".to_owned(),
        },
        role: if own {
            role(view).to_owned()
        } else {
            peer_role(view.primary, member.node, connected).to_owned()
        },
        connected,
        peer_addr: member.peer_addr.clone(),
        client_addr: member.client_addr.clone(),
        plain_addr: member.plain_addr.clone(),
        cursors: if own {
            Some(Cursors {
                in_memory_seq: view.last.seq.0,
                persisted_seq: view.persisted.0,
                applied_seq: positions.applied,
            })
        } else {
            peer.filter(|peer| view.role == Role::Primary && peer.connected).map(peer_cursors)
        },
    }
}

fn role(view: &View) -> &'static str {
    let learner = view
        .config
        .as_ref()
        .and_then(|config| config.member(view.node))
        .is_some_and(|member| member.kind == MemberKind::Learner);
    match view.role {
        Role::Primary => "primary",
        Role::Candidate => "candidate",
        Role::Replica if learner => "learner",
        Role::Replica => "replica",
    }
}

fn peer_role(primary: Option<NodeId>, member: NodeId, connected: bool) -> &'static str {
    if primary == Some(member) {
        "primary"
    } else if connected {
        "replica"
    } else {
        "unknown"
    }
}

fn peer_cursors(peer: &PeerView) -> Cursors {
    Cursors {
        in_memory_seq: peer.in_memory.0,
        persisted_seq: peer.persisted.0,
        applied_seq: peer.applied.0,
    }
}
