//! Identifiers and positions. Each is a type of its own, so that a count can't stand for a
//! position nor an epoch for a sequence number.

use std::fmt;

use bincode::{Decode, Encode};

macro_rules! newtype_u64 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

macro_rules! newtype_u128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:032x})"), self.0)
            }
        }
    };
}

newtype_u64!(
    /// A node's number: chosen by the operator, at least 1, never reused.
    NodeId
);
newtype_u64!(
    /// How many times this node has started; bumped and synced before the first message of a
    /// start, so that an acknowledgement of an earlier life can't be taken for a current one.
    Incarnation
);
newtype_u64!(
    /// A primary's tenure (Raft's term). At most one primary exists per epoch.
    Epoch
);
newtype_u64!(
    /// A position in the log. The first entry is 1; 0 is "before the first entry".
    Seq
);
newtype_u64!(
    /// Counts lossy recoveries (S12). A lower one is refused by every node of a higher one.
    Generation
);
newtype_u64!(
    /// Counts rewrites of a node's log tail: bumped whenever entries are cut. A completion that
    /// carries an older branch speaks of bytes that may be gone (S8).
    Branch
);
newtype_u64!(
    /// Microseconds on a node's monotonic clock that includes suspend. Comparable only with
    /// readings of the same node.
    MonoTime
);
newtype_u64!(
    /// Milliseconds since 1970, as agreed by the cluster: never goes back.
    ClusterTime
);
newtype_u128!(
    /// Random, written when a data directory is created: tells a node's disk from a new, empty
    /// one under the same node id (S6).
    DiskId
);
newtype_u128!(
    /// Random, chosen when the cluster is formed.
    ClusterId
);
newtype_u128!(
    /// Hash over all records of the log up to one entry. Two logs with the same chain at a
    /// position hold the same entries up to it.
    Chain
);

impl Seq {
    /// Before the first entry.
    pub const ZERO: Self = Self(0);

    /// The highest that is taken from a peer, as for [`Epoch::MAX`].
    pub const MAX: Self = Self(u64::MAX >> 1);

    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The position before this one; `ZERO` stays `ZERO`.
    #[must_use]
    pub fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl Epoch {
    /// Before any primary.
    pub const ZERO: Self = Self(0);

    /// The highest that is taken from a peer: far beyond any that elections lead to, and far from
    /// the end of the numbers, where there would be no next one.
    pub const MAX: Self = Self(u64::MAX >> 1);

    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl MonoTime {
    /// This moment plus a number of microseconds.
    #[must_use]
    pub fn plus(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Microseconds from `earlier` to this moment; 0 if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Names one entry of the log for ever: no two different entries share an id. The order is that
/// of votes: epoch first, then position (S2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct EntryId {
    /// The tenure in which a primary sealed the entry.
    pub epoch: Epoch,
    /// Its position.
    pub seq: Seq,
}

impl EntryId {
    /// Before the first entry.
    pub const ZERO: Self = Self { epoch: Epoch::ZERO, seq: Seq::ZERO };

    /// The id of the entry at `seq`, sealed in `epoch`.
    #[must_use]
    pub fn new(epoch: Epoch, seq: Seq) -> Self {
        Self { epoch, seq }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[repr(u8)]
pub enum EntryKind {
    /// Client commands: one or more batches.
    Commands = 1,
    /// The first entry of every primary's tenure.
    EpochStart = 2,
    /// Members and policy (S10).
    Cluster = 3,
    /// An audited control event, such as a finished backup.
    Mark = 4,
}

impl EntryKind {
    /// The kind with this number on disk and on the wire, if this version knows it.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Commands),
            2 => Some(Self::EpochStart),
            3 => Some(Self::Cluster),
            4 => Some(Self::Mark),
            _ => None,
        }
    }
}
