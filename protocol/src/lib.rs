//! Quorate's protocol, pure: no runtime, no clock, no randomness of its own.

pub mod cluster;
pub mod command;
pub mod core;
pub mod entry;
pub mod formation;
pub mod gate;
pub mod mutants;
pub mod policy;
pub mod record;
pub mod resp;
pub mod types;
pub mod wire;

/// Whether deliberate mistakes are compiled in: never in a node.
pub const MUTANTS: bool = cfg!(feature = "mutants");
