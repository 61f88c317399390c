//! Positions, role and replicas, read from the published view when they are scraped.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, GaugeVec, Opts};

use super::Metrics;
use crate::view::{PeerView, Published, Role};

type ReadNode = fn(&Published) -> f64;
type ReadReplica = fn(&PeerView, &Published) -> f64;

/// The one figure of a replica that every node knows.
const CONNECTED: &str = "quorate_replica_connected";

/// Reads the published view when it is scraped.
pub struct PublishedCollector {
    published: Arc<Published>,
    gauges: Vec<(Gauge, ReadNode)>,
    /// Whether a figure of a replica is its cursor, which only its primary knows, stands last.
    replicas: Vec<(GaugeVec, ReadReplica, bool)>,
    policy: GaugeVec,
    degraded_seconds: Counter,
}

impl PublishedCollector {
    /// Registers a collector over this node's published view.
    ///
    /// # Errors
    /// A name is taken.
    pub fn register(metrics: &Metrics, published: Arc<Published>) -> Result<(), prometheus::Error> {
        let gauge = |name: &str, help: &str, read: ReadNode| {
            Ok::<_, prometheus::Error>((Gauge::new(name, help)?, read))
        };
        let replica = |name: &str, help: &str, read: ReadReplica| {
            let gauge = GaugeVec::new(Opts::new(name, help), &["node"])?;
            Ok::<_, prometheus::Error>((gauge, read, name != CONNECTED))
        };
        let collector = Self {
            gauges: vec![
                gauge("quorate_role", "0 replica, 1 candidate, 2 primary", |p| {
                    f64::from(p.role() as u8)
                })?,
                gauge("quorate_epoch", "Current epoch", |p| p.epoch().0 as f64)?,
                gauge("quorate_has_primary", "Whether a primary is heard, or is this node", |p| {
                    f64::from(u8::from(p.view().primary.is_some()))
                })?,
                gauge("quorate_commit_seq", "Commit position", |p| p.committed().0 as f64)?,
                gauge("quorate_acknowledgeable_seq", "Position that meets the policy", |p| {
                    p.acknowledgeable().0 as f64
                })?,
                gauge("quorate_applied_seq", "Position that the state holds", |p| {
                    p.applied().0 as f64
                })?,
                gauge("quorate_last_seq", "Last entry of the log here", |p| {
                    p.view().last.seq.0 as f64
                })?,
                gauge("quorate_persisted_seq", "Highest synced position here", |p| {
                    p.view().persisted.0 as f64
                })?,
                gauge("quorate_memory_loss", "Whether this node may have lost entries", |p| {
                    f64::from(u8::from(p.view().memory_loss))
                })?,
                gauge("quorate_degraded", "Whether the policy can't be met", |p| {
                    f64::from(u8::from(p.view().degraded.is_some()))
                })?,
                gauge("quorate_incarnation", "Starts of this node", |p| {
                    p.view().incarnation.0 as f64
                })?,
            ],
            replicas: vec![
                replica(CONNECTED, "Whether a session is up", |peer, _| {
                    f64::from(u8::from(peer.connected))
                })?,
                replica("quorate_replica_in_memory_seq", "Cursor in memory", |peer, _| {
                    peer.in_memory.0 as f64
                })?,
                replica("quorate_replica_persisted_seq", "Cursor on disk", |peer, _| {
                    peer.persisted.0 as f64
                })?,
                replica("quorate_replica_applied_seq", "Applied position", |peer, _| {
                    peer.applied.0 as f64
                })?,
                replica("quorate_replica_lag_entries", "Entries not on its disk", |peer, p| {
                    p.view().last.seq.0.saturating_sub(peer.persisted.0) as f64
                })?,
            ],
            policy: GaugeVec::new(
                Opts::new("quorate_policy_info", "The durability policy in force"),
                &["policy"],
            )?,
            degraded_seconds: Counter::new(
                "quorate_degraded_seconds_total",
                "Time that the policy could not be met while this node led",
            )?,
            published,
        };
        metrics.register(Box::new(collector))
    }
}

impl Collector for PublishedCollector {
    fn desc(&self) -> Vec<&Desc> {
        let gauges = self.gauges.iter().flat_map(|(gauge, _)| gauge.desc());
        let replicas = self.replicas.iter().flat_map(|(gauge, _, _)| gauge.desc());
        let others = self.policy.desc().into_iter().chain(self.degraded_seconds.desc());
        gauges.chain(replicas).chain(others).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let view = self.published.view();
        let mut families = Vec::new();
        for (gauge, read) in &self.gauges {
            gauge.set(read(&self.published));
            families.extend(gauge.collect());
        }
        // Another node, or one that isn't connected, has cursors that nobody here knows.
        let primary = view.role == Role::Primary;
        for (gauge, read, needs_cursors) in &self.replicas {
            // Members come and go.
            gauge.reset();
            for peer in view.peers.iter().filter(|peer| !needs_cursors || primary && peer.connected)
            {
                let node = peer.node.to_string();
                gauge.with_label_values(&[node.as_str()]).set(read(peer, &self.published));
            }
            families.extend(gauge.collect());
        }
        self.policy.reset();
        if let Some(config) = &view.config {
            self.policy.with_label_values(&[config.policy.to_string().as_str()]).set(1.0);
        }
        families.extend(self.policy.collect());
        // The quorum actor counts; here it only catches up.
        let degraded_s = self.published.degraded_us() as f64 / 1e6;
        self.degraded_seconds.inc_by((degraded_s - self.degraded_seconds.get()).max(0.0));
        families.extend(self.degraded_seconds.collect());
        families
    }
}
