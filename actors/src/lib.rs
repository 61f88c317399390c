//! The running node.

pub mod archive;
pub mod client;
pub mod clock;
pub mod divergence;
pub mod gate;
pub mod health;
pub mod metrics;
pub mod node;
pub mod orders;
pub mod quorum;
pub mod replication;
pub mod scrub;
pub mod snapshot;
pub mod storage;
pub mod submit;
pub mod supervisor;
pub mod view;
pub mod wake;
