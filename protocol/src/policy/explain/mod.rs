//! What a policy promises, found by trying every combination of failures.
//!
//! A voter is up, stopped, back after a power cut, or its disk is lost ([`Condition`]). Voters are
//! interchangeable but for the primary, so a combination is its counts and what became of the
//! primary ([`Failures`]): a few hundred for seven voters instead of 4^7, each judged by the rules
//! that commits and elections follow themselves ([`NormalForm::after`]). What a person reads are
//! the smallest combinations that do harm and the largest that do not; all others follow, as more
//! damage never helps.
//!
//! - `failures`: conditions and their combinations, by how bad they are.
//! - `consequences`: what a combination of failures comes to.
//! - `sets`: the smallest and the largest combinations, and how many there are.
//! - `words`: a combination as a phrase.

mod consequences;
mod failures;
mod sets;
#[cfg(test)]
mod tests;
mod words;

pub use consequences::Consequences;
pub use failures::{Condition, Counts, Failures};
pub use sets::{Combinations, Explanation, FailureSet, PrimaryIn};

use super::{NormalForm, Policy};

impl Policy {
    /// Everything that follows from this policy on so many voters.
    #[must_use]
    pub fn explain(&self, voters: usize) -> Explanation {
        Explanation::of(self.normal_form(voters))
    }

    /// Why an operator should think twice, where a stronger policy is to be had: the loss of one
    /// voter, or a power cut of all, can take acknowledged writes along.
    #[must_use]
    pub fn weakness(&self, voters: usize) -> Option<Weakness> {
        let NormalForm { persisted, copies, .. } = self.normal_form(voters);
        if persisted == 0 {
            Some(Weakness::PowerCut { voters: copies })
        } else if copies == 1 && voters > 1 {
            Some(Weakness::OneVoter)
        } else {
            None
        }
    }
}

/// What makes a policy a weak choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// A single voter may hold the only copy.
    OneVoter,
    /// No copy needs to be on a disk: a power cut of so many voters may destroy all.
    PowerCut {
        /// Voters whose memory may hold the only copies.
        voters: usize,
    },
}

impl std::fmt::Display for Weakness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OneVoter => f.write_str(
                "an acknowledged write may be on one voter only: it is lost with that voter's \
                 disk, and no other voter takes over while the primary is down",
            ),
            Self::PowerCut { voters: 1 } => f.write_str(
                "an acknowledged write may be in the memory of one voter only: a power cut there \
                 loses it",
            ),
            Self::PowerCut { voters } => write!(
                f,
                "an acknowledged write may be in memory only: a power cut of {voters} voters, or \
                 of all, loses it"
            ),
        }
    }
}
