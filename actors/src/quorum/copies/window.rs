//! When copies in memory are reported whatever the policy.

/// Cluster time between two windows.
const PERIOD_MS: u64 = 4_000;

/// How long reports are on.
const OPEN_MS: u64 = 240;

/// What of it must have passed before an entry is watched: other nodes' cluster time is behind by
/// a heartbeat and the way, and reports that are being switched on may miss some entries.
const SETTLED_MS: u64 = 90;

/// What of it must be left when an entry is sealed, so that its reports fall into it.
const MARGIN_MS: u64 = 60;

/// How long entries may be watched in each window.
pub(super) const WATCHED_MS: u64 = OPEN_MS - SETTLED_MS - MARGIN_MS;

/// Whether reports are on.
pub(in crate::quorum) fn is_open(cluster_ms: u64) -> bool {
    cluster_ms % PERIOD_MS < OPEN_MS
}

/// Whether the copies in memory of an entry that is sealed now will be reported by all.
pub(in crate::quorum) fn is_settled(cluster_ms: u64) -> bool {
    (SETTLED_MS..OPEN_MS - MARGIN_MS).contains(&(cluster_ms % PERIOD_MS))
}
