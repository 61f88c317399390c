//! The index behind a sealed segment's trailer: what a node needs to know of the segment when it
//! starts, so that it need not read it all. It adds nothing to the log; a segment without one, or
//! with a damaged one, is read whole.
//!
//! ```text
//! places     16 bytes each: seq, offset of its record
//! epochs     16 bytes each: first seq, epoch
//! clusters   24 bytes each: epoch, seq, offset of its record
//! footer, the last 64 bytes of the file:
//!  0 magic "QX"  2 version  3 zero      4 places  8 epochs  12 clusters   16 trailer's offset
//! 24 CRC32C of all before the footer   28 zero   32 nonce   40 zero       60 CRC32C of 0..60
//! ```

use super::frame::{put, take};
use crate::types::{EntryId, Epoch, Seq};

/// Bytes of the footer.
pub const INDEX_FOOTER_BYTES: usize = 64;

/// A larger index isn't written, and not believed.
pub const INDEX_BYTES_MAX: usize = 4 << 20;

const MAGIC: [u8; 2] = *b"QX";
const VERSION: u8 = 1;
const CRC_AT: usize = 60;
const PAIR: usize = 16;
const TRIPLE: usize = 24;

/// What a sealed segment holds, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentIndex {
    /// Position and offset of some entries, in order.
    pub places: Vec<(Seq, u64)>,
    /// The first position of each epoch's entries, in order.
    pub epochs: Vec<(Seq, Epoch)>,
    /// All `Cluster` entries and their offsets, in order.
    pub clusters: Vec<(EntryId, u64)>,
}

/// The fixed part at the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexFooter {
    /// The segment's nonce.
    pub nonce: u64,
    /// Where the segment's trailer starts.
    pub trailer_at: u64,
    places: u32,
    epochs: u32,
    clusters: u32,
    crc: u32,
}

impl SegmentIndex {
    /// Bytes that it takes with its footer.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        PAIR * (self.places.len() + self.epochs.len())
            + TRIPLE * self.clusters.len()
            + INDEX_FOOTER_BYTES
    }

    /// The bytes to write directly behind the trailer, at the end of the file.
    #[must_use]
    pub fn encode(&self, nonce: u64, trailer_at: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_bytes());
        for (seq, offset) in &self.places {
            bytes.extend_from_slice(&seq.0.to_le_bytes());
            bytes.extend_from_slice(&offset.to_le_bytes());
        }
        for (seq, epoch) in &self.epochs {
            bytes.extend_from_slice(&seq.0.to_le_bytes());
            bytes.extend_from_slice(&epoch.0.to_le_bytes());
        }
        for (id, offset) in &self.clusters {
            bytes.extend_from_slice(&id.epoch.0.to_le_bytes());
            bytes.extend_from_slice(&id.seq.0.to_le_bytes());
            bytes.extend_from_slice(&offset.to_le_bytes());
        }
        let footer = IndexFooter {
            nonce,
            trailer_at,
            places: self.places.len() as u32,
            epochs: self.epochs.len() as u32,
            clusters: self.clusters.len() as u32,
            crc: crc32c::crc32c(&bytes),
        };
        bytes.extend_from_slice(&footer.encode());
        bytes
    }

    /// Reads what stands before the footer; `None` if it isn't what the footer speaks of.
    #[must_use]
    pub fn decode(footer: &IndexFooter, bytes: &[u8]) -> Option<Self> {
        if bytes.len() != footer.content_bytes()? || crc32c::crc32c(bytes) != footer.crc {
            return None;
        }
        let number = |bytes: &[u8], at| u64::from_le_bytes(take(bytes, at));
        let (places, rest) = bytes.split_at(PAIR * footer.places as usize);
        let (epochs, clusters) = rest.split_at(PAIR * footer.epochs as usize);
        Some(Self {
            places: places.chunks(PAIR).map(|b| (Seq(number(b, 0)), number(b, 8))).collect(),
            epochs: epochs.chunks(PAIR).map(|b| (Seq(number(b, 0)), Epoch(number(b, 8)))).collect(),
            clusters: clusters
                .chunks(TRIPLE)
                .map(|b| (EntryId::new(Epoch(number(b, 0)), Seq(number(b, 8))), number(b, 16)))
                .collect(),
        })
    }
}

