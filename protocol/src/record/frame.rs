//! The 64-byte frames: entry headers, sync marks, segment trailers.

use crate::types::{Chain, ClusterTime, EntryId, EntryKind, Epoch, Seq};

/// Bytes of an entry's header, and of a local frame.
pub const RECORD_HEADER_BYTES: usize = 64;

/// The largest payload that any entry may have. A length above it is refused before anything is
/// allocated; senders and the sealing side use lower limits of their own.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// The first two bytes of every frame.
pub const FRAME_MAGIC: [u8; 2] = *b"QR";

const VERSION: u8 = 1;
const KIND_SYNC_MARK: u8 = 0xF0;
const KIND_TRAILER: u8 = 0xF1;

/// Bytes of the header that the chain covers: everything before the chain itself.
const CHAINED_BYTES: usize = 40;
const CRC_AT: usize = 60;

/// What stands in front of an entry's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Which entry.
    pub id: EntryId,
    /// What the payload is.
    pub kind: EntryKind,
    /// When the primary sealed it.
    pub time: ClusterTime,
    /// Hash over the log up to and with this entry.
    pub chain: Chain,
    /// Payload bytes; at most [`PAYLOAD_BYTES_MAX`].
    pub payload_len: u32,
    /// CRC32C of the payload.
    pub payload_crc: u32,
}

/// A local frame: everything through `id` was known to be synced when this was written. It counts
/// only where the log's chain at `id` is this chain, so a mark of a branch that was cut proves
/// nothing, and only with its segment's nonce, so that bytes inside a payload never pass for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncMark {
    /// The nonce of the segment that holds the mark.
    pub nonce: u64,
    /// The highest entry known to be synced.
    pub id: EntryId,
    /// The log's chain there.
    pub chain: Chain,
}

/// The last frame of a sealed segment. It is a mark too: a segment is sealed only after all of
/// its entries are synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentTrailer {
    /// The segment's nonce.
    pub nonce: u64,
    /// The segment's last entry, or the one before its first where it holds none.
    pub last: EntryId,
    /// Entries in the segment.
    pub count: u64,
    /// The log's chain at `last`.
    pub chain: Chain,
}

/// Any 64-byte frame of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// An entry; its payload follows.
    Entry(RecordHeader),
    /// A sync mark.
    SyncMark(SyncMark),
    /// The end of a sealed segment.
    Trailer(SegmentTrailer),
}

/// Why bytes aren't a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// No frame starts here.
    #[error("no record starts here (wrong magic)")]
    Magic,
    /// The header's CRC32C is wrong.
    #[error("the header's checksum is wrong")]
    HeaderChecksum,
    /// An intact header of a format that this version doesn't know.
    #[error("record format {0} is not known to this version")]
    Version(u8),
    /// An intact header of a kind that this version doesn't know.
    #[error("entry kind {0} is not known to this version")]
    Kind(u8),
    /// A local frame where only entries may be.
    #[error("a local frame where only entries are allowed")]
    LocalFrame,
    /// The payload is larger than allowed.
    #[error("a payload of {found} bytes is above the limit of {limit}")]
    TooLong {
        /// The length that the header claims.
        found: u32,
        /// The reader's limit.
        limit: u32,
    },
    /// A field that must be zero isn't, or an entry claims position 0.
    #[error("a header field has a value that is never written")]
    Field,
    /// The payload isn't as long as its header says.
    #[error("the payload has {found} bytes, its header says {expected}")]
    PayloadLength {
        /// As the header says.
        expected: u32,
        /// As found.
        found: u64,
    },
    /// The payload's CRC32C is wrong.
    #[error("the payload's checksum is wrong")]
    PayloadChecksum,
}

