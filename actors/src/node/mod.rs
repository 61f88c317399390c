//! One node, assembled: what it is configured with.

pub mod config;

pub use config::NodeConfig;
