//! Metrics of scrubs that this node was asked for.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::scrub::{Difference, ScrubReport};

/// What the last scrub found. The alarm: any of the gauges above 0.
#[derive(Clone, Debug)]
pub struct ScrubMetrics {
    clean: IntCounter,
    found: IntCounter,
    failed: IntCounter,
    different_slots: IntGauge,
    faulty_nodes: IntGauge,
    absent_nodes: IntGauge,
    finished_at: IntGauge,
}

impl ScrubMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let opts = Opts::new("quorate_scrubs_total", "Scrubs that this node was asked for");
        let runs = IntCounterVec::new(opts, &["outcome"])?;
        registry.register(Box::new(runs.clone()))?;
        Ok(Self {
            clean: runs.with_label_values(&["clean"]),
            found: runs.with_label_values(&["found"]),
            failed: runs.with_label_values(&["failed"]),
            different_slots: gauge(
                "quorate_scrub_different_slots",
                "Slots in which the last scrub found nodes that hold different content",
            )?,
            faulty_nodes: gauge(
                "quorate_scrub_faulty_nodes",
                "Nodes that could not read what they hold, by the last scrub",
            )?,
            absent_nodes: gauge(
                "quorate_scrub_absent_nodes",
                "Voters that the last scrub did not look at",
            )?,
            finished_at: gauge(
                "quorate_scrub_finished_timestamp_seconds",
                "When the last scrub was done, in seconds since 1970; 0 before the first",
            )?,
        })
    }

    /// A scrub ended; `None` if it came to nothing.
    pub(crate) fn finished(&self, report: Option<&ScrubReport>) {
        let Some(report) = report else { return self.failed.inc() };
        if report.is_clean() {
            self.clean.inc();
        } else {
            self.found.inc();
        }
        let slots = |one: &Difference| i64::from(one.last_slot) - i64::from(one.first_slot) + 1;
        self.different_slots.set(report.differences.iter().map(slots).sum());
        let count = |is: fn(&crate::scrub::NodeScrub) -> bool| {
            report.nodes.iter().filter(|node| is(node)).count() as i64
        };
        self.faulty_nodes.set(count(|node| node.fault.is_some()));
        self.absent_nodes.set(count(|node| node.absent.is_some()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.finished_at.set(now.as_secs() as i64);
    }
}
