//! Where things live in RocksDB's one column family. Every key starts with the byte of its family.
//!
//! | family | key | value |
//! |---|---|---|
//! | meta | `00` `'A'` | applied position ([`Applied`](super::meta::Applied)) |
//! | meta | `00` `'C'` | the cluster entry in force: epoch, seq (8 bytes each, little endian), bincode `ClusterEntry` |
//! | meta | `00` `'E'`, epoch (8 bytes, big endian) | first seq of that epoch (8 bytes, little endian) |
//! | meta | `00` `'F'` | format version of this layout (4 bytes, little endian) |
//! | meta | `00` `'R'`, bucket (2 bytes, big endian) | last seq that removed a key of that bucket (8 bytes, little endian) |
//! | meta | `00` `'N'` | number of remembered write tokens (8 bytes, little endian) |
//! | meta | `00` `'T'`, token | what is remembered of it ([`TokenRecord`](quorate_protocol::command::TokenRecord)) |
//! | meta | `00` `'U'`, seq (8 bytes, big endian), token | empty: tokens by age |
//! | data | `01`, position (6 bytes), the client's key | header and bytes ([`value`](super::value)) |
//! | expiry index | `02`, expiry in ms (8 bytes, big endian), the client's key | empty |
//!
//! Big endian where order matters: iteration over the expiry index is in order of time.

use quorate_protocol::command::Position;
use quorate_protocol::types::{Epoch, Seq};

/// Version of the layout above and of the values in it.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// Key of the applied position.
pub(crate) const APPLIED: &[u8] = &[META, b'A'];
/// Key of the cluster entry in force.
pub(crate) const CLUSTER: &[u8] = &[META, b'C'];
/// Key of the format version.
pub(crate) const FORMAT: &[u8] = &[META, b'F'];
/// First key of the epochs.
pub(crate) const EPOCH_START: &[u8] = &[META, b'E'];
/// First key after the epochs.
pub(crate) const EPOCH_END: &[u8] = &[META, b'E' + 1];
/// First key of the data family.
pub(crate) const DATA_START: &[u8] = &[DATA];
/// First key after the data family.
pub(crate) const DATA_END: &[u8] = &[EXPIRY];
/// First key of the expiry index.
pub(crate) const EXPIRY_START: &[u8] = &[EXPIRY];
/// First key after the expiry index.
pub(crate) const EXPIRY_END: &[u8] = &[EXPIRY + 1];

/// Removals of keys are remembered by bucket: enough that a busy store seldom fails a transaction
/// that watches an absent key, few enough that all fit into 8 KiB of memory.
pub(crate) const REMOVAL_BUCKETS: usize = 1024;

const META: u8 = 0;
const DATA: u8 = 1;
const EXPIRY: u8 = 2;
/// Bytes before the client's key in a data key.
const DATA_PREFIX: usize = 1 + Position::BYTES;

const _: () = assert!(META < DATA && DATA + 1 == EXPIRY, "the families are disjoint ranges");
const _: () = assert!(REMOVAL_BUCKETS.is_power_of_two() && REMOVAL_BUCKETS <= 1 << 16);

/// Writes the data key of a client's key into `buffer`, replacing what it held.
pub(crate) fn write_data(buffer: &mut Vec<u8>, key: &[u8]) {
    buffer.clear();
    buffer.push(DATA);
    let position = Position::of(key).to_bytes().expect("a key's position is not beyond all keys");
    buffer.extend_from_slice(&position);
    buffer.extend_from_slice(key);
}

/// The first data key at or after a position.
pub(crate) fn data_from(position: Position) -> Vec<u8> {
    let mut start = vec![DATA];
    match position.to_bytes() {
        Some(bytes) => start.extend_from_slice(&bytes),
        None => start = DATA_END.to_vec(),
    }
    start
}

/// The client's key of a data key.
pub(crate) fn read_data(stored: &[u8]) -> Option<&[u8]> {
    let rest = stored.get(DATA_PREFIX..)?;
    (stored[0] == DATA).then_some(rest)
}

/// The bucket in which a data key's removals are remembered.
pub(crate) fn removal_bucket(data_key: &[u8]) -> u16 {
    let low = u16::from_be_bytes([data_key[DATA_PREFIX - 2], data_key[DATA_PREFIX - 1]]);
    low % REMOVAL_BUCKETS as u16
}

/// Key under which the last removal of a bucket is kept.
pub(crate) fn removal(bucket: u16) -> [u8; 4] {
    let [high, low] = bucket.to_be_bytes();
    [META, b'R', high, low]
}

/// Writes the expiry index key into `buffer`, replacing what it held.
pub(crate) fn write_expiry(buffer: &mut Vec<u8>, at_ms: u64, key: &[u8]) {
    buffer.clear();
    buffer.push(EXPIRY);
    buffer.extend_from_slice(&at_ms.to_be_bytes());
    buffer.extend_from_slice(key);
}

/// Expiry and client's key of an expiry index key.
pub(crate) fn read_expiry(stored: &[u8]) -> Option<(u64, &[u8])> {
    let rest = stored.strip_prefix(&[EXPIRY])?;
    let (at, key) = rest.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*at), key))
}

