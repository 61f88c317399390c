//! Conditions of voters, and combinations of them.

/// What became of one voter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// It runs and is reached.
    #[default]
    Up,
    /// It doesn't answer: stopped, killed or cut off. What it holds is not destroyed.
    Stopped,
    /// Its machine lost power and is back: what was only in memory is gone, and it says so when
    /// it votes (S5).
    PowerCut,
    /// Its disk is lost or damaged: it holds nothing, and neither votes nor counts (S6).
    DiskLost,
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Up, Self::Stopped, Self::PowerCut, Self::DiskLost];

    /// Whether `other` is at least as bad in every respect. A stop and a power cut are not to be
    /// compared: one destroys nothing, the other ends.
    #[must_use]
    pub fn is_within(self, other: Self) -> bool {
        self == other || self == Self::Up || other == Self::DiskLost
    }
}

/// How many voters are in which condition; the others are up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counts {
    /// Stopped.
    pub stopped: usize,
    /// Back after a power cut.
    pub power_cut: usize,
    /// Without their disks.
    pub disks_lost: usize,
}

impl Counts {
    /// Voters that are not up.
    #[must_use]
    pub fn failed(self) -> usize {
        self.stopped + self.power_cut + self.disks_lost
    }

    /// One voter more in this condition.
    #[must_use]
    pub fn with(self, condition: Condition) -> Self {
        let one = |is| usize::from(condition == is);
        Self {
            stopped: self.stopped + one(Condition::Stopped),
            power_cut: self.power_cut + one(Condition::PowerCut),
            disks_lost: self.disks_lost + one(Condition::DiskLost),
        }
    }

    /// Whether `other` is at least as bad: each failure here can be matched with one there that is
    /// the same, or the loss of a disk.
    #[must_use]
    pub fn is_within(self, other: Self) -> bool {
        let excess = self.stopped.saturating_sub(other.stopped)
            + self.power_cut.saturating_sub(other.power_cut)
            + self.disks_lost;
        excess <= other.disks_lost
    }

    /// All counts over so many voters.
    pub(super) fn all(voters: usize) -> impl Iterator<Item = Self> {
        (0..=voters).flat_map(move |stopped| {
            (0..=voters - stopped).flat_map(move |power_cut| {
                (0..=voters - stopped - power_cut).map(move |disks_lost| Self {
                    stopped,
                    power_cut,
                    disks_lost,
                })
            })
        })
    }
}

/// A combination of failures: what became of the primary, and of how many others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Failures {
    /// The voter that was primary when the first failure happened.
    pub primary: Condition,
    /// The other voters.
    pub others: Counts,
}

impl Failures {
    /// The counts over all voters.
    #[must_use]
    pub fn total(self) -> Counts {
        self.others.with(self.primary)
    }

    /// Whether `other` is at least as bad, with the same primary.
    pub(super) fn is_within(self, other: Self) -> bool {
        self.primary.is_within(other.primary) && self.others.is_within(other.others)
    }

    /// Every combination, but for which of the other voters it hits.
    pub(super) fn all(voters: usize) -> impl Iterator<Item = Self> {
        Condition::ALL.into_iter().flat_map(move |primary| {
            Counts::all(voters - 1).map(move |others| Self { primary, others })
        })
    }

    /// How many ways there are to choose the others.
    pub(super) fn ways(self, voters: usize) -> u64 {
        let Counts { stopped, power_cut, disks_lost } = self.others;
        let others = voters - 1;
        choose(others, stopped)
            * choose(others - stopped, power_cut)
            * choose(others - stopped - power_cut, disks_lost)
    }
}

fn choose(of: usize, count: usize) -> u64 {
    (0..count).fold(1, |ways, index| ways * (of - index) as u64 / (index as u64 + 1))
}