impl IndexFooter {
    /// Reads the last bytes of a file; `None` if they aren't a footer.
    #[must_use]
    pub fn decode(bytes: &[u8; INDEX_FOOTER_BYTES]) -> Option<Self> {
        let footer = Self {
            nonce: u64::from_le_bytes(take(bytes, 32)),
            trailer_at: u64::from_le_bytes(take(bytes, 16)),
            places: u32::from_le_bytes(take(bytes, 4)),
            epochs: u32::from_le_bytes(take(bytes, 8)),
            clusters: u32::from_le_bytes(take(bytes, 12)),
            crc: u32::from_le_bytes(take(bytes, 24)),
        };
        (footer.encode() == *bytes).then_some(footer)
    }

    /// Bytes before the footer; `None` if they would be above [`INDEX_BYTES_MAX`].
    #[must_use]
    pub fn content_bytes(&self) -> Option<usize> {
        let bytes = PAIR as u64 * (u64::from(self.places) + u64::from(self.epochs))
            + TRIPLE as u64 * u64::from(self.clusters);
        usize::try_from(bytes).ok().filter(|bytes| *bytes <= INDEX_BYTES_MAX)
    }

    fn encode(&self) -> [u8; INDEX_FOOTER_BYTES] {
        let mut bytes = [0; INDEX_FOOTER_BYTES];
        put(&mut bytes, 0, &MAGIC);
        bytes[2] = VERSION;
        put(&mut bytes, 4, &self.places.to_le_bytes());
        put(&mut bytes, 8, &self.epochs.to_le_bytes());
        put(&mut bytes, 12, &self.clusters.to_le_bytes());
        put(&mut bytes, 16, &self.trailer_at.to_le_bytes());
        put(&mut bytes, 24, &self.crc.to_le_bytes());
        put(&mut bytes, 32, &self.nonce.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        put(&mut bytes, CRC_AT, &crc.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8]) -> Option<(IndexFooter, SegmentIndex)> {
        let (content, footer) = bytes.split_last_chunk::<INDEX_FOOTER_BYTES>()?;
        let footer = IndexFooter::decode(footer)?;
        Some((footer, SegmentIndex::decode(&footer, content)?))
    }

    #[test]
    fn bytes_are_fixed() {
        let index = SegmentIndex {
            places: vec![(Seq(1), 128)],
            epochs: vec![(Seq(1), Epoch(2))],
            clusters: vec![(EntryId::new(Epoch(2), Seq(1)), 128)],
        };
        let bytes = index.encode(0x33, 0x1000);
        let hex = bytes.iter().fold(String::new(), |text, b| text + &format!("{b:02x}"));
        assert_eq!(
            hex,
            "0100000000000000800000000000000001000000000000000200000000000000\
             0200000000000000010000000000000080000000000000005158010001000000\
             0100000001000000001000000000000002c87abd000000003300000000000000\
             00000000000000000000000000000000000000005bd6ce37"
        );
    }

    proptest! {
        #[test]
        fn any_index_round_trips_and_a_flipped_bit_is_found(
            places: Vec<(u64, u64)>, epochs: Vec<(u64, u64)>, clusters: Vec<(u64, u64, u64)>,
            nonce: u64, trailer_at: u64, at: prop::sample::Index, bit in 0..8u8,
        ) {
            let index = SegmentIndex {
                places: places.into_iter().map(|(seq, at)| (Seq(seq), at)).collect(),
                epochs: epochs.into_iter().map(|(seq, e)| (Seq(seq), Epoch(e))).collect(),
                clusters: clusters
                    .into_iter()
                    .map(|(e, seq, at)| (EntryId::new(Epoch(e), Seq(seq)), at))
                    .collect(),
            };
            let mut bytes = index.encode(nonce, trailer_at);
            prop_assert_eq!(bytes.len(), index.encoded_bytes());
            let (footer, read) = decode(&bytes).expect("it was just written");
            prop_assert_eq!((footer.nonce, footer.trailer_at, read), (nonce, trailer_at, index));
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(decode(&bytes), None);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
