//! The replication core.

pub mod message;
