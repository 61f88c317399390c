//! Everything that a node is started with, resolved and checked: addresses parsed, files read,
//! defaults filled in. Where it comes from (a file, the environment, a test) is its maker's
//! business.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use quorate_protocol::cluster::SafetyTimers;
use quorate_protocol::policy::Policy;
use quorate_protocol::types::NodeId;

use crate::archive::ArchiveSettings;
use crate::health::{Disk, DiskOptions, LatchOptions};
use crate::replication::{self, TlsError};
use crate::storage::options::RocksOptions;

/// One node's settings.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This node's number.
    pub node: NodeId,
    /// Where its journal and state live.
    pub data_dir: PathBuf,
    /// Accept a data directory on a file system that a reboot empties. Tests only: a node that
    /// forgets its disk forgets its votes.
    pub allow_volatile: bool,
    /// Whether `quorate drill` may break this node without being asked twice.
    pub drill_allowed: bool,
    /// The newest cluster version that this binary follows: a cluster raised above it is refused.
    pub cluster_version_max: u32,
    /// What the cluster is formed with.
    pub cluster: ClusterSettings,
    /// Timers that may differ between nodes.
    pub timers: NodeTimers,
    /// The listeners for clients, and what they allow.
    pub client: ClientSettings,
    /// The QUIC endpoint.
    pub peer: PeerSettings,
    /// HTTP listener for operators.
    pub admin_listen: SocketAddr,
    /// Identity among the peers.
    pub tls: TlsMaterial,
    /// The journal's sizes.
    pub journal: JournalSettings,
    /// How much of the disk must stay free.
    pub disk: DiskOptions,
    /// What may be tuned about RocksDB.
    pub rocksdb: RocksOptions,
    /// When the node is unhealthy.
    pub health: HealthSettings,
    /// Backups that are made by themselves.
    pub archive: ArchiveSettings,
}

/// Seeds the first boot. From the first cluster entry on, members, policy and safety timers live
/// in the log (S10), and these are only compared with it.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// Name of the cluster: part of every node certificate's host name, and the master name in
    /// discovery.
    pub name: String,
    /// The members that must all be there, and empty, before the cluster forms (S6). Sorted by
    /// id; this node is one of them. Empty where the node joins a formed cluster.
    pub initial_members: Vec<InitialMember>,
    /// Members of the formed cluster that this node joins; empty where it is an initial member.
    pub join: Vec<InitialMember>,
    /// Where else members may be found, in addition to what the log says.
    pub peers: Vec<InitialMember>,
    /// When a write is acknowledged.
    pub policy: Policy,
    /// Lease, drift and the shortest election timeout.
    pub safety_timers: SafetyTimers,
}

/// A member as a configuration file knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMember {
    /// Its number.
    pub node: NodeId,
    /// `host:port` of its QUIC endpoint; a name is resolved anew at each connect.
    pub peer_addr: String,
}

/// Timers without influence on safety.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeTimers {
    /// How often a primary is heard at least.
    pub heartbeat: Duration,
    /// The longest election timeout; the shortest is among the safety timers.
    pub election_timeout_max: Duration,
    /// How long an orderly stop may take.
    pub shutdown_deadline: Duration,
}

/// Listeners for clients and the limits on them.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Listens as a node of a Redis Cluster with one shard.
    pub listen: SocketAddr,
    /// Listens as a standalone server; none where it isn't wanted.
    pub listen_plain: Option<SocketAddr>,
    /// `host:port` under which clients reach `listen`.
    pub advertise: String,
    /// `host:port` under which clients reach `listen_plain`; empty where it has none.
    pub advertise_plain: String,
    /// The password, where one is asked for.
    pub requirepass: Option<String>,
    /// Connections at one time, both listeners together.
    pub maxclients: usize,
    /// Longest value in bytes.
    pub max_value_bytes: usize,
    /// Longest request in bytes, all arguments together.
    pub request_bytes_max: usize,
    /// Bytes of replies that may wait for a client that doesn't read; beyond it the client is
    /// cut.
    pub output_bytes_max: usize,
    /// Bytes of commands that may wait to be sealed, all clients together; beyond it writes are
    /// refused with `OVERLOADED`.
    pub admission_bytes_max: usize,
    /// How long a command waits for a primary before `CLUSTERDOWN`.
    pub primary_wait: Duration,
    /// How long a request may take before `TIMEOUT store` or `INDOUBT`.
    pub store_deadline: Duration,
    /// How much may be under way at once.
    pub concurrency: ConcurrencyLimits,
    /// Whether it is noted what each write waits for.
    pub attribution: bool,
}

