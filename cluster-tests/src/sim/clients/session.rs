//! A client: one connection at a time, pipelines, patience, and repetition of what certainly did
//! not happen.

use std::collections::VecDeque;

use bytes::Bytes;

use super::record::{self, Ask, AttemptId};
use super::{Action, Request};
use crate::history::{Condition, Outcome};
use crate::sim::ledger::Fact;
use crate::sim::random::Random;
use crate::sim::world::{self, World};

/// How many keys clients use.
pub(in crate::sim) const KEYS: usize = 3;
/// Commands that a client leaves open at most.
const OPEN_MAX: usize = 24;
/// Commands that a client keeps for repetition.
const BACKLOG_MAX: usize = 24;
/// Written values are so far apart that increments don't lead from one to another.
const VALUE_STEP: u64 = 1_000_000;

/// One client.
#[derive(Debug)]
pub(super) struct Session {
    /// The node that it talks to.
    target: usize,
    /// Whether it stays there, whatever that node says.
    stays: bool,
    connection: Option<Connection>,
    /// What to ask again: it certainly did not happen.
    backlog: VecDeque<(usize, Ask)>,
    /// What each key held when last heard of.
    known: [Option<u64>; KEYS],
    /// Asks nothing until then.
    rests_until_us: u64,
}

/// A client's end of its connection.
#[derive(Debug)]
struct Connection {
    number: u64,
    node: usize,
    /// Commands without a reply, in order.
    open: VecDeque<AttemptId>,
    /// Whether anything was sent.
    used: bool,
    /// To be left as soon as nothing is open.
    leaving: bool,
    /// Requests arrive in order.
    lane_us: u64,
}

impl Session {
    pub(super) fn new(target: usize, stays: bool) -> Self {
        let (backlog, known) = (VecDeque::new(), [None; KEYS]);
        Self { target, stays, connection: None, backlog, known, rests_until_us: 0 }
    }

    /// Whether it waits for nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.connection.as_ref().is_none_or(|connection| connection.open.is_empty())
    }

    fn current(&mut self, number: u64) -> Option<&mut Connection> {
        self.connection.as_mut().filter(|connection| connection.number == number)
    }
}

impl World {
    pub(super) fn think(&mut self, client: usize) {
        let all_us = self.plan.propose_every_us.min(self.plan.read_every_us);
        let next_us = self.random.latency(all_us * self.clients.sessions.len() as u64 / 2);
        self.after(next_us, world::Action::Client(Action::Think { client }));
        let rests_until_us = self.clients.sessions[client].rests_until_us;
        if !self.load || self.now_us < self.silent_until_us || self.now_us < rests_until_us {
            return;
        }
        if self.random.below(400) == 0 {
            return self.hang_up(client);
        }
        if self.random.below(60) == 0 {
            // All at once.
            for client in 0..self.clients.sessions.len() {
                self.send_requests(client);
            }
        } else {
            self.send_requests(client);
        }
    }

    fn send_requests(&mut self, client: usize) {
        if !self.is_connected(client) {
            return;
        }
        let count = [1, 1, 1, 2, 3, 8][self.random.index(6)];
        let mut bytes = Vec::new();
        let mut attempts = Vec::new();
        let session = &mut self.clients.sessions[client];
        let number = session.connection.as_ref().expect("is connected").number;
        for _ in 0..count {
            let (key, ask) = match session.backlog.pop_front() {
                Some(again) => {
                    self.outcome.mark("refused command sent again");
                    again
                }
                None => invent(
                    &mut self.random,
                    self.clients.reads_percent,
                    &mut self.clients.last_value,
                    &session.known,
                ),
            };
            ask.request(key, &mut bytes);
            attempts.push(self.clients.record.begin(number, key, ask, self.now_us));
        }
        let delay_us = self.random.latency(self.plan.link_us);
        let patience_us = self.random.between(200_000, 4_000_000);
        let at_us = self.now_us + delay_us;
        let connection = session.connection.as_mut().expect("is connected");
        connection.open.extend(&attempts);
        connection.lane_us = connection.lane_us.max(at_us);
        let delay_us = connection.lane_us - self.now_us;
        let first = !std::mem::replace(&mut connection.used, true);
        let (node, connection) = (connection.node, number);
        let attempt = *attempts.last().expect("asks something");
        let request = Request { client, connection, first, bytes: bytes.into(), attempts };
        self.clients.pipes.entry(connection).or_default().push_back(request);
        self.after(delay_us, world::Action::Client(Action::Arrive { node, connection }));
        let give_up = Action::GiveUp { client, connection, attempt };
        self.after(patience_us, world::Action::Client(give_up));
    }

    /// Connects where that is needed; false while an old connection must be drained first.
    fn is_connected(&mut self, client: usize) -> bool {
        let session = &mut self.clients.sessions[client];
        let (open, leaving) = session
            .connection
            .as_ref()
            .map_or((0, true), |connection| (connection.open.len(), connection.leaving));
        if leaving && open > 0 || open >= OPEN_MAX {
            return false;
        }
        if leaving {
            self.close(client);
            self.clients.last_connection += 1;
            let session = &mut self.clients.sessions[client];
            session.connection = Some(Connection {
                number: self.clients.last_connection,
                node: session.target,
                open: VecDeque::new(),
                used: false,
                leaving: false,
                lane_us: 0,
            });
        }
        true
    }