/// Key of the number of tokens.
pub(crate) const TOKEN_COUNT: &[u8] = &[META, b'N'];
/// First key of tokens by age.
pub(crate) const TOKEN_AGE_START: &[u8] = &[META, b'U'];
/// First key after those.
pub(crate) const TOKEN_AGE_END: &[u8] = &[META, b'U' + 1];

/// First key of tokens.
pub(crate) const TOKEN_START: &[u8] = &[META, b'T'];
/// First key after those.
pub(crate) const TOKEN_END: &[u8] = TOKEN_AGE_START;

/// Key of what is remembered of a token.
pub(crate) fn token(token: &[u8]) -> Vec<u8> {
    [TOKEN_START, token].concat()
}

/// The token of such a key.
pub(crate) fn read_token(stored: &[u8]) -> Option<&[u8]> {
    stored.strip_prefix(TOKEN_START)
}

/// Key of a token by age.
pub(crate) fn token_age(seq: Seq, token: &[u8]) -> Vec<u8> {
    [TOKEN_AGE_START, &seq.0.to_be_bytes(), token].concat()
}

/// Age and token of such a key.
pub(crate) fn read_token_age(stored: &[u8]) -> Option<(Seq, &[u8])> {
    let (seq, token) = stored.strip_prefix(TOKEN_AGE_START)?.split_first_chunk::<8>()?;
    Some((Seq(u64::from_be_bytes(*seq)), token))
}

/// Key under which the first seq of an epoch is kept.
pub(crate) fn epoch(epoch: Epoch) -> [u8; 10] {
    let mut key = [META, b'E', 0, 0, 0, 0, 0, 0, 0, 0];
    key[2..].copy_from_slice(&epoch.0.to_be_bytes());
    key
}

/// The epoch of such a key.
pub(crate) fn read_epoch(stored: &[u8]) -> Option<Epoch> {
    let rest = stored.strip_prefix(EPOCH_START)?;
    Some(Epoch(u64::from_be_bytes(rest.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::scratch::hex;

    #[test]
    fn bytes_are_fixed() {
        let (mut data, mut expiry) = (Vec::new(), Vec::new());
        write_data(&mut data, b"a{b}c");
        write_expiry(&mut expiry, 0x0102, b"a");
        let written: Vec<String> = [
            FORMAT_VERSION.to_le_bytes().to_vec(),
            APPLIED.to_vec(),
            CLUSTER.to_vec(),
            FORMAT.to_vec(),
            TOKEN_COUNT.to_vec(),
            data,
            expiry,
            removal(0x0203).to_vec(),
            token(b"t"),
            token_age(Seq(0x0405), b"t"),
            epoch(Epoch(0x0607)).to_vec(),
        ]
        .iter()
        .map(|bytes| hex(bytes))
        .collect();
        let expected = [
            "01000000",
            "0041",
            "0043",
            "0046",
            "004e",
            "0133938ab99fba617b627d63",
            "02000000000000010261",
            "00520203",
            "005474",
            "0055000000000000040574",
            "00450000000000000607",
        ];
        assert_eq!(written, expected);
    }

    proptest! {
        #[test]
        fn keys_of_every_family_round_trip(key: Vec<u8>, at: u64, number: u64) {
            let mut buffer = Vec::new();
            write_data(&mut buffer, &key);
            prop_assert_eq!(read_data(&buffer), Some(&key[..]));
            prop_assert!(buffer.as_slice() >= DATA_START && buffer.as_slice() < DATA_END);
            prop_assert!(usize::from(removal_bucket(&buffer)) < REMOVAL_BUCKETS);
            prop_assert!(buffer >= data_from(Position::of(&key)));
            prop_assert_eq!(read_expiry(&buffer), None);

            write_expiry(&mut buffer, at, &key);
            prop_assert_eq!(read_expiry(&buffer), Some((at, &key[..])));
            prop_assert!(buffer.as_slice() >= EXPIRY_START && buffer.as_slice() < EXPIRY_END);
            prop_assert_eq!(read_data(&buffer), None);

            let stored = epoch(Epoch(number));
            prop_assert_eq!(read_epoch(&stored), Some(Epoch(number)));
            prop_assert!(&stored[..] >= EPOCH_START && &stored[..] < EPOCH_END);
            prop_assert!(EPOCH_END < DATA_START);
        }

        #[test]
        fn data_keys_are_in_the_order_of_positions(a: Vec<u8>, b: Vec<u8>) {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            write_data(&mut first, &a);
            write_data(&mut second, &b);
            let order = (Position::of(&a), &a).cmp(&(Position::of(&b), &b));
            prop_assert_eq!(first.cmp(&second), order);
        }

        #[test]
        fn the_expiry_index_is_in_order_of_time(a: (u64, Vec<u8>), b: (u64, Vec<u8>)) {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            write_expiry(&mut first, a.0, &a.1);
            write_expiry(&mut second, b.0, &b.1);
            prop_assert_eq!(first.cmp(&second), a.cmp(&b));
        }
    }

    #[test]
    fn nothing_comes_after_the_last_position() {
        let beyond = Position::of_slot(quorate_protocol::command::SLOTS);
        assert_eq!(data_from(beyond), DATA_END);
        assert_eq!(data_from(Position::FIRST), [DATA, 0, 0, 0, 0, 0, 0]);
    }
}
