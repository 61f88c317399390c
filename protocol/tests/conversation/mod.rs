//! A small cluster that does only what a script says.

mod orders;
mod show;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;

use quorate_protocol::cluster::{ClusterEntry, Member, MemberKind, SafetyTimers};
use quorate_protocol::core::message::{Append, EntryMeta, Message};
use quorate_protocol::core::{Boot, Command, Core, Event, HardState, Log, Snapshot, Tuning};
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
    /// The entry before the first of `log`, and the configuration in force there.
    preceding: EntryId,
    config: (EntryId, Arc<ClusterEntry>),
    /// The log as its process knows it; `written` and `synced` are positions on disk.
    log: Vec<EntryMeta>,
    written: Seq,
    synced: Seq,
    branch: Branch,
    applied: Seq,
    sessions: u64,
    /// The snapshot that it was told to install.
    installing: Option<(Snapshot, bool)>,
}

impl Node {
    fn new(id: NodeId, preceding: EntryId, config: (EntryId, Arc<ClusterEntry>)) -> Self {
        Self {
            id,
            core: None,
            incarnation: Incarnation(0),
            hard: HardState { epoch: Epoch(1), vote: None, memory_loss: false },
            saving: None,
            preceding,
            config,
            log: Vec::new(),
            written: preceding.seq,
            synced: preceding.seq,
            branch: Branch(0),
            applied: preceding.seq,
            sessions: 0,
            installing: None,
        }
    }

    fn last(&self) -> EntryId {
        self.log.last().map_or(self.preceding, |entry| entry.id)
    }

    fn entry(&self, seq: Seq) -> EntryId {
        self.range(seq, seq).next().expect("the log holds it").id
    }

    /// Entries of the log from `first` to `last`.
    fn range(&self, first: Seq, last: Seq) -> impl Iterator<Item = &EntryMeta> {
        self.log.iter().filter(move |entry| entry.id.seq >= first && entry.id.seq <= last)
    }

    /// Cuts everything after `last`.
    fn cut(&mut self, last: Seq) {
        self.log.retain(|entry| entry.id.seq <= last);
        self.written = self.written.min(self.last().seq);
        self.synced = self.synced.min(self.last().seq);
    }

    /// Cluster entries that the log holds, after the one below it.
    fn configs(&self) -> Vec<(EntryId, Arc<ClusterEntry>)> {
        let own = self.log.iter().filter_map(|entry| Some((entry.id, entry.cluster.clone()?)));
        std::iter::once(self.config.clone()).chain(own).collect()
    }

    /// What a snapshot of its state holds now.
    fn snapshot(&self) -> Snapshot {
        let core = self.core.as_ref().expect("only a running node makes a snapshot");
        let last = core.log().id_at(self.applied).expect("what is applied is in the log");
        let mut configs = self.configs();
        configs.retain(|(id, _)| *id <= last);
        let config = configs.pop().expect("there is a first configuration");
        Snapshot { last, epoch: core.epoch(), config, time: ClusterTime(0) }
    }

    /// What its disk says.
    fn found(&self) -> Boot {
        let mut runs: Vec<(Seq, Epoch)> = Vec::new();
        for entry in &self.log {
            if runs.last().is_none_or(|(_, epoch)| *epoch != entry.id.epoch) {
                runs.push((entry.id.seq, entry.id.epoch));
            }
        }
        Boot {
            node: self.id,
            disk: disk_of(self.id),
            incarnation: self.incarnation,
            hard: self.hard,
            log: Log::new(self.preceding, runs, self.last(), self.synced),
            configs: self.configs(),
            committed: self.applied,
            time: ClusterTime(0),
            version_max: 1,
        }
    }
}

impl Cluster {
    /// What was answered since the last time.
    pub(crate) fn take_answer(&mut self) -> String {
        std::mem::take(&mut self.answer)
    }

    fn form(&mut self, nodes: u64, policy: Policy) {
        let first = EntryId::new(Epoch(1), Seq(1));
        let config = (first, Arc::new(configuration(nodes, policy)));
        self.nodes = (1..=nodes).map(|id| Node::new(NodeId(id), first, config.clone())).collect();
        for node in &mut self.nodes {
            node.preceding = EntryId::ZERO;
            let kind = EntryKind::Cluster;
            node.log = vec![EntryMeta { id: first, kind, bytes: ENTRY_BYTES, cluster: None }];
        }
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
        let node = self.node(id);
        node.incarnation = Incarnation(node.incarnation.0 + 1);
        node.installing = None;
        node.cut(node.written);
        node.branch = Branch(0);
        node.core = Some(Core::new(node.found(), Tuning::default(), now, random_of(id)));
        let running: Vec<NodeId> = self.running().filter(|other| *other != id).collect();
        for other in running {
            self.connect(id, other);
            self.connect(other, id);
        }
    }

