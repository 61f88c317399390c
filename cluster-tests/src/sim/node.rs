//! One simulated node: what its machine keeps, and the process that runs on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::core::{Boot, Core, HardState, Log, Role, Snapshot, Tuning};
use quorate_protocol::mutants::Mutant;
use quorate_protocol::types::{ClusterTime, DiskId, EntryId, Epoch, Incarnation, NodeId, Seq};

use super::clients::Front;
use super::clock::Clock;
use super::disk::{Disk, HardStateWriter, Journal, JournalWriter};
use super::ledger::NODES_MAX;
use super::log::Entries;
use super::random::Random;
use super::state::State;
use super::world::disk_of;

/// A machine with one node on it.
pub(super) struct Node {
    /// The node's number.
    pub(super) id: NodeId,
    /// Its data directory's name.
    pub(super) disk_id: DiskId,
    /// Highest cluster version that the binary of its process follows.
    pub(super) version: u32,
    /// The same for the binary that the next process will be of.
    pub(super) next_version: u32,
    /// Whether it holds a log: a machine that is to join a cluster doesn't at first.
    pub(super) joined: bool,
    /// What outlives the process.
    pub(super) disk: Disk,
    /// The machine's clock.
    pub(super) clock: Clock,
    /// The machine's boot id.
    pub(super) boot_id: u64,
    /// The process, if it runs.
    pub(super) process: Option<Process>,
    /// Counts processes, so that events of an earlier one are known as such.
    pub(super) life: u64,
    /// Until then the process is stopped, in true time.
    pub(super) paused_until_us: u64,
    /// Until then the machine sleeps, and nothing reaches it, in true time.
    pub(super) asleep_until_us: u64,
    /// Until then its disk is full, in true time.
    pub(super) full_until_us: u64,
    /// Whether its next sync fails.
    pub(super) sync_fails: bool,
    /// How slow its disk is, as a factor.
    pub(super) disk_factor: u64,
    /// How slow its hard state is, as a factor.
    pub(super) hard_factor: u64,
}

/// A session with a peer, as the process knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerSession {
    /// Its number.
    pub(super) number: u64,
    /// Over which connection.
    pub(super) connection: u64,
    /// The peer's life.
    pub(super) incarnation: Incarnation,
    /// Whether it is up.
    pub(super) up: bool,
}

/// A running process: the core, and what the runtime around it remembers.
pub(super) struct Process {
    /// Which node.
    pub(super) id: NodeId,
    /// The core.
    pub(super) core: Core,
    /// The log as held in the process's memory, written or not.
    pub(super) log: Entries,
    /// Sessions by peer.
    pub(super) sessions: [Option<PeerSession>; NODES_MAX],
    /// Number of the last session.
    pub(super) session_number: u64,
    /// When the next tick comes, in true time.
    pub(super) tick_at_us: u64,
    /// Journal thread.
    pub(super) journal: JournalWriter,
    /// Hard-state thread.
    pub(super) hard: HardStateWriter,
    /// The state's position.
    pub(super) applied: Seq,
    /// Whether the apply thread works.
    pub(super) applying: bool,
    /// The state.
    pub(super) state: State,
    /// What it does for clients.
    pub(super) front: Front,
    /// The epoch in which it told another node to stand: it takes no lease in it any more.
    pub(super) handed_over_in: Option<Epoch>,
    /// What an operator asked for and has no answer to.
    pub(super) asked: BTreeMap<u64, &'static str>,
    /// The content of the snapshot fetched last.
    pub(super) fetched: State,
    /// Whether a snapshot is being fetched.
    pub(super) fetching: bool,
    /// The epoch that this process last won.
    pub(super) won: Option<Epoch>,
    /// What was acknowledgeable when it last said so, or when it won.
    pub(super) acknowledgeable_before: Seq,
}

impl Node {
    /// A node of a freshly formed cluster: its log holds the first cluster entry.
    pub(super) fn new(index: usize, clock: Clock, cluster: Arc<ClusterEntry>) -> Self {
        let first = EntryId::new(Epoch(1), Seq(1));
        let mut entries = Entries::after(EntryId::ZERO);
        entries.push(first);
        let hard = HardState { epoch: Epoch(1), vote: None, memory_loss: false };
        let disk = Disk::new(Journal::new(entries), hard, (first, cluster));
        Self {
            id: NodeId(index as u64 + 1),
            disk_id: disk_of(index),
            disk,
            version: 1,
            next_version: 1,
            joined: true,
            clock,
            boot_id: 0,
            process: None,
            life: 0,
            paused_until_us: 0,
            asleep_until_us: 0,
            full_until_us: 0,
            sync_fails: false,
            disk_factor: 1,
            hard_factor: 1,
        }
    }

    /// The same machine with nothing on its disk, taken for one of a new cluster.
    pub(super) fn as_new(&self) -> Self {
        let (_, cluster) = self.disk.config.clone();
        Self::new(self.id.0 as usize - 1, self.clock.clone(), cluster)
    }

