//! The header of a journal segment.

use super::frame::{put, take};
use crate::types::{Chain, ClusterId, EntryId, Epoch, Generation, Seq};

/// Bytes of a segment's header; its first frame starts there.
pub const SEGMENT_HEADER_BYTES: usize = 128;

const MAGIC: [u8; 8] = *b"QUORJRNL";
const VERSION: u32 = 1;
const CRC_AT: usize = 124;

/// What a segment file starts with: enough to read it alone and to prove that it continues
/// another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The cluster, or 0 where the segment was made before the cluster was formed.
    pub cluster: ClusterId,
    /// Lossy recoveries that the cluster had gone through (S12).
    pub generation: Generation,
    /// Random; every local frame of the segment repeats it. It is what tells a sync mark from
    /// bytes in a client's value that look like one.
    pub nonce: u64,
    /// Whether a log starts here: segments with lower positions don't belong to it. Set for the
    /// first segment of a node, and where the log restarts behind a state that is ahead of it.
    pub base: bool,
    /// The entry before the segment's first one.
    pub preceding: EntryId,
    /// The log's chain there.
    pub preceding_chain: Chain,
}

/// Why bytes aren't a segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentFault {
    /// Too few bytes.
    #[error("the file is shorter than a segment's header")]
    Short,
    /// Another kind of file.
    #[error("not a journal segment (wrong magic)")]
    Magic,
    /// The CRC32C is wrong.
    #[error("the segment header's checksum is wrong")]
    Checksum,
    /// An intact header of a newer format.
    #[error("segment format {0} is newer than this version reads")]
    Version(u32),
    /// A field that must be zero isn't, or positions that don't follow each other.
    #[error("a segment header field has a value that is never written")]
    Field,
}

impl SegmentHeader {
    /// Position of the first entry that the segment may hold.
    #[must_use]
    pub fn first(&self) -> Seq {
        self.preceding.seq.next()
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 8, &VERSION.to_le_bytes());
        put(&mut bytes, 16, &self.cluster.0.to_le_bytes());
        put(&mut bytes, 32, &self.generation.0.to_le_bytes());
        put(&mut bytes, 40, &self.first().0.to_le_bytes());
        put(&mut bytes, 48, &self.preceding.epoch.0.to_le_bytes());
        put(&mut bytes, 56, &self.preceding.seq.0.to_le_bytes());
        put(&mut bytes, 64, &self.preceding_chain.0.to_le_bytes());
        put(&mut bytes, 80, &self.nonce.to_le_bytes());
        bytes[88] = u8::from(self.base);
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        put(&mut bytes, CRC_AT, &crc.to_le_bytes());
        bytes
    }

    /// Reads a header from a file's first bytes; more bytes may follow.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, SegmentFault> {
        let Some(bytes) = bytes.get(..SEGMENT_HEADER_BYTES) else {
            return Err(SegmentFault::Short);
        };
        if bytes[..8] != MAGIC {
            return Err(SegmentFault::Magic);
        }
        if crc32c::crc32c(&bytes[..CRC_AT]) != u32::from_le_bytes(take(bytes, CRC_AT)) {
            return Err(SegmentFault::Checksum);
        }
        let version = u32::from_le_bytes(take(bytes, 8));
        if version != VERSION {
            return Err(SegmentFault::Version(version));
        }
        let seq = u64::from_le_bytes(take(bytes, 56));
        if seq == u64::MAX {
            return Err(SegmentFault::Field);
        }
        let header = Self {
            cluster: ClusterId(u128::from_le_bytes(take(bytes, 16))),
            generation: Generation(u64::from_le_bytes(take(bytes, 32))),
            preceding: EntryId::new(Epoch(u64::from_le_bytes(take(bytes, 48))), Seq(seq)),
            preceding_chain: Chain(u128::from_le_bytes(take(bytes, 64))),
            nonce: u64::from_le_bytes(take(bytes, 80)),
            base: bytes[88] == 1,
        };
        if header.encode() == *bytes { Ok(header) } else { Err(SegmentFault::Field) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            cluster: ClusterId(0x11),
            generation: Generation(2),
            preceding: EntryId::new(Epoch(3), Seq(41)),
            preceding_chain: Chain(0x22),
            nonce: 0x33,
            base: true,
        }
    }

    #[test]
    fn bytes_are_fixed() {
        let hex =
            header().encode().iter().fold(String::new(), |text, b| text + &format!("{b:02x}"));
        assert_eq!(
            hex,
            "51554f524a524e4c010000000000000011000000000000000000000000000000\
             02000000000000002a0000000000000003000000000000002900000000000000\
             2200000000000000000000000000000033000000000000000100000000000000\
             00000000000000000000000000000000000000000000000000000000252e128b"
        );
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        put(&mut bytes, CRC_AT, &crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(SegmentFault::Version(2)));
    }

    proptest! {
        #[test]
        fn any_header_round_trips(
            cluster: u128, generation: u64, epoch: u64, seq in 0..u64::MAX, chain: u128,
            nonce: u64, base: bool,
        ) {
            let header = SegmentHeader {
                cluster: ClusterId(cluster),
                generation: Generation(generation),
                preceding: EntryId::new(Epoch(epoch), Seq(seq)),
                preceding_chain: Chain(chain),
                nonce,
                base,
            };
            prop_assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn a_flipped_bit_is_always_found(bit in 0..8 * SEGMENT_HEADER_BYTES) {
            let mut bytes = header().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(SegmentHeader::decode(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = SegmentHeader::decode(&bytes);
        }
    }
}