impl RecordHeader {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = self.encode_chained();
        put(&mut bytes, 40, &self.chain.0.to_le_bytes());
        finish(bytes)
    }

    /// Reads the header of an entry.
    ///
    /// # Errors
    /// Any [`RecordFault`] of a header; [`RecordFault::LocalFrame`] for a local frame.
    pub fn decode(bytes: &[u8; RECORD_HEADER_BYTES]) -> Result<Self, RecordFault> {
        match Frame::decode(bytes)? {
            Frame::Entry(header) => Ok(header),
            Frame::SyncMark(_) | Frame::Trailer(_) => Err(RecordFault::LocalFrame),
        }
    }

    /// The chain that an entry with these fields has after an entry whose chain is `prev`. The
    /// header's own `chain` field doesn't matter.
    #[must_use]
    pub fn chain_after(&self, prev: Chain) -> Chain {
        let mut input = [0; 16 + CHAINED_BYTES];
        input[..16].copy_from_slice(&prev.0.to_le_bytes());
        input[16..].copy_from_slice(&self.encode_chained()[..CHAINED_BYTES]);
        let hash = blake3::hash(&input);
        Chain(u128::from_le_bytes(take(hash.as_bytes(), 0)))
    }

    /// Bytes of the whole record.
    #[must_use]
    pub fn record_bytes(&self) -> u64 {
        RECORD_HEADER_BYTES as u64 + u64::from(self.payload_len)
    }

    fn encode_chained(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = start(self.kind as u8, self.id);
        put(&mut bytes, 4, &self.payload_len.to_le_bytes());
        put(&mut bytes, 24, &self.time.0.to_le_bytes());
        put(&mut bytes, 32, &self.payload_crc.to_le_bytes());
        bytes
    }
}

impl SyncMark {
    /// The mark's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = start(KIND_SYNC_MARK, self.id);
        put(&mut bytes, 32, &self.nonce.to_le_bytes());
        put(&mut bytes, 40, &self.chain.0.to_le_bytes());
        finish(bytes)
    }
}

impl SegmentTrailer {
    /// The trailer's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = start(KIND_TRAILER, self.last);
        put(&mut bytes, 24, &self.count.to_le_bytes());
        put(&mut bytes, 32, &self.nonce.to_le_bytes());
        put(&mut bytes, 40, &self.chain.0.to_le_bytes());
        finish(bytes)
    }
}

impl Frame {
    /// Reads any frame. The checksum is checked before anything else is believed.
    ///
    /// # Errors
    /// What is wrong with the header.
    pub fn decode(bytes: &[u8; RECORD_HEADER_BYTES]) -> Result<Self, RecordFault> {
        if bytes[..2] != FRAME_MAGIC {
            return Err(RecordFault::Magic);
        }
        if crc32c::crc32c(&bytes[..CRC_AT]) != u32::from_le_bytes(take(bytes, CRC_AT)) {
            return Err(RecordFault::HeaderChecksum);
        }
        if bytes[2] != VERSION {
            return Err(RecordFault::Version(bytes[2]));
        }
        let id = EntryId::new(
            Epoch(u64::from_le_bytes(take(bytes, 8))),
            Seq(u64::from_le_bytes(take(bytes, 16))),
        );
        let chain = Chain(u128::from_le_bytes(take(bytes, 40)));
        let number = u64::from_le_bytes(take(bytes, 24));
        let nonce = u64::from_le_bytes(take(bytes, 32));
        let frame = match bytes[3] {
            KIND_SYNC_MARK => Self::SyncMark(SyncMark { nonce, id, chain }),
            KIND_TRAILER => Self::Trailer(SegmentTrailer { nonce, last: id, count: number, chain }),
            kind => Self::Entry(RecordHeader {
                id,
                kind: EntryKind::from_u8(kind).ok_or(RecordFault::Kind(kind))?,
                time: ClusterTime(number),
                chain,
                payload_len: u32::from_le_bytes(take(bytes, 4)),
                payload_crc: u32::from_le_bytes(take(bytes, 32)),
            }),
        };
        frame.check(bytes)
    }

    /// The frame's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        match self {
            Self::Entry(header) => header.encode(),
            Self::SyncMark(mark) => mark.encode(),
            Self::Trailer(trailer) => trailer.encode(),
        }
    }

    /// One frame has one form: what encodes to other bytes was never written by us.
    fn check(self, bytes: &[u8; RECORD_HEADER_BYTES]) -> Result<Self, RecordFault> {
        if let Self::Entry(header) = &self {
            let limit = PAYLOAD_BYTES_MAX as u32;
            if header.payload_len > limit {
                return Err(RecordFault::TooLong { found: header.payload_len, limit });
            }
            if header.id.seq == Seq::ZERO {
                return Err(RecordFault::Field);
            }
        }
        if self.encode() == *bytes { Ok(self) } else { Err(RecordFault::Field) }
    }
}

fn start(kind: u8, id: EntryId) -> [u8; RECORD_HEADER_BYTES] {
    let mut bytes = [0; RECORD_HEADER_BYTES];
    bytes[..2].copy_from_slice(&FRAME_MAGIC);
    bytes[2] = VERSION;
    bytes[3] = kind;
    put(&mut bytes, 8, &id.epoch.0.to_le_bytes());
    put(&mut bytes, 16, &id.seq.0.to_le_bytes());
    bytes
}

