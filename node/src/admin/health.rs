//! Whether a node is alive, started and able to serve: one pure function over what it says of
//! itself.

use quorate_actors::health::HealthView;
use quorate_actors::supervisor::Phase;
use quorate_actors::view::{Absence, Role, View};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{NodeView, Positions};

/// A node that applied all but this many committed entries counts as caught up.
const LAG_ENTRIES_MAX: u64 = 1_000;

/// What a caller wants to do, as `?for=` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Purpose {
    /// A linearizable read, here or by way of this node.
    #[default]
    Any,
    /// A read from this node's state.
    Read,
    /// A write on this node.
    Write,
    /// Counting on this node's copy.
    Sync,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Readiness {
    /// Whether the node can.
    pub(super) ready: bool,
    /// Why not.
    pub(super) reason: Option<String>,
}

/// Whether this node can serve the purpose now.
pub(super) fn readiness_of(node: &dyn NodeView, purpose: Purpose) -> Readiness {
    if let Some(step) = node.lifecycle().starting() {
        return Readiness { ready: false, reason: Some(step.to_owned()) };
    }
    let now = (node.positions(), node.may_read());
    readiness(node.phase(), &node.health(), &node.view(), now, purpose)
}

/// Whether a node of which this is known can serve the purpose.
fn readiness(
    phase: Phase,
    health: &HealthView,
    view: &View,
    (positions, may_read): (Positions, bool),
    purpose: Purpose,
) -> Readiness {
    let reason = by_phase(phase, purpose)
        .or_else(|| by_health(health, purpose))
        .or_else(|| by_cluster(phase, view, purpose))
        .or_else(|| by_purpose(phase, view, (positions, may_read), purpose));
    Readiness { ready: reason.is_none(), reason }
}

fn by_phase(phase: Phase, purpose: Purpose) -> Option<String> {
    match (phase, purpose) {
        (Phase::Ready, _) | (Phase::Draining, Purpose::Any | Purpose::Read | Purpose::Sync) => None,
        (Phase::Starting | Phase::Draining | Phase::ShuttingDown | Phase::Stopped, _) => {
            Some(phase.to_string())
        }
    }
}

/// A node in trouble should not be sent anything that another can do. Its state can still be read.
fn by_health(health: &HealthView, purpose: Purpose) -> Option<String> {
    match (&health.unhealthy, purpose) {
        (Some(reason), Purpose::Any | Purpose::Write | Purpose::Sync) => {
            Some(format!("storage_latched: {reason}"))
        }
        (None, Purpose::Write) if health.memory_full => Some("memory_full".to_owned()),
        (None, Purpose::Write) => health.disk_full.then(|| disk_full(health)),
        (Some(_), Purpose::Read) | (None, Purpose::Any | Purpose::Read | Purpose::Sync) => None,
    }
}

/// How full the disk is.
pub(super) fn disk_full(health: &HealthView) -> String {
    let (available, min) = (health.disk.available_bytes(), health.disk_min_free_bytes);
    let inodes = health.disk.space.free_inodes;
    format!("disk_full: {available} bytes available of {min} that must stay free, {inodes} inodes")
}

fn by_cluster(phase: Phase, view: &View, purpose: Purpose) -> Option<String> {
    if view.config.is_none() {
        let waiting = view.waiting.as_deref().unwrap_or("the cluster is not formed yet");
        let what = match view.absence {
            Absence::Forming => "forming",
            Absence::SnapshotInstall => "snapshot_install",
            Absence::JournalRecovery => "journal_recovery",
        };
        return Some(format!("{what}: {waiting}"));
    }
    // Leadership leaves a draining node, and what it holds can be read all the while.
    let handing_over = (phase, purpose) == (Phase::Draining, Purpose::Read);
    (view.primary.is_none() && !handing_over).then(|| "no_primary".to_owned())
}

