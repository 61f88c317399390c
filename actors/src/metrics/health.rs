//! Metrics of the node's health.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntGauge};

use super::Metrics;
use crate::health::{Health, HealthView};

type Read = fn(&HealthView) -> u64;

/// The last sample and the latch, read when they are scraped.
pub struct HealthCollector {
    health: Arc<Health>,
    gauges: Vec<(IntGauge, Read)>,
    counters: Vec<(IntCounter, Read)>,
}

impl HealthCollector {
    /// Exports this node's health.
    ///
    /// # Errors
    /// One of the names is taken.
    pub fn register(metrics: &Metrics, health: Arc<Health>) -> Result<(), prometheus::Error> {
        let gauge = |name: &str, help: &str, read: Read| {
            Ok::<_, prometheus::Error>((IntGauge::new(name, help)?, read))
        };
        let counter = |name: &str, help: &str, read: Read| {
            Ok::<_, prometheus::Error>((IntCounter::new(name, help)?, read))
        };
        let gauges = vec![
            gauge("quorate_load_shed_active", "1 while the health latch refuses writes", |view| {
                u64::from(view.unhealthy.is_some())
            })?,
            gauge("quorate_disk_full", "1 while writes are refused for lack of space", |view| {
                u64::from(view.disk_full)
            })?,
            gauge("quorate_disk_free_bytes", "Free on the data directory's file system", |view| {
                view.disk.space.free_bytes
            })?,
            gauge(
                "quorate_disk_available_bytes",
                "Free, less what the reserve lacks and what memtables will take",
                |view| view.disk.available_bytes(),
            )?,
            gauge(
                "quorate_disk_min_free_bytes",
                "Below so many available bytes writes are refused",
                |view| view.disk_min_free_bytes,
            )?,
            gauge("quorate_disk_free_inodes", "Free inodes there", |view| {
                view.disk.space.free_inodes
            })?,
            gauge(
                "quorate_divergent_files",
                "Files of tails that were cut from the log",
                |view| view.divergent_files,
            )?,
            gauge(
                "quorate_memory_full",
                "1 while writes are refused for lack of memory",
                |view| u64::from(view.memory_full),
            )?,
            gauge("quorate_memory_used_bytes", "What the process has in main memory", |view| {
                view.memory.used_bytes
            })?,
            gauge("quorate_memory_budget_bytes", "What it may have there", |view| {
                view.memory.budget_bytes
            })?,
        ];
        let counters = vec![
            counter("quorate_health_latched_total", "How often the latch closed", |view| {
                view.latched_count
            })?,
            counter("quorate_disk_full_total", "How often the disk was found full", |view| {
                view.disk_full_count
            })?,
            counter("quorate_memory_shrinks_total", "How often memory was given back", |view| {
                view.shrunk_count
            })?,
            counter("quorate_memory_freed_bytes_total", "Bytes given back then", |view| {
                view.freed_bytes
            })?,
            counter("quorate_storage_errors_total", "Failed accesses to the state", |view| {
                view.foreground_errors
            })?,
        ];
        metrics.register(Box::new(Self { health, gauges, counters }))
    }
}

impl Collector for HealthCollector {
    fn desc(&self) -> Vec<&Desc> {
        let counters = self.counters.iter().flat_map(|(counter, _)| counter.desc());
        self.gauges.iter().flat_map(|(gauge, _)| gauge.desc()).chain(counters).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let view = self.health.view();
        let mut families = Vec::new();
        for (gauge, read) in &self.gauges {
            gauge.set(read(&view) as i64);
            families.extend(gauge.collect());
        }
        for (counter, read) in &self.counters {
            // The count is kept by its owner; here it only catches up.
            counter.inc_by(read(&view).saturating_sub(counter.get()));
            families.extend(counter.collect());
        }
        families
    }
}
