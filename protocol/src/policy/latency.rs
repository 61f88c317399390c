//! How long an entry waits until a policy is met, from when each copy of it was there.
//!
//! A policy waits for the count-th copy of *each* entry, whichever node it is on. Medians of the
//! single nodes say little about that: of two replicas that are slow in turn, one is fast each
//! time. So the order statistic is taken entry by entry, and the median over those.

use super::{Level, Policy};

/// When one voter's copies of one entry were there, in microseconds since the entry was sealed;
/// `None` where they were not, for as long as the entry was watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyTimes {
    /// Copy in memory; a copy on disk that was there earlier counts as one.
    pub in_memory_us: Option<u32>,
    /// Copy on disk.
    pub persisted_us: Option<u32>,
}

impl CopyTimes {
    fn at(self, level: Level) -> Option<u32> {
        match level {
            Level::Persisted => self.persisted_us,
            Level::InMemory => match (self.in_memory_us, self.persisted_us) {
                (Some(in_memory), Some(persisted)) => Some(in_memory.min(persisted)),
                (in_memory, persisted) => in_memory.or(persisted),
            },
        }
    }
}

impl Policy {
    /// When this entry met the policy, in microseconds since it was sealed; `None` where it did
    /// not. `copies` has one element for each voter that was watched, of `voters` in all.
    #[must_use]
    pub fn met_after(&self, voters: usize, copies: &[CopyTimes]) -> Option<u32> {
        let mut met = 0;
        for (level, threshold) in self.clauses() {
            let mut times: Vec<u32> = copies.iter().filter_map(|copy| copy.at(level)).collect();
            times.sort_unstable();
            met = met.max(*times.get(threshold.copies(voters) - 1)?);
        }
        Some(met)
    }
}

/// The median of waits, each with the number of writes that it stands for; an entry that never met
/// the policy (`None`) waited longest. `None` where there is no entry, or the median is such a one.
#[must_use]
pub fn predicted_median(mut waits: Vec<(Option<u32>, u64)>) -> Option<u32> {
    waits.sort_unstable_by_key(|(wait, _)| wait.map_or((1, 0), |wait| (0, wait)));
    let total: u64 = waits.iter().map(|(_, weight)| weight).sum();
    let mut below = 0;
    for (wait, weight) in waits {
        below += weight;
        if 2 * below >= total {
            return wait;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Cursors, Evaluation};
    use crate::types::{NodeId, Seq};

    fn copy(in_memory: u32, persisted: u32) -> CopyTimes {
        CopyTimes { in_memory_us: Some(in_memory), persisted_us: Some(persisted) }
    }

    /// A policy is met at the first moment at which the cursors, had they been read then, met it.
    #[test]
    fn the_wait_ends_when_the_cursors_meet_the_policy() {
        let entry = Seq(1);
        let policies =
            ["local", "memory", "hybrid", "majority", "all", "persisted>=2 && in_memory>=3"];
        for seed in 0..200_u32 {
            let time = |salt: u32| (seed.wrapping_mul(2_654_435_761) >> (salt * 5)) % 20;
            let copies: Vec<CopyTimes> =
                (0..3).map(|n| copy(time(n), time(n) + time(n + 3))).collect();
            for policy in policies.map(|text| Policy::parse(text, 3).expect(text)) {
                let met = (0..100).find(|now| {
                    let cursor = |there: u32| if there <= *now { entry } else { Seq::ZERO };
                    let view: Vec<Cursors> = copies
                        .iter()
                        .zip(1..)
                        .map(|(copy, node)| Cursors {
                            node: NodeId(node),
                            in_memory: cursor(copy.in_memory_us.expect("set")),
                            persisted: cursor(copy.persisted_us.expect("set")),
                        })
                        .collect();
                    matches!(policy.evaluate(3, &view), Evaluation::Met { position, .. } if position == entry)
                });
                assert_eq!(policy.met_after(3, &copies), met, "{policy} {copies:?}");
            }
        }
    }

    #[test]
    fn copies_that_never_come_are_waited_for_for_ever() {
        let gone = CopyTimes::default();
        let copies = [copy(1, 5), copy(2, 9), gone];
        assert_eq!(Policy::MAJORITY.met_after(3, &copies), Some(9));
        assert_eq!(Policy::ALL.met_after(3, &copies), None);
        // A replica may report its disk alone: the copy was in memory by then at the latest.
        let silent = CopyTimes { in_memory_us: None, persisted_us: Some(7) };
        assert_eq!(Policy::MEMORY.met_after(3, &[copy(1, 5), silent]), Some(7));
    }

    #[test]
    fn the_median_is_of_writes_and_not_of_entries() {
        assert_eq!(predicted_median(Vec::new()), None);
        assert_eq!(predicted_median(vec![(Some(1), 1), (Some(2), 1), (Some(9), 7)]), Some(9));
        assert_eq!(predicted_median(vec![(None, 2), (Some(4), 3)]), Some(4));
        assert_eq!(predicted_median(vec![(None, 3), (Some(4), 2)]), None);
    }
}
