//! A small cluster that does only what a script says.

mod orders;
mod show;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;

use quorate_protocol::cluster::{ClusterEntry, Member, MemberKind, SafetyTimers};
use quorate_protocol::core::message::{Append, EntryMeta, Message};
use quorate_protocol::core::{Boot, Command, Core, Event, HardState, Log, Tuning};
use quorate_protocol::policy::Policy;
use quorate_protocol::types::{
    Branch, ClusterId, ClusterTime, DiskId, EntryId, EntryKind, Epoch, Generation, Incarnation,
    MonoTime, NodeId, Seq,
};

/// Bytes of every record.
const ENTRY_BYTES: u32 = 100;

/// Nodes, what is on its way between them, and the answer so far. All nodes share one clock.
#[derive(Default)]
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    policy: Option<Policy>,
    now: MonoTime,
    /// On its way, in the order of sending.
    wire: VecDeque<(NodeId, NodeId, Message)>,
    /// Messages that a script remembers, to bring them again.
    kept: Vec<(NodeId, NodeId, Message)>,
    /// One-way ways on which everything is lost.
    cut: Vec<(NodeId, NodeId)>,
    /// Whether disks finish at once.
    instant: bool,
    /// Whether events and commands are shown.
    quiet: bool,
    answer: String,
}

/// A node: its disk outlives its core.
struct Node {
    id: NodeId,
    core: Option<Core>,
    incarnation: Incarnation,
    hard: HardState,
    /// The hard state that waits for its sync.
    saving: Option<(u64, HardState)>,
    /// The log as its process knows it; `written` and `synced` count entries of it on disk.
    log: Vec<EntryId>,
    written: usize,
    synced: usize,
    branch: Branch,
    applied: Seq,
    sessions: u64,
}

impl Cluster {
    /// What was answered since the last time.
    pub(crate) fn take_answer(&mut self) -> String {
        std::mem::take(&mut self.answer)
    }

