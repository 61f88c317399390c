//! An entry with its payload: what the journal stores and the log streams carry, byte for byte.

use bytes::Bytes;

use crate::types::{Chain, ClusterTime, EntryId, EntryKind};

/// One sealed entry of the log. Cheap to clone: the payload is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which entry.
    pub id: EntryId,
    /// What the payload is.
    pub kind: EntryKind,
    /// When the primary sealed it: the only clock that applying it may read.
    pub time: ClusterTime,
    /// Hash over the log up to and with this entry.
    pub chain: Chain,
    /// CRC32C of the payload.
    pub payload_crc: u32,
    /// For `Commands`: batches (see `command::batch`). For `Cluster`: a bincode `ClusterEntry`.
    /// Empty for `EpochStart`.
    pub payload: Bytes,
}