    /// Boots: hard state with a new incarnation first (S1, S5), then the log as recovered.
    pub(super) fn boot(
        &mut self,
        clusters: &BTreeMap<EntryId, Arc<ClusterEntry>>,
        tuning: Tuning,
        now_us: u64,
        prove_all: bool,
        random: &mut Random,
    ) {
        self.version = self.next_version;
        let disk = &mut self.disk;
        disk.incarnation = Incarnation(disk.incarnation.0 + 1);
        let loss = disk.failed || disk.boot_id != self.boot_id && !disk.clean;
        let earlier = disk.hard.memory_loss && !Mutant::ForgetLossAtBoot.is_active();
        disk.hard.memory_loss = loss || earlier;
        disk.failed = false;
        disk.boot_id = self.boot_id;
        disk.clean = Mutant::CleanMarkSurvives.is_active() && disk.clean;
        self.settle_journal();
        let disk = &mut self.disk;
        let journal = &mut disk.journal;
        if prove_all {
            journal.sync_and_mark();
        }
        let entries = journal.cached.clone();
        let floor = disk.flushed.seq.0.min(journal.synced().0);
        let proven = if prove_all {
            journal.synced()
        } else if Mutant::TrustTailAtBoot.is_active() {
            entries.last().seq
        } else {
            Seq(random.between(floor, journal.synced().0))
        };
        let boot = self.found(clusters, proven);
        let core = Core::new(boot, tuning, self.clock.read(now_us), random.next());
        let mut writer = JournalWriter::default();
        if proven < entries.last().seq {
            writer.rewrite_tail(entries.last());
        }
        self.life += 1;
        self.process = Some(Process {
            id: self.id,
            core,
            applied: self.disk.flushed.seq,
            log: entries,
            sessions: [None; NODES_MAX],
            session_number: 0,
            tick_at_us: u64::MAX,
            journal: writer,
            hard: HardStateWriter::default(),
            applying: false,
            state: self.disk.state.clone(),
            front: Front::default(),
            handed_over_in: None,
            asked: BTreeMap::new(),
            fetched: State::default(),
            fetching: false,
            won: None,
            acknowledgeable_before: Seq::ZERO,
        });
    }

    /// A machine without a log begins with a snapshot, in the epoch of whoever made it.
    pub(super) fn start_from(&mut self, snapshot: Snapshot, state: State) {
        let journal = Journal::new(Entries::after(snapshot.last));
        let hard = HardState { epoch: snapshot.epoch, vote: None, memory_loss: false };
        self.disk = Disk::new(journal, hard, snapshot.config);
        self.disk.boot_id = self.boot_id;
        self.disk.state = state;
    }

    /// The state may be ahead of the journal: a copy in memory that was lost. Then a new journal
    /// begins after it.
    pub(super) fn settle_journal(&mut self) {
        let disk = &mut self.disk;
        if !disk.journal.cached.holds(disk.flushed) {
            disk.journal = Journal::new(Entries::after(disk.flushed));
        }
    }

    /// What the disk says, with so much of the journal proven.
    pub(super) fn found(
        &self,
        clusters: &BTreeMap<EntryId, Arc<ClusterEntry>>,
        proven: Seq,
    ) -> Boot {
        let disk = &self.disk;
        let entries = &disk.journal.cached;
        let later = entries.range(disk.flushed.seq.next(), entries.last().seq);
        let later = later.iter().filter_map(|id| Some((*id, clusters.get(id)?.clone())));
        Boot {
            node: self.id,
            disk: self.disk_id,
            incarnation: disk.incarnation,
            hard: disk.hard,
            log: Log::new(entries.preceding(), entries.runs(), entries.last(), proven),
            configs: std::iter::once(disk.config.clone()).chain(later).collect(),
            committed: disk.flushed.seq,
            time: ClusterTime(0),
            version_max: self.version,
        }
    }

    /// The process is killed: the machine keeps what it was given.
    pub(super) fn kill(&mut self, random: &mut Random) {
        if let Some(process) = self.process.take() {
            process.journal.crash(&mut self.disk, random);
            process.hard.crash(&mut self.disk, random);
        }
        self.life += 1;
        self.paused_until_us = 0;
        self.sync_fails = false;
    }

    /// The machine loses power and comes back with another boot id.
    pub(super) fn cut_power(&mut self, random: &mut Random) {
        self.kill(random);
        self.disk.journal.cut_power(random);
        self.boot_id += 1;
    }

    /// The process ends in good order; false if it is too busy for that.
    pub(super) fn stop(&mut self) -> bool {
        let idle = self
            .process
            .as_ref()
            .is_some_and(|process| process.journal.is_idle() && process.hard.is_idle());
        if idle {
            self.process = None;
            self.life += 1;
            self.disk.journal.sync_and_mark();
            self.disk.clean = true;
        }
        idle
    }

    /// Whether its process leads.
    pub(super) fn is_primary(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.core.role() == Role::Primary)
    }

    /// The incarnation in which this node knows a member.
    pub(super) fn known_incarnation(&self, member: usize) -> Option<u64> {
        if NodeId(member as u64 + 1) == self.id {
            return Some(self.disk.incarnation.0);
        }
        let process = self.process.as_ref()?;
        process.sessions[member].map(|session| session.incarnation.0)
    }
}
