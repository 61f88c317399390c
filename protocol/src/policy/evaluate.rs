//! Cursors to a position: which entries the policy is met for, and what it waits for.

use super::grammar::clause_text;
use super::{Level, Policy, Threshold};
use crate::mutants::mutant;
use crate::types::{NodeId, Seq};

/// One voter's cursors, as one consistent reading. A voter that is not in the view (not connected
/// in its current incarnation) is left out, never shown as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursors {
    /// Whose.
    pub node: NodeId,
    /// Highest position in memory; where it is below `persisted`, `persisted` counts.
    pub in_memory: Seq,
    /// Highest synced position.
    pub persisted: Seq,
}

impl Cursors {
    fn at(&self, level: Level) -> Seq {
        match level {
            Level::Persisted => self.persisted,
            Level::InMemory => self.in_memory.max(self.persisted),
        }
    }
}

/// What a policy says about a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evaluation {
    /// Met through `position`.
    Met {
        /// Highest position at which every clause is met.
        position: Seq,
        /// The cursor that keeps it from being higher.
        blocker: Blocker,
    },
    /// A clause asks for more voters than the view holds: nothing new can be met.
    Degraded(Unmet),
}

/// The lowest clause's deciding cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// The clause's level.
    pub level: Level,
    /// Whose cursor.
    pub node: NodeId,
}

/// A clause that the view is too small for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// The clause's level.
    pub level: Level,
    /// What it asks for.
    pub threshold: Threshold,
    /// Copies that it asks for.
    pub wanted: usize,
    /// Voters in the view.
    pub present: usize,
}

impl std::fmt::Display for Unmet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let clause = clause_text(self.level, self.threshold);
        write!(f, "{clause} needs {} voters, {} reachable", self.wanted, self.present)
    }
}

impl Policy {
    /// Judges a view: for each clause the count-th largest cursor at its level, over all clauses
    /// the minimum. `voters` is the number of voters in the configuration; `view` holds the
    /// primary and the voters that are connected, each once.
    #[must_use]
    pub fn evaluate(&self, voters: usize, view: &[Cursors]) -> Evaluation {
        let mut lowest: Option<(Seq, Blocker)> = None;
        for (level, threshold) in self.clauses() {
            let wanted = threshold.copies(voters);
            if wanted > view.len() {
                return Evaluation::Degraded(Unmet {
                    level,
                    threshold,
                    wanted,
                    present: view.len(),
                });
            }
            let (position, node) = nth_largest(view, level, wanted);
            if lowest.is_none_or(|(seq, _)| position < seq) {
                lowest = Some((position, Blocker { level, node }));
            }
        }
        let (position, blocker) = lowest.expect("a policy has at least one clause");
        Evaluation::Met { position, blocker }
    }

    /// Which of one voter's cursors had to move from where it was `before` to where it is in
    /// `view`, for the policy to be met at `seq`. `None` if neither had to.
    #[must_use]
    pub fn crossed(
        &self,
        voters: usize,
        view: &[Cursors],
        before: Cursors,
        seq: Seq,
    ) -> Option<Level> {
        let met_with = |cursors: Cursors| {
            let back = |one: &Cursors| if one.node == cursors.node { cursors } else { *one };
            let view: Vec<Cursors> = view.iter().map(back).collect();
            match self.evaluate(voters, &view) {
                Evaluation::Met { position, .. } => position >= seq,
                Evaluation::Degraded(_) => false,
            }
        };
        let after = *view.iter().find(|cursors| cursors.node == before.node)?;
        if met_with(before) {
            None
        } else if met_with(Cursors { in_memory: after.in_memory, ..before }) {
            Some(Level::InMemory)
        } else {
            Some(Level::Persisted)
        }
    }
}

