//! Peers: one QUIC connection for each pair of nodes, authenticated both ways.
//!
//! - [`PeerEvents`]: what peers say, queued for the quorum actor within bounds, with one wake.
//! - [`EntrySource`]: where entries that a peer needs come from.
//!
//! All of it runs on the consensus thread's runtime. Data doesn't pass through mailboxes: frames
//! to send go into a bounded buffer of the session, frames received into the peer's queue.

mod entries;
mod events;

pub use entries::{EntrySource, ReadError, SendEntries};
pub use events::{PeerEvent, PeerEvents, Refusal, Session};
