//! Writes of values that no other write uses: afterwards the store itself tells which of them
//! happened.

use std::collections::HashMap;
use std::fmt;
use std::time::Instant;

use super::Outcome;

/// One command that set one or more keys, each written by no other command.
#[derive(Clone, Debug)]
pub struct UniqueWrite {
    /// The keys with their values, set by one command.
    pub pairs: Vec<(String, String)>,
    /// How it ended.
    pub outcome: Outcome,
    /// When it ended.
    pub answered: Instant,
}

/// Something that the store must not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Confirmed, and not there.
    AcknowledgedLost(String),
    /// Refused, and there all the same.
    RefusedPresent(String),
    /// Some keys of one command are there, others not.
    Torn(String),
    /// A key holds a value that nobody wrote to it.
    Foreign(String),
}

/// Counts of a judged history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Confirmed writes, all present.
    pub acknowledged: usize,
    /// Refused writes, all absent.
    pub refused: usize,
    /// Writes of unknown outcome that turned out to be present.
    pub unknown_present: usize,
    /// Writes of unknown outcome that turned out to be absent.
    pub unknown_absent: usize,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} acknowledged, {} refused, {} in doubt (of them {} present)",
            self.acknowledged,
            self.refused,
            self.unknown_present + self.unknown_absent,
            self.unknown_present
        )
    }
}

/// Compares what writers were told with what the store holds.
///
/// # Errors
///
/// Every violation found.
#[allow(clippy::implicit_hasher)]
pub fn judge(
    writes: &[UniqueWrite],
    store: &HashMap<String, String>,
) -> Result<Verdict, Vec<Violation>> {
    let (verdict, violations) = count(writes, store);
    if violations.is_empty() { Ok(verdict) } else { Err(violations) }
}

/// The same, with the counts of what is true beside what is not.
#[allow(clippy::implicit_hasher)]
#[must_use]
pub fn count(writes: &[UniqueWrite], store: &HashMap<String, String>) -> (Verdict, Vec<Violation>) {
    let mut verdict = Verdict::default();
    let mut violations = Vec::new();
    for write in writes {
        let name = || format!("{:?} ({:?})", write.pairs, write.outcome);
        let mut present = 0;
        for (key, value) in &write.pairs {
            match store.get(key) {
                Some(found) if found == value => present += 1,
                Some(found) => violations.push(Violation::Foreign(format!("{key}={found}"))),
                None => {}
            }
        }
        if present != 0 && present != write.pairs.len() {
            violations.push(Violation::Torn(name()));
            continue;
        }
        match (&write.outcome, present > 0) {
            (Outcome::Done(_), true) => verdict.acknowledged += 1,
            (Outcome::Done(_), false) => violations.push(Violation::AcknowledgedLost(name())),
            (Outcome::Refused(_), false) => verdict.refused += 1,
            (Outcome::Refused(_), true) => violations.push(Violation::RefusedPresent(name())),
            (Outcome::InDoubt(_) | Outcome::Lost(_), true) => verdict.unknown_present += 1,
            (Outcome::InDoubt(_) | Outcome::Lost(_), false) => verdict.unknown_absent += 1,
        }
    }
    (verdict, violations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::Value;

    fn write(keys: &[&str], outcome: Outcome) -> UniqueWrite {
        let pairs = keys.iter().map(|key| ((*key).to_owned(), format!("of-{key}"))).collect();
        UniqueWrite { pairs, outcome, answered: Instant::now() }
    }

    fn done() -> Outcome {
        Outcome::Done(Value::Simple("OK".into()))
    }

    fn store(keys: &[&str]) -> HashMap<String, String> {
        keys.iter().map(|key| ((*key).to_owned(), format!("of-{key}"))).collect()
    }

    #[test]
    fn a_true_history_is_accepted() {
        let writes = [
            write(&["a"], done()),
            write(&["b", "c"], Outcome::InDoubt("INDOUBT".into())),
            write(&["d", "e"], Outcome::Lost("reset".into())),
            write(&["f"], Outcome::Refused("CLUSTERDOWN".into())),
        ];
        let verdict = judge(&writes, &store(&["a", "b", "c"])).expect("true");
        assert_eq!(
            verdict,
            Verdict { acknowledged: 1, refused: 1, unknown_present: 1, unknown_absent: 1 }
        );
    }

    #[test]
    fn each_kind_of_lie_is_found() {
        let found = |writes: &[UniqueWrite], keys: &[&str]| {
            judge(writes, &store(keys)).expect_err("must be found").remove(0)
        };
        assert!(matches!(found(&[write(&["a"], done())], &[]), Violation::AcknowledgedLost(_)));
        let refused = write(&["a"], Outcome::Refused("READONLY".into()));
        assert!(matches!(found(&[refused], &["a"]), Violation::RefusedPresent(_)));
        let torn = write(&["a", "b"], Outcome::Lost("reset".into()));
        assert!(matches!(found(&[torn], &["b"]), Violation::Torn(_)));
        let other = HashMap::from([("a".to_owned(), "of-b".to_owned())]);
        let violations = judge(&[write(&["a"], done())], &other).expect_err("foreign value");
        assert!(matches!(violations[0], Violation::Foreign(_)));
    }
}
