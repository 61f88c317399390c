//! Why an archive can't be written, read or restored.

use std::io;
use std::path::PathBuf;

use quorate_protocol::policy::PolicyError;
use quorate_protocol::types::EntryId;
use quorate_protocol::wire::WireError;

use crate::storage::hardstate::HardStateError;
use crate::storage::identity::DataDirError;
use crate::storage::journal;
use crate::storage::state::{self, StateError};

/// Each names the file.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The target's system refused.
    #[error("{name}: {source}")]
    Target {
        /// Which file of which target.
        name: String,
        /// As the system reports it.
        source: io::Error,
    },
    /// A file of this node.
    #[error("{path}: {source}", path = path.display())]
    Local {
        /// Which.
        path: PathBuf,
        /// As the system reports it.
        source: io::Error,
    },
    /// There is no archive.
    #[error("{target} holds no archive")]
    Nothing {
        /// Where it was looked for.
        target: String,
    },
    /// Something that another file names isn't there.
    #[error("{name} is missing")]
    Missing {
        /// Which file.
        name: String,
    },
    /// A file isn't what was written.
    #[error("{name} is damaged: {what}")]
    Damaged {
        /// Which file.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// A file is another cluster's, or of another place in the chain.
    #[error("{name} does not belong here: {what}")]
    Foreign {
        /// Which file.
        name: String,
        /// What it says instead.
        what: String,
    },
    /// Another archiver was faster.
    #[error("another node has written to this archive meanwhile")]
    Fenced,
    /// The archive is another cluster's.
    #[error("the archive belongs to cluster {theirs}, this node to {ours}")]
    OtherCluster {
        /// Whose it is.
        theirs: String,
        /// This node's.
        ours: String,
    },
    /// The archive is of a history that this node's log isn't of.
    #[error(
        "the archive ends at entry {archived}, which is not in this node's log: it is of a history that \
         a recovery gave up; archive to another target"
    )]
    OtherHistory {
        /// Where the archive ends.
        archived: EntryId,
    },
    /// An archive within a data directory, or the other way round.
    #[error(
        "the archive {path} and the data directory lie within each other; a backup belongs elsewhere",
        path = path.display()
    )]
    OwnData {
        /// The target.
        path: PathBuf,
    },
    /// This node isn't in a state to archive anything.
    #[error("this node can't make a backup now: {0}")]
    NotNow(String),
    /// Another node has archived more than this one has.
    #[error("this node has applied {applied}, the archive goes to {archived}")]
    Behind {
        /// What this node has.
        applied: u64,
        /// What the archive has.
        archived: u64,
    },
    /// What was archived is not on as many nodes as it should.
    #[error("entry {seq} is archived, but {missing}")]
    NotAcked {
        /// Where the archive ends.
        seq: u64,
        /// In words.
        missing: String,
    },
    /// The archive holds nothing as of that moment.
    #[error("the archive doesn't reach {wanted}: it holds {held}")]
    OutOfReach {
        /// What was asked for.
        wanted: String,
        /// What there is.
        held: String,
    },
    /// A restore needs an empty directory.
    #[error("{path} is not empty; a restore needs an empty directory", path = path.display())]
    NotEmpty {
        /// The data directory.
        path: PathBuf,
    },
    /// What was restored isn't what was backed up.
    #[error("at {at} the restored state is not what was archived: {what}")]
    Content {
        /// At which entry.
        at: EntryId,
        /// How it differs.
        what: String,
    },
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The state can't be opened.
    #[error(transparent)]
    OpenState(#[from] state::OpenError),
    /// The journal can't be read.
    #[error(transparent)]
    Journal(#[from] journal::ReadError),
    /// The restored journal can't be written.
    #[error(transparent)]
    OpenJournal(#[from] journal::OpenError),
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The restored hard state.
    #[error(transparent)]
    HardState(#[from] HardStateError),
    /// A cluster entry can't be read or written.
    #[error("cluster entry: {0}")]
    Cluster(#[from] WireError),
    /// One node can't meet the policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

impl ArchiveError {
    pub(super) fn damaged(name: &str, what: impl std::fmt::Display) -> Self {
        Self::Damaged { name: name.to_owned(), what: what.to_string() }
    }

    pub(super) fn foreign(name: &str, what: impl std::fmt::Display) -> Self {
        Self::Foreign { name: name.to_owned(), what: what.to_string() }
    }
}
