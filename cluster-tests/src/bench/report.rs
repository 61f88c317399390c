//! The tables.

use std::fmt::Write as _;

use serde::Serialize;

use super::failover::FailoverRun;
use super::histogram::LoadResult;
use super::machine::Machine;

/// One system under one load, over all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// What was asked.
    pub load: String,
    /// Who was asked.
    pub system: String,
    /// One result per round.
    pub rounds: Vec<LoadResult>,
}

/// Everything that one run found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What it ran on.
    pub machine: Machine,
    /// Results in the order of the table.
    pub measured: Vec<Measured>,
    /// Failovers of Quorate.
    pub failovers: Vec<FailoverRun>,
    /// Requests a second that `redis-benchmark` reached, and this generator, on one load.
    pub cross_check: Option<(f64, f64)>,
}

impl Measured {
    /// The round with the median throughput.
    ///
    /// # Panics
    ///
    /// If there was no round.
    #[must_use]
    pub fn median(&self) -> LoadResult {
        let mut rounds = self.rounds.clone();
        rounds.sort_by(|a, b| a.ops.total_cmp(&b.ops));
        rounds[rounds.len() / 2]
    }

    fn spread(&self) -> (f64, f64) {
        let ops = self.rounds.iter().map(|round| round.ops);
        (ops.clone().fold(f64::INFINITY, f64::min), ops.fold(0.0, f64::max))
    }
}

impl Report {
    /// As Markdown.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "{} cores, {}, Linux {}; {}; Redis {}; 4 KiB write and fdatasync: p50 {:.3} ms, p99 {:.3} ms\n\n\
             | load | system | ops/s | lowest to highest round | p50 ms | p99 ms | max ms | errors | Quorate / it |\n\
             |---|---|---|---|---|---|---|---|---|\n",
            machine.cores,
            machine.processor,
            machine.kernel,
            machine.etcd,
            machine.redis,
            machine.sync_p50_ms,
            machine.sync_p99_ms
        );
        for measured in &self.measured {
            let median = measured.median();
            let (low, high) = measured.spread();
            let ratio = self
                .of("Quorate", &measured.load)
                .filter(|_| measured.system != "Quorate")
                .map_or_else(String::new, |ours| format!("{:.2}", ours.median().ops / median.ops));
            let _ = writeln!(
                text,
                "| {} | {} | {:.0} | {low:.0} to {high:.0} | {:.2} | {:.2} | {:.1} | {} | {ratio} |",
                measured.load,
                measured.system,
                median.ops,
                median.p50_ms,
                median.p99_ms,
                median.max_ms,
                measured.rounds.iter().map(|round| round.errors).sum::<u64>(),
            );
        }
        self.write_failovers(&mut text);
        if let Some((theirs, ours)) = self.cross_check {
            let _ = writeln!(
                text,
                "\nGenerator check, plain Redis `SET`, 50 connections: redis-benchmark {theirs:.0} ops/s, this one {ours:.0} ({:.2})",
                ours / theirs
            );
        }
        text
    }

    fn write_failovers(&self, text: &mut String) {
        if self.failovers.is_empty() {
            return;
        }
        let mut gaps: Vec<f64> = self.failovers.iter().map(|run| run.gap_ms).collect();
        gaps.sort_by(f64::total_cmp);
        let _ = writeln!(
            text,
            "\nNo confirmed write after `kill -9` of the primary, {} runs: p50 {:.0} ms, max {:.0} ms",
            gaps.len(),
            gaps[gaps.len() / 2],
            gaps[gaps.len() - 1]
        );
    }

    fn of(&self, system: &str, load: &str) -> Option<&Measured> {
        self.measured.iter().find(|one| one.system == system && one.load == load)
    }
}
