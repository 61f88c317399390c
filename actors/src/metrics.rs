//! Every metric of a node, in one place. Names begin with `quorate_`; label values come from
//! fixed sets, and each labelled child is resolved once, here.
//!
//! Each node owns its registry: several nodes may run in one process.

mod archive;
mod chain;
mod client;
mod gate;
mod health;
mod lifecycle;
mod published;
mod scrub;
mod snapshot;
mod stages;
mod storage;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};

pub use archive::ArchiveMetrics;
pub use chain::ChainMetrics;
pub use client::{ClientMetrics, InfoStats, RoundCounts};
pub use gate::{GateMetrics, GateWaits};
pub use health::HealthCollector;
pub use published::PublishedCollector;
pub use scrub::ScrubMetrics;
pub use snapshot::SnapshotCollector;
pub use stages::{Stage, Stages};
pub use storage::{StorageCollector, StorageMetrics, StorageSources};

use crate::gate::Attribution;
use crate::supervisor::Lifecycle;

/// Bounds in seconds, from the cost of a wake-up to a deadline.
const LATENCY_BUCKETS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25,
    0.5, 1.0, 5.0,
];

/// Bounds in seconds for the parts of a write, the shortest of which are no system call.
const PART_BUCKETS: [f64; 16] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.003, 0.005, 0.01,
    0.025, 0.1, 0.5, 1.0, 5.0,
];

/// All metrics of one node.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// The durability gate.
    pub gate: GateMetrics,
    /// The archive.
    pub archive: ArchiveMetrics,
    /// Client connections.
    pub client: ClientMetrics,
    /// How busy the stages of a write are.
    pub stages: Stages,
    /// Journal, apply loop and state.
    pub storage: StorageMetrics,
    /// What scrubs find.
    pub scrub: ScrubMetrics,
    /// What comparisons with other nodes' logs find.
    pub chain: ChainMetrics,
}

impl Metrics {
    /// Registers everything in a registry of its own.
    ///
    /// # Errors
    /// Two metrics share a name: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let attribution = Attribution::default();
        let gate = GateMetrics::new(&registry, attribution.clone())?;
        let archive = ArchiveMetrics::new(&registry)?;
        let client = ClientMetrics::new(&registry, attribution)?;
        let stages = Stages::new(&registry)?;
        let storage = StorageMetrics::new(&registry, &stages)?;
        let scrub = ScrubMetrics::new(&registry)?;
        let chain = ChainMetrics::new(&registry)?;
        build_info(&registry)?;
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Self { registry, gate, archive, client, stages, storage, scrub, chain })
    }

    /// Adds phase and steps of the start.
    ///
    /// # Errors
    /// They were added already.
    pub fn watch_lifecycle(&self, lifecycle: Arc<Lifecycle>) -> Result<(), prometheus::Error> {
        lifecycle::LifecycleCollector::register(self, lifecycle)
    }

    /// Adds a collector that reads its figures at scrape time.
    ///
    /// # Errors
    /// One of its names is taken.
    pub fn register(&self, collector: Box<dyn Collector>) -> Result<(), prometheus::Error> {
        self.registry.register(collector)
    }

    /// Everything in Prometheus's text format.
    ///
    /// # Errors
    /// A metric that breaks the format: a mistake in this file.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn build_info(registry: &Registry) -> Result<(), prometheus::Error> {
    let options = Opts::new("quorate_build_info", "Version of this binary")
        .const_label("version", env!("CARGO_PKG_VERSION"));
    let gauge = IntGauge::with_opts(options)?;
    gauge.set(1);
    registry.register(Box::new(gauge))
}

/// A gauge of the age of something, computed when it is read.
#[derive(Clone, Debug)]
struct Since {
    gauge: Gauge,
    base: Instant,
    /// Microseconds after `base`, plus 1; 0 where there is nothing.
    at_us: Arc<AtomicU64>,
}

impl Since {
    fn new(name: &str, help: &str) -> Result<Self, prometheus::Error> {
        let gauge = Gauge::new(name, help)?;
        Ok(Self { gauge, base: Instant::now(), at_us: Arc::default() })
    }

    fn set(&self, at: Option<Instant>) {
        let us = at.map_or(0, |at| at.saturating_duration_since(self.base).as_micros() as u64 + 1);
        self.at_us.store(us, Ordering::Relaxed);
    }
}

impl Collector for Since {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let age = match self.at_us.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            us => self.base.elapsed().saturating_sub(Duration::from_micros(us - 1)),
        };
        self.gauge.set(age.as_secs_f64());
        self.gauge.collect()
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    let metric = IntCounter::new(name, help)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
) -> Result<IntCounterVec, prometheus::Error> {
    let metric = IntCounterVec::new(Opts::new(name, help), &[label])?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let metric = IntGauge::new(name, help)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histogram(registry: &Registry, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
    let options = HistogramOpts::new(name, help).buckets(LATENCY_BUCKETS.to_vec());
    let metric = Histogram::with_opts(options)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// A histogram of a part of a write.
fn part(registry: &Registry, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
    let options = HistogramOpts::new(name, help).buckets(PART_BUCKETS.to_vec());
    let metric = Histogram::with_opts(options)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
) -> Result<HistogramVec, prometheus::Error> {
    let options = HistogramOpts::new(name, help).buckets(LATENCY_BUCKETS.to_vec());
    let metric = HistogramVec::new(options, &[label])?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::submit::Waits;

    #[test]
    fn two_nodes_in_one_process_don_t_share_figures() {
        let one = Metrics::new().expect("names are unique");
        let other = Metrics::new().expect("names are unique");
        let mut waits = one.gate.waits();
        waits.released(Some(&Waits::default()));
        waits.flush();
        assert!(one.render().expect("text").contains("quorate_gate_released_total 1"));
        assert!(other.render().expect("text").contains("quorate_gate_released_total 0"));
    }
}
