//! Why a node doesn't start.

use std::io;

use quorate_protocol::types::Generation;

use super::recovery::RecoveryError;
use crate::client::ListenError;
use crate::replication;
use crate::replication::TlsError;
use crate::storage::{identity, journal};

/// Each names what and where; nothing was changed or lost.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Directory, hard state or journal can't be opened.
    #[error(transparent)]
    Storage(#[from] identity::StartError),
    /// A small file of the data directory can't be used.
    #[error(transparent)]
    DataDir(#[from] identity::DataDirError),
    /// The reserve for a full disk can't be given up.
    #[error("the reserve for a full disk: {0}")]
    Reserve(io::Error),
    /// The mark of a suspect log can't be used.
    #[error("the mark of a suspect log: {0}")]
    Suspect(io::Error),
    /// The hard state can't be written.
    #[error("hard state: {0}")]
    HardState(io::Error),
    /// The journal can't be read.
    #[error("journal: {0}")]
    Journal(journal::ReadError),
    /// What an earlier life left can't be removed.
    #[error("snapshots and old instances of the state can't be removed: {0}")]
    Leftovers(io::Error),
    /// Journal and state don't fit, or can't be read.
    #[error("recovery: {0}")]
    Recovery(#[from] RecoveryError),
    /// A lossy recovery was cut short (S12).
    #[error(
        "a lossy recovery of this node was cut short: its log is of generation {log}, its hard state of {hard}; run `quorate recover` again"
    )]
    HalfRecovered {
        /// As the log says.
        log: Generation,
        /// As the hard state says.
        hard: Generation,
    },
    /// The state can't be opened.
    #[error("state: {0}")]
    State(String),
    /// A listener for clients can't be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Certificates can't be used.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// The peers' endpoint doesn't start.
    #[error("peer endpoint: {0}")]
    Transport(#[from] replication::StartError),
    /// A thread can't be started.
    #[error("thread {name}: {source}")]
    Thread {
        /// Which.
        name: &'static str,
        /// As the system reports it.
        source: io::Error,
    },
    /// An actor doesn't start.
    #[error("actor: {0}")]
    Actor(String),
    /// A part ended while the node was starting.
    #[error("the {0} ended while starting")]
    Ended(&'static str),
    /// Two metrics share a name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl StartError {
    pub(super) fn actor(error: ractor::SpawnErr) -> Self {
        Self::Actor(error.to_string())
    }

    pub(super) fn state(error: impl std::fmt::Display) -> Self {
        Self::State(error.to_string())
    }
}
