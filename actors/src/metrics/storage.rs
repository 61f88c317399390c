//! Metrics of journal, apply loop and state.

use std::ffi::CStr;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Histogram, IntCounter, IntGauge, Registry};

use super::{Metrics, Stage, Stages, counter, histogram};
use crate::storage::apply::{ApplyHandle, RoundStats};
use crate::storage::journal::{GroupStats, Journal};
use crate::storage::state::StateReader;

/// What journal and apply loop count.
#[derive(Clone, Debug)]
pub struct StorageMetrics {
    journal_entries: IntCounter,
    journal_bytes: IntCounter,
    journal_write: Histogram,
    journal_sync: Histogram,
    journal_stage: Stage,
    apply_entries: IntCounter,
    apply_bytes: IntCounter,
    apply_round: Histogram,
    apply_stage: Stage,
    expired: IntCounter,
}

impl StorageMetrics {
    pub(super) fn new(registry: &Registry, stages: &Stages) -> Result<Self, prometheus::Error> {
        let count = |name, help| counter(registry, name, help);
        let time = |name, help| histogram(registry, name, help);
        Ok(Self {
            journal_entries: count("quorate_journal_entries_total", "Entries written")?,
            journal_bytes: count("quorate_journal_bytes_total", "Bytes of records written")?,
            journal_write: time("quorate_journal_write_seconds", "One group's write(2)")?,
            journal_sync: time("quorate_journal_sync_seconds", "One group's fdatasync(2)")?,
            journal_stage: stages.journal.clone(),
            apply_entries: count("quorate_apply_entries_total", "Entries applied to the state")?,
            apply_bytes: count("quorate_apply_bytes_total", "Bytes written to the state")?,
            apply_round: time("quorate_apply_round_seconds", "One round, without the gate")?,
            apply_stage: stages.apply.clone(),
            expired: count("quorate_state_expired_keys_total", "Expired keys removed")?,
        })
    }

    /// The apply loop finished a round.
    pub fn applied(&self, round: &RoundStats) {
        self.apply_entries.inc_by(round.entries as u64);
        self.apply_bytes.inc_by(round.bytes as u64);
        self.apply_round.observe(round.took.as_secs_f64());
        self.apply_stage.busy(round.took);
        if round.after_idle {
            self.apply_stage.idle();
        }
        self.expired.inc_by(round.expired);
    }

    /// The journal wrote and synced a group.
    pub fn journalled(&self, group: &GroupStats) {
        self.journal_entries.inc_by(group.entries as u64);
        self.journal_bytes.inc_by(group.bytes as u64);
        self.journal_write.observe(group.write.as_secs_f64());
        self.journal_sync.observe(group.sync.as_secs_f64());
        self.journal_stage.busy(group.write + group.sync);
        if group.after_idle {
            self.journal_stage.idle();
        }
    }
}

type Read = fn(&StorageSources) -> f64;

/// What the figures are read from.
#[derive(Clone, Debug)]
pub struct StorageSources {
    /// The state.
    pub state: StateReader,
    /// The journal.
    pub journal: Journal,
    /// The apply loop.
    pub apply: ApplyHandle,
}

