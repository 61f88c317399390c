//! One node, assembled.
//!
//! - `config`: what it is configured with.
//! - `recovery`: journal, state and hard state put together.
//! - `consensus`: the thread that the quorum actor and the peers' connections run on.
//! - `start`: starting everything in order, and stopping it.

pub mod config;
mod consensus;
mod error;
mod recovery;
mod start;

pub use config::NodeConfig;
pub use error::StartError;
pub use recovery::RecoveryError;
pub use start::{RunningNode, ShutdownReport};
