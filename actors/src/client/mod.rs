//! Clients: RESP listeners, connections, and what a connection answers by itself.
//!
//! A connection is one task that works in rounds: it reads what its socket has, parses all
//! complete commands, answers them in order, and writes the answers together. Reads are answered
//! from the state directly, under the lease rules (`reads`). Consecutive writes, and the reads
//! among and after them, become one batch for the quorum actor (`batch`), and the round goes on
//! when its outcome is known. So at most one batch of a connection is on its way, and order and
//! read-your-writes hold by construction.

mod batch;
mod connection;
mod control;
mod limits;
mod output;
mod reads;
mod refusal;
mod registry;
mod round;
mod routing;
mod server;
mod session;
mod shared;
mod slowlog;
mod transaction;

pub use server::{ClientControl, ClientServer, ListenError};
pub use shared::{ClientOptions, ClientParts, State, StateFault};

#[cfg(test)]
mod tests;
