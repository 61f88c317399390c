//! What a node does for its clients: connections, batches, the gate. The order of things is that
//! of the node's own client actors.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use quorate_protocol::command::batch::{Encoded, Encoder};
use quorate_protocol::command::{self, Command, Unit};
use quorate_protocol::core::{Event, Refused, Role};
use quorate_protocol::gate::{DoubtReason, Held, Queue, Release};
use quorate_protocol::mutants::Mutant;
use quorate_protocol::resp::{Limits, Protocol, Reply, RequestParser};
use quorate_protocol::types::{ClusterTime, EntryId, Epoch, Seq};

use super::reads::PendingRead;
use super::record::{Answer, AttemptId};
use super::{Action, Request};
use crate::sim::ledger::Fact;
use crate::sim::node::Process;
use crate::sim::world::{self, World};

/// Entries that may wait for their commit; a node seals no more.
pub(in crate::sim) const UNCOMMITTED_MAX: u64 = 100;
/// Entries that may wait for the journal; a node seals no more.
pub(in crate::sim) const UNWRITTEN_MAX: u64 = 100;
/// Batches that may wait to be sealed; a node admits no more.
pub(in crate::sim) const WAITING_MAX: usize = 8;
/// Commands of one batch.
const BATCH_COUNT_MAX: usize = 64;

/// A node's side of its clients.
#[derive(Debug, Default)]
pub(in crate::sim) struct Front {
    /// Replies that must not leave yet.
    pub(in crate::sim) gate: Queue<Waiter, Reply, u64>,
    /// Batches that no entry holds yet.
    pub(in crate::sim) waiting: VecDeque<Batch>,
    /// Reads by token.
    pub(in crate::sim) reads: BTreeMap<u64, PendingRead>,
    connections: BTreeMap<u64, Connection>,
    /// Reads that the core has not answered.
    pub(super) asked: BTreeSet<u64>,
    last_token: u64,
    /// Whether sealing is under way.
    sealing: bool,
}

/// Who waits for the replies of a batch.
#[derive(Debug)]
pub(in crate::sim) struct Waiter {
    pub(super) connection: u64,
    pub(super) attempts: Vec<AttemptId>,
}

/// Commands of one connection on their way into an entry.
#[derive(Debug)]
pub(in crate::sim) struct Batch {
    waiter: Waiter,
    encoded: Encoded,
    deadline_us: u64,
}

/// A connection as its node knows it.
#[derive(Debug)]
struct Connection {
    client: usize,
    parser: RequestParser,
    input: BytesMut,
    /// Commands that are not begun, in order.
    commands: VecDeque<(AttemptId, Command)>,
    /// Whether a batch or a read of it is under way.
    busy: bool,
    /// Replies arrive in order.
    lane_us: u64,
}

impl Connection {
    fn new(client: usize) -> Self {
        let mut parser = RequestParser::new(Limits::default());
        parser.set_authenticated(true);
        let (input, commands) = (BytesMut::new(), VecDeque::new());
        Self { client, parser, input, commands, busy: false, lane_us: 0 }
    }

    /// The reads at the front, or a batch of what is there if a write is.
    fn next(&mut self) -> Vec<(AttemptId, Command)> {
        let is_read = |command: &Command| matches!(command, Command::Read(_));
        let Some((_, first)) = self.commands.front().filter(|_| !self.busy) else {
            return Vec::new();
        };
        let count = if is_read(first) {
            self.commands.iter().take_while(|(_, command)| is_read(command)).count()
        } else {
            self.commands.len()
        };
        self.busy = true;
        self.commands.drain(..count.min(BATCH_COUNT_MAX)).collect()
    }
}

impl Front {
    /// How many reads the core has not answered.
    pub(in crate::sim) fn asked_count(&self) -> usize {
        self.asked.len()
    }

    /// Whether no command is under way.
    pub(in crate::sim) fn is_idle(&self) -> bool {
        let idle = |connection: &Connection| {
            !connection.busy && connection.commands.is_empty() && connection.input.is_empty()
        };
        self.gate.is_empty()
            && self.gate.next_deadline().is_none()
            && self.waiting.is_empty()
            && self.reads.is_empty()
            && self.asked.is_empty()
            && self.connections.values().all(idle)
    }
}

