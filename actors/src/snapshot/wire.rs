//! What is asked on a snapshot connection: one request on each bidirectional stream.
//!
//! ```text
//! 'M' epoch (8) seq (8)             → status (1); if 0: bytes (4), manifest
//! 'F' id (32) file (4) offset (8)   → status (1); if 0: the file from there to its end
//! 'H' seq (8)                       → status (1); if 0: what the state holds there (`scrub`)
//! 'O' order                         → answer (`orders`)
//! 'R' seq (8) slot (2) slot (2)     → status (1): 0 if the state is given up, to be rebuilt, as
//!                                     most hold something else in these slots there (`scrub`)
//! 'L'                               → status (1): 0 if this node would lead
//! 'C' seq (8)                       → status (1); if 0: epoch (8) seq (8) chain (16), there or at
//!                                     the commit position, if that is lower (`divergence`)
//! ```

use bytes::Buf;
use quorate_protocol::types::{Chain, EntryId, Epoch, Seq};

use super::manifest::SnapshotId;
use crate::divergence::ChainPoint;
use crate::orders::{ORDER_BYTES_MAX, Order};

/// Longest request.
pub(super) const REQUEST_BYTES_MAX: usize = 1 + ORDER_BYTES_MAX;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// The manifest of a snapshot whose last entry is at or after this one.
    Manifest { above: EntryId },
    /// The rest of one of its files.
    File { id: SnapshotId, index: u32, offset: u64 },
    /// Hashes of the state at this position, and whether its files can be read.
    Examine { seq: Seq },
    /// Something to be done by the node that is asked.
    Order(Box<Order>),
    /// The log's chain at this position.
    Chain { seq: Seq },
    /// Whether this node would lead: it is healthy and its disk has room.
    Lead,
    /// That most nodes hold something else there, so that the state must be rebuilt.
    Rebuild { seq: Seq, first_slot: u16, last_slot: u16 },
}

/// The first byte of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// What was asked for follows.
    Here = 0,
    /// It is being made: ask again.
    Preparing = 1,
    /// It can't be had here, or no longer.
    Gone = 2,
}

impl Request {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Manifest { above } => {
                bytes.push(b'M');
                bytes.extend_from_slice(&above.epoch.0.to_le_bytes());
                bytes.extend_from_slice(&above.seq.0.to_le_bytes());
            }
            Self::File { id, index, offset } => {
                bytes.push(b'F');
                bytes.extend_from_slice(id);
                bytes.extend_from_slice(&index.to_le_bytes());
                bytes.extend_from_slice(&offset.to_le_bytes());
            }
            Self::Examine { seq } => {
                bytes.push(b'H');
                bytes.extend_from_slice(&seq.0.to_le_bytes());
            }
            Self::Order(order) => {
                bytes.push(b'O');
                order.encode(&mut bytes);
            }
            Self::Chain { seq } => {
                bytes.push(b'C');
                bytes.extend_from_slice(&seq.0.to_le_bytes());
            }
            Self::Lead => bytes.push(b'L'),
            Self::Rebuild { seq, first_slot, last_slot } => {
                bytes.push(b'R');
                bytes.extend_from_slice(&seq.0.to_le_bytes());
                bytes.extend_from_slice(&first_slot.to_le_bytes());
                bytes.extend_from_slice(&last_slot.to_le_bytes());
            }
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, mut rest) = bytes.split_first()?;
        let request = match kind {
            b'M' => {
                let above = EntryId::new(
                    Epoch(rest.try_get_u64_le().ok()?),
                    Seq(rest.try_get_u64_le().ok()?),
                );
                Self::Manifest { above }
            }
            b'F' => {
                let (id, tail) = rest.split_first_chunk()?;
                let (index, tail) = tail.split_first_chunk()?;
                rest = tail;
                let index = u32::from_le_bytes(*index);
                Self::File { id: *id, index, offset: rest.try_get_u64_le().ok()? }
            }
            b'H' => Self::Examine { seq: Seq(rest.try_get_u64_le().ok()?) },
            b'O' => return Some(Self::Order(Box::new(Order::decode(rest)?))),
            b'C' => Self::Chain { seq: Seq(rest.try_get_u64_le().ok()?) },
            b'L' => Self::Lead,
            b'R' => Self::Rebuild {
                seq: Seq(rest.try_get_u64_le().ok()?),
                first_slot: rest.try_get_u16_le().ok()?,
                last_slot: rest.try_get_u16_le().ok()?,
            },
            _ => return None,
        };
        rest.is_empty().then_some(request)
    }
}

