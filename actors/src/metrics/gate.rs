//! What the durability gate counts, and where the time of a write goes.

use std::time::Instant;

use prometheus::local::LocalHistogram;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use quorate_protocol::gate::WaitedFor;

use super::{Since, counter, counters, gauge, histogram, part};
use crate::gate::Attribution;
use crate::submit::{DoubtReason, Waits};

/// What the durability gate counts.
#[derive(Clone, Debug)]
pub struct GateMetrics {
    /// Whether it is noted what releases waited for.
    pub attribution: Attribution,
    waiting: IntGauge,
    oldest: Since,
    released: IntCounter,
    deadline: IntCounter,
    leadership_lost: IntCounter,
    shutdown: IntCounter,
    released_by: IntCounterVec,
    queue: Histogram,
    journal: Histogram,
    replica: Histogram,
    apply: Histogram,
    total: Histogram,
}

/// The gate's own view of the histograms, which it alone writes: figures are gathered here and
/// reach the shared ones once a round.
#[derive(Debug)]
pub struct GateWaits {
    released: IntCounter,
    released_by: IntCounterVec,
    /// Children of `released_by`, resolved when first needed: members come and go.
    blockers: Vec<(Option<WaitedFor>, IntCounter)>,
    count: u64,
    queue: LocalHistogram,
    journal: LocalHistogram,
    replica: LocalHistogram,
    apply: LocalHistogram,
    total: LocalHistogram,
}

impl GateMetrics {
    pub(super) fn new(
        registry: &Registry,
        attribution: Attribution,
    ) -> Result<Self, prometheus::Error> {
        let in_doubt = counters(
            registry,
            "quorate_outcomes_indoubt_total",
            "Batches answered INDOUBT, by reason",
            "reason",
        )?;
        let oldest =
            Since::new("quorate_gate_oldest_wait_seconds", "Age of the oldest waiting reply")?;
        registry.register(Box::new(oldest.clone()))?;
        let released_by = IntCounterVec::new(
            Opts::new(
                "quorate_gate_releases_total",
                "Batches released, by the cursor that was the last to cross, and whose it is",
            ),
            &["blocker", "node"],
        )?;
        registry.register(Box::new(released_by.clone()))?;
        Ok(Self {
            attribution,
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
            released_by,
            queue: part(
                registry,
                "quorate_write_queue_seconds",
                "From reading a batch off its connection to sealing it into an entry",
            )?,
            journal: part(
                registry,
                "quorate_write_journal_wait_seconds",
                "From then on, until this node's own copy was there",
            )?,
            replica: part(
                registry,
                "quorate_write_replica_wait_seconds",
                "From then on, until the policy was met",
            )?,
            apply: part(
                registry,
                "quorate_write_apply_seconds",
                "From then on, until the entry was applied and its replies released",
            )?,
            total: histogram(
                registry,
                "quorate_write_total_seconds",
                "From reading a batch off its connection to the release of its replies",
            )?,
        })
    }

    /// What the gate gathers on its own.
    #[must_use]
    pub fn waits(&self) -> GateWaits {
        GateWaits {
            released: self.released.clone(),
            released_by: self.released_by.clone(),
            blockers: Vec::new(),
            count: 0,
            queue: self.queue.local(),
            journal: self.journal.local(),
            replica: self.replica.local(),
            apply: self.apply.local(),
            total: self.total.local(),
        }
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

impl GateWaits {
    /// A batch was released as done; `None` where it wasn't noted what it waited for.
    pub fn released(&mut self, waits: Option<&Waits>) {
        let seconds = |us: u32| f64::from(us) / 1e6;
        self.count += 1;
        let Some(waits) = waits else { return };
        self.queue.observe(seconds(waits.queue_us));
        self.journal.observe(seconds(waits.journal_us));
        self.replica.observe(seconds(waits.replica_us));
        self.apply.observe(seconds(waits.apply_us));
        self.total.observe(waits.total_us() as f64 / 1e6);
        self.blocker(waits.by).inc();
    }

    /// Makes what was gathered visible.
    pub fn flush(&mut self) {
        self.released.inc_by(std::mem::take(&mut self.count));
        for histogram in [&self.queue, &self.journal, &self.replica, &self.apply, &self.total] {
            histogram.flush();
        }
    }

    fn blocker(&mut self, by: Option<WaitedFor>) -> &IntCounter {
        let known = self.blockers.iter().position(|(blocker, _)| *blocker == by);
        let at = known.unwrap_or_else(|| {
            let (blocker, node) = match by {
                Some(WaitedFor::Journal) => ("journal", String::new()),
                Some(WaitedFor::ReplicaMemory(node)) => ("replica_memory", node.to_string()),
                Some(WaitedFor::ReplicaDisk(node)) => ("replica_disk", node.to_string()),
                None => ("policy", String::new()),
            };
            self.blockers.push((by, self.released_by.with_label_values(&[blocker, &node])));
            self.blockers.len() - 1
        });
        &self.blockers[at].1
    }
}
