//! Small checksummed files: `identity` and `reservation`. Both have 64 bytes, little endian:
//!
//! ```text
//!  0 magic (8)   8 version  12 zero   16 node (identity)   24 disk (16)   40 cluster (16; identity)
//! 56 zero       60 CRC32C of bytes 0..60
//! ```

use quorate_protocol::types::{ClusterId, DiskId, NodeId};

/// Bytes of either file.
pub(super) const RECORD_BYTES: usize = 64;

const VERSION: u32 = 1;
const IDENTITY: [u8; 8] = *b"QUORIDNT";
const RESERVATION: [u8; 8] = *b"QUORRSVN";
const CRC_AT: usize = 60;

/// Whose directory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node that made it. Another node refuses it.
    pub node: NodeId,
    /// Random, drawn when the directory was made.
    pub disk: DiskId,
    /// The cluster, once it is formed or joined.
    pub cluster: Option<ClusterId>,
}

/// Why bytes aren't such a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordFault {
    Damaged,
    Newer(u32),
}

impl Identity {
    pub(super) fn encode(&self) -> [u8; RECORD_BYTES] {
        encode(IDENTITY, self.node, self.disk, self.cluster)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, RecordFault> {
        let (node, disk, cluster) = decode(IDENTITY, bytes)?;
        Ok(Self { node, disk, cluster })
    }
}

pub(super) fn encode_reservation(disk: DiskId) -> [u8; RECORD_BYTES] {
    encode(RESERVATION, NodeId(0), disk, None)
}

pub(super) fn decode_reservation(bytes: &[u8]) -> Result<DiskId, RecordFault> {
    decode(RESERVATION, bytes).map(|(_, disk, _)| disk)
}

fn encode(
    magic: [u8; 8],
    node: NodeId,
    disk: DiskId,
    cluster: Option<ClusterId>,
) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    bytes[..8].copy_from_slice(&magic);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&node.0.to_le_bytes());
    bytes[24..40].copy_from_slice(&disk.0.to_le_bytes());
    bytes[40..56].copy_from_slice(&cluster.map_or(0, |cluster| cluster.0).to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..CRC_AT]);
    bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

type Fields = (NodeId, DiskId, Option<ClusterId>);

fn decode(magic: [u8; 8], bytes: &[u8]) -> Result<Fields, RecordFault> {
    let bytes: &[u8; RECORD_BYTES] = bytes.try_into().map_err(|_| RecordFault::Damaged)?;
    let (data, crc) = bytes.split_at(CRC_AT);
    if crc32c::crc32c(data).to_le_bytes() != crc || data[..8] != magic {
        return Err(RecordFault::Damaged);
    }
    let version = u32::from_le_bytes(take(data, 8));
    if version > VERSION {
        return Err(RecordFault::Newer(version));
    }
    let cluster = u128::from_le_bytes(take(data, 40));
    let fields = (
        NodeId(u64::from_le_bytes(take(data, 16))),
        DiskId(u128::from_le_bytes(take(data, 24))),
        (cluster != 0).then_some(ClusterId(cluster)),
    );
    if encode(magic, fields.0, fields.1, fields.2) == *bytes {
        Ok(fields)
    } else {
        Err(RecordFault::Damaged)
    }
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range has N bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::scratch::hex;

    #[test]
    fn bytes_are_fixed_and_damage_is_found() {
        let identity =
            Identity { node: NodeId(3), disk: DiskId(0x11), cluster: Some(ClusterId(0x22)) };
        let bytes = identity.encode();
        let expected = [
            "51554f5249444e54010000000000000003000000000000001100000000000000",
            "00000000000000002200000000000000000000000000000000000000353f71d8",
        ];
        assert_eq!(hex(&bytes), expected.concat());
        assert_eq!(Identity::decode(&bytes), Ok(identity));
        for bit in 0..8 * RECORD_BYTES {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Identity::decode(&damaged), Err(RecordFault::Damaged), "bit {bit}");
        }
        assert_eq!(decode_reservation(&bytes), Err(RecordFault::Damaged), "another kind");
        assert_eq!(decode_reservation(&encode_reservation(DiskId(4))), Ok(DiskId(4)));
    }
}