/// Stores, loads and removes that may be under way at once, all clients together; `None` is any
/// number. One batch of a connection counts as one, and so do the reads of one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConcurrencyLimits {
    /// Batches with a write that needs space.
    pub stores: Option<usize>,
    /// Rounds of reads.
    pub loads: Option<usize>,
    /// Batches whose writes only remove.
    pub removes: Option<usize>,
}

/// The QUIC endpoint.
#[derive(Clone, Debug)]
pub struct PeerSettings {
    /// UDP address.
    pub listen: SocketAddr,
    /// `host:port` under which peers reach it.
    pub advertise: String,
    /// Bytes of snapshots that this node sends in a second, to all others together.
    pub snapshot_bytes_per_second: u64,
}

impl ClusterSettings {
    /// Whether the file names a node beside this one: someone to ask for what is lost here.
    pub(super) fn names_others(&self) -> bool {
        self.initial_members.len() > 1 || !self.join.is_empty() || !self.peers.is_empty()
    }
}

impl NodeConfig {
    /// The data directory's file system, as it is to be watched.
    pub(super) fn disk(&self) -> Disk {
        Disk::new(&self.data_dir, self.disk, self.journal.segment_bytes)
    }

    /// Reads certificates and key, and finds out whether peers will take this node for what it
    /// says it is.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check_tls(&self) -> Result<replication::TlsMaterial, TlsError> {
        let TlsMaterial { ca_pem, cert_pem, key_pem } = &self.tls;
        let tls = replication::TlsMaterial::from_pem(cert_pem, key_pem, ca_pem)?;
        tls.check(self.node, &self.cluster.name)?;
        tls.check_acceptance(self.node, &self.cluster.name)?;
        Ok(tls)
    }
}

/// Certificates and key, as PEM text.
#[derive(Clone)]
pub struct TlsMaterial {
    /// The authorities whose node certificates are accepted.
    pub ca_pem: Vec<u8>,
    /// This node's certificate, followed by intermediates if there are any. It names
    /// `node-<id>.<cluster>`.
    pub cert_pem: Vec<u8>,
    /// Its private key.
    pub key_pem: Vec<u8>,
}

/// Sizes of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalSettings {
    /// Bytes after which a segment is sealed.
    pub segment_bytes: u64,
    /// Bytes of one group write, and of the largest entry.
    pub group_bytes_max: usize,
    /// Newest bytes of the log that stay in memory for senders.
    pub cache_bytes: usize,
    /// Bytes kept on disk for replicas that lag.
    pub retain_bytes: u64,
    /// Bytes kept of what was cut from the log.
    pub divergent_bytes_max: u64,
}

/// When a node is unhealthy, and how often it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// When errors close the latch, and when it opens.
    pub latch: LatchOptions,
    /// From one sample to the next.
    pub sample_period: Duration,
    /// Bytes of memory that the node may take; `None`: what the system allows.
    pub memory_limit: Option<u64>,
    /// From one scrub by the primary itself to the next; zero: none.
    pub scrub_period: Duration,
    /// From one comparison with the other nodes' logs to the next; zero: never.
    pub chain_check_period: Duration,
}

impl std::fmt::Debug for TlsMaterial {
    /// Leaves the key out: configurations end up in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsMaterial").finish_non_exhaustive()
    }
}

impl Default for NodeTimers {
    /// For a local network: 50 ms, 600 ms, 30 s.
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            election_timeout_max: Duration::from_millis(600),
            shutdown_deadline: Duration::from_secs(30),
        }
    }
}

impl Default for HealthSettings {
    /// The latch's own, 5 s, what the system allows, 7 days, and 30 s.
    fn default() -> Self {
        Self {
            latch: LatchOptions::default(),
            sample_period: Duration::from_secs(5),
            memory_limit: None,
            scrub_period: Duration::from_hours(7 * 24),
            chain_check_period: Duration::from_secs(30),
        }
    }
}

impl Default for JournalSettings {
    /// 64 MiB segments, 8 MiB groups, 64 MiB in memory, 4 GiB kept, and 1 GiB of what was cut.
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            group_bytes_max: 8 << 20,
            cache_bytes: 64 << 20,
            retain_bytes: 4 << 30,
            divergent_bytes_max: 1 << 30,
        }
    }
}
