//! What a node says of itself over HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use crate::http;

/// The longest wait for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// The part of `/status` that tests look at.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// Where it is in its life: `starting` until it knows its own log.
    pub phase: String,
    /// What the node is to the others.
    pub role: Role,
    /// Lossy recoveries that its cluster went through.
    pub generation: u64,
    /// The epoch that it is in.
    pub epoch: u64,
    /// Position up to which it has executed the log.
    pub applied_seq: u64,
    /// Position up to which it knows the log to be committed.
    pub committed_seq: u64,
    /// The last entry's position in its log.
    pub last_seq: u64,
    /// Position up to which its log is synced.
    pub persisted_seq: u64,
    /// How many times it has started.
    pub incarnation: u64,
    /// The snapshot that it is receiving.
    pub receiving: Option<Receiving>,
    /// The snapshots that it is sending.
    pub sending: Vec<Sending>,
}

/// A snapshot on its way.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Receiving {
    /// From which node.
    pub from: u64,
    /// Bytes that are here.
    pub received_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// A snapshot on its way to another node.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Sending {
    /// To which node.
    pub to: u64,
    /// Bytes that were sent.
    pub sent_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// A node's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Follows.
    Replica,
    /// Asks for votes.
    Candidate,
    /// Follows without a vote.
    Learner,
}

/// A hash over the whole state at one position.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ContentHash {
    /// The position that it was taken at.
    pub applied_seq: u64,
    /// The hash in hex.
    pub content_hash: String,
}

impl Status {
    /// Asks the node at this admin address; `None` if it gives no answer.
    #[must_use]
    pub fn of(admin: SocketAddr) -> Option<Self> {
        let response = http::get(admin, "/status", ANSWER_LIMIT).ok()?;
        Some(
            serde_json::from_str(&response.body)
                .unwrap_or_else(|error| panic!("/status of {admin}: {error}: {}", response.body)),
        )
    }
}

impl ContentHash {
    /// Asks the node at this admin address; `None` if it gives no answer.
    #[must_use]
    pub fn of(admin: SocketAddr) -> Option<Self> {
        let response = http::get(admin, "/admin/content-hash", Duration::from_secs(30)).ok()?;
        (response.status == 200).then(|| {
            serde_json::from_str(&response.body).unwrap_or_else(|error| {
                panic!("/admin/content-hash of {admin}: {error}: {}", response.body)
            })
        })
    }
}