impl World {
    pub(super) fn process(&mut self, node: usize) -> &mut Process {
        self.nodes[node].process.as_mut().expect("runs")
    }

    pub(super) fn on_request(&mut self, node: usize, request: Request) {
        let Request { client, connection, first, bytes, attempts } = request;
        let known = self.nodes[node].process.as_mut().map(|process| &mut process.front.connections);
        let open = match known {
            Some(connections) if first => {
                Some(connections.entry(connection).or_insert_with(|| Connection::new(client)))
            }
            Some(connections) => connections.get_mut(&connection),
            None => None,
        };
        // Nothing listens, or an earlier process did.
        let Some(open) = open else {
            let delay_us = self.random.latency(self.plan.link_us);
            let reset = Action::Reset { client, connection };
            return self.after(delay_us, world::Action::Client(reset));
        };
        open.input.extend_from_slice(&bytes);
        let mut argv = Vec::new();
        let mut attempts = attempts.into_iter();
        while open.parser.parse(&mut open.input, &mut argv).expect("clients speak RESP") {
            let command = command::parse(&mut argv).expect("clients know their commands");
            let attempt = attempts.next().expect("as many commands as attempts");
            open.commands.push_back((attempt, command));
        }
        self.serve(node, connection);
    }

    pub(super) fn on_closed(&mut self, node: usize, connection: u64) {
        self.clients.pipes.remove(&connection);
        if let Some(process) = &mut self.nodes[node].process {
            process.front.connections.remove(&connection);
        }
    }

    /// Goes on with a connection's commands.
    fn serve(&mut self, node: usize, connection: u64) {
        let Some(open) = self.process(node).front.connections.get_mut(&connection) else {
            return;
        };
        let commands = open.next();
        match commands.first() {
            Some((_, Command::Read(_))) => self.begin_read(node, connection, commands),
            Some(_) => self.submit(node, connection, commands),
            None => {}
        }
    }

    /// Why this node does nothing for clients now; the error's code says that nothing happened.
    pub(super) fn not_here(&self, node: usize) -> Option<String> {
        let core = &self.nodes[node].process.as_ref().expect("runs").core;
        match (core.role(), core.primary()) {
            (Role::Primary, _) => None,
            (_, Some(primary)) => Some(format!("MOVED 0 node:{primary}")),
            (_, None) => Some("CLUSTERDOWN no primary".to_owned()),
        }
    }

    fn refusal(&self, node: usize) -> Option<String> {
        if self.nodes[node].full_until_us > self.now_us {
            return Some("DISKFULL no space".to_owned());
        }
        let now = self.nodes[node].clock.read(self.now_us);
        let core = &self.nodes[node].process.as_ref().expect("runs").core;
        match core.admits(now) {
            Ok(()) => None,
            Err(Refused::NotPrimary) => self.not_here(node),
            Err(Refused::Starting) => Some("CLUSTERDOWN a new primary starts".to_owned()),
            Err(Refused::HandingOver(to)) => Some(format!("DRAINING leadership goes to {to}")),
            Err(Refused::Degraded(unmet)) => Some(format!("NOREPLICAS {unmet}")),
        }
    }

    // Writes.

    fn submit(&mut self, node: usize, connection: u64, commands: Vec<(AttemptId, Command)>) {
        let mut encoder = Encoder::new();
        let mut attempts = Vec::with_capacity(commands.len());
        for (attempt, command) in commands {
            match command {
                Command::Write(write) => encoder.unit(&Unit::Write(write)),
                Command::Read(read) => {
                    self.outcome.mark("read in a batch");
                    encoder.unit(&Unit::Read(read));
                }
                Command::Transaction(_) | Command::Connection(_) => {
                    unreachable!("clients read and write")
                }
            }
            attempts.push(attempt);
        }
        let waiter = Waiter { connection, attempts };
        let full = self.process(node).front.waiting.len() >= WAITING_MAX;
        let overloaded = full.then(|| "OVERLOADED too many writes wait".to_owned());
        if let Some(text) = self.refusal(node).or(overloaded) {
            return self.refuse(node, waiter, &text);
        }
        let deadline_us = self.now_us + self.random.between(100_000, 3_000_000);
        let batch = Batch { waiter, encoded: encoder.finish(), deadline_us };
        self.process(node).front.waiting.push_back(batch);
        self.expire_later(node, deadline_us);
        self.seal_soon(node);
    }

