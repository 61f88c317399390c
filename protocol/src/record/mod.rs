//! The format of the log, on disk and on the wire.
//!
//! An entry is a 64-byte header and its payload, identical bytes on every node. A journal segment
//! is a 128-byte segment header followed by entries; between them stand *local* frames of 64
//! bytes that never leave the node: sync marks (what was known to be synced when they were
//! written) and, once a segment is sealed, its trailer. What follows the last frame is zero, or
//! behind a trailer the segment's index.
//!
//! ```text
//! entry header (little endian)          local frame              segment header
//!  0 magic "QR"    2 version  3 kind     0 magic, version, kind   0 magic "QUORJRNL"
//!  4 payload length                      4 zero                   8 version   12 zero
//!  8 epoch                               8 epoch                 16 cluster id
//! 16 seq                                16 seq                   32 generation
//! 24 time                               24 count (trailer)       40 first seq
//! 32 payload CRC32C                     32 nonce (8)             48 epoch before it
//! 36 zero                                                        56 seq before it
//! 40 chain (16)                         40 chain (16)            64 chain before it (16)
//! 56 zero                               56 zero                  80 nonce (8)  88 base, zero
//! 60 CRC32C of bytes 0..60              60 CRC32C                124 CRC32C of bytes 0..124
//! ```
//!
//! `chain` is the first 16 bytes of BLAKE3 over the previous entry's chain and bytes 0..40 of the
//! header: 56 bytes, one compression. It covers the payload through its CRC32C, so it finds
//! accidents and diverged logs; it doesn't withstand a forger.

mod decode;
mod frame;
mod index;
mod segment;

pub use decode::{EntryDecoder, RecordError};
pub use frame::{
    FRAME_MAGIC, Frame, PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES, RecordFault, RecordHeader,
    SegmentTrailer, SyncMark,
};
pub use index::{INDEX_BYTES_MAX, INDEX_FOOTER_BYTES, IndexFooter, SegmentIndex};
pub use segment::{SEGMENT_HEADER_BYTES, SegmentFault, SegmentHeader};
