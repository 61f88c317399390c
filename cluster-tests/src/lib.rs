//! Runs real nodes and judges what clients saw.

pub mod history;
pub mod http;
pub mod resp;