    fn seal_soon(&mut self, node: usize) {
        if !std::mem::replace(&mut self.process(node).front.sealing, true) {
            let delay_us = self.random.latency(200);
            let life = self.nodes[node].life;
            self.after(delay_us, world::Action::Client(Action::Propose { node, life }));
        }
    }

    /// Seals what waits, as far as entries may wait for their commit.
    pub(super) fn propose(&mut self, node: usize) {
        self.process(node).front.sealing = false;
        self.refuse_expired(node);
        while !self.process(node).front.waiting.is_empty() {
            if let Some(text) = self.refusal(node) {
                return self.refuse_waiting(node, &text);
            }
            let written = self.nodes[node].disk.journal.cached.last().seq.0;
            let process = self.process(node);
            let last = process.core.log().last().seq.0;
            let uncommitted = last > process.core.committed().0 + UNCOMMITTED_MAX;
            if uncommitted || last > written + UNWRITTEN_MAX {
                return self.seal_soon(node);
            }
            let before = process.front.waiting.len();
            let time = ClusterTime(self.now_us / 1_000);
            self.step(node, Event::Propose { time });
            if self.process(node).front.waiting.len() == before {
                return self.refuse_waiting(node, "CLUSTERDOWN the primary takes no writes");
            }
        }
    }

    fn refuse_waiting(&mut self, node: usize, text: &str) {
        for batch in std::mem::take(&mut self.process(node).front.waiting) {
            self.refuse(node, batch.waiter, text);
        }
    }

    fn refuse_expired(&mut self, node: usize) {
        let now_us = self.now_us;
        let waiting = std::mem::take(&mut self.process(node).front.waiting);
        let (expired, kept): (VecDeque<Batch>, _) =
            waiting.into_iter().partition(|batch| batch.deadline_us <= now_us);
        self.process(node).front.waiting = kept;
        for batch in expired {
            self.refuse(node, batch.waiter, "TIMEOUT store");
        }
    }

    /// The payload of the entry that the core seals: batches that wait, at least one.
    pub(in crate::sim) fn take_payload(&mut self, node: usize, id: EntryId) -> Bytes {
        let (now_us, bytes_max) = (self.now_us, self.clients.entry_bytes_max);
        let mut payload = BytesMut::new();
        let mut held = Vec::new();
        let mut attempts = Vec::new();
        let mut index = 0;
        while let Some(batch) = self.process(node).front.waiting.pop_front_if(|batch| {
            payload.is_empty() || payload.len() + batch.encoded.bytes.len() <= bytes_max
        }) {
            payload.extend_from_slice(&batch.encoded.bytes);
            attempts.extend_from_slice(&batch.waiter.attempts);
            let Batch { waiter, encoded, deadline_us } = batch;
            held.push(Held { index, count: encoded.count, deadline: deadline_us, waiter });
            index += encoded.count;
        }
        if held.is_empty() {
            self.fail("Seal", format!("node {} seals commands that nobody sent", node + 1));
        }
        if held.len() > 1 {
            self.outcome.mark("batches of several connections in one entry");
        }
        self.observe(&Fact::Sealed { id, attempts: &attempts });
        for (index, attempt) in (0..).zip(&attempts) {
            self.clients.record.get_mut(*attempt).sealed = Some((id, index));
        }
        let mut out = Vec::new();
        let registered = self.process(node).front.gate.sealed(id, now_us, held, &mut out);
        if let Err(error) = registered {
            self.fail("Gate", error.to_string());
        }
        self.release(node, out);
        payload.freeze()
    }

    /// The policy is met through here, in this tenure.
    pub(in crate::sim) fn acknowledge(&mut self, node: usize, epoch: Epoch, through: Seq) {
        let mut out = Vec::new();
        self.process(node).front.gate.acknowledge(epoch, through, &mut out);
        self.release(node, out);
    }

    /// The state holds an entry.
    pub(in crate::sim) fn gate_applied(&mut self, node: usize, id: EntryId, replies: Vec<Reply>) {
        self.process(node).front.gate.applied(id, replies);
    }

