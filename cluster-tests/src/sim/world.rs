//! One simulated run: virtual time, a heap of what happens next, and the nodes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quorate_protocol::cluster::{ClusterEntry, Member, MemberKind};
use quorate_protocol::core::message::Message;
use quorate_protocol::core::{Command, Event, Snapshot};
use quorate_protocol::entry::Entry;
use quorate_protocol::types::{
    Chain, ClusterId, ClusterTime, DiskId, EntryId, EntryKind, Epoch, Generation, Incarnation,
    NodeId, Seq,
};
use quorate_protocol::wire::encode_cluster;

use super::chaos::Trap;
use super::clients::{self, Clients};
use super::clock::Clock;
use super::fault::{Fault, Scheduled};
use super::invariants::{self, Invariant};
use super::ledger::{Fact, Ledger, NODES_MAX, View};
use super::network::{Cut, Network};
use super::node::Node;
use super::plan::Plan;
use super::random::Random;
use super::report::{Outcome, TraceHash, Violation};
use super::scenario::Scenario;
use super::state::State;

/// Something that happens at a time.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Tick { node: usize, life: u64 },
    Deliver { from: usize, to: usize, connection: Option<u64>, message: Message },
    Journal { node: usize, life: u64 },
    HardState { node: usize, life: u64 },
    SendEntries { node: usize, life: u64, command: Command },
    Apply { node: usize, life: u64 },
    Connect { a: usize, b: usize },
    SessionUp { node: usize, life: u64, peer: usize, connection: u64, incarnation: Incarnation },
    SessionDown { node: usize, life: u64, peer: usize, connection: u64 },
    Idle { a: usize, b: usize, connection: u64 },
    Boot { node: usize },
    Join { node: usize },
    Fetch { node: usize, life: u64, from: usize, above: Seq },
    Fetched { node: usize, life: u64, snapshot: Snapshot, content: State },
    Flush { node: usize },
    Fault { scheduled: Scheduled },
    BurstEnds { usual_us: u64 },
    Cut { fault: Fault, cut: Cut, for_us: u64 },
    Mend { cut: Cut },
    LoseLarge { a: usize, b: usize, for_us: u64 },
    Crash { node: usize, power: bool },
    Flap { a: usize, b: usize, times: u64 },
    DiskRecovers { node: usize },
    Client(clients::Action),
}

struct Due {
    at_us: u64,
    number: u64,
    action: Action,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

/// The run's whole state.
pub(super) struct World {
    pub(super) random: Random,
    pub(super) plan: Plan,
    pub(super) now_us: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) network: Network,
    pub(super) ledger: Ledger,
    pub(super) clients: Clients,
    pub(super) outcome: Outcome,
    /// After the faults: everything that still runs is healthy.
    pub(super) calm: bool,
    /// Whether clients write.
    pub(super) load: bool,
    /// Nodes that never come back.
    pub(super) dead: [bool; NODES_MAX],
    /// When each lane of each way is free: messages of one lane keep their order.
    pub(super) lanes: [[[u64; 2]; NODES_MAX]; NODES_MAX],
    /// Messages on their way.
    pub(super) in_flight: [[u64; NODES_MAX]; NODES_MAX],
    /// Faults that came, for the report of a shrunk run.
    pub(super) injected: Vec<(u64, String)>,
    /// Until when each journal stands still.
    pub(super) stalled_until_us: [u64; NODES_MAX],
    pub(super) silent_until_us: u64,
    /// What waits for a squeezed replica.
    pub(super) trap: Option<Trap>,
    /// Number of the last thing that an operator asked for.
    pub(super) token: u64,
    /// Messages that may come again.
    pub(super) recorded: VecDeque<(usize, usize, Message)>,
    pub(super) trace: bool,
    due: BinaryHeap<Reverse<Due>>,
    number: u64,
    hash: TraceHash,
    invariants: Vec<Box<dyn Invariant>>,
}