fn finish(mut bytes: [u8; RECORD_HEADER_BYTES]) -> [u8; RECORD_HEADER_BYTES] {
    let crc = crc32c::crc32c(&bytes[..CRC_AT]);
    put(&mut bytes, CRC_AT, &crc.to_le_bytes());
    bytes
}

pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

pub(super) fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range has N bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    use crate::entry::Entry;

    fn header() -> RecordHeader {
        let id = EntryId::new(Epoch(3), Seq(0x0102));
        let payload = Bytes::from_static(b"hello");
        Entry::seal(id, EntryKind::Commands, ClusterTime(1_700_000_000_000), Chain(7), payload)
            .header()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, b| text + &format!("{b:02x}"))
    }

    #[test]
    fn bytes_of_each_frame_are_fixed() {
        let mark =
            SyncMark { nonce: 0x0102_0304, id: EntryId::new(Epoch(3), Seq(9)), chain: Chain(0xAB) };
        let trailer =
            SegmentTrailer { nonce: mark.nonce, last: mark.id, count: 4, chain: mark.chain };
        assert_eq!(
            hex(&header().encode()),
            "5152010105000000030000000000000002010000000000000068e5cf8b010000\
             4cbb719a0000000099f94db728b10e2e7dd744565f10f2c4000000000319e7ce"
        );
        assert_eq!(
            hex(&mark.encode()),
            "515201f000000000030000000000000009000000000000000000000000000000\
             0403020100000000ab0000000000000000000000000000000000000051ee2877"
        );
        assert_eq!(
            hex(&trailer.encode()),
            "515201f100000000030000000000000009000000000000000400000000000000\
             0403020100000000ab00000000000000000000000000000000000000c67d33c1"
        );
    }

    #[test]
    fn newer_versions_and_kinds_are_named() {
        let reseal = |at: usize, value: u8| {
            let mut bytes = header().encode();
            bytes[at] = value;
            Frame::decode(&finish(bytes))
        };
        assert_eq!(reseal(2, 2), Err(RecordFault::Version(2)));
        assert_eq!(reseal(3, 9), Err(RecordFault::Kind(9)));
        assert_eq!(reseal(36, 1), Err(RecordFault::Field));
        assert_eq!(
            reseal(7, 0xFF),
            Err(RecordFault::TooLong { found: 0xFF00_0005, limit: PAYLOAD_BYTES_MAX as u32 })
        );
    }

    #[test]
    fn local_frames_are_not_entries() {
        let mark = SyncMark { nonce: 0x0102_0304, id: EntryId::ZERO, chain: Chain(0) };
        assert_eq!(RecordHeader::decode(&mark.encode()), Err(RecordFault::LocalFrame));
    }

    prop_compose! {
        fn any_frame()(
            which in 0..3u8, nonce: u64, kind in 1..=4u8, epoch: u64, seq in 1..=u64::MAX, number: u64,
            chain: u128, payload_len in 0..=PAYLOAD_BYTES_MAX as u32, payload_crc: u32,
        ) -> Frame {
            let id = EntryId::new(Epoch(epoch), Seq(seq));
            let chain = Chain(chain);
            match which {
                0 => Frame::SyncMark(SyncMark { nonce, id, chain }),
                1 => Frame::Trailer(SegmentTrailer { nonce, last: id, count: number, chain }),
                _ => Frame::Entry(RecordHeader {
                    id,
                    kind: EntryKind::from_u8(kind).expect("1..=4 are kinds"),
                    time: ClusterTime(number),
                    chain,
                    payload_len,
                    payload_crc,
                }),
            }
        }
    }

    proptest! {
        #[test]
        fn any_frame_round_trips(frame in any_frame()) {
            prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        }

        #[test]
        fn a_flipped_bit_is_always_found(frame in any_frame(), bit in 0..512usize) {
            let mut bytes = frame.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Frame::decode(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes: [u8; 64], resealed: bool) {
            bytes[..2].copy_from_slice(&FRAME_MAGIC);
            bytes[2] = VERSION;
            if resealed {
                bytes = finish(bytes);
            }
            if let Ok(frame) = Frame::decode(&bytes) {
                prop_assert_eq!(frame.encode(), bytes);
            }
        }
    }
}
