//! An entry with its payload: what the journal stores and the log streams carry, byte for byte.

use bytes::{Bytes, BytesMut};

use crate::record::{PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES, RecordFault, RecordHeader};
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

impl Entry {
    /// Seals the entry that comes after the one whose chain is `prev`.
    ///
    /// # Panics
    /// If the payload is larger than [`PAYLOAD_BYTES_MAX`]: whoever builds it bounds it.
    #[must_use]
    pub fn seal(
        id: EntryId,
        kind: EntryKind,
        time: ClusterTime,
        prev: Chain,
        payload: Bytes,
    ) -> Self {
        let payload_crc = crc32c::crc32c(&payload);
        Self::seal_with_crc(id, kind, time, prev, payload, payload_crc)
    }

    /// As [`Entry::seal`], for a payload whose CRC32C is known already, so that the consensus
    /// thread reads no payload bytes. A wrong CRC makes an entry that no one accepts.
    ///
    /// # Panics
    /// If the payload is larger than [`PAYLOAD_BYTES_MAX`].
    #[must_use]
    pub fn seal_with_crc(
        id: EntryId,
        kind: EntryKind,
        time: ClusterTime,
        prev: Chain,
        payload: Bytes,
        payload_crc: u32,
    ) -> Self {
        let mut entry = Self { id, kind, time, chain: Chain(0), payload_crc, payload };
        entry.chain = entry.header().chain_after(prev);
        entry
    }

    /// Puts a decoded header and its payload together, checking length and CRC32C.
    ///
    /// # Errors
    /// [`RecordFault::PayloadLength`] or [`RecordFault::PayloadChecksum`].
    pub fn from_parts(header: &RecordHeader, payload: Bytes) -> Result<Self, RecordFault> {
        if payload.len() != header.payload_len as usize {
            return Err(RecordFault::PayloadLength {
                expected: header.payload_len,
                found: payload.len() as u64,
            });
        }
        if crc32c::crc32c(&payload) != header.payload_crc {
            return Err(RecordFault::PayloadChecksum);
        }
        Ok(Self {
            id: header.id,
            kind: header.kind,
            time: header.time,
            chain: header.chain,
            payload_crc: header.payload_crc,
            payload,
        })
    }

    /// The entry's header. Its record is these bytes and then the payload.
    ///
    /// # Panics
    /// If the payload is larger than [`PAYLOAD_BYTES_MAX`].
    #[must_use]
    pub fn header(&self) -> RecordHeader {
        assert!(self.payload.len() <= PAYLOAD_BYTES_MAX, "an entry's payload is bounded");
        RecordHeader {
            id: self.id,
            kind: self.kind,
            time: self.time,
            chain: self.chain,
            payload_len: self.payload.len() as u32,
            payload_crc: self.payload_crc,
        }
    }

    /// Bytes that the record takes in the journal and on the wire: header and payload.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.payload.len()
    }

    /// The entry's record in one piece. Copies the payload: for small entries.
    #[must_use]
    pub fn record(&self) -> Bytes {
        let mut record = BytesMut::with_capacity(self.record_bytes());
        record.extend_from_slice(&self.header().encode());
        record.extend_from_slice(&self.payload);
        record.freeze()
    }

    /// Whether this entry continues the log whose chain, just before it, is `prev`.
    #[must_use]
    pub fn follows(&self, prev: Chain) -> bool {
        self.header().chain_after(prev) == self.chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Epoch, Seq};

    fn sealed(prev: Chain, payload: &'static [u8]) -> Entry {
        let id = EntryId::new(Epoch(2), Seq(7));
        Entry::seal(id, EntryKind::Commands, ClusterTime(5), prev, Bytes::from_static(payload))
    }

    #[test]
    fn chain_depends_on_what_came_before_and_on_every_field() {
        let entry = sealed(Chain(1), b"abc");
        assert!(entry.follows(Chain(1)));
        assert!(!entry.follows(Chain(2)));
        assert_ne!(entry.chain, sealed(Chain(2), b"abc").chain);
        assert_ne!(entry.chain, sealed(Chain(1), b"abd").chain);
        let other_time = Entry { time: ClusterTime(6), ..entry.clone() };
        let other_epoch = Entry { id: EntryId::new(Epoch(3), Seq(7)), ..entry.clone() };
        let other_kind = Entry { kind: EntryKind::Mark, ..entry };
        assert!(!other_time.follows(Chain(1)));
        assert!(!other_epoch.follows(Chain(1)));
        assert!(!other_kind.follows(Chain(1)));
    }

    #[test]
    fn parts_must_fit_together() {
        let entry = sealed(Chain(1), b"abc");
        let header = entry.header();
        assert_eq!(Entry::from_parts(&header, entry.payload.clone()), Ok(entry));
        assert_eq!(
            Entry::from_parts(&header, Bytes::from_static(b"abd")),
            Err(RecordFault::PayloadChecksum)
        );
        assert_eq!(
            Entry::from_parts(&header, Bytes::from_static(b"ab")),
            Err(RecordFault::PayloadLength { expected: 3, found: 2 })
        );
    }
}
