//! Phase and steps of the start, read when they are scraped.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec, Opts};

use super::Metrics;
use crate::supervisor::{ColdStep, Lifecycle};

/// Reads the lifecycle when it is scraped.
pub(super) struct LifecycleCollector {
    lifecycle: Arc<Lifecycle>,
    phase: Gauge,
    cold_start: GaugeVec,
}

impl LifecycleCollector {
    pub(super) fn register(
        metrics: &Metrics,
        lifecycle: Arc<Lifecycle>,
    ) -> Result<(), prometheus::Error> {
        let help = "0 starting, 1 ready, 2 draining, 3 shutting down, 4 stopped";
        let phase = Gauge::new("quorate_phase", help)?;
        let help = "How long the steps of the start took that are done and were needed, and all";
        let cold_start = GaugeVec::new(Opts::new("quorate_cold_start_seconds", help), &["step"])?;
        metrics.register(Box::new(Self { lifecycle, phase, cold_start }))
    }
}

impl Collector for LifecycleCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.phase.desc().into_iter().chain(self.cold_start.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.phase.set(f64::from(self.lifecycle.phase() as u8));
        let steps = ColdStep::ALL.map(|step| (step.name(), self.lifecycle.took(step)));
        for (name, took) in steps.into_iter().chain([("total", self.lifecycle.total())]) {
            if let Some(took) = took {
                self.cold_start.with_label_values(&[name]).set(took.as_secs_f64());
            }
        }
        [self.phase.collect(), self.cold_start.collect()].concat()
    }
}
