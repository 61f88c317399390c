//! What is asked on a snapshot connection: one request on each bidirectional stream.
//!
//! ```text
//! 'M' epoch (8) seq (8)             → status (1); if 0: bytes (4), manifest
//! 'F' id (32) file (4) offset (8)   → status (1); if 0: the file from there to its end
//! 'H' seq (8)                       → status (1); if 0: what the state holds there (`scrub`)
//! 'O' order                         → answer (`orders`)
//! ```

use bytes::Buf;
use quorate_protocol::types::{EntryId, Epoch, Seq};

use super::manifest::SnapshotId;
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
            _ => return None,
        };
        rest.is_empty().then_some(request)
    }
}

/// An order as a request.
pub(crate) fn encode_order(order: Order) -> Vec<u8> {
    Request::Order(Box::new(order)).encode()
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
        for request in [manifest, file, examine, order] {
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
}
