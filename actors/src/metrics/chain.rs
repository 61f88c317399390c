//! Metrics of the comparison with other nodes' logs.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use quorate_protocol::types::NodeId;

use super::gauge;
use crate::divergence::ChainReport;

/// What comparisons found. The alarm: `quorate_chain_different_nodes` above 0.
#[derive(Clone, Debug)]
pub struct ChainMetrics {
    equal: IntCounter,
    different: IntCounter,
    incomplete: IntCounter,
    different_nodes: IntGauge,
    compared_seq: IntGauge,
}

impl ChainMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "Comparisons of this node's log with all voters'";
        let runs = IntCounterVec::new(Opts::new("quorate_chain_checks_total", help), &["outcome"])?;
        registry.register(Box::new(runs.clone()))?;
        Ok(Self {
            equal: runs.with_label_values(&["equal"]),
            different: runs.with_label_values(&["different"]),
            incomplete: runs.with_label_values(&["incomplete"]),
            different_nodes: gauge(
                registry,
                "quorate_chain_different_nodes",
                "Voters whose log differs from what most hold, by the last comparison",
            )?,
            compared_seq: gauge(
                registry,
                "quorate_chain_compared_seq",
                "The position of the last comparison of logs",
            )?,
        })
    }

    pub(crate) fn compared(&self, report: &ChainReport, odd: &[NodeId]) {
        if !odd.is_empty() {
            self.different.inc();
        } else if report.nodes.iter().all(|node| node.holds.is_ok()) {
            self.equal.inc();
        } else {
            self.incomplete.inc();
        }
        self.different_nodes.set(odd.len() as i64);
        self.compared_seq.set(i64::try_from(report.seq.0).unwrap_or(i64::MAX));
    }
}