    fn connect(&mut self, at: NodeId, peer: NodeId) {
        let other = self.node(peer);
        let incarnation = other.incarnation;
        let generation = other.configs().last().expect("not empty").1.generation;
        let node = self.node(at);
        node.sessions += 1;
        let connected = Event::Connected {
            peer,
            session: node.sessions,
            disk: disk_of(peer),
            incarnation,
            generation,
            version_max: 1,
        };
        self.step(at, connected);
    }

    fn lose(&mut self, at: NodeId, peer: NodeId) {
        self.connect(at, peer);
        let session = self.node(at).sessions;
        self.step(at, Event::Disconnected { peer, session });
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
        node.cut(node.written);
        if power {
            node.cut(node.synced);
            node.hard.memory_loss = true;
            node.applied = node.applied.min(node.synced);
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
            Command::Seal { id, kind, cluster, branch, .. } => {
                node.log.push(EntryMeta { id, kind, bytes: ENTRY_BYTES, cluster });
                node.branch = branch;
            }
            Command::Truncate { from, branch } => {
                node.cut(from.prev());
                node.branch = branch;
            }
            Command::InstallSnapshot { snapshot, keep_suffix, branch } => {
                node.installing = Some((snapshot, keep_suffix));
                node.branch = branch;
            }
            Command::Append { first, last, branch } => {
                let new = received.iter().filter(|e| e.id.seq >= first && e.id.seq <= last);
                node.log.extend(new.cloned());
                node.branch = branch;
            }
            Command::Committed { committed, .. } => {
                node.applied = committed;
                self.step(id, Event::Applied { seq: committed });
            }
            Command::RoleChanged
            | Command::Reconfigured { .. }
            | Command::LeaseGivenUp
            | Command::HandoverStarted { .. }
            | Command::HandoverEnded { .. }
            | Command::FetchSnapshot { .. }
            | Command::SnapshotRefused { .. }
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
        let entries: Vec<EntryMeta> = node.range(*first, *last).cloned().collect();
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
        if node.written < node.last().seq {
            node.written = node.last().seq;
            let event = Event::InMemory { branch: node.branch, id: node.last() };
            self.step(id, event);
        }
    }

    fn finish_sync(&mut self, id: NodeId) {
        let node = self.node(id);
        if node.synced < node.written {
            node.synced = node.written;
            let event = Event::Persisted { branch: node.branch, id: node.entry(node.written) };
            self.step(id, event);
        }
    }

    /// The switch to the snapshot is synced.
    fn finish_install(&mut self, id: NodeId) {
        let node = self.node(id);
        let (snapshot, keep_suffix) = node.installing.take().expect("told to install one");
        let last = snapshot.last;
        node.log.retain(|entry| keep_suffix && entry.id.seq > last.seq);
        node.preceding = last;
        node.config = snapshot.config;
        node.written = node.written.clamp(last.seq, node.last().seq);
        node.synced = node.synced.clamp(last.seq, node.last().seq);
        node.applied = last.seq;
        self.step(id, Event::SnapshotInstalled { last });
    }

    /// The journal drops everything through `through`.
    fn trim(&mut self, id: NodeId, through: Seq) {
        let node = self.node(id);
        let config = node.configs().into_iter().rfind(|(id, _)| id.seq <= through);
        node.config = config.expect("there is a first configuration");
        node.preceding = node.entry(through);
        node.log.retain(|entry| entry.id.seq > through);
        let preceding = node.preceding;
        self.step(id, Event::Trimmed { first: through.next(), preceding });
    }
}

fn member(id: NodeId) -> Member {
    Member {
        node: id,
        disk: disk_of(id),
        kind: MemberKind::Voter,
        peer_addr: String::new(),
        client_addr: String::new(),
        plain_addr: String::new(),
    }
}

fn configuration(nodes: u64, policy: Policy) -> ClusterEntry {
    ClusterEntry {
        cluster: ClusterId(1),
        generation: Generation(0),
        version: 1,
        members: (1..=nodes).map(|id| member(NodeId(id))).collect(),
        policy,
        timers: SafetyTimers::LAN,
        removed: Vec::new(),
        tokens: Vec::new(),
    }
}

fn disk_of(id: NodeId) -> DiskId {
    DiskId(100 + u128::from(id.0))
}

/// Election time-outs of 400, 500, 600 ms and so on, so that a script knows who is first.
fn random_of(id: NodeId) -> u64 {
    id.0 * 100_000 % 300_000
}
