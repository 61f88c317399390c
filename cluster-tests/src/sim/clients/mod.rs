//! Clients, and what a node does for them.
//!
//! ```text
//!  session ──requests──► front: connection ─► batch ─► core ─► gate ──replies──► session
//!     ▲                        └────────────► read ─► core ─► state ──┘             │
//!     └───────── redirect, retry (only what certainly did not happen) ──────────────┘
//! ```
//!
//! Requests and replies are RESP bytes; commands are parsed, put into batches, applied and held
//! back by the code that a node runs. What clients asked and heard is on record for the
//! invariants.

mod front;
mod reads;
mod record;
mod session;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

pub(super) use front::{Front, UNWRITTEN_MAX, WAITING_MAX};
#[cfg(test)]
pub(super) use record::Ask;
pub(super) use record::{Answer, AttemptId, Record};
use session::Session;

use super::plan::Plan;
use super::random::Random;
use super::world::{self, World};

/// Something that happens at a client, or at a node for a client.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// A client thinks of something to ask.
    Think { client: usize },
    /// The next request of a connection reaches its node.
    Arrive { node: usize, connection: u64 },
    /// A client's end of a connection is known to be gone.
    Closed { node: usize, connection: u64 },
    /// A node seals what waits.
    Propose { node: usize, life: u64 },
    /// A deadline ends.
    Expire { node: usize, life: u64 },
    /// A read goes on.
    ReadStep { node: usize, life: u64, token: u64 },
    /// Replies reach their client.
    Reply { client: usize, connection: u64, bytes: Bytes, attempts: Vec<AttemptId> },
    /// A client learns that its connection is gone.
    Reset { client: usize, connection: u64 },
    /// A client has waited for long enough.
    GiveUp { client: usize, connection: u64, attempt: AttemptId },
}

impl Action {
    /// The node that can't do this while it is paused.
    pub(super) fn node(&self) -> Option<usize> {
        match self {
            Self::Arrive { node, .. }
            | Self::Closed { node, .. }
            | Self::Propose { node, .. }
            | Self::Expire { node, .. }
            | Self::ReadStep { node, .. } => Some(*node),
            Self::Think { .. } | Self::Reply { .. } | Self::Reset { .. } | Self::GiveUp { .. } => {
                None
            }
        }
    }
}

/// What a client sent at once.
#[derive(Clone, Debug)]
pub(super) struct Request {
    client: usize,
    connection: u64,
    /// Whether it is the connection's first.
    first: bool,
    bytes: Bytes,
    /// Which commands these are.
    attempts: Vec<AttemptId>,
}

/// All clients, with what they ever asked.
pub(super) struct Clients {
    /// What they asked and heard.
    pub(super) record: Record,
    sessions: Vec<Session>,
    /// Requests on their way, by connection.
    pipes: BTreeMap<u64, VecDeque<Request>>,
    last_connection: u64,
    last_value: u64,
    /// Reads among a hundred commands.
    reads_percent: u64,
    /// Bytes of commands that go into one entry, but for a single batch.
    entry_bytes_max: usize,
}

impl Clients {
    /// Draws some: one that stays at each node, and some that go where the primary is.
    pub(super) fn draw(random: &mut Random, plan: &Plan) -> Self {
        let roaming = [2, 4, 12][random.index(3)];
        let fixed = (0..plan.nodes).map(|node| Session::new(node, true));
        let roaming = (0..roaming).map(|_| Session::new(random.index(plan.nodes), false));
        let sessions: Vec<Session> = roaming.chain(fixed).collect();
        Self {
            record: Record::default(),
            pipes: BTreeMap::new(),
            last_connection: 0,
            last_value: 0,
            reads_percent: random.between(10, 80),
            entry_bytes_max: [1, 200, 1 << 16][random.index(3)],
            sessions,
        }
    }
}

impl World {
    /// Every client begins.
    pub(super) fn clients_begin(&mut self) {
        for client in 0..self.clients.sessions.len() {
            let at_us = self.random.between(400_000, 800_000);
            self.after(at_us, world::Action::Client(Action::Think { client }));
        }
    }

    pub(super) fn on_client(&mut self, action: Action) {
        match action {
            Action::Think { client } => self.think(client),
            Action::Arrive { node, connection } => {
                // A node's pauses may defer requests by more or less: what overtakes is the event.
                let pipe = self.clients.pipes.get_mut(&connection);
                if let Some(request) = pipe.and_then(VecDeque::pop_front) {
                    self.on_request(node, request);
                }
            }
            Action::Closed { node, connection } => self.on_closed(node, connection),
            Action::Propose { node, life } if self.lives(node, life) => self.propose(node),
            Action::Expire { node, life } if self.lives(node, life) => self.expire(node),
            Action::ReadStep { node, life, token } if self.lives(node, life) => {
                self.on_read_step(node, token);
            }
            Action::Propose { .. } | Action::Expire { .. } | Action::ReadStep { .. } => {}
            Action::Reply { client, connection, bytes, attempts } => {
                self.on_reply(client, connection, bytes, &attempts);
            }
            Action::Reset { client, connection } => self.on_reset(client, connection),
            Action::GiveUp { client, connection, attempt } => {
                self.give_up(client, connection, attempt);
            }
        }
    }
}