    /// The tenure is over: everything that waits is in doubt.
    pub(in crate::sim) fn depose(&mut self, node: usize) {
        if Mutant::OkAfterDepose.is_active() {
            return;
        }
        let mut out = Vec::new();
        self.process(node).front.gate.depose(DoubtReason::LeadershipLost, &mut out);
        if !out.is_empty() {
            self.outcome.mark("replies in doubt");
        }
        self.release(node, out);
    }

    /// Answers what the gate let go, now and before.
    pub(in crate::sim) fn release(
        &mut self,
        node: usize,
        mut out: Vec<Release<Waiter, Reply, u64>>,
    ) {
        if let Err(error) = self.process(node).front.gate.release(&mut out) {
            self.fail("Gate", error.to_string());
        }
        for release in out {
            let (waiter, answers): (Waiter, Vec<Answer>) = match release {
                Release::Done { waiter, id, index, replies, wait: _ } => {
                    let config = self.process(node).core.configs().in_force();
                    let form = config.policy.normal_form(config.voters().count());
                    self.ledger.acknowledge(id, form);
                    self.outcome.mark("write acknowledged");
                    let done = (index..).zip(replies);
                    let done = done.map(|(index, reply)| Answer::Done { id, index, reply });
                    (waiter, done.collect())
                }
                Release::InDoubt { waiter, id, index, reason } => {
                    let reason = match reason {
                        DoubtReason::Deadline => "deadline",
                        DoubtReason::LeadershipLost => "leadership_lost",
                        DoubtReason::Shutdown => "shutdown",
                    };
                    let indexes = (index..).take(waiter.attempts.len());
                    let doubt = indexes.map(|index| Answer::InDoubt { id, index, reason });
                    let doubt = doubt.collect();
                    (waiter, doubt)
                }
            };
            self.answer(node, waiter, answers);
        }
    }

    pub(super) fn refuse(&mut self, node: usize, waiter: Waiter, text: &str) {
        let refused = vec![Answer::Refused(text.to_owned()); waiter.attempts.len()];
        self.answer(node, waiter, refused);
    }

    /// Sends replies in the order of their commands, and goes on with the connection.
    pub(super) fn answer(&mut self, node: usize, waiter: Waiter, answers: Vec<Answer>) {
        let Waiter { connection, attempts } = waiter;
        if attempts.len() != answers.len() {
            self.fail("ReplyTruth", format!("{attempts:?} are answered by {answers:?}"));
        }
        let mut bytes = BytesMut::new();
        for (attempt, answer) in attempts.iter().zip(answers) {
            self.note(&|| format!("node {} answers {attempt}: {answer:?}", node + 1));
            self.observe(&Fact::Answered { node, attempt: *attempt, answer: &answer });
            answer.to_reply().write(Protocol::Resp2, &mut bytes);
            self.clients.record.get_mut(*attempt).answer = Some(answer);
        }
        let delay_us = self.random.latency(self.plan.link_us);
        let at_us = self.now_us + delay_us;
        let Some(open) = self.process(node).front.connections.get_mut(&connection) else {
            return;
        };
        open.busy = false;
        open.lane_us = open.lane_us.max(at_us);
        let (client, delay_us) = (open.client, open.lane_us - self.now_us);
        let reply = Action::Reply { client, connection, bytes: bytes.freeze(), attempts };
        self.after(delay_us, world::Action::Client(reply));
        self.serve(node, connection);
    }

    // Deadlines.

    pub(super) fn expire_later(&mut self, node: usize, deadline_us: u64) {
        let life = self.nodes[node].life;
        let expire = world::Action::Client(Action::Expire { node, life });
        self.after(deadline_us.saturating_sub(self.now_us), expire);
    }

    pub(super) fn expire(&mut self, node: usize) {
        let now_us = self.now_us;
        let mut out = Vec::new();
        self.process(node).front.gate.expire(now_us, &mut out);
        if !out.is_empty() {
            self.outcome.mark("write in doubt at its deadline");
        }
        self.release(node, out);
        self.refuse_expired(node);
        let reads = std::mem::take(&mut self.process(node).front.reads);
        let (expired, kept): (BTreeMap<_, _>, BTreeMap<_, _>) =
            reads.into_iter().partition(|(_, read)| read.deadline_us <= now_us);
        self.process(node).front.reads.extend(kept);
        for read in expired.into_values() {
            self.refuse_read(node, read, "TIMEOUT store");
        }
    }
}

impl Front {
    /// The token of the next read.
    pub(super) fn token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }
}