    fn form(&mut self, nodes: u64, policy: Policy) {
        let first = EntryId::new(Epoch(1), Seq(1));
        self.policy = Some(policy);
        self.nodes = (1..=nodes)
            .map(|id| Node {
                id: NodeId(id),
                core: None,
                incarnation: Incarnation(0),
                hard: HardState { epoch: Epoch(1), vote: None, memory_loss: false },
                saving: None,
                log: vec![first],
                written: 1,
                synced: 1,
                branch: Branch(0),
                applied: Seq(1),
                sessions: 0,
            })
            .collect();
        self.instant = true;
        for id in 1..=nodes {
            self.boot(NodeId(id));
        }
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id == id).expect("the script names a node")
    }

    fn boot(&mut self, id: NodeId) {
        let now = self.now;
        let cluster = Arc::new(self.configuration());
        let node = self.node(id);
        node.incarnation = Incarnation(node.incarnation.0 + 1);
        node.log.truncate(node.written);
        node.branch = Branch(0);
        let mut runs: Vec<(Seq, Epoch)> = Vec::new();
        for entry in &node.log {
            if runs.last().is_none_or(|(_, epoch)| *epoch != entry.epoch) {
                runs.push((entry.seq, entry.epoch));
            }
        }
        let last = *node.log.last().expect("a log holds the first entry");
        let synced = Seq(node.synced as u64);
        let boot = Boot {
            node: id,
            disk: disk_of(id),
            incarnation: node.incarnation,
            hard: node.hard,
            log: Log::new(EntryId::ZERO, runs, last, synced),
            configs: vec![(EntryId::new(Epoch(1), Seq(1)), cluster)],
            committed: node.applied,
            time: ClusterTime(0),
        };
        node.core = Some(Core::new(boot, Tuning::default(), now, random_of(id)));
        let running: Vec<NodeId> = self.running().filter(|other| *other != id).collect();
        for other in running {
            self.connect(id, other);
            self.connect(other, id);
        }
    }

    fn connect(&mut self, at: NodeId, peer: NodeId) {
        let incarnation = self.node(peer).incarnation;
        let node = self.node(at);
        node.sessions += 1;
        let session = node.sessions;
        self.step(at, Event::Connected { peer, session, disk: disk_of(peer), incarnation });
    }

    fn running(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.iter().filter(|node| node.core.is_some()).map(|node| node.id)
    }

    /// The process ends: what was written stays, what was on its way to it is lost. A power cut
    /// leaves what was synced.
    fn crash(&mut self, id: NodeId, power: bool) {
        let node = self.node(id);
        node.core = None;
        node.saving = None;
        node.log.truncate(node.written);
        if power {
            node.log.truncate(node.synced);
            node.written = node.synced;
            node.hard.memory_loss = true;
            node.applied = node.applied.min(Seq(node.synced as u64));
        }
        self.wire.retain(|(_, to, _)| *to != id);
    }

    /// Gives an event to a core and carries out what it commands.
    fn step(&mut self, id: NodeId, event: Event) {
        let now = self.now;
        let head = show::event(&event);
        let received = match &event {
            Event::Received { message: Message::Append(append), .. } => append.entries.clone(),
            _ => Vec::new(),
        };
        let Some(core) = &mut self.node(id).core else {
            return;
        };
        let mut out = Vec::new();
        core.step(now, random_of(id), event, &mut out);
        let silent = out.is_empty() && head.is_none();
        if !silent && !self.quiet {
            let head = head.unwrap_or_default();
            writeln!(self.answer, "node {id}{head}").expect("a string grows");
        }
        for command in out {
            self.command(id, command, &received);
        }
        if self.instant {
            self.finish_disks(id);
        }
    }

    fn command(&mut self, id: NodeId, command: Command, received: &[EntryMeta]) {
        let shown = show::command(&command, self.node(id).core.as_ref());
        if let Some(shown) = shown
            && !self.quiet
        {
            writeln!(self.answer, "  {shown}").expect("a string grows");
        }
        let node = self.node(id);
        match command {
            Command::SaveHardState { id, state } => node.saving = Some((id, state)),
            Command::Send { to, message } => self.send(id, to, message),
            command @ Command::SendEntries { .. } => self.send_entries(id, &command),
            Command::Seal { id, branch, .. } => {
                node.log.push(id);
                node.branch = branch;
            }
            Command::Truncate { from, branch } => {
                node.log.truncate(from.0 as usize - 1);
                node.written = node.written.min(node.log.len());
                node.synced = node.synced.min(node.log.len());
                node.branch = branch;
            }
            Command::Append { first, last, branch } => {
                let new = received.iter().filter(|e| e.id.seq >= first && e.id.seq <= last);
                node.log.extend(new.map(|entry| entry.id));
                node.branch = branch;
            }
            Command::Committed { committed, .. } => {
                node.applied = committed;
                self.step(id, Event::Applied { seq: committed });
            }
            Command::RoleChanged
            | Command::ReadReady { .. }
            | Command::ReadFailed { .. }
            | Command::Halt { .. } => {}
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        if !self.cut.contains(&(from, to)) {
            self.wire.push_back((from, to, message));
        }
    }

    fn send_entries(&mut self, id: NodeId, command: &Command) {
        let Command::SendEntries {
            to,
            session,
            epoch,
            prev,
            first,
            last,
            commit,
            round,
            recover,
            ..
        } = command
        else {
            return;
        };
        let node = self.node(id);
        let entries: Vec<EntryMeta> = node.log[first.0 as usize - 1..last.0 as usize]
            .iter()
            .map(|id| EntryMeta {
                id: *id,
                kind: EntryKind::Commands,
                bytes: ENTRY_BYTES,
                cluster: None,
            })
            .collect();
        let bytes = entries.len() as u64 * u64::from(ENTRY_BYTES);
        let append = Append {
            epoch: *epoch,
            prev: *prev,
            commit: *commit,
            round: *round,
            time: ClusterTime(0),
            recover: *recover,
            entries,
        };
        self.send(id, *to, Message::Append(append));
        let sent = Event::Sent { peer: *to, session: *session, through: Some(*last), bytes };
        self.step(id, sent);
    }

    /// Everything that waits for a disk of this node gets done.
    fn finish_disks(&mut self, id: NodeId) {
        self.finish_hard_state(id);
        self.finish_write(id);
        self.finish_sync(id);
    }

    fn finish_hard_state(&mut self, id: NodeId) {
        if let Some((number, state)) = self.node(id).saving.take() {
            self.node(id).hard = state;
            self.step(id, Event::HardStateSaved { id: number });
        }
    }

    fn finish_write(&mut self, id: NodeId) {
        let node = self.node(id);
        if node.written < node.log.len() {
            node.written = node.log.len();
            let event =
                Event::InMemory { branch: node.branch, id: *node.log.last().expect("not empty") };
            self.step(id, event);
        }
    }

    fn finish_sync(&mut self, id: NodeId) {
        let node = self.node(id);
        if node.synced < node.written {
            node.synced = node.written;
            let event = Event::Persisted { branch: node.branch, id: node.log[node.written - 1] };
            self.step(id, event);
        }
    }

    fn configuration(&self) -> ClusterEntry {
        let member = |node: &Node| Member {
            node: node.id,
            disk: disk_of(node.id),
            kind: MemberKind::Voter,
            peer_addr: String::new(),
            client_addr: String::new(),
            plain_addr: String::new(),
        };
        ClusterEntry {
            cluster: ClusterId(1),
            generation: Generation(0),
            version: 1,
            members: self.nodes.iter().map(member).collect(),
            policy: self.policy.expect("the cluster is formed"),
            timers: SafetyTimers::LAN,
            removed: Vec::new(),
        }
    }
}

fn disk_of(id: NodeId) -> DiskId {
    DiskId(100 + u128::from(id.0))
}

/// Election time-outs of 400, 500, 600 ms and so on, so that a script knows who is first.
fn random_of(id: NodeId) -> u64 {
    id.0 * 100_000 % 300_000
}
