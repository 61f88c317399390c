//! How a command fails: the exit codes 1 to 4 are part of the command line's contract.

use std::fmt;
use std::process::ExitCode;

/// Why a command didn't do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was tried and failed (1).
    Failed(String),
    /// It was asked in a way that makes no sense: arguments or configuration (2).
    Usage(String),
    /// The node that should answer doesn't (3).
    Unreachable(String),
    /// The node was removed from its cluster: starting it again changes nothing (4).
    Removed(String),
}

impl Failure {
    /// 1 to 4.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Failed(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
            Self::Unreachable(_) => ExitCode::from(3),
            Self::Removed(_) => ExitCode::from(4),
        }
    }

    /// A failed step, named.
    pub(crate) fn failed(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::Failed(format!("{what}: {why}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(message)
            | Self::Usage(message)
            | Self::Unreachable(message)
            | Self::Removed(message) => f.write_str(message),
        }
    }
}