impl World {
    pub(super) fn new(scenario: &Scenario, trace: bool) -> Self {
        let plan = Plan::draw(scenario);
        // Apart from the plan's, so that the plan's length changes nothing.
        let mut random = Random::new(!scenario.seed ^ scenario.salt << 32);
        let drift = plan.strength(Fault::ClockRate) * 150;
        let cluster = Arc::new(formed(&plan));
        let nodes = (0..plan.nodes)
            .map(|index| {
                let rate_ppm = random.below(2 * drift + 1) as i64 - drift as i64;
                let clock = Clock::new(0, random.below(1 << 40), rate_ppm);
                Node::new(index, clock, cluster.clone())
            })
            .collect();
        let clients = Clients::draw(&mut random, &plan);
        let outcome = Outcome::new(scenario, &plan);
        let invariants = invariants::all(plan.tuning);
        let mut world = Self {
            random,
            plan,
            now_us: 0,
            nodes,
            network: Network::default(),
            ledger: Ledger::default(),
            clients,
            outcome,
            calm: false,
            load: true,
            dead: [false; NODES_MAX],
            lanes: [[[0; 2]; NODES_MAX]; NODES_MAX],
            in_flight: [[0; NODES_MAX]; NODES_MAX],
            injected: Vec::new(),
            stalled_until_us: [0; NODES_MAX],
            silent_until_us: 0,
            trap: None,
            token: 0,
            recorded: VecDeque::new(),
            trace,
            due: BinaryHeap::new(),
            number: 0,
            hash: TraceHash::default(),
            invariants,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let first = EntryId::new(Epoch(1), Seq(1));
        let cluster = formed(&self.plan);
        let payload = encode_cluster(&cluster).expect("the plan's cluster is valid");
        let entry = Entry::seal(first, EntryKind::Cluster, ClusterTime(0), Chain(0), payload);
        self.ledger.seal(entry).expect("nothing is sealed yet");
        self.ledger.clusters.insert(first, Arc::new(cluster));
        self.ledger.commit(first, first.epoch);
        if self.plan.strength(Fault::ClockRate) > 0 {
            self.outcome.fault(Fault::ClockRate);
        }
        for node in 0..self.nodes.len() {
            self.ledger.note_disk(node, first);
            let at = self.random.below(200_000);
            self.after(at, Action::Boot { node });
            let at = self.random.between(50_000, 1_000_000);
            self.after(at, Action::Flush { node });
        }
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                self.connect_soon(a, b);
            }
        }
        self.clients_begin();
        for scheduled in self.plan.schedule.clone() {
            self.after(scheduled.at_us, Action::Fault { scheduled });
        }
    }

    /// Lets time pass until `until_us` or the first violation.
    pub(super) fn run_until(&mut self, until_us: u64) {
        while self.outcome.violation.is_none() {
            let Some(Reverse(next)) = self.due.peek() else {
                break;
            };
            if next.at_us > until_us {
                break;
            }
            let Reverse(Due { at_us, action, .. }) = self.due.pop().expect("just seen");
            self.now_us = self.now_us.max(at_us);
            self.outcome.events += 1;
            self.dispatch(action);
        }
        self.now_us = self.now_us.max(until_us);
        self.outcome.simulated_us = self.now_us;
        self.outcome.trace_hash = self.hash.finish();
    }

    /// How long faults come.
    pub(super) fn faults_us(&self) -> u64 {
        self.plan.faults_us
    }

    /// What came of it.
    pub(super) fn into_outcome(mut self) -> Outcome {
        self.outcome.injected = self.injected;
        self.outcome
    }

    /// Schedules an action.
    pub(super) fn after(&mut self, delay_us: u64, action: Action) {
        self.number += 1;
        let at_us = self.now_us + delay_us;
        self.due.push(Reverse(Due { at_us, number: self.number, action }));
    }

    fn dispatch(&mut self, action: Action) {
        if let Some(node) = stopped_by_pause(&action)
            && self.nodes[node].paused_until_us > self.now_us
        {
            let mut delay_us = self.nodes[node].paused_until_us - self.now_us;
            // Timers fire late on a process that just woke up.
            if matches!(action, Action::Tick { .. }) {
                delay_us += self.random.below(20_000);
            }
            self.after(delay_us, action);
            return;
        }
        match action {
            Action::Tick { node, life } if self.lives(node, life) => self.on_tick(node),
            Action::Deliver { from, to, connection, message } => {
                self.deliver(from, to, connection, message);
            }
            Action::Journal { node, life } if self.lives(node, life) => self.on_journal(node),
            Action::HardState { node, life } if self.lives(node, life) => self.on_hard_state(node),
            Action::SendEntries { node, life, command } if self.lives(node, life) => {
                self.on_send_entries(node, &command);
            }
            Action::Apply { node, life } if self.lives(node, life) => self.on_applied(node),
            Action::Fetch { node, life, from, above } if self.lives(node, life) => {
                self.fetch(node, from, above);
            }
            Action::Fetched { node, life, snapshot, content } if self.lives(node, life) => {
                self.fetched(node, snapshot, content);
            }
            Action::SessionUp { node, life, peer, connection, incarnation }
                if self.lives(node, life) =>
            {
                self.session_up(node, peer, connection, incarnation);
            }
            Action::SessionDown { node, life, peer, connection } if self.lives(node, life) => {
                self.session_down(node, peer, connection);
            }
            Action::Tick { .. }
            | Action::Journal { .. }
            | Action::HardState { .. }
            | Action::SendEntries { .. }
            | Action::Apply { .. }
            | Action::Fetch { .. }
            | Action::Fetched { .. }
            | Action::SessionUp { .. }
            | Action::SessionDown { .. } => {}
            Action::Connect { a, b } => self.connect(a, b),
            Action::Idle { a, b, connection } => self.on_idle(a, b, connection),
            Action::Boot { node } => self.boot(node),
            Action::Join { node } => self.join(node),
            Action::Flush { node } => self.flush(node),
            Action::Fault { scheduled } => self.on_fault(scheduled),
            Action::BurstEnds { usual_us } => self.plan.propose_every_us = usual_us,
            Action::Cut { fault, cut, for_us } if !self.calm => {
                self.cut_for_a_while(fault, cut, for_us);
            }
            Action::LoseLarge { a, b, for_us } => {
                self.network.lose_large(a, b, self.now_us + for_us);
            }
            Action::Mend { cut } => self.network.mend(&cut),
            Action::Crash { node, power } if !self.calm => self.crash(node, power),
            Action::Cut { .. } | Action::Crash { .. } => {}
            Action::Flap { a, b, times } => self.flap(a, b, times),
            Action::DiskRecovers { node } => self.disk_recovers(node),
            Action::Client(action) => self.on_client(action),
        }
    }

    pub(super) fn lives(&self, node: usize, life: u64) -> bool {
        self.nodes[node].life == life && self.nodes[node].process.is_some()
    }

    /// Gives an event to a node's core and carries out its commands.
    pub(super) fn step(&mut self, node: usize, event: Event) {
        let (now_us, index) = (self.now_us, node);
        let random = self.random.next();
        let node = &mut self.nodes[index];
        let Some(process) = &mut node.process else {
            return;
        };
        (now_us, index).hash(&mut self.hash);
        event.hash(&mut self.hash);
        if self.trace {
            println!("{:>10} node {} {event:?}", now_us, index + 1);
        }
        let received = match &event {
            Event::Received { message: Message::Append(append), .. } => append.entries.clone(),
            _ => Vec::new(),
        };
        let committed = process.core.committed();
        let mut out = Vec::new();
        process.core.step(node.clock.read(now_us), random, event, &mut out);
        self.carry_out(index, out, &received, committed);
        self.note_in_force(index);
        self.arm(index);
        self.observe(&Fact::Stepped);
    }

    /// Schedules the next tick of a node.
    pub(super) fn arm(&mut self, index: usize) {
        let late_us = self.random.below(1_000);
        let node = &mut self.nodes[index];
        let Some(process) = &mut node.process else {
            return;
        };
        let at_us = node.clock.when(process.core.next_deadline(), self.now_us) + late_us;
        if at_us < process.tick_at_us {
            process.tick_at_us = at_us;
            let (delay_us, life) = (at_us - self.now_us, node.life);
            self.after(delay_us, Action::Tick { node: index, life });
        }
    }

    fn on_tick(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let now = node.clock.read(self.now_us);
        let Some(process) = &mut node.process else {
            return;
        };
        if process.tick_at_us > self.now_us {
            return;
        }
        process.tick_at_us = u64::MAX;
        if process.core.next_deadline() <= now {
            self.step(index, Event::Tick);
        } else {
            self.arm(index);
        }
    }

    /// Shows a fact to every invariant.
    pub(super) fn observe(&mut self, fact: &Fact<'_>) {
        let (ledger, record) = (&self.ledger, &self.clients.record);
        let view = View { nodes: &self.nodes, ledger, record, now_us: self.now_us };
        for invariant in &mut self.invariants {
            if let Err(what) = invariant.check(view, fact) {
                let violation = Violation { invariant: invariant.name().to_owned(), what };
                self.outcome.violate(violation, self.now_us);
            }
        }
    }

    /// Makes a part of the trace hash of something.
    pub(super) fn hash(&mut self, what: &impl Hash) {
        what.hash(&mut self.hash);
    }

    /// Judges the run as a whole, as far as it came.
    pub(super) fn conclude(&mut self) {
        let (ledger, record) = (&self.ledger, &self.clients.record);
        let view = View { nodes: &self.nodes, ledger, record, now_us: self.now_us };
        let settled = !self.outcome.over_budget && self.outcome.violation.is_none();
        for invariant in &mut self.invariants {
            if let Err(what) = invariant.conclude(view, settled) {
                let violation = Violation { invariant: invariant.name().to_owned(), what };
                self.outcome.violate(violation, self.now_us);
            }
        }
        for (mark, count) in record.unknown_outcomes(ledger) {
            if count > 0 {
                self.outcome.marks.insert(mark, count);
            }
        }
    }

    pub(super) fn fail(&mut self, invariant: &str, what: String) {
        let violation = Violation { invariant: invariant.to_owned(), what };
        self.outcome.violate(violation, self.now_us);
    }

    pub(super) fn note(&self, what: &dyn Fn() -> String) {
        if self.trace {
            println!("{:>10} {}", self.now_us, what());
        }
    }
}

