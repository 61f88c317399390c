//! Commands in the log.
//!
//! The payload of a `Commands` entry is a concatenation of batches. A batch is a header of
//! [`HEADER_BYTES`] and a body:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of the body, little endian |
//! | 4 | number of units in the body = number of replies, little endian |
//! | 4 | CRC32C of the body, little endian |
//! | 1 | version of the body: [`VERSION`] |
//! | … | units: an opcode, then its fields |
//!
//! Numbers in units are LEB128 in their shortest form, signed ones zigzag; texts are their length
//! and their bytes. One value has one encoding. A decoder believes no length or count before the
//! bytes are there, and an opcode, version or flag that it doesn't know is an error: a node that
//! skipped what it doesn't understand would have another state than the others.

mod decode;
mod encode;
mod fields;
mod opcode;

pub use decode::{Batches, DecodeError, EncodedBatch, Units};
pub use encode::Encoder;

/// Bytes in front of a batch's body.
pub const HEADER_BYTES: usize = 12;
/// The first byte of every body.
pub const VERSION: u8 = 1;

/// A finished batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Header and body: what the entry's payload holds.
    pub bytes: bytes::Bytes,
    /// CRC32C of `bytes`.
    pub crc: u32,
    /// Number of units, so of replies.
    pub count: u32,
}

#[cfg(test)]
pub(super) mod tests;
