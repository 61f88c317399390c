//! What one run measures.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use quorate_drill::history::{Outcome, UniqueWrite, Verdict, Violation};
use serde::Serialize;

/// One fault, and what clients saw of it. Times are in milliseconds, from when the order to break
/// the primary was given; `None` where it never happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Figures {
    /// The node that was broken.
    pub(super) node: u64,
    /// The node that led while the other was away.
    pub(super) successor: Option<u64>,
    /// Whether it leads alone, by `quorate recover`.
    pub(super) recovered: bool,
    /// Where the broken node's data stays, if it can't be put back.
    pub(super) kept_in: Option<PathBuf>,
    /// The longest time without an acknowledged write.
    pub(super) unavailable_ms: f64,
    /// Until a write was refused, or its connection broke or gave no reply.
    pub(super) first_refused_ms: Option<f64>,
    /// Until a node said that it leads.
    pub(super) new_primary_ms: Option<f64>,
    /// Until writes were acknowledged again.
    pub(super) first_acknowledged_ms: Option<f64>,
    /// From a client's first failure to its next acknowledged write; the slowest client's.
    pub(super) reconnect_ms: Option<f64>,
    pub(super) acknowledged: usize,
    pub(super) refused: usize,
    pub(super) in_doubt_present: usize,
    pub(super) in_doubt_absent: usize,
    /// Acknowledged, and not there afterwards.
    pub(super) lost: usize,
    /// Whatever else must not be: refused writes that happened, halves of transactions.
    pub(super) violations: Vec<String>,
    /// Operations on registers, and why no order of them explains what was read.
    pub(super) operations: usize,
    pub(super) not_linearizable: Option<String>,
}

/// Violations that are quoted; the rest is only counted.
const QUOTED_MAX: usize = 5;

impl Figures {
    /// The times that follow from what each writer was told.
    pub(super) fn measure(&mut self, writers: &[Vec<UniqueWrite>], struck: Instant) {
        let since = |at: Instant| ms(at.saturating_duration_since(struck));
        let mut acknowledged: Vec<Instant> =
            writers.iter().flatten().filter(|write| is_done(write)).map(|w| w.answered).collect();
        acknowledged.sort_unstable();
        let gaps = acknowledged.windows(2).filter(|pair| pair[1] > struck);
        if let Some(gap) = gaps.max_by_key(|pair| pair[1] - pair[0]) {
            self.unavailable_ms = ms(gap[1] - gap[0]);
            self.first_acknowledged_ms = Some(since(gap[1]));
        }
        let failed = |write: &&UniqueWrite| !is_done(write) && write.answered >= struck;
        self.first_refused_ms =
            writers.iter().flatten().filter(failed).map(|w| w.answered).min().map(since);
        let reconnect = |writes: &Vec<UniqueWrite>| {
            let lost = writes.iter().position(|write| failed(&write))?;
            let again = writes[lost..].iter().find(|write| is_done(write))?;
            Some(ms(again.answered - writes[lost].answered))
        };
        self.reconnect_ms = writers.iter().filter_map(reconnect).max_by(f64::total_cmp);
    }

    /// What became of the writes.
    pub(super) fn judge(&mut self, verdict: Verdict, violations: &[Violation]) {
        let is_loss = |violation: &&Violation| matches!(violation, Violation::AcknowledgedLost(_));
        self.lost = violations.iter().filter(is_loss).count();
        self.acknowledged = verdict.acknowledged + self.lost;
        self.refused = verdict.refused;
        self.in_doubt_present = verdict.unknown_present;
        self.in_doubt_absent = verdict.unknown_absent;
        let others = violations.iter().filter(|violation| !is_loss(violation));
        self.violations = others.map(|violation| format!("{violation:?}")).collect();
        let more = self.violations.len().saturating_sub(QUOTED_MAX);
        self.violations.truncate(QUOTED_MAX);
        if more > 0 {
            self.violations.push(format!("and {more} more"));
        }
    }

    /// Whether clients saw nothing that they must not see.
    pub(super) fn is_good(&self) -> bool {
        self.lost == 0 && self.violations.is_empty() && self.not_linearizable.is_none()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node-{} broken, ", self.node)?;
        match self.successor {
            Some(node) if self.recovered => write!(f, "node-{node} recovered alone, ")?,
            Some(node) => write!(f, "then node-{node}, ")?,
            None => write!(f, "no other primary meanwhile, ")?,
        }
        write!(f, "{:.0} ms without a write, {} lost", self.unavailable_ms, self.lost)
    }
}

fn is_done(write: &UniqueWrite) -> bool {
    matches!(write.outcome, Outcome::Done(_))
}

pub(super) fn ms(length: Duration) -> f64 {
    length.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use quorate_drill::history::count;
    use quorate_drill::resp::Value;

    use super::*;

    fn write(name: &str, answered: Instant, outcome: Outcome) -> UniqueWrite {
        UniqueWrite { pairs: vec![(name.to_owned(), "v".to_owned())], outcome, answered }
    }

    fn done() -> Outcome {
        Outcome::Done(Value::Simple("OK".to_owned()))
    }

    #[test]
    fn times_count_from_the_order_and_each_client_has_its_own_outage() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let refused = || Outcome::Refused("CLUSTERDOWN".to_owned());
        let writers = [
            vec![
                write("a", at(90), done()),
                write("b", at(110), Outcome::Lost("reset".to_owned())),
                write("c", at(500), refused()),
                write("d", at(700), done()),
            ],
            vec![
                write("e", at(105), done()),
                write("f", at(120), refused()),
                write("g", at(820), done()),
            ],
        ];
        let mut figures = Figures::default();
        figures.measure(&writers, at(100));
        assert!((figures.unavailable_ms - 595.0).abs() < 0.01, "{figures:?}");
        let whole = |time: Option<f64>| time.map(f64::round);
        assert_eq!(whole(figures.first_refused_ms), Some(10.0));
        assert_eq!(whole(figures.first_acknowledged_ms), Some(600.0));
        assert_eq!(whole(figures.reconnect_ms), Some(700.0), "the slower of the two");
    }

    #[test]
    fn a_lost_write_and_a_refused_one_that_happened_are_told_apart() {
        let now = Instant::now();
        let refused = Outcome::Refused("READONLY".to_owned());
        let writes = [
            write("a", now, done()),
            write("b", now, done()),
            write("c", now, refused),
            write("d", now, Outcome::InDoubt("INDOUBT".to_owned())),
        ];
        let store = [("a", "v"), ("c", "v")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let (verdict, violations) = count(&writes, &store.into());
        let mut figures = Figures::default();
        figures.judge(verdict, &violations);
        assert_eq!((figures.acknowledged, figures.lost, figures.in_doubt_absent), (2, 1, 1));
        assert_eq!(figures.violations.len(), 1, "{:?}", figures.violations);
        assert!(!figures.is_good());
    }
}
