//! Peers: one QUIC connection for each pair of nodes, authenticated both ways.
//!
//! - [`Replication`]: the handle; sends, changes peers, stops.
//! - [`PeerEvents`]: what peers say, queued for the quorum actor within bounds, with one wake.
//! - [`EntrySource`]: where entries that a peer needs come from.
//! - [`TlsMaterial`]: certificates; node ids come from them alone.
//!
//! Two actors: the receiver owns the endpoint and accepts; a sender for each peer owns the
//! connection with it, and dials: at once where this node has the lower id, and after a while without a
//! session where it has the higher one, since only the other side may know where it is. Data doesn't pass through
//! their mailboxes: frames to send go into a bounded buffer of the session, frames received into
//! the peer's queue. All of it runs on the consensus thread's runtime.
//!
//! A connection has two streams. The control stream has priority and small frames; the log
//! stream has appends with entries. Neither is trusted to be in order with the other.

mod bulk;
mod config;
mod endpoint;
mod entries;
mod events;
mod greeting;
mod handle;
mod join;
mod receiver;
mod roster;
mod sender;
mod session;
mod shared;
mod task;
mod tls;

pub use bulk::{BulkDialler, BulkError, Knock};
pub use endpoint::EndpointError;
pub use entries::{EntrySource, LogSource, ReadError, SendEntries};
pub use events::{PeerEvent, PeerEvents, Refusal, Session};
pub use handle::{Replication, ReplicationOptions, StartError, Stopped};
pub(crate) use join::answer as answer_join;
pub use join::{
    CallError, JOIN_ANSWER_BYTES_MAX, JOIN_REQUEST_BYTES_MAX, ReceivedJoin, call_member,
    fingerprint,
};
pub use receiver::PeerAddress;
pub use roster::{Candidate, Candidates, Roster};
pub use shared::PeerStats;
pub use tls::{ALPN, IdentityError, TlsError, TlsMaterial, certified_node, node_name};

#[cfg(test)]
mod tests;
