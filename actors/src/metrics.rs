//! Every metric of a node, in one place. Names begin with `quorate_`; label values come from
//! fixed sets, and each labelled child is resolved once, here.
//!
//! Each node owns its registry: several nodes may run in one process.

mod health;
mod storage;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

pub use health::HealthCollector;
pub use storage::{StorageCollector, StorageMetrics};

use crate::submit::{DoubtReason, Refusal};
use crate::view::{PeerView, Published};

/// Bounds in seconds, from the cost of a wake-up to a deadline.
const LATENCY_BUCKETS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25,
    0.5, 1.0, 5.0,
];

/// All metrics of one node.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// The durability gate.
    pub gate: GateMetrics,
    /// Client connections.
    pub client: ClientMetrics,
    /// Journal, apply loop and state.
    pub storage: StorageMetrics,
}

impl Metrics {
    /// Registers everything in a registry of its own.
    ///
    /// # Errors
    /// Two metrics share a name: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let gate = GateMetrics::new(&registry)?;
        let client = ClientMetrics::new(&registry)?;
        let storage = StorageMetrics::new(&registry)?;
        build_info(&registry)?;
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Self { registry, gate, client, storage })
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

/// What the durability gate counts.
#[derive(Clone, Debug)]
pub struct GateMetrics {
    waiting: IntGauge,
    oldest: Since,
    released: IntCounter,
    deadline: IntCounter,
    leadership_lost: IntCounter,
    shutdown: IntCounter,
    total: Histogram,
}

impl GateMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let in_doubt = counters(
            registry,
            "quorate_outcomes_indoubt_total",
            "Batches answered INDOUBT, by reason",
            "reason",
        )?;
        let oldest =
            Since::new("quorate_gate_oldest_wait_seconds", "Age of the oldest waiting reply")?;
        registry.register(Box::new(oldest.clone()))?;
        Ok(Self {
            waiting: gauge(
                registry,
                "quorate_gate_waiting_replies",
                "Batches that wait in the gate",
            )?,
            oldest,
            released: counter(registry, "quorate_gate_released_total", "Batches released as done")?,
            deadline: in_doubt.with_label_values(&["deadline"]),
            leadership_lost: in_doubt.with_label_values(&["leadership_lost"]),
            shutdown: in_doubt.with_label_values(&["shutdown"]),
            total: histogram(
                registry,
                "quorate_write_total_seconds",
                "From reading a batch off its connection to the release of its replies",
            )?,
        })
    }

    /// A batch was released as done, so long after its connection read it.
    pub fn released(&self, total: Duration) {
        self.released.inc();
        self.total.observe(total.as_secs_f64());
    }

    /// A batch was answered as in doubt.
    pub fn in_doubt(&self, reason: DoubtReason) {
        match reason {
            DoubtReason::Deadline => self.deadline.inc(),
            DoubtReason::LeadershipLost => self.leadership_lost.inc(),
            DoubtReason::Shutdown => self.shutdown.inc(),
        }
    }

    /// So many batches wait, the oldest since then.
    pub fn waiting(&self, count: usize, oldest: Option<Instant>) {
        self.waiting.set(count as i64);
        self.oldest.set(oldest);
    }
}

/// What client connections count. `INFO` reads the same figures, less what they were at the last
/// `CONFIG RESETSTAT`: a counter itself never goes back.
#[derive(Clone, Debug)]
pub struct ClientMetrics {
    connected: IntGauge,
    connections: IntCounter,
    rejected: IntCounter,
    auth_failures: IntCounter,
    reads: IntCounter,
    writes: IntCounter,
    others: IntCounter,
    errors: IntCounter,
    input_bytes: IntCounter,
    output_bytes: IntCounter,
    refusals: Refusals,
    reset_at: Arc<ResetAt>,
}

