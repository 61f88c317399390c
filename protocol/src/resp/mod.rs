//! The Redis protocol as a server speaks it: requests in, replies out.
//!
//! - `parser`: [`RequestParser`], argument lists from a growing buffer, without copies.
//! - `inline`: requests that are a line of text.
//! - `reply`, `writer`: [`Reply`], and its bytes in RESP2 and RESP3.

mod inline;
mod parser;
mod reply;
mod writer;

pub use parser::{Limits, ProtocolError, RequestParser};
pub use reply::Reply;
pub use writer::Protocol;

#[cfg(test)]
mod tests;
