//! How busy the stages of a write are, so that a live node can be looked at without a profiler.

use std::fmt;
use std::time::{Duration, Instant};

use prometheus::{Counter, IntCounter, Opts, Registry};

/// The stages, in the order in which a write goes through them.
#[derive(Clone, Debug)]
pub struct Stages {
    /// The quorum actor: seals entries and drives replication.
    pub sequencing: Stage,
    /// The journal's thread.
    pub journal: Stage,
    /// The apply loop's thread.
    pub apply: Stage,
    /// The durability gate.
    pub gate: Stage,
    started: Instant,
}

/// One stage: one thread or task, that works in rounds.
#[derive(Clone, Debug)]
pub struct Stage {
    name: &'static str,
    busy_seconds: Counter,
    busy: IntCounter,
    idle: IntCounter,
}

impl Stages {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            sequencing: Stage::new(registry, "sequencing")?,
            journal: Stage::new(registry, "journal")?,
            apply: Stage::new(registry, "apply")?,
            gate: Stage::new(registry, "gate")?,
            started: Instant::now(),
        })
    }
}

impl Stage {
    fn new(registry: &Registry, name: &'static str) -> Result<Self, prometheus::Error> {
        let seconds = Opts::new("quorate_stage_busy_seconds_total", "Time that a stage works");
        let busy_seconds = Counter::with_opts(seconds.const_label("stage", name))?;
        registry.register(Box::new(busy_seconds.clone()))?;
        let rounds = |kind| {
            let help = "Rounds of a stage: with work, and turns at which nothing waited for it";
            let options = Opts::new("quorate_stage_rounds_total", help)
                .const_label("stage", name)
                .const_label("kind", kind);
            let metric = IntCounter::with_opts(options)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        Ok(Self { name, busy_seconds, busy: rounds("busy")?, idle: rounds("idle")? })
    }

    /// A round with work in it.
    pub fn busy(&self, took: Duration) {
        self.busy_seconds.inc_by(took.as_secs_f64());
        self.busy.inc();
    }

    /// A turn at which there was nothing to do.
    pub fn idle(&self) {
        self.idle.inc();
    }
}

impl fmt::Display for Stages {
    /// The share of its life that each stage was busy, for the log of a stop.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.started.elapsed().as_secs_f64().max(f64::EPSILON);
        let stages = [&self.sequencing, &self.journal, &self.apply, &self.gate];
        for (index, stage) in stages.into_iter().enumerate() {
            let percent = 100.0 * stage.busy_seconds.get() / seconds;
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{} {percent:.1} %", stage.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn busy_and_idle_rounds_are_counted_by_stage() {
        let metrics = Metrics::new().expect("names are unique");
        metrics.stages.gate.busy(Duration::from_millis(5));
        metrics.stages.gate.idle();
        metrics.stages.gate.idle();
        let text = metrics.render().expect("text");
        for line in [
            "quorate_stage_busy_seconds_total{stage=\"gate\"} 0.005",
            "quorate_stage_rounds_total{kind=\"busy\",stage=\"gate\"} 1",
            "quorate_stage_rounds_total{kind=\"idle\",stage=\"gate\"} 2",
            "quorate_stage_rounds_total{kind=\"busy\",stage=\"journal\"} 0",
        ] {
            assert!(text.contains(line), "{line} is missing:\n{text}");
        }
        let stages = metrics.stages.to_string();
        assert!(stages.starts_with("sequencing 0.0 %, journal 0.0 %"), "{stages}");
    }
}
