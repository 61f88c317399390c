//! Metrics of snapshots.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntGauge};

use super::Metrics;
use crate::snapshot::{SnapshotProgress, SnapshotSending, SnapshotStats};

type Read = fn(&SnapshotStats) -> u64;

/// Snapshots sent and received, read when they are scraped.
pub struct SnapshotCollector {
    stats: Arc<SnapshotStats>,
    counters: Vec<(IntCounter, Read)>,
    missing: IntGauge,
    unsent: IntGauge,
}

impl SnapshotCollector {
    /// Exports this node's snapshots.
    ///
    /// # Errors
    /// One of the names is taken.
    pub fn register(metrics: &Metrics, stats: Arc<SnapshotStats>) -> Result<(), prometheus::Error> {
        let counter = |name: &str, help: &str, read: Read| {
            Ok::<_, prometheus::Error>((IntCounter::new(name, help)?, read))
        };
        let counters = vec![
            counter(
                "quorate_snapshots_made_total",
                "Snapshots made for replicas",
                SnapshotStats::made,
            )?,
            counter(
                "quorate_snapshot_sent_bytes_total",
                "Bytes of snapshots sent",
                SnapshotStats::sent_bytes,
            )?,
            counter(
                "quorate_snapshots_received_total",
                "Snapshots received whole",
                SnapshotStats::received,
            )?,
            counter(
                "quorate_snapshot_received_bytes_total",
                "Bytes of snapshots received",
                SnapshotStats::received_bytes,
            )?,
        ];
        let missing = IntGauge::new(
            "quorate_snapshot_missing_bytes",
            "Bytes still to come of the snapshot that is being received; 0 while none is",
        )?;
        let unsent = IntGauge::new(
            "quorate_snapshot_unsent_bytes",
            "Bytes still to be sent of the snapshots that are being sent; 0 while none is",
        )?;
        metrics.register(Box::new(Self { stats, counters, missing, unsent }))
    }
}

impl Collector for SnapshotCollector {
    fn desc(&self) -> Vec<&Desc> {
        let counters = self.counters.iter().flat_map(|(counter, _)| counter.desc());
        counters.chain(self.missing.desc()).chain(self.unsent.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Vec::new();
        for (counter, read) in &self.counters {
            // The count is kept by its owner; here it only catches up.
            counter.inc_by(read(&self.stats).saturating_sub(counter.get()));
            families.extend(counter.collect());
        }
        let missing = |progress: SnapshotProgress| {
            progress.total_bytes.saturating_sub(progress.received_bytes)
        };
        self.missing.set(self.stats.progress().map_or(0, missing) as i64);
        families.extend(self.missing.collect());
        let unsent = |one: &SnapshotSending| one.total_bytes.saturating_sub(one.sent_bytes);
        self.unsent.set(self.stats.sending().iter().map(unsent).sum::<u64>() as i64);
        families.extend(self.unsent.collect());
        families
    }
}
