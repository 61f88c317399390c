//! Clients that load a cluster while it is broken, and the judges of what they saw: one history and
//! one checker for `quorate drill` and for the tests with real processes.
//!
//! - [`resp`]: a small blocking client of the Redis protocol.
//! - [`workload`]: writers of unique values, and clients that read and write registers.
//! - [`history`]: whether what they were told can be true.

pub mod history;
pub mod resp;
pub mod workload;
