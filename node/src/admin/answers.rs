//! What the admin port's answers hold, where nothing else in the program has a type for it.

use serde::Serialize;
use utoipa::ToSchema;

use super::lifecycle::ColdStart;
use super::status::MemberStatus;

/// Why nothing came of a request, or why that is not known.
#[derive(Serialize, ToSchema)]
pub(super) struct Refusal {
    /// In words.
    pub(super) error: String,
}

/// A health probe's answer.
#[derive(Serialize, ToSchema)]
pub(super) struct Probe {
    /// What was asked for holds; the status says the same: 200 or 503.
    pub(super) ok: bool,
    /// Why not.
    pub(super) reason: Option<String>,
    /// starting, ready, draining, shutting_down, stopped.
    pub(super) phase: String,
    /// When the process started: RFC 3339, in UTC.
    pub(super) started_at: String,
    /// When it was ready.
    pub(super) ready_at: Option<String>,
    /// Seconds since it started.
    pub(super) uptime_seconds: f64,
    /// How long the steps of the start took, in seconds.
    pub(super) cold_start_seconds: ColdStart,
}

/// What draining came to.
#[derive(Serialize, ToSchema)]
pub(super) struct DrainReport {
    /// The node's phase.
    pub(super) phase: String,
    /// `starting`: there is nothing to drain; `replica`: it did not lead; `handed_over`; `alone`: there
    /// is no other voter to lead.
    pub(super) drained: &'static str,
    /// Who leads.
    pub(super) primary: Option<u64>,
    /// How long it took.
    pub(super) milliseconds: f64,
}

/// What a flush came to.
#[derive(Serialize, ToSchema)]
pub(super) struct Flushed {
    /// A restart would find the state as of this entry.
    pub(super) flushed_seq: u64,
    /// How long it took.
    pub(super) seconds: f64,
}

/// What a compaction came to.
#[derive(Serialize, ToSchema)]
pub(super) struct CompactReport {
    /// Bytes of the state's files before.
    pub(super) before_bytes: u64,
    /// And after.
    pub(super) after_bytes: u64,
    /// How long it took.
    pub(super) seconds: f64,
}

/// Memory that was given back.
#[derive(Serialize, ToSchema)]
pub(super) struct Relieved {
    /// In all.
    pub(super) freed_bytes: u64,
    /// Of memtables, which were flushed.
    pub(super) memtable_bytes: u64,
    /// Of the block cache.
    pub(super) block_cache_bytes: u64,
    /// Of the cache of the log's newest entries.
    pub(super) log_cache_bytes: u64,
    /// How long it took.
    pub(super) seconds: f64,
}

/// A backup that was made.
#[derive(Serialize, ToSchema)]
pub(super) struct BackupMade {
    /// Where it is.
    pub(super) target: String,
    /// What the archive held before.
    pub(super) before_seq: Option<u64>,
    /// What it holds now.
    pub(super) archived_seq: u64,
    /// The epoch of that entry.
    pub(super) archived_epoch: u64,
    /// When that entry was made: milliseconds since 1970.
    pub(super) archived_time_ms: u64,
    /// The snapshot's name, if one was made.
    pub(super) snapshot: Option<String>,
    /// The last entry in it.
    pub(super) snapshot_seq: Option<u64>,
    /// Segments of the log that were copied.
    pub(super) segments: u64,
    /// Entries in them.
    pub(super) entries: u64,
    /// Bytes that were copied.
    pub(super) bytes: u64,
    /// Entries that the node had no longer, and the snapshot covers.
    pub(super) gap: Option<BackupGap>,
    /// Whether it is outside the node.
    pub(super) uploaded: bool,
    /// How long it took.
    pub(super) seconds: f64,
    /// What it took step by step.
    pub(super) steps: Vec<BackupStep>,
}

/// Entries that are in no segment.
#[derive(Serialize, ToSchema)]
pub(super) struct BackupGap {
    /// The first.
    pub(super) first: u64,
    /// The last.
    pub(super) last: u64,
}

/// A step of a backup.
#[derive(Serialize, ToSchema)]
pub(super) struct BackupStep {
    /// Its name.
    pub(super) step: &'static str,
    /// How long it took.
    pub(super) seconds: f64,
    /// Why it was missed, where it may be.
    pub(super) missed: Option<String>,
}

/// Who belongs to the cluster.
#[derive(Serialize, ToSchema)]
pub(super) struct MembersList {
    /// All members, by id.
    pub(super) members: Vec<MemberStatus>,
    /// Nodes that call this one and are not members.
    pub(super) candidates: Vec<CandidateNode>,
    /// Ids that are refused for ever.
    pub(super) removed: Vec<u64>,
}

