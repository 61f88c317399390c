//! All runs of a drill, as a table or as JSON.

use serde_json::{Value, json};

use super::cluster::DrillCluster;
use super::fault::Fault;
use super::figures::Figures;
use super::run::FAILOVER_LIMIT;
use crate::failure::Failure;
use crate::output::table;

/// What was done, and what each run saw.
pub(super) struct Report {
    cluster: String,
    policy: String,
    fault: String,
    reply_timeout_ms: u64,
    pub(super) runs: Vec<Figures>,
}

type Time = (&'static str, &'static str, fn(&Figures) -> Option<f64>);

/// Name in tables, name in JSON, and where it is.
const TIMES: [Time; 5] = [
    ("no acknowledged write", "unavailable_ms", |run| Some(run.unavailable_ms)),
    ("to the first refused write", "first_refused_ms", |run| run.first_refused_ms),
    ("to a new primary", "new_primary_ms", |run| run.new_primary_ms),
    ("to the first acknowledged write", "first_acknowledged_ms", |run| run.first_acknowledged_ms),
    ("slowest client reconnects in", "reconnect_ms", |run| run.reconnect_ms),
];

impl Report {
    pub(super) fn new(cluster: &DrillCluster, fault: &Fault, reply_timeout_ms: u64) -> Self {
        Self {
            cluster: cluster.name.clone(),
            policy: cluster.policy.clone(),
            fault: fault.name(),
            reply_timeout_ms,
            runs: Vec::new(),
        }
    }

    fn sum(&self, count: fn(&Figures) -> usize) -> usize {
        self.runs.iter().map(count).sum()
    }

    fn totals(&self) -> [(&'static str, usize); 7] {
        [
            ("acknowledged", self.sum(|run| run.acknowledged)),
            ("refused", self.sum(|run| run.refused)),
            ("in_doubt", self.sum(|run| run.in_doubt_present + run.in_doubt_absent)),
            ("in_doubt_present", self.sum(|run| run.in_doubt_present)),
            ("in_doubt_absent", self.sum(|run| run.in_doubt_absent)),
            ("lost", self.sum(|run| run.lost)),
            ("violations", self.sum(|run| run.violations.len())),
        ]
    }

    fn linearizable(&self) -> bool {
        self.runs.iter().all(|run| run.not_linearizable.is_none())
    }

    /// One object: what was done, all runs, and figures over them.
    pub(super) fn to_json(&self) -> Value {
        let mut summary = json!({ "linearizable": self.linearizable() });
        for (_, name, time) in TIMES {
            summary[name] = match Spread::of(self.runs.iter().filter_map(time)) {
                Some(Spread { p50, p99, max }) => json!({ "p50": p50, "p99": p99, "max": max }),
                None => Value::Null,
            };
        }
        for (name, count) in self.totals() {
            summary[name] = count.into();
        }
        json!({
            "cluster": self.cluster,
            "policy": self.policy,
            "fault": self.fault,
            "reply_timeout_ms": self.reply_timeout_ms,
            "passed": self.runs.iter().all(Figures::is_good),
            "summary": summary,
            "runs": self.runs,
        })
    }

    /// For people.
    pub(super) fn to_table(&self) -> String {
        let Self { cluster, policy, fault, reply_timeout_ms, runs } = self;
        let count = runs.len();
        let times = if count == 1 { "run" } else { "runs" };
        let mut rows = vec![["MILLISECONDS", "P50", "P99", "MAX"].map(str::to_owned).to_vec()];
        for (name, _, time) in TIMES {
            let cells = match Spread::of(runs.iter().filter_map(time)) {
                Some(Spread { p50, p99, max }) => [p50, p99, max].map(|ms| format!("{ms:.0}")),
                None => ["-"; 3].map(str::to_owned),
            };
            rows.push([vec![name.to_owned()], cells.to_vec()].concat());
        }
        let [acknowledged, refused, in_doubt, present, absent, lost, _] =
            self.totals().map(|(_, count)| count);
        let operations = self.sum(|run| run.operations);
        let verdict = if self.linearizable() { "linearizable" } else { "NOT LINEARIZABLE" };
        let mut text = format!(
            "{cluster}, policy {policy}: {fault}, {count} {times}; clients wait {reply_timeout_ms} ms \
             for a reply\n\n{}\n\
             writes: {acknowledged} acknowledged, {refused} refused, {in_doubt} in doubt (later \
             found: {present} present, {absent} absent)\n\
             acknowledged and lost: {lost}\n\
             {operations} operations on registers: {verdict}\n",
            table(&rows)
        );
        let alone = runs.iter().filter(|run| run.successor.is_none()).count();
        if alone > 0 {
            text.push_str(&format!(
                "{alone} of {count}: no other node led within {FAILOVER_LIMIT:?}; then a killed \
                 primary was started again\n"
            ));
        }
        for (number, run) in (1..).zip(runs) {
            for violation in run.violations.iter().chain(&run.not_linearizable) {
                text.push_str(&format!("run {number}: {}\n", violation.trim_end()));
            }
        }
        text
    }

    /// What the exit code says.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        if self.runs.iter().all(Figures::is_good) {
            return Ok(());
        }
        let lost = self.sum(|run| run.lost);
        Err(Failure::Failed(match lost {
            0 => "clients saw what must not be".to_owned(),
            lost => format!("{lost} acknowledged writes are lost"),
        }))
    }
}

/// Percentiles by the nearest rank.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Spread {
    fn of(times: impl Iterator<Item = f64>) -> Option<Self> {
        let mut times: Vec<f64> = times.collect();
        times.sort_by(f64::total_cmp);
        let rank = |share: f64| {
            let rank = (share * times.len() as f64).ceil() as usize;
            times.get(rank.saturating_sub(1)).copied()
        };
        Some(Self { p50: rank(0.5)?, p99: rank(0.99)?, max: *times.last()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_seen() {
        assert_eq!(Spread::of([].into_iter()), None);
        let one = Spread { p50: 7.0, p99: 7.0, max: 7.0 };
        assert_eq!(Spread::of([7.0].into_iter()), Some(one));
        let many = Spread::of((1..=200).rev().map(f64::from));
        assert_eq!(many, Some(Spread { p50: 100.0, p99: 198.0, max: 200.0 }));
    }

    #[test]
    fn a_report_fails_with_what_was_lost() {
        let run = Figures { node: 1, lost: 3, acknowledged: 10, ..Figures::default() };
        let report = Report {
            cluster: "dev".to_owned(),
            policy: "persisted>=1".to_owned(),
            fault: "kill, wipe".to_owned(),
            reply_timeout_ms: 1_000,
            runs: vec![run, Figures::default()],
        };
        let failure = report.verdict().expect_err("a loss");
        assert_eq!(failure.to_string(), "3 acknowledged writes are lost");
        let json = report.to_json();
        assert_eq!(
            (json["passed"].as_bool(), json["summary"]["lost"].as_u64()),
            (Some(false), Some(3))
        );
        let table = report.to_table();
        assert!(table.contains("acknowledged and lost: 3"), "{table}");
        assert!(table.contains("2 of 2: no other node led within 10s"), "{table}");
    }
}
