//! Runs real nodes and judges what clients saw.

pub mod bench;
pub mod harness;
pub mod history;
pub mod http;
pub mod modelcheck;
pub mod resp;
pub mod sim;
pub mod workload;