/// The node that can't do this while it is paused.
fn stopped_by_pause(action: &Action) -> Option<usize> {
    match action {
        Action::Tick { node, .. }
        | Action::Journal { node, .. }
        | Action::HardState { node, .. }
        | Action::SendEntries { node, .. }
        | Action::Apply { node, .. }
        | Action::Fetch { node, .. }
        | Action::Fetched { node, .. }
        | Action::SessionUp { node, .. }
        | Action::SessionDown { node, .. }
        | Action::Flush { node } => Some(*node),
        Action::Deliver { to, .. } => Some(*to),
        Action::Client(action) => action.node(),
        Action::Connect { .. }
        | Action::Idle { .. }
        | Action::Boot { .. }
        | Action::Join { .. }
        | Action::Fault { .. }
        | Action::BurstEnds { .. }
        | Action::Cut { .. }
        | Action::Mend { .. }
        | Action::LoseLarge { .. }
        | Action::Crash { .. }
        | Action::Flap { .. }
        | Action::DiskRecovers { .. } => None,
    }
}

fn formed(plan: &Plan) -> ClusterEntry {
    ClusterEntry {
        cluster: ClusterId(1),
        generation: Generation(0),
        version: 1,
        members: (0..plan.nodes).map(member).collect(),
        policy: plan.policy,
        timers: plan.timers,
        removed: Vec::new(),
        tokens: Vec::new(),
    }
}

/// A machine as a member.
pub(super) fn member(index: usize) -> Member {
    Member {
        node: NodeId(index as u64 + 1),
        disk: disk_of(index),
        kind: MemberKind::Voter,
        peer_addr: String::new(),
        client_addr: String::new(),
        plain_addr: String::new(),
    }
}

/// The name of a machine's data directory.
pub(super) fn disk_of(index: usize) -> DiskId {
    DiskId(1000 + index as u128)
}

/// How often each thing happened.
pub(super) type Counts = BTreeMap<&'static str, u64>;