/// Commands of one round of a connection, by what they needed.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundCounts {
    /// Reads of the keyspace.
    pub reads: u64,
    /// Commands that went through the log, or should have.
    pub writes: u64,
    /// Everything else.
    pub others: u64,
    /// Replies among all of them that were errors.
    pub errors: u64,
    /// Bytes that were read.
    pub input_bytes: u64,
    /// Bytes of replies.
    pub output_bytes: u64,
}

/// Figures of `INFO stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InfoStats {
    /// Connections accepted.
    pub connections: u64,
    /// Connections refused.
    pub rejected: u64,
    /// Commands.
    pub commands: u64,
    /// Bytes that were read.
    pub input_bytes: u64,
    /// Bytes of replies.
    pub output_bytes: u64,
}

#[derive(Clone, Debug)]
struct Refusals {
    not_primary: IntCounter,
    no_primary: IntCounter,
    no_replicas: IntCounter,
    unhealthy: IntCounter,
    disk_full: IntCounter,
    overloaded: IntCounter,
    timeout_caller: IntCounter,
    timeout_store: IntCounter,
    draining: IntCounter,
}

#[derive(Debug, Default)]
struct ResetAt {
    connections: AtomicU64,
    rejected: AtomicU64,
    commands: AtomicU64,
    input_bytes: AtomicU64,
    output_bytes: AtomicU64,
}

impl ClientMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let commands = counters(
            registry,
            "quorate_commands_total",
            "Commands, by what they need: state, log, or only the connection",
            "class",
        )?;
        let bytes =
            counters(registry, "quorate_client_bytes_total", "Bytes from and to clients", "way")?;
        Ok(Self {
            connected: gauge(registry, "quorate_clients_connected", "Client connections")?,
            connections: counter(registry, "quorate_clients_accepted_total", "Clients accepted")?,
            rejected: counter(
                registry,
                "quorate_clients_rejected_total",
                "Clients refused because maxclients were connected",
            )?,
            auth_failures: counter(
                registry,
                "quorate_client_auth_failures_total",
                "Wrong passwords",
            )?,
            reads: commands.with_label_values(&["read"]),
            writes: commands.with_label_values(&["write"]),
            others: commands.with_label_values(&["connection"]),
            errors: counter(registry, "quorate_command_errors_total", "Error replies")?,
            input_bytes: bytes.with_label_values(&["in"]),
            output_bytes: bytes.with_label_values(&["out"]),
            refusals: Refusals::new(registry)?,
            reset_at: Arc::default(),
        })
    }

    /// A client was accepted.
    pub fn connected(&self) {
        self.connections.inc();
        self.connected.inc();
    }

    /// An accepted client is gone.
    pub fn disconnected(&self) {
        self.connected.dec();
    }

    /// A client was refused for want of room.
    pub fn rejected(&self) {
        self.rejected.inc();
    }

    /// A wrong password.
    pub fn auth_failed(&self) {
        self.auth_failures.inc();
    }

    /// A connection's round is over.
    pub fn round(&self, counts: &RoundCounts) {
        for (counter, count) in [
            (&self.reads, counts.reads),
            (&self.writes, counts.writes),
            (&self.others, counts.others),
            (&self.errors, counts.errors),
            (&self.input_bytes, counts.input_bytes),
            (&self.output_bytes, counts.output_bytes),
        ] {
            if count > 0 {
                counter.inc_by(count);
            }
        }
    }

    /// A batch was refused.
    pub fn refused(&self, refusal: &Refusal) {
        self.refusals.of(refusal).inc();
    }

    /// Figures since the start or the last reset.
    #[must_use]
    pub fn info(&self) -> InfoStats {
        let total = self.totals();
        let since = |total: u64, at: &AtomicU64| total.saturating_sub(at.load(Ordering::Relaxed));
        let at = &self.reset_at;
        InfoStats {
            connections: since(total.connections, &at.connections),
            rejected: since(total.rejected, &at.rejected),
            commands: since(total.commands, &at.commands),
            input_bytes: since(total.input_bytes, &at.input_bytes),
            output_bytes: since(total.output_bytes, &at.output_bytes),
        }
    }

    /// `CONFIG RESETSTAT`: `info` counts from here.
    pub fn reset_info(&self) {
        let total = self.totals();
        let at = &self.reset_at;
        at.connections.store(total.connections, Ordering::Relaxed);
        at.rejected.store(total.rejected, Ordering::Relaxed);
        at.commands.store(total.commands, Ordering::Relaxed);
        at.input_bytes.store(total.input_bytes, Ordering::Relaxed);
        at.output_bytes.store(total.output_bytes, Ordering::Relaxed);
    }

    fn totals(&self) -> InfoStats {
        InfoStats {
            connections: self.connections.get(),
            rejected: self.rejected.get(),
            commands: self.reads.get() + self.writes.get() + self.others.get(),
            input_bytes: self.input_bytes.get(),
            output_bytes: self.output_bytes.get(),
        }
    }
}

