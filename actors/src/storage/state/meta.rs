//! What the state says about itself, in the same write batch as the data.

use bytes::Bytes;
use quorate_protocol::types::{Chain, ClusterTime, EntryId, Epoch, Seq};

/// How far the state is: everything in it is the work of the entries through `id`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The last entry applied.
    pub id: EntryId,
    /// Hash over the log up to it.
    pub chain: Chain,
    /// Its time: the clock that the state was last changed by.
    pub time: ClusterTime,
    /// Keys in the state, those included that are expired but not yet removed.
    pub keys: u64,
    /// The last entry that removed all keys; 0 if none did.
    pub cleared: Seq,
}

/// The cluster entry in force in the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCluster {
    /// Which entry it came from.
    pub id: EntryId,
    /// The entry's payload: a bincode `ClusterEntry`.
    pub payload: Bytes,
}

impl Applied {
    const BYTES: usize = 56;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..8].copy_from_slice(&self.id.epoch.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.id.seq.0.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.chain.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.time.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.keys.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.cleared.0.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let mut chain = [0; 16];
        chain.copy_from_slice(&bytes[16..32]);
        Some(Self {
            id: EntryId::new(Epoch(number(bytes, 0)), Seq(number(bytes, 8))),
            chain: Chain(u128::from_le_bytes(chain)),
            time: ClusterTime(number(bytes, 32)),
            keys: number(bytes, 40),
            cleared: Seq(number(bytes, 48)),
        })
    }
}

impl StoredCluster {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + self.payload.len());
        bytes.extend_from_slice(&self.id.epoch.0.to_le_bytes());
        bytes.extend_from_slice(&self.id.seq.0.to_le_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (id, payload) = bytes.split_at_checked(16)?;
        Some(Self {
            id: EntryId::new(Epoch(number(id, 0)), Seq(number(id, 8))),
            payload: Bytes::copy_from_slice(payload),
        })
    }
}

/// The 8 bytes at `at`; the caller checked the length.
fn number(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::scratch::hex;

    #[test]
    fn bytes_are_fixed() {
        let id = EntryId::new(Epoch(3), Seq(900));
        let applied = Applied {
            id,
            chain: Chain(0x1234),
            time: ClusterTime(1_800_000_000_000),
            keys: 70,
            cleared: Seq(5),
        };
        let expected = [
            "0300000000000000840300000000000034120000000000000000000000000000",
            "00505c18a301000046000000000000000500000000000000",
        ];
        assert_eq!(hex(&applied.to_bytes()), expected.concat());
        let cluster = StoredCluster { id, payload: Bytes::from_static(b"ab") };
        assert_eq!(hex(&cluster.to_bytes()), "030000000000000084030000000000006162");
    }

    proptest! {
        #[test]
        fn positions_round_trip(epoch: u64, seq: u64, chain: u128, rest: [u64; 3]) {
            let id = EntryId::new(Epoch(epoch), Seq(seq));
            let [time, keys, cleared] = rest;
            let (time, cleared) = (ClusterTime(time), Seq(cleared));
            let applied = Applied { id, chain: Chain(chain), time, keys, cleared };
            prop_assert_eq!(Applied::from_bytes(&applied.to_bytes()), Some(applied));
            prop_assert_eq!(Applied::from_bytes(&applied.to_bytes()[1..]), None);
        }

        #[test]
        fn cluster_entries_round_trip(epoch: u64, seq: u64, payload: Vec<u8>) {
            let id = EntryId::new(Epoch(epoch), Seq(seq));
            let stored = StoredCluster { id, payload: payload.into() };
            prop_assert_eq!(StoredCluster::from_bytes(&stored.to_bytes()), Some(stored));
            prop_assert_eq!(StoredCluster::from_bytes(&[0; 15]), None);
        }
    }
}
