//! One node, assembled.
//!
//! - `config`: what it is configured with.
//! - `recovery`: journal, state and hard state put together.
//! - `consensus`: the thread that the quorum actor and the peers' connections run on.
//! - `open`: its storage, opened.
//! - `wiring`: what its parts share, and how each is put together.
//! - `describe`: what the configuration says of it.
//! - `start`: starting everything in order.
//! - `draining`: leadership given up before the end.
//! - `reload`: settings that it takes over while it runs.
//! - `running`: what a running node shows, and its stop.

pub mod config;
mod consensus;
mod describe;
mod draining;
mod error;
mod offline;
mod open;
mod recovery;
mod reload;
mod running;
mod start;
mod survivor;
mod wiring;

pub use config::NodeConfig;
pub use draining::{Drain, Drained};
pub use error::StartError;
pub use offline::OfflineCopy;
pub use recovery::RecoveryError;
pub use reload::{Certificates, Reload};
pub use running::{FinalBackup, RunningNode, ShutdownReport, forget};
pub use survivor::{NewGeneration, RecoverError, Survivor};