fn by_purpose(
    phase: Phase,
    view: &View,
    (positions, may_read): (Positions, bool),
    purpose: Purpose,
) -> Option<String> {
    let lag = positions.committed.saturating_sub(positions.applied);
    let behind = || (lag > LAG_ENTRIES_MAX).then(|| format!("catching_up: {lag} entries to apply"));
    match purpose {
        Purpose::Any => None,
        Purpose::Read if view.role == Role::Primary && phase != Phase::Draining => {
            (!may_read).then(|| "no_lease".to_owned()).or_else(behind)
        }
        Purpose::Read | Purpose::Sync => behind(),
        Purpose::Write if view.role != Role::Primary => Some("not_primary".to_owned()),
        Purpose::Write => match &view.degraded {
            Some(clause) => Some(format!("degraded: {clause}")),
            None => (!may_read).then(|| "no_lease".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quorate_protocol::cluster::{ClusterEntry, SafetyTimers};
    use quorate_protocol::policy::Policy;
    use quorate_protocol::types::{ClusterId, Generation, NodeId};

    use super::*;

    fn view(role: Role, primary: Option<u64>) -> View {
        let config = ClusterEntry {
            cluster: ClusterId(1),
            generation: Generation(0),
            version: 1,
            members: Vec::new(),
            policy: Policy::MAJORITY,
            timers: SafetyTimers::LAN,
            removed: Vec::new(),
            tokens: Vec::new(),
        };
        View {
            role,
            primary: primary.map(NodeId),
            config: Some(Arc::new(config)),
            ..View::default()
        }
    }

    fn reason(phase: Phase, view: &View, may_read: bool, purpose: Purpose) -> Option<String> {
        let positions = Positions { committed: 10, acknowledgeable: 10, applied: 10 };
        readiness(phase, &HealthView::default(), view, (positions, may_read), purpose).reason
    }

    #[test]
    fn a_primary_serves_everything_and_a_replica_redirects_writes() {
        let primary = view(Role::Primary, Some(1));
        let replica = view(Role::Replica, Some(1));
        for purpose in [Purpose::Any, Purpose::Read, Purpose::Write, Purpose::Sync] {
            assert_eq!(reason(Phase::Ready, &primary, true, purpose), None, "{purpose:?}");
        }
        assert_eq!(reason(Phase::Ready, &replica, false, Purpose::Any), None);
        assert_eq!(reason(Phase::Ready, &replica, false, Purpose::Read), None);
        assert_eq!(
            reason(Phase::Ready, &replica, false, Purpose::Write).as_deref(),
            Some("not_primary")
        );
    }

    #[test]
    fn a_fenced_or_degraded_primary_takes_no_writes() {
        let mut primary = view(Role::Primary, Some(1));
        let fenced = reason(Phase::Ready, &primary, false, Purpose::Write);
        assert_eq!(fenced.as_deref(), Some("no_lease"));
        primary.degraded = Some("persisted>=majority".to_owned());
        let degraded = reason(Phase::Ready, &primary, true, Purpose::Write);
        assert_eq!(degraded.as_deref(), Some("degraded: persisted>=majority"));
    }

    #[test]
    fn draining_keeps_reads() {
        let primary = view(Role::Primary, Some(1));
        assert_eq!(reason(Phase::Draining, &primary, true, Purpose::Read), None);
        assert_eq!(reason(Phase::Draining, &primary, false, Purpose::Read), None, "no lease");
        let between = view(Role::Replica, None);
        assert_eq!(reason(Phase::Draining, &between, false, Purpose::Read), None, "no primary");
        let write = reason(Phase::Draining, &primary, true, Purpose::Write);
        assert_eq!(write.as_deref(), Some("draining"));
        let starting = reason(Phase::Starting, &primary, true, Purpose::Any);
        assert_eq!(starting.as_deref(), Some("starting"));
    }

    #[test]
    fn without_a_primary_or_a_cluster_nothing_is_ready() {
        let lost = view(Role::Replica, None);
        assert_eq!(reason(Phase::Ready, &lost, false, Purpose::Any).as_deref(), Some("no_primary"));
        let unformed = View { waiting: Some("node 2 is missing".to_owned()), ..View::default() };
        assert_eq!(
            reason(Phase::Ready, &unformed, false, Purpose::Any).as_deref(),
            Some("forming: node 2 is missing")
        );
    }

    #[test]
    fn a_replica_that_lags_is_not_in_sync() {
        let replica = view(Role::Replica, Some(1));
        let positions = Positions { committed: 5_000, acknowledgeable: 5_000, applied: 10 };
        let health = HealthView::default();
        let sync = readiness(Phase::Ready, &health, &replica, (positions, false), Purpose::Sync);
        assert_eq!(sync.reason.as_deref(), Some("catching_up: 4990 entries to apply"));
    }

    #[test]
    fn a_latched_node_says_why_and_keeps_its_reads() {
        let primary = view(Role::Primary, Some(1));
        let positions = Positions::default();
        let latched =
            HealthView { unhealthy: Some("corruption".to_owned()), ..HealthView::default() };
        let reason = |health: &HealthView, purpose| {
            readiness(Phase::Ready, health, &primary, (positions, true), purpose).reason
        };
        assert_eq!(reason(&latched, Purpose::Any).as_deref(), Some("storage_latched: corruption"));
        assert_eq!(reason(&latched, Purpose::Read), None);
        let full = HealthView { disk_full: true, ..HealthView::default() };
        let text = reason(&full, Purpose::Write);
        assert!(
            text.as_ref().is_some_and(|text| text.starts_with("disk_full: 0 bytes")),
            "{text:?}"
        );
        assert_eq!(reason(&full, Purpose::Any), None);
        let short = HealthView { memory_full: true, ..HealthView::default() };
        assert_eq!(reason(&short, Purpose::Write).as_deref(), Some("memory_full"));
        assert_eq!(reason(&short, Purpose::Read), None);
    }
}
