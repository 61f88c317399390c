//! What nodes say to each other, as bytes: frames with a length, a checksum and a version.
//!
//! - [`control`](ControlFrame): greetings, core messages without entries, formation. Small, on
//!   a stream of their own, so that bulk never delays them.
//! - [`log`](LogDecoder): an append with entries: a small header, then the records byte for byte
//!   as they stand in the journal.
//! - [`cluster`](encode_cluster): the payload of a `Cluster` entry, equal on the wire and on disk.
//!
//! This is the only place that uses bincode, always with a limit: no length is trusted before
//! it was compared with one. Decoders are total: any bytes give a value or a [`WireError`].

mod cluster;
mod control;
mod error;
mod frame;
mod log;

pub use cluster::{CLUSTER_PAYLOAD_BYTES_MAX, decode_cluster, encode_cluster};
pub use control::{
    CONTROL_BODY_BYTES_MAX, ControlFrame, FormReply, Formation, Hello, decode_control,
    encode_control,
};
pub use error::WireError;
pub use frame::{FRAME_PREFIX_BYTES, WIRE_VERSION};
pub use log::{
    AppendHeader, LOG_ENTRIES_MAX, LOG_RECORD_BYTES_MAX, LogDecoder, encode_log_header, entry_meta,
};
