//! Runs real nodes and judges what clients saw.

pub mod bench;
pub mod harness;
pub mod http;
pub mod modelcheck;
pub mod sim;

pub use quorate_drill::{history, resp, workload};