/// Figures of journal, apply loop and RocksDB, read when they are scraped.
pub struct StorageCollector {
    sources: StorageSources,
    stalls: IntCounter,
    gauges: Vec<(Gauge, Read)>,
    properties: Vec<(IntGauge, &'static CStr)>,
}

/// RocksDB's own numbers, by the names that they are exported under.
const PROPERTIES: [(&str, &CStr, &str); 13] = [
    ("memtable_bytes", c"rocksdb.size-all-mem-tables", "Memtables, those read by walks included"),
    ("memtable_unflushed_bytes", c"rocksdb.cur-size-all-mem-tables", "Memtables not on disk yet"),
    ("table_readers_bytes", c"rocksdb.estimate-table-readers-mem", "Memory of open tables"),
    ("block_cache_bytes", c"rocksdb.block-cache-usage", "Block cache"),
    ("background_errors", c"rocksdb.background-errors", "Failed flushes and compactions"),
    ("write_stopped", c"rocksdb.is-write-stopped", "1 while RocksDB takes no writes"),
    ("delayed_write_rate", c"rocksdb.actual-delayed-write-rate", "Bytes per second; 0 = undelayed"),
    ("running_compactions", c"rocksdb.num-running-compactions", "Compactions that run"),
    ("running_flushes", c"rocksdb.num-running-flushes", "Flushes that run"),
    ("compaction_pending", c"rocksdb.compaction-pending", "1 while a compaction is due"),
    (
        "compaction_pending_bytes",
        c"rocksdb.estimate-pending-compaction-bytes",
        "Bytes that compactions have to rewrite",
    ),
    ("sst_bytes", c"rocksdb.total-sst-files-size", "Table files"),
    ("blob_bytes", c"rocksdb.total-blob-file-size", "Files of large values"),
];

impl StorageCollector {
    /// Exports these figures.
    ///
    /// # Errors
    /// One of the names is taken.
    pub fn register(metrics: &Metrics, sources: StorageSources) -> Result<(), prometheus::Error> {
        let gauge = |name: &str, help: &str, read: Read| {
            Ok::<_, prometheus::Error>((Gauge::new(name, help)?, read))
        };
        let gauges = vec![
            gauge("quorate_state_keys", "Keys stored, expired ones included", |of| {
                of.state.applied().map_or(0.0, |applied| applied.keys as f64)
            })?,
            gauge("quorate_state_flushed_seq", "What a restart finds in the state", |of| {
                of.state.flushed().map_or(0.0, |flushed| flushed.id.seq.0 as f64)
            })?,
            gauge(
                "quorate_state_write_stall_seconds",
                "How long RocksDB has been putting off the apply loop's write; 0 = not now",
                |of| of.state.write_stalls().1.as_secs_f64(),
            )?,
            gauge(
                "quorate_apply_stall_seconds",
                "Age of the round that the apply loop is in; 0 = nothing to apply",
                |of| of.apply.busy().map_or(0.0, |busy| busy.since.as_secs_f64()),
            )?,
            gauge("quorate_journal_first_seq", "First entry in the journal", |of| {
                of.journal.reader().first().0 as f64
            })?,
            gauge("quorate_journal_segments", "Files of the journal", |of| {
                of.journal.reader().sizes().len() as f64
            })?,
            gauge("quorate_journal_size_bytes", "Bytes of the journal", |of| {
                of.journal.reader().sizes().iter().map(|(_, bytes)| *bytes as f64).sum()
            })?,
            gauge("quorate_journal_waiting_bytes", "Bytes waiting for the writer", |of| {
                of.journal.waiting_bytes() as f64
            })?,
            gauge(
                "quorate_journal_stall_seconds",
                "Age of the system call that the writer is in",
                |of| of.journal.busy_for().as_secs_f64(),
            )?,
        ];
        let property = |(name, property, help): &(&str, &'static CStr, &str)| {
            Ok((IntGauge::new(format!("quorate_rocksdb_{name}"), *help)?, *property))
        };
        let properties =
            PROPERTIES.iter().map(property).collect::<Result<_, prometheus::Error>>()?;
        let stalls = IntCounter::new(
            "quorate_state_write_stalls_total",
            "Writes that RocksDB put off and that were tried again",
        )?;
        metrics.register(Box::new(Self { sources, stalls, gauges, properties }))
    }
}

impl Collector for StorageCollector {
    fn desc(&self) -> Vec<&Desc> {
        let properties = self.properties.iter().flat_map(|(gauge, _)| gauge.desc());
        let gauges = self.gauges.iter().flat_map(|(gauge, _)| gauge.desc());
        self.stalls.desc().into_iter().chain(gauges).chain(properties).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // The state counts; here it only catches up.
        self.stalls.inc_by(self.sources.state.write_stalls().0.saturating_sub(self.stalls.get()));
        let mut families = self.stalls.collect();
        for (gauge, read) in &self.gauges {
            gauge.set(read(&self.sources));
            families.extend(gauge.collect());
        }
        for (gauge, property) in &self.properties {
            gauge.set(self.sources.state.property(property).unwrap_or(0) as i64);
            families.extend(gauge.collect());
        }
        families
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::metrics::Metrics;
    use crate::storage::apply::RoundStats;

    #[test]
    fn a_round_is_counted() {
        let metrics = Metrics::new().unwrap();
        metrics.storage.applied(&RoundStats {
            entries: 3,
            bytes: 400,
            took: Duration::from_millis(2),
            write: Duration::from_millis(1),
            expired: 7,
            after_idle: true,
        });
        let text = metrics.render().unwrap();
        for line in [
            "quorate_apply_entries_total 3",
            "quorate_apply_bytes_total 400",
            "quorate_apply_round_seconds_count 1",
            "quorate_state_expired_keys_total 7",
            "quorate_stage_busy_seconds_total{stage=\"apply\"} 0.002",
        ] {
            assert!(text.contains(line), "{line} is missing:\n{text}");
        }
    }
}
