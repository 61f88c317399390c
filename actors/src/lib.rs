//! The running node.

pub mod node;
pub mod replication;
pub mod submit;
pub mod view;