    pub(super) fn on_reply(
        &mut self,
        client: usize,
        number: u64,
        mut bytes: Bytes,
        attempts: &[AttemptId],
    ) {
        for attempt in attempts {
            let value = record::decode(&mut bytes).expect("nodes speak RESP");
            if self.clients.sessions[client].current(number).is_none() {
                return;
            }
            let outcome = Outcome::of(Ok(value));
            self.observe(&Fact::Heard { connection: number, attempt: *attempt });
            self.hash(&(number, attempt, format!("{outcome:?}")));
            self.take_outcome(client, *attempt, &outcome);
            self.clients.record.get_mut(*attempt).heard = Some((self.now_us, outcome));
        }
    }

    fn take_outcome(&mut self, client: usize, attempt: AttemptId, outcome: &Outcome) {
        let (key, ask) = {
            let attempt = self.clients.record.get(attempt);
            (attempt.key, attempt.ask)
        };
        let nodes = self.nodes.len();
        let other = self.random.index(nodes);
        let rest_us = self.random.between(1_000, 100_000);
        let session = &mut self.clients.sessions[client];
        let connection = session.connection.as_mut().expect("is current");
        connection.open.retain(|open| *open != attempt);
        match outcome {
            Outcome::Done(value) => {
                let number = value.bytes().and_then(|bytes| std::str::from_utf8(bytes).ok());
                match ask {
                    Ask::Get => session.known[key] = number.and_then(|text| text.parse().ok()),
                    Ask::Set(value) => session.known[key] = Some(value),
                    Ask::SetIf(..) | Ask::Increment | Ask::Delete => {}
                }
                if matches!(ask, Ask::SetIf(..)) && value.is_null() {
                    self.outcome.mark("condition not met");
                }
            }
            Outcome::Refused(text) => {
                session.rests_until_us = self.now_us + rest_us;
                if !session.stays {
                    if session.backlog.len() < BACKLOG_MAX {
                        session.backlog.push_back((key, ask));
                    }
                    connection.leaving = true;
                    let named = text.rsplit(':').next().and_then(|node| node.parse().ok());
                    session.target = match named {
                        Some(node) if text.starts_with("MOVED") => node_index(node, nodes),
                        _ => other,
                    };
                }
                let code = text.split(' ').next().unwrap_or_default();
                self.outcome.mark(match code {
                    "MOVED" => "refused: moved",
                    "CLUSTERDOWN" => "refused: cluster down",
                    "NOREPLICAS" => "refused: no replicas",
                    "OVERLOADED" => "refused: overloaded",
                    "TIMEOUT" => "refused: deadline",
                    "DISKFULL" => "refused: disk full",
                    "DRAINING" => "refused: handing over",
                    _ => "refused",
                });
            }
            // Whether it happened is not known: asking again might do it twice.
            Outcome::InDoubt(_) | Outcome::Lost(_) => self.outcome.mark("client told in doubt"),
        }
    }

    /// Leaves its connection with whatever is open.
    fn hang_up(&mut self, client: usize) {
        let open = !self.clients.sessions[client].is_idle();
        if open {
            self.outcome.mark("client leaves with commands open");
        }
        self.close(client);
        let target = self.random.index(self.nodes.len());
        let rest_us = self.random.between(1_000, 300_000);
        let session = &mut self.clients.sessions[client];
        session.rests_until_us = self.now_us + rest_us;
        if !session.stays {
            session.target = target;
        }
    }

    fn close(&mut self, client: usize) {
        let delay_us = self.random.latency(self.plan.link_us);
        if let Some(connection) = self.clients.sessions[client].connection.take() {
            // Requests that are on their way come first.
            let at_us = connection.lane_us.max(self.now_us + delay_us);
            let (node, connection) = (connection.node, connection.number);
            let closed = Action::Closed { node, connection };
            self.after(at_us - self.now_us, world::Action::Client(closed));
        }
    }

    pub(super) fn on_reset(&mut self, client: usize, number: u64) {
        if self.clients.sessions[client].current(number).is_some() {
            self.outcome.mark("connection reset");
            self.hang_up(client);
        }
    }

    pub(super) fn give_up(&mut self, client: usize, number: u64, attempt: AttemptId) {
        let current = self.clients.sessions[client].current(number);
        if current.is_some_and(|connection| connection.open.contains(&attempt)) {
            self.outcome.mark("client gives up");
            self.hang_up(client);
        }
    }

    /// A node's process is gone: the machine resets its connections.
    pub(in crate::sim) fn reset_connections(&mut self, node: usize) {
        for client in 0..self.clients.sessions.len() {
            let session = &self.clients.sessions[client];
            let Some(connection) = session.connection.as_ref().filter(|c| c.node == node) else {
                continue;
            };
            let connection = connection.number;
            let delay_us = self.random.latency(self.plan.link_us);
            let reset = Action::Reset { client, connection };
            self.after(delay_us, world::Action::Client(reset));
        }
    }
}

/// Nodes are numbered from 1 on.
fn node_index(node: usize, nodes: usize) -> usize {
    node.saturating_sub(1).min(nodes - 1)
}

fn invent(
    random: &mut Random,
    reads_percent: u64,
    last_value: &mut u64,
    known: &[Option<u64>; KEYS],
) -> (usize, Ask) {
    let key = random.index(KEYS);
    if random.percent(reads_percent) {
        return (key, Ask::Get);
    }
    let mut unique = || {
        *last_value += VALUE_STEP;
        *last_value
    };
    let ask = match random.index(20) {
        0..7 => Ask::Set(unique()),
        7..14 => Ask::Increment,
        14..16 => Ask::SetIf(Condition::Absent, unique()),
        16 => Ask::SetIf(Condition::Present, unique()),
        17..19 => match known[key] {
            Some(value) => Ask::SetIf(Condition::Equals(value), unique()),
            None => Ask::SetIf(Condition::Absent, unique()),
        },
        _ => Ask::Delete,
    };
    (key, ask)
}
