//! What a node says of its state, and its bytes on the wire.
//!
//! ```text
//! hashes (1: 0 or 1); if 1: epoch (8) seq (8) 256 × (keys (8) hash (32))
//! fault: UTF-8 to the end; empty without
//! ```

use bytes::Buf;
use quorate_protocol::command::SLOTS;
use quorate_protocol::types::{EntryId, Epoch, Seq};

/// Slots that are hashed together: a difference is named to so many.
pub const SLOTS_PER_RANGE: u16 = 64;

const RANGES: usize = (SLOTS / SLOTS_PER_RANGE) as usize;

/// Longest text of a fault.
const FAULT_BYTES_MAX: usize = 1 << 10;

const RANGE_BYTES: usize = 8 + 32;

/// Longest encoded answer.
pub(crate) const EXAMINED_BYTES_MAX: usize = 1 + 16 + RANGES * RANGE_BYTES + FAULT_BYTES_MAX;

/// The live keys of one range of slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeHash {
    /// How many.
    pub keys: u64,
    /// BLAKE3 over keys, values, expiries and versions, in order, and over write tokens.
    pub hash: [u8; 32],
}

/// The whole state at one position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeHashes {
    /// The position.
    pub id: EntryId,
    /// One for each range, in order of slots.
    pub ranges: Vec<RangeHash>,
}

/// What one node found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Examined {
    /// Its content; `None` where it can't be read.
    pub hashes: Option<RangeHashes>,
    /// What can't be read, or isn't what was written.
    pub fault: Option<String>,
}

impl RangeHashes {
    /// Nothing in any range yet.
    pub(crate) fn new(id: EntryId) -> Self {
        Self { id, ranges: vec![RangeHash::default(); RANGES] }
    }

    /// Live keys in all.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.ranges.iter().map(|range| range.keys).sum()
    }
}

impl Examined {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.hashes.is_some())];
        if let Some(hashes) = &self.hashes {
            bytes.extend_from_slice(&hashes.id.epoch.0.to_le_bytes());
            bytes.extend_from_slice(&hashes.id.seq.0.to_le_bytes());
            for range in &hashes.ranges {
                bytes.extend_from_slice(&range.keys.to_le_bytes());
                bytes.extend_from_slice(&range.hash);
            }
        }
        let fault = self.fault.as_deref().unwrap_or_default();
        let mut end = fault.len().min(FAULT_BYTES_MAX);
        while !fault.is_char_boundary(end) {
            end -= 1;
        }
        bytes.extend_from_slice(&fault.as_bytes()[..end]);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, mut rest) = bytes.split_first()?;
        let hashes = match kind {
            0 => None,
            1 => {
                let id = EntryId::new(
                    Epoch(rest.try_get_u64_le().ok()?),
                    Seq(rest.try_get_u64_le().ok()?),
                );
                let mut hashes = RangeHashes::new(id);
                for range in &mut hashes.ranges {
                    range.keys = rest.try_get_u64_le().ok()?;
                    let (hash, tail) = rest.split_first_chunk()?;
                    range.hash = *hash;
                    rest = tail;
                }
                Some(hashes)
            }
            _ => return None,
        };
        if rest.len() > FAULT_BYTES_MAX {
            return None;
        }
        let fault = String::from_utf8(rest.to_vec()).ok()?;
        Some(Self { hashes, fault: (!fault.is_empty()).then_some(fault) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_round_trip_and_nothing_shorter_is_read() {
        let mut hashes = RangeHashes::new(EntryId::new(Epoch(3), Seq(900)));
        hashes.ranges[7] = RangeHash { keys: 5, hash: [9; 32] };
        let whole = Examined { hashes: Some(hashes), fault: None };
        let bytes = whole.encode();
        assert_eq!(Examined::decode(&bytes), Some(whole.clone()));
        for length in 0..bytes.len() {
            assert_eq!(Examined::decode(&bytes[..length]), None);
        }
        for fault in ["a bad block".to_owned(), "ü".repeat(FAULT_BYTES_MAX)] {
            let broken = Examined { hashes: None, fault: Some(fault.clone()) };
            let read = Examined::decode(&broken.encode()).expect("an answer");
            assert!(fault.starts_with(&read.fault.expect("a fault")));
            let both = Examined { fault: Some(fault), ..whole.clone() };
            assert!(both.encode().len() <= EXAMINED_BYTES_MAX);
        }
        assert_eq!(Examined::decode(&[]), None);
        assert_eq!(Examined::decode(&[2]), None);
    }
}
