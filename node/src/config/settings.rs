//! What a configuration comes to.

use std::path::PathBuf;

use quorate_actors::node::config::NodeConfig;

/// What the process runs with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The node.
    pub(crate) node: NodeConfig,
    /// Its log.
    pub(crate) log: LogSettings,
    /// Holds the process id while the node runs.
    pub(crate) pid_file: PathBuf,
    /// Whether other machines may read `/metrics`.
    pub(crate) public_metrics: bool,
}

/// What is logged, how and where.
#[derive(Clone, Debug)]
pub(crate) struct LogSettings {
    /// Levels by module, in tracing's syntax.
    pub(crate) filter: String,
    /// One event per line, as text or JSON.
    pub(crate) format: LogFormat,
    /// Standard error where there is none.
    pub(crate) file: Option<PathBuf>,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}
