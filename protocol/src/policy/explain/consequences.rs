//! What a combination of failures comes to, by the rules that decide it in a running cluster.

use super::{Counts, Failures};
use crate::policy::NormalForm;
use crate::policy::explain::Condition;

/// What a combination of failures comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Consequences {
    /// Whether a write that was acknowledged with the fewest copies that the policy asks for may
    /// have none left.
    pub loses_data: bool,
    /// Whether the primary goes on without an election.
    pub primary_stays: bool,
    /// Whether the voters that are left can elect a primary.
    pub elects: bool,
    /// Whether the policy can be met by the voters that are left.
    pub meets_policy: bool,
}

impl Consequences {
    /// Whether there is a primary, the same or another: linearizable reads are served.
    #[must_use]
    pub fn reads(self) -> bool {
        self.primary_stays || self.elects
    }

    /// Whether writes are acknowledged.
    #[must_use]
    pub fn writes(self) -> bool {
        self.reads() && self.meets_policy
    }
}

impl NormalForm {
    /// What these failures come to.
    ///
    /// # Panics
    /// If there are more failures than voters.
    #[must_use]
    pub fn after(&self, failures: &Failures) -> Consequences {
        let counts = failures.total();
        let up = self.up(counts);
        Consequences {
            loses_data: self.loses(counts),
            // S7 and S11: it never stopped, and reaches every set that could elect another.
            primary_stays: failures.primary == Condition::Up && up >= self.sealing_copies(),
            elects: self.can_elect(counts),
            meets_policy: up >= self.copies,
        }
    }

    /// Whether the copies of an acknowledged write may all be among what was destroyed: those on
    /// disk with their disks, the others with a disk or a power cut.
    pub(super) fn loses(&self, counts: Counts) -> bool {
        counts.disks_lost >= self.persisted && counts.disks_lost + counts.power_cut >= self.copies
    }

    /// S3 and S5, with every voter that is up voting.
    pub(super) fn can_elect(&self, counts: Counts) -> bool {
        let up = self.up(counts);
        self.elects(up, up - counts.power_cut)
    }

    /// Voters that answer.
    fn up(&self, counts: Counts) -> usize {
        self.voters - counts.stopped - counts.disks_lost
    }
}