/// An order as a request.
pub(crate) fn encode_order(order: Order) -> Vec<u8> {
    Request::Order(Box::new(order)).encode()
}

/// Bytes of a chain's answer, behind the status.
pub(super) const CHAIN_BYTES: usize = 32;

/// An entry and the chain behind it, as they are answered.
pub(super) fn encode_chain(point: &ChainPoint) -> [u8; CHAIN_BYTES] {
    let mut bytes = [0; CHAIN_BYTES];
    bytes[..8].copy_from_slice(&point.id.epoch.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&point.id.seq.0.to_le_bytes());
    bytes[16..].copy_from_slice(&point.chain.0.to_le_bytes());
    bytes
}

pub(super) fn decode_chain(mut bytes: &[u8]) -> Option<ChainPoint> {
    let epoch = Epoch(bytes.try_get_u64_le().ok()?);
    let id = EntryId::new(epoch, Seq(bytes.try_get_u64_le().ok()?));
    let chain = Chain(bytes.try_get_u128_le().ok()?);
    bytes.is_empty().then_some(ChainPoint { id, chain })
}

impl Status {
    pub(super) fn decode(byte: u8) -> Option<Self> {
        [Self::Here, Self::Preparing, Self::Gone].into_iter().find(|status| *status as u8 == byte)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use quorate_protocol::types::{ClusterId, DiskId, Generation};

    use super::*;
    use crate::storage::scratch::hex;

    #[test]
    fn bytes_are_fixed() {
        let id = [7; 32];
        let manifest = Request::Manifest { above: EntryId::new(Epoch(3), Seq(900)) };
        let file = Request::File { id, index: 5, offset: 1 << 40 };
        let file_bytes = format!("46{}050000000000000000010000", "07".repeat(32));
        for (request, expected) in [
            (manifest, "4d03000000000000008403000000000000"),
            (file, file_bytes.as_str()),
            (Request::Examine { seq: Seq(77) }, "484d00000000000000"),
        ] {
            assert_eq!(hex(&request.encode()), expected);
        }
    }

    #[test]
    fn requests_round_trip_and_nothing_else_is_read() {
        let manifest = Request::Manifest { above: EntryId::new(Epoch(3), Seq(900)) };
        let file = Request::File { id: [7; 32], index: 5, offset: 1 << 40 };
        let examine = Request::Examine { seq: Seq(77) };
        let order = Request::Order(Box::new(Order {
            kind: 1,
            cluster: ClusterId(2),
            generation: Generation(3),
            disk: DiskId(4),
            limit: Duration::from_millis(5),
            operator: "ada".to_owned(),
            body: Bytes::from_static(b"{}"),
        }));
        let chain = Request::Chain { seq: Seq(1 << 50) };
        let rebuild = Request::Rebuild { seq: Seq(900), first_slot: 64, last_slot: 127 };
        for request in [manifest, file, examine, order, chain, rebuild, Request::Lead] {
            let bytes = request.encode();
            assert!(bytes.len() <= REQUEST_BYTES_MAX);
            assert_eq!(Request::decode(&bytes), Some(request.clone()));
            for length in 0..bytes.len() {
                assert_eq!(Request::decode(&bytes[..length]), None);
            }
            assert_eq!(Request::decode(&[&bytes[..], &[0]].concat()), None);
        }
        assert_eq!(Request::decode(b"X"), None);
        assert_eq!(Status::decode(1), Some(Status::Preparing));
        assert_eq!(Status::decode(3), None);
    }

    #[test]
    fn a_chain_round_trips_and_has_these_bytes() {
        let id = EntryId::new(Epoch(0x0102), Seq(0x0304));
        let point = ChainPoint { id, chain: Chain(0x0506) };
        let bytes = encode_chain(&point);
        let mut golden = [0; CHAIN_BYTES];
        (golden[0], golden[1], golden[8], golden[9]) = (2, 1, 4, 3);
        (golden[16], golden[17]) = (6, 5);
        assert_eq!(bytes, golden);
        assert_eq!(decode_chain(&bytes), Some(point));
        for length in 0..CHAIN_BYTES {
            assert_eq!(decode_chain(&bytes[..length]), None);
        }
        assert_eq!(decode_chain(&[0; CHAIN_BYTES + 1]), None);
    }
}
