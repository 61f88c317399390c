//! Durability policies.
use bincode::{Decode, Encode};
/// How many voters a clause asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Threshold {
    /// So many copies.
    Count(u8),
    /// More than half of the voters.
    Majority,
    /// Every voter.
    All,
}
/// When a write is acknowledged: at most one clause for each level, at least one in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Policy {
    /// Copies on disk.
    pub persisted: Option<Threshold>,
    /// Copies in memory or on disk.
    pub in_memory: Option<Threshold>,
}