impl Refusals {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let refusals = counters(
            registry,
            "quorate_admission_refusals_total",
            "Batches refused before they were sealed, by reason",
            "reason",
        )?;
        let child = |reason| refusals.with_label_values(&[reason]);
        Ok(Self {
            not_primary: child("not_primary"),
            no_primary: child("no_primary"),
            no_replicas: child("no_replicas"),
            unhealthy: child("unhealthy"),
            disk_full: child("disk_full"),
            overloaded: child("overloaded"),
            timeout_caller: child("timeout_caller"),
            timeout_store: child("timeout_store"),
            draining: child("draining"),
        })
    }

    fn of(&self, refusal: &Refusal) -> &IntCounter {
        match refusal {
            Refusal::NotPrimary { .. } => &self.not_primary,
            Refusal::NoPrimary => &self.no_primary,
            Refusal::NoReplicas { .. } => &self.no_replicas,
            Refusal::Unhealthy(_) => &self.unhealthy,
            Refusal::DiskFull => &self.disk_full,
            Refusal::Overloaded => &self.overloaded,
            Refusal::Timeout { caller: true } => &self.timeout_caller,
            Refusal::Timeout { caller: false } => &self.timeout_store,
            Refusal::Draining => &self.draining,
        }
    }
}

type ReadNode = fn(&Published) -> f64;
type ReadReplica = fn(&PeerView, &Published) -> f64;

/// Reads the published view when it is scraped.
pub struct PublishedCollector {
    published: Arc<Published>,
    gauges: Vec<(Gauge, ReadNode)>,
    replicas: Vec<(GaugeVec, ReadReplica)>,
    policy: GaugeVec,
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
            Ok::<_, prometheus::Error>((GaugeVec::new(Opts::new(name, help), &["node"])?, read))
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
                replica("quorate_replica_connected", "Whether a session is up", |peer, _| {
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
            published,
        };
        metrics.register(Box::new(collector))
    }
}

impl Collector for PublishedCollector {
    fn desc(&self) -> Vec<&Desc> {
        let gauges = self.gauges.iter().flat_map(|(gauge, _)| gauge.desc());
        let replicas = self.replicas.iter().flat_map(|(gauge, _)| gauge.desc());
        gauges.chain(replicas).chain(self.policy.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let view = self.published.view();
        let mut families = Vec::new();
        for (gauge, read) in &self.gauges {
            gauge.set(read(&self.published));
            families.extend(gauge.collect());
        }
        for (gauge, read) in &self.replicas {
            // Members come and go.
            gauge.reset();
            for peer in &view.peers {
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
        families
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_nodes_in_one_process_don_t_share_figures() {
        let one = Metrics::new().expect("names are unique");
        let other = Metrics::new().expect("names are unique");
        one.gate.released(Duration::from_millis(1));
        assert!(one.render().expect("text").contains("quorate_gate_released_total 1"));
        assert!(other.render().expect("text").contains("quorate_gate_released_total 0"));
    }
}
