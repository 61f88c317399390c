//! What can go wrong with the state.

use std::path::PathBuf;

use quorate_protocol::types::Seq;

use super::value::BadValue;

/// Why the state couldn't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory couldn't be made.
    #[error("can't create {path}: {source}")]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// An option was refused.
    #[error(transparent)]
    Options(#[from] crate::storage::options::OptionsError),
    /// RocksDB doesn't open it.
    #[error("can't open the state in {path}: {source}")]
    RocksDb {
        /// Which directory.
        path: PathBuf,
        /// What RocksDB says.
        source: rocksdb::Error,
    },
    /// Data and position are at one point only in a single column family without WAL.
    #[error("the state in {path} has the column families {families:?}, not just `default`")]
    ColumnFamilies {
        /// Which directory.
        path: PathBuf,
        /// What is there.
        families: Vec<String>,
    },
    /// Written by another version.
    #[error("the state in {path} has format {found}, and this version reads format {known}")]
    Format {
        /// Which directory.
        path: PathBuf,
        /// The version on disk; 0 where there is data but no version.
        found: u32,
        /// The version of this binary.
        known: u32,
    },
    /// A table is gone, or has another size than RocksDB wrote.
    #[error("{path} is not as it was written", path = path.display())]
    Table {
        /// Which file.
        path: PathBuf,
    },
    /// The position can't be read.
    #[error(transparent)]
    State(#[from] StateError),
}

/// A failed access to the state. Names what was accessed, so that a damaged key can be found.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StateError {
    /// RocksDB failed.
    #[error("{operation} of `{key}`: {source}")]
    RocksDb {
        /// What was done.
        operation: Operation,
        /// The client's key, escaped, or the name of what isn't a client's.
        key: String,
        /// What RocksDB says.
        source: rocksdb::Error,
    },
    /// What RocksDB returned isn't what was stored.
    #[error("{operation} of `{key}`: {source}")]
    BadValue {
        /// What was done.
        operation: Operation,
        /// The client's key, escaped.
        key: String,
        /// What is wrong.
        source: BadValue,
    },
    /// RocksDB would wait for a flush that it doesn't make any more.
    #[error("flush of the state: RocksDB has given it up for lack of space")]
    FlushGivenUp,
    /// A scrub found other content here than on most nodes.
    #[error("most nodes hold other content in slots {first_slot} to {last_slot} at {seq}")]
    Different {
        /// The first of the slots.
        first_slot: u16,
        /// The last of them.
        last_slot: u16,
        /// The position that they were compared at.
        seq: Seq,
    },
    /// The state's own records can't be read.
    #[error("the record `{record}` of the state can't be decoded")]
    BadRecord {
        /// Which one.
        record: &'static str,
    },
}

/// What the system says of a file that isn't there, or that the disk doesn't give back. Any other
/// reason for which a file can't be read, such as too many that are open, goes by.
const GONE: [&str; 2] = ["No such file or directory", "Input/output error"];

/// What was being done when an access failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reading one key.
    Get,
    /// Walking over keys.
    Scan,
    /// Writing a batch.
    Write,
    /// Writing memory to disk.
    Flush,
    /// Making a checkpoint.
    Checkpoint,
    /// Waiting for a compaction.
    Compact,
}

/// What the system says of a full disk; the bindings pass no code for it on.
const NO_SPACE: &str = "No space left on device";

impl OpenError {
    /// Whether what was written is not there any more, as opposed to something that stands in the
    /// way of reading it.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        match self {
            Self::RocksDb { source, .. } => source.kind() == rocksdb::ErrorKind::Corruption,
            Self::Table { .. } => true,
            Self::State(error) => error.is_loss(),
            Self::Directory { .. }
            | Self::Options(_)
            | Self::ColumnFamilies { .. }
            | Self::Format { .. } => false,
        }
    }
}

impl StateError {
    pub(crate) fn rocksdb(operation: Operation, key: &[u8], source: rocksdb::Error) -> Self {
        Self::RocksDb { operation, key: key.escape_ascii().to_string(), source }
    }

    pub(crate) fn bad_value(operation: Operation, key: &[u8], source: BadValue) -> Self {
        Self::BadValue { operation, key: key.escape_ascii().to_string(), source }
    }

    /// Whether what was written can't be read back: the state must be rebuilt. What can't be written
    /// is no loss, for the log brings it back.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        match self {
            Self::RocksDb { operation, source, .. } => match source.kind() {
                rocksdb::ErrorKind::Corruption => true,
                rocksdb::ErrorKind::IOError => {
                    let reading = matches!(operation, Operation::Get | Operation::Scan);
                    reading && GONE.iter().any(|text| source.as_ref().contains(text))
                }
                _ => false,
            },
            Self::FlushGivenUp => false,
            Self::BadValue { .. } | Self::BadRecord { .. } | Self::Different { .. } => true,
        }
    }

    /// Whether nothing is wrong but that there is no space.
    #[must_use]
    pub fn is_lack_of_space(&self) -> bool {
        match self {
            Self::RocksDb { source, .. } => source.as_ref().contains(NO_SPACE),
            Self::FlushGivenUp => true,
            Self::BadValue { .. } | Self::BadRecord { .. } | Self::Different { .. } => false,
        }
    }

    /// Whether the state itself is in doubt, as opposed to one access that didn't go through: then
    /// nothing more may be built on it.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::RocksDb { source, .. } => match source.kind() {
                rocksdb::ErrorKind::Corruption => true,
                // A full disk has failed at nothing that was written.
                rocksdb::ErrorKind::IOError => !source.as_ref().contains(NO_SPACE),
                _ => false,
            },
            Self::FlushGivenUp => false,
            Self::BadValue { .. } | Self::BadRecord { .. } | Self::Different { .. } => true,
        }
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Get => "get",
            Self::Scan => "scan",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Checkpoint => "checkpoint",
            Self::Compact => "compaction",
        })
    }
}
