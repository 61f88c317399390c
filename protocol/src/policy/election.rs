//! The normal form of a policy, and what follows from it for elections and for sealed entries.

use super::Policy;

/// A policy over a number of voters, as counts. `persisted <= copies`, both at most `voters`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NormalForm {
    /// Voters in the configuration (N).
    pub voters: usize,
    /// Copies on disk (k); 0 for policies that speak of memory alone.
    pub persisted: usize,
    /// Copies at least in memory (m); those on disk are among them.
    pub copies: usize,
}

impl Policy {
    /// Reduces the policy to counts over so many voters.
    #[must_use]
    pub fn normal_form(&self, voters: usize) -> NormalForm {
        let persisted = self.persisted.map_or(0, |threshold| threshold.copies(voters));
        let in_memory = self.in_memory.map_or(0, |threshold| threshold.copies(voters));
        NormalForm { voters, persisted, copies: persisted.max(in_memory) }
    }
}

impl NormalForm {
    /// More than half of the voters.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.voters / 2 + 1
    }

    /// S3: whether `votes` votes, `intact` of them without memory loss, suffice to lead. They do
    /// when they are a majority and no set of holders that ever met the policy can be missed,
    /// even if every voter with memory loss forgot what it had only in memory.
    #[must_use]
    pub fn elects(&self, votes: usize, intact: usize) -> bool {
        votes >= self.majority()
            && (votes + self.persisted > self.voters || intact + self.copies > self.voters)
    }

    /// S10's `b(C)`: the smallest number of voters that meets every set able to elect. An entry
    /// persisted on so many can't be missed by a later winner.
    #[must_use]
    pub fn sealing_copies(&self) -> usize {
        self.copies.min(self.voters - self.majority() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Threshold;

    fn subsets(voters: usize) -> impl Iterator<Item = u32> {
        0..(1u32 << voters)
    }

    /// The rule against the definition: a vote set is safe if and only if it meets, for every
    /// set of holders that satisfies the policy, a voter that still has the entry.
    #[test]
    fn election_rule_equals_brute_force_over_all_holder_sets() {
        let mut cases = 0;
        for voters in 1..=6usize {
            for copies in 1..=voters {
                for persisted in 0..=copies {
                    let form = NormalForm { voters, persisted, copies };
                    for (lost, votes) in
                        subsets(voters).flat_map(|a| subsets(voters).map(move |s| (a, s)))
                    {
                        let elects = form.elects(
                            votes.count_ones() as usize,
                            (votes & !lost).count_ones() as usize,
                        );
                        let majority = votes.count_ones() as usize >= form.majority();
                        assert_eq!(elects, majority && never_misses(form, lost, votes));
                        cases += 1;
                    }
                }
            }
        }
        assert!(cases > 100_000, "only {cases} cases");
    }

    fn never_misses(form: NormalForm, lost: u32, votes: u32) -> bool {
        subsets(form.voters).filter(|m| m.count_ones() as usize == form.copies).all(|memory| {
            subsets(form.voters)
                .filter(|p| p & !memory == 0 && p.count_ones() as usize == form.persisted)
                .all(|disk| votes & memory & !lost != 0 || votes & disk != 0)
        })
    }

    #[test]
    fn sealed_entries_meet_every_electing_set() {
        for voters in 1..=6usize {
            for copies in 1..=voters {
                for persisted in 0..=copies {
                    let form = NormalForm { voters, persisted, copies };
                    let sealed = form.sealing_copies();
                    // An electing set has at least so many voters, whatever the memory losses.
                    let smallest = (1..=voters).find(|s| form.elects(*s, *s)).unwrap_or(voters + 1);
                    assert!(sealed + smallest > voters, "{form:?}");
                    assert!(sealed == 1 || sealed - 1 + smallest <= voters, "{form:?} not least");
                }
            }
        }
    }

    #[test]
    fn presets_on_three_voters() {
        let form = |policy: Policy| policy.normal_form(3);
        // By arithmetic: `local` needs all three votes, so it has no automatic failover.
        assert!(!form(Policy::LOCAL).elects(2, 2));
        assert!(form(Policy::LOCAL).elects(3, 0));
        assert!(form(Policy::MAJORITY).elects(2, 0));
        assert!(form(Policy::HYBRID).elects(2, 2));
        assert!(!form(Policy::HYBRID).elects(2, 1));
        assert!(!form(Policy::MEMORY).elects(3, 1));
        assert_eq!(form(Policy::LOCAL).sealing_copies(), 1);
        for policy in [Policy::MEMORY, Policy::HYBRID, Policy::MAJORITY, Policy::ALL] {
            assert_eq!(form(policy).sealing_copies(), 2);
        }
        assert!(!Policy::MAJORITY.needs_memory(3));
        assert!(Policy::HYBRID.needs_memory(3));
        let silly =
            Policy { persisted: Some(Threshold::All), in_memory: Some(Threshold::Count(1)) };
        assert!(!silly.needs_memory(3));
    }
}
