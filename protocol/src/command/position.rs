//! Where a key stands in the order of the keyspace: its hash slot first, then a hash.

/// A key's place: 48 bits, the upper 14 of them its hash slot. Keys of one slot are neighbours,
/// and within a slot the order looks random, so that walks see no pattern of key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

/// Slots of a Redis Cluster.
pub const SLOTS: u16 = 16384;

const HASH_BITS: u32 = 34;

impl Position {
    /// Before all keys.
    pub const FIRST: Self = Self(0);
    /// Bytes of [`Position::to_bytes`].
    pub const BYTES: usize = 6;

    /// The place of this key.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        let hash = blake3::hash(key);
        let mut low = [0; 8];
        low.copy_from_slice(&hash.as_bytes()[..8]);
        let low = u64::from_le_bytes(low) & ((1 << HASH_BITS) - 1);
        Self(u64::from(slot(key)) << HASH_BITS | low)
    }

    /// The first place of this slot; for [`SLOTS`] the place after all keys.
    #[must_use]
    pub fn of_slot(slot: u16) -> Self {
        Self(u64::from(slot.min(SLOTS)) << HASH_BITS)
    }

    /// As a `SCAN` cursor to go on from: 0 is the first place.
    #[must_use]
    pub fn from_cursor(cursor: u64) -> Self {
        Self(cursor)
    }

    /// The cursor that goes on after this place; never 0.
    #[must_use]
    pub fn cursor_after(self) -> u64 {
        self.0 + 1
    }

    /// A place chosen by this random number.
    #[must_use]
    pub fn random(random: u64) -> Self {
        Self(random >> (64 - 14 - HASH_BITS))
    }

    /// What a store puts in front of the key: sorts as the position does. `None` beyond all keys.
    #[must_use]
    pub fn to_bytes(self) -> Option<[u8; Self::BYTES]> {
        let bytes = self.0.to_be_bytes();
        (bytes[..2] == [0, 0]).then(|| [bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
    }
}

/// The hash slot of a key, as `CLUSTER KEYSLOT` answers it: only what stands between the first
/// `{` and the next `}` counts, unless that is empty.
#[must_use]
pub fn slot(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) % SLOTS
}

fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&byte| byte == b'{') else {
        return key;
    };
    let rest = &key[open + 1..];
    match rest.iter().position(|&byte| byte == b'}') {
        None | Some(0) => key,
        Some(close) => &rest[..close],
    }
}

/// CRC16/XMODEM, the one that Redis Cluster uses.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)])
}

static CRC16: [u16; 256] = crc16_table();

const fn crc16_table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b"{user1000}.following"), slot(b"user1000"));
        assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
        assert_eq!(slot(b"foo{bar}{zap}"), slot(b"bar"));
    }

    /// Stores keep their keys in this order: it must never change.
    #[test]
    fn positions_are_what_they_always_were() {
        assert_eq!(Position::of(b"foo").0, 209_299_019_915_268);
        assert_eq!(Position::of(b"").0, 7_403_541_423);
    }

    #[test]
    fn positions_sort_by_slot_and_as_their_bytes() {
        let mut keys: Vec<Position> =
            (0..1000).map(|n| Position::of(format!("key:{n}").as_bytes())).collect();
        keys.sort_by_key(|position| position.to_bytes());
        assert!(keys.is_sorted());
        for position in keys {
            let slot = (position.0 >> HASH_BITS) as u16;
            assert!(Position::of_slot(slot) <= position && position < Position::of_slot(slot + 1));
        }
        assert_eq!(Position::of_slot(SLOTS).to_bytes(), None);
        assert!(Position::random(u64::MAX).to_bytes().is_some());
    }
}