/// The `copies`-th largest cursor: the highest position that so many voters hold. A plain sort:
/// scans that are cleverer have been wrong on unsorted input.
fn nth_largest(view: &[Cursors], level: Level, copies: usize) -> (Seq, NodeId) {
    let mut sorted: Vec<(Seq, NodeId)> =
        view.iter().map(|cursors| (cursors.at(level), cursors.node)).collect();
    mutant!(OpenraftUnsortedQuorum, (), sorted.sort_unstable_by(|a, b| b.cmp(a)));
    sorted[mutant!(OneCopyTooFew, copies.saturating_sub(2), copies - 1)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn threshold() -> impl Strategy<Value = Threshold> {
        prop_oneof![
            (1u8..=6).prop_map(Threshold::Count),
            Just(Threshold::Majority),
            Just(Threshold::All)
        ]
    }

    fn policy() -> impl Strategy<Value = Policy> {
        (proptest::option::of(threshold()), proptest::option::of(threshold()))
            .prop_filter("at least one clause", |(p, m)| p.is_some() || m.is_some())
            .prop_map(|(persisted, in_memory)| Policy { persisted, in_memory })
    }

    fn view() -> impl Strategy<Value = Vec<Cursors>> {
        proptest::collection::vec((0u64..12, 0u64..12), 1..=6).prop_map(|pairs| {
            pairs
                .into_iter()
                .enumerate()
                .map(|(index, (in_memory, persisted))| Cursors {
                    node: NodeId(index as u64 + 1),
                    in_memory: Seq(in_memory),
                    persisted: Seq(persisted),
                })
                .collect()
        })
    }

    /// Counts copies one position at a time, as the policy's words say.
    fn met_at(policy: Policy, voters: usize, view: &[Cursors], seq: Seq) -> bool {
        policy.clauses().all(|(level, threshold)| {
            let holders = view.iter().filter(|c| match level {
                Level::Persisted => c.persisted >= seq,
                Level::InMemory => c.in_memory >= seq || c.persisted >= seq,
            });
            holders.count() >= threshold.copies(voters)
        })
    }

    #[test]
    fn what_crosses_last_is_found() {
        let at = |node, in_memory, persisted| Cursors {
            node: NodeId(node),
            in_memory: Seq(in_memory),
            persisted: Seq(persisted),
        };
        // Policy, the view, where one of its nodes was before, what crossed 7.
        let table = [
            (Policy::MAJORITY, [at(1, 7, 7), at(2, 7, 7), at(3, 4, 4)], at(2, 7, 6), Some("disk")),
            (Policy::MAJORITY, [at(1, 7, 7), at(2, 7, 7), at(3, 4, 4)], at(1, 7, 6), Some("disk")),
            (Policy::MAJORITY, [at(1, 7, 7), at(2, 7, 7), at(3, 7, 7)], at(3, 6, 6), None),
            (Policy::MEMORY, [at(1, 7, 6), at(2, 7, 6), at(3, 4, 4)], at(2, 6, 6), Some("memory")),
            (Policy::HYBRID, [at(1, 7, 7), at(2, 7, 7), at(3, 4, 4)], at(2, 6, 6), Some("memory")),
            // A replica's disk may confirm before the primary's own.
            (Policy::HYBRID, [at(1, 7, 6), at(2, 7, 7), at(3, 4, 4)], at(2, 6, 6), Some("disk")),
            (Policy::HYBRID, [at(1, 7, 7), at(2, 7, 6), at(3, 4, 4)], at(1, 7, 6), Some("disk")),
            (Policy::ALL, [at(1, 7, 7), at(2, 7, 7), at(3, 9, 8)], at(3, 9, 5), Some("disk")),
        ];
        for (policy, view, before, crossed) in table {
            let found = policy.crossed(3, &view, before, Seq(7)).map(|level| match level {
                Level::InMemory => "memory",
                Level::Persisted => "disk",
            });
            assert_eq!(found, crossed, "{policy}: {view:?}, before {before:?}");
        }
        let alone = [at(1, 7, 7)];
        assert_eq!(Policy::LOCAL.crossed(3, &alone, at(2, 0, 0), Seq(7)), None, "not in the view");
    }

    proptest! {
        #[test]
        fn evaluation_equals_counting_holders(policy in policy(), view in view(), extra in 0usize..3) {
            let voters = view.len() + extra;
            let oracle = (0..=12).rev().map(Seq).find(|seq| met_at(policy, voters, &view, *seq));
            match policy.evaluate(voters, &view) {
                Evaluation::Met { position, blocker } => {
                    prop_assert_eq!(Some(position), oracle);
                    let cursors = view.iter().find(|c| c.node == blocker.node).unwrap();
                    prop_assert_eq!(cursors.at(blocker.level), position);
                }
                Evaluation::Degraded(unmet) => {
                    prop_assert_eq!(oracle, None);
                    prop_assert!(unmet.wanted > unmet.present);
                }
            }
        }
    }
}
