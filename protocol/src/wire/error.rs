//! Why bytes of a peer, or of a `Cluster` entry, were refused.

use crate::types::{EntryId, EntryKind};

/// Bytes that aren't a valid frame, or a value that doesn't fit into one. A connection on which
/// one arrives is closed: after it nothing says where the next frame starts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The length is above the limit of the stream.
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    TooLong {
        /// What the frame says.
        length: usize,
        /// What the stream allows.
        limit: usize,
    },
    /// The frame is too short to hold even its version.
    #[error("a frame of {length} bytes is too short")]
    TooShort {
        /// What the frame says.
        length: usize,
    },
    /// The checksum doesn't match the body.
    #[error("checksum {found:08x} of a frame doesn't match its body's {computed:08x}")]
    Checksum {
        /// In the frame.
        found: u32,
        /// Of its body.
        computed: u32,
    },
    /// The frame is of a format that this binary doesn't know.
    #[error("format version {found}, this binary knows {known}")]
    Version {
        /// In the frame.
        found: u8,
        /// The highest that this binary knows.
        known: u8,
    },
    /// The body isn't a value of the expected type.
    #[error("malformed body: {0}")]
    Malformed(String),
    /// Bytes are left after the value.
    #[error("{0} bytes are left after the value")]
    Trailing(usize),
    /// A value breaks a rule that every sender keeps.
    #[error("invalid value: {0}")]
    Invalid(&'static str),
    /// An append with entries can't go over the control stream.
    #[error("an append with {0} entries belongs on the log stream")]
    EntriesInControl(usize),
    /// A record is damaged.
    #[error("record {position} of an append: {reason}")]
    Record {
        /// How many records stood before it in the frame.
        position: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Entries aren't contiguous, or their epochs go back or are above the append's own.
    #[error("entry {found} can't follow {previous} in an append")]
    NotContiguous {
        /// The entry before it, or the append's `prev`.
        previous: EntryId,
        /// The entry in question.
        found: EntryId,
    },
    /// A `Cluster` entry whose payload can't be read.
    #[error("entry {id} of kind {kind:?}: {source}")]
    Payload {
        /// The entry.
        id: EntryId,
        /// Its kind.
        kind: EntryKind,
        /// Why.
        source: Box<WireError>,
    },
}