/// A node that calls and is no member.
#[derive(Serialize, ToSchema)]
pub(super) struct CandidateNode {
    /// Its number, by its certificate.
    pub(super) node: u64,
    /// Its disk's id, in hex.
    pub(super) disk: String,
    /// `host:port` of its QUIC endpoint.
    pub(super) peer_addr: String,
    /// `host:port` for cluster-mode clients.
    pub(super) client_addr: String,
    /// `host:port` for plain clients; empty without.
    pub(super) plain_addr: String,
}

/// A change of the members, made or only looked at.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum MembersAnswer {
    /// It was made.
    Changed(MembersChanged),
    /// It could be made.
    Possible(MembersForecast),
    /// It would be refused.
    Impossible(MembersImpossible),
}

/// A change of the members that is in force.
#[derive(Serialize, ToSchema)]
pub(super) struct MembersChanged {
    /// In words.
    pub(super) change: String,
    /// The entry of the log that holds it: its epoch.
    pub(super) epoch: u64,
    /// And its position.
    pub(super) seq: u64,
}

/// What a change would come to.
#[derive(Serialize, ToSchema)]
pub(super) struct MembersForecast {
    /// Always true.
    pub(super) dry_run: bool,
    /// In words.
    pub(super) change: String,
    /// Always true.
    pub(super) possible: bool,
    /// Whether the node that goes leads, and would hand over first.
    pub(super) hands_over: bool,
    /// Voters as they are, who must hold the change.
    pub(super) old: Reachable,
    /// Voters as they would be, who must hold it, too.
    pub(super) new: Reachable,
    /// Voters afterwards.
    pub(super) voters: Vec<u64>,
    /// The policy in force.
    pub(super) policy: String,
    /// Why that would be a weak choice, if it is.
    pub(super) warning: Option<String>,
}

/// Why a change would be refused.
#[derive(Serialize, ToSchema)]
pub(super) struct MembersImpossible {
    /// Always true.
    pub(super) dry_run: bool,
    /// In words.
    pub(super) change: String,
    /// Always false.
    pub(super) possible: bool,
    /// Why.
    pub(super) refused: String,
}

/// Which voters answer.
#[derive(Serialize, ToSchema)]
pub(super) struct Reachable {
    /// So many must hold the change.
    pub(super) needed: usize,
    /// These answer.
    pub(super) reachable: Vec<u64>,
}

/// Invitations.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenList {
    /// All that are kept.
    pub(super) tokens: Vec<TokenState>,
}

/// An invitation; its secret is not known here.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenState {
    /// The node that it is for.
    pub(super) node: u64,
    /// Seconds since 1970.
    pub(super) expires_at: u64,
    /// Whether that is past.
    pub(super) expired: bool,
    /// Whether a node has shown it.
    pub(super) redeemed: bool,
}

/// An invitation that was made or taken back.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum TokenAnswer {
    /// Made.
    Created(TokenCreated),
    /// Taken back.
    Revoked(TokenRevoked),
}

/// What the new node's token file says, besides its secret.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenCreated {
    /// The node that it is for.
    pub(super) node: u64,
    /// Seconds since 1970.
    pub(super) expires_at: u64,
    /// The cluster's name.
    pub(super) cluster_name: String,
    /// Its id.
    pub(super) cluster_id: String,
    /// BLAKE3 of the authorities' certificates, in hex.
    pub(super) authorities: Vec<String>,
}

/// An invitation that holds no more.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenRevoked {
    /// The node that it was for.
    pub(super) revoked: u64,
}

/// Who leads now.
#[derive(Serialize, ToSchema)]
pub(super) struct Promoted {
    /// The new primary; none if it was not heard yet.
    pub(super) primary: Option<u64>,
    /// How long it took.
    pub(super) milliseconds: f64,
}

/// The policy in force.
#[derive(Serialize, ToSchema)]
pub(super) struct PolicyInForce {
    /// Its clauses; none before the cluster is formed.
    pub(super) policy: Option<String>,
    /// Voters.
    pub(super) voters: Option<usize>,
    /// Why it can't be met now.
    pub(super) degraded: Option<String>,
}

/// A policy that was put in force.
#[derive(Serialize, ToSchema)]
pub(super) struct PolicySet {
    /// Its clauses.
    pub(super) policy: String,
    /// The entry of the log that holds it: its epoch.
    pub(super) epoch: u64,
    /// And its position.
    pub(super) seq: u64,
    /// Why it is a weak choice, if it is.
    pub(super) warning: Option<String>,
}

/// The cluster version in force.
#[derive(Serialize, ToSchema)]
pub(super) struct Upgraded {
    /// What all members follow.
    pub(super) cluster_version: u32,
    /// Whether it was raised now.
    pub(super) raised: bool,
}

/// A node that broke itself, and goes on.
#[derive(Serialize, ToSchema)]
pub(super) struct Broken {
    /// Always true.
    pub(super) broken: bool,
}

/// What the log tells now.
#[derive(Serialize, ToSchema)]
pub(super) struct LogLevelSet {
    /// A level, or levels by module.
    pub(super) level: String,
}
