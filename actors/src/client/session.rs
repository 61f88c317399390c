//! What one connection has agreed on with its client.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_protocol::command::ReadLevel;
use quorate_protocol::policy::Policy;
use quorate_protocol::resp::Protocol;
use quorate_protocol::types::EntryId;

use super::transaction::Transaction;

/// Which listener a connection came in by: the mode belongs to the listener, because cluster
/// clients ask for the topology on one connection and send data on others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// A node of a Redis Cluster with one shard: replicas redirect.
    Cluster,
    /// A standalone server. Redirects are off: what only the primary may do is refused elsewhere.
    Plain,
}

/// One connection's settings and state.
#[derive(Debug)]
pub(super) struct Session {
    pub mode: Mode,
    pub protocol: Protocol,
    pub authenticated: bool,
    /// `READONLY`: a replica may answer reads from its own state.
    pub read_only: bool,
    /// `SESSION READ`
    pub read_level: ReadLevel,
    /// `SESSION READ local MAXLAG`
    pub max_lag: Option<Duration>,
    /// `SESSION DEADLINE`
    pub deadline: Option<Duration>,
    /// `SESSION DURABILITY`, where it asks for more than the cluster's policy did.
    pub durability: Option<Policy>,
    /// `SESSION TOKEN`: what the next write carries.
    pub token: Option<Bytes>,
    /// `CLIENT REPLY`
    pub replies: Replies,
    /// `MULTI` and `WATCH`
    pub transaction: Transaction,
    /// Where the last write of this connection went.
    pub last_write: Option<EntryId>,
    /// Set once the connection should end after its replies.
    pub closing: bool,
}

/// Which replies a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replies {
    /// All.
    On,
    /// None until further notice.
    Off,
    /// Not that of the next command.
    SkipNext,
}

/// When a request must be answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    /// The moment.
    pub at: Instant,
    /// Whether it is the session's own, not the store's.
    pub caller: bool,
}

impl Session {
    /// A new connection.
    pub(super) fn new(mode: Mode, authenticated: bool) -> Self {
        Self {
            mode,
            protocol: Protocol::Resp2,
            authenticated,
            read_only: false,
            read_level: ReadLevel::Lease,
            max_lag: None,
            deadline: None,
            durability: None,
            token: None,
            replies: Replies::On,
            transaction: Transaction::default(),
            last_write: None,
            closing: false,
        }
    }

    /// `RESET`: as new, but for the listener.
    pub(super) fn reset(&mut self, authenticated: bool) {
        *self = Self::new(self.mode, authenticated);
    }

    /// The nearer of the session's and the store's deadline.
    pub(super) fn deadline(&self, from: Instant, store: Duration) -> Deadline {
        match self.deadline {
            Some(own) if own < store => Deadline { at: from + own, caller: true },
            _ => Deadline { at: from + store, caller: false },
        }
    }

    /// Whether this command's reply is wanted; `CLIENT REPLY SKIP` is used up by asking.
    pub(super) fn take_wanted(&mut self) -> bool {
        match self.replies {
            Replies::On => true,
            Replies::Off => false,
            Replies::SkipNext => {
                self.replies = Replies::On;
                false
            }
        }
    }

    /// Whether reads may be answered from a replica's own state.
    pub(super) fn reads_locally(&self) -> bool {
        self.read_only || self.read_level == ReadLevel::Local
    }
}
