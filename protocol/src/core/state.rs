//! The core's state, its construction and the dispatch of events.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::configs::Configs;
use super::election::Ballot;
use super::event::{Command, Event, HardState, Violation};
use super::log::Log;
use super::message::Message;
use super::primary::Tenure;
use super::progress::Session;
use super::snapshot::Installing;
use crate::cluster::ClusterEntry;
use crate::mutants::mutant;
use crate::policy::Unmet;
use crate::types::{
    ClusterTime, DiskId, EntryId, Epoch, Generation, Incarnation, MonoTime, NodeId, Seq,
};

/// Timers and limits of one node. Those that safety depends on are in the cluster entry instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuning {
    /// Time between heartbeats, in microseconds.
    pub heartbeat_us: u64,
    /// The longest election timeout, in microseconds. A peer that is silent for so long leaves
    /// the view, and a primary without a quorum for so long steps down.
    pub election_timeout_max_us: u64,
    /// Bytes that may be on their way to one peer.
    pub window_bytes: u64,
    /// Reads that may wait for a heartbeat round.
    pub reads_max: usize,
    /// How long a transfer may take, in microseconds, before this node goes on by itself.
    pub handover_us: u64,
    /// How long a primary's journal or commit position may stand still while entries wait, in
    /// microseconds, before it looks for a better-placed voter.
    pub standstill_us: u64,
    /// How far a learner's disk may be behind the log's end, in entries, to become a voter.
    pub learner_lag: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            heartbeat_us: 50_000,
            election_timeout_max_us: 600_000,
            window_bytes: 32 << 20,
            reads_max: 1 << 16,
            handover_us: 1_000_000,
            standstill_us: 2_000_000,
            learner_lag: 1_000,
        }
    }
}

/// What a node found on its disk.
#[derive(Clone, Debug)]
pub struct Boot {
    /// This node.
    pub node: NodeId,
    /// Its data directory.
    pub disk: DiskId,
    /// Its current life, already synced.
    pub incarnation: Incarnation,
    /// Its hard state, with the memory-loss flag as decided for this boot (S5).
    pub hard: HardState,
    /// Its log.
    pub log: Log,
    /// Cluster entries in state and log, in order; at least one.
    pub configs: Vec<(EntryId, Arc<ClusterEntry>)>,
    /// What is known to be committed: the state's position.
    pub committed: Seq,
    /// The last entry's time.
    pub time: ClusterTime,
    /// Highest cluster version that this binary follows.
    pub version_max: u32,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Follows, or waits for a primary.
    Replica,
    /// Stands for election, or asks whether it may.
    Candidate,
    /// Leads.
    Primary,
}

/// Why a write is not taken now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// This node doesn't lead.
    NotPrimary,
    /// The policy asks for more voters than are reachable.
    Degraded(Unmet),
    /// This tenure is young: the voters may still answer. What waits may be kept.
    Starting,
    /// Leadership goes to this node; what waits may be parked until it has.
    HandingOver(NodeId),
}

/// A member as the primary sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Which member.
    pub node: NodeId,
    /// Whether a session with it is up.
    pub connected: bool,
    /// Whether it counts now: it answered in this session and is not silent.
    pub in_view: bool,
    /// Its copy in memory.
    pub in_memory: Seq,
    /// Its copy on disk.
    pub persisted: Seq,
    /// Its state's position.
    pub applied: Seq,
    /// Whether it needs entries that the journal no longer has.
    pub below_journal: bool,
}

/// The role with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Duty {
    /// Follows `primary`, where known.
    Replica { primary: Option<NodeId> },
    /// Collects pre-votes or votes.
    Candidate(Candidacy),
    /// Leads.
    Primary(Box<Tenure>),
}

/// A round of pre-votes or votes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Candidacy {
    /// Whether votes are real.
    pub real: bool,
    /// Replies to other rounds don't count.
    pub round: u64,
    /// Who granted, and whether with memory loss.
    pub votes: BTreeMap<NodeId, bool>,
    /// The hard state that must be synced before this node's own vote counts.
    pub hard_id: u64,
    /// The epoch of the primary that handed over, if one did.
    pub transfer: Option<Epoch>,
}

/// The replication state machine of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    pub(super) node: NodeId,
    pub(super) disk: DiskId,
    pub(super) incarnation: Incarnation,
    pub(super) version_max: u32,
    pub(super) tuning: Tuning,

    /// Hard state as decided; `durable` is what the disk is known to hold (S1).
    pub(super) hard: HardState,
    pub(super) durable: HardState,
    pub(super) hard_id: u64,
    pub(super) durable_id: u64,
    /// The first hard state with the current epoch: what acks in it depend on.
    pub(super) epoch_id: u64,
    /// Messages that must not leave before the hard state with that number is durable.
    pub(super) held: Vec<(u64, NodeId, Message)>,

    pub(super) log: Log,
    pub(super) configs: Configs,
    pub(super) committed: Seq,
    pub(super) acknowledgeable: Seq,
    pub(super) applied: Seq,
    pub(super) time: ClusterTime,

    pub(super) sessions: BTreeMap<NodeId, Session>,
    pub(super) duty: Duty,
    /// When to stand for election, unless a primary is heard.
    pub(super) election_due: MonoTime,
    /// No vote before this: the silence after boot (S2).
    pub(super) silent_until: MonoTime,
    /// When any primary was last heard. A higher epoch does not void it: the lease that the
    /// silence protects may still run (S11).
    pub(super) heard: Option<MonoTime>,
    /// Number of the last vote round.
    pub(super) vote_round: u64,

    /// Verified against the log of the current epoch's primary.
    pub(super) verified: Seq,
    /// Highest heartbeat round seen of that primary.
    pub(super) primary_round: u64,
    /// `R` of S5, valid in the current epoch and incarnation.
    pub(super) recover_through: Option<Seq>,
    /// The snapshot that the runtime is about to switch to.
    pub(super) installing: Option<Installing>,

    pub(super) halted: Option<Violation>,
}

impl Core {
    /// Starts as a replica, always (S7), that stays silent for the minimum election timeout.
    #[must_use]
    pub fn new(boot: Boot, tuning: Tuning, now: MonoTime, random: u64) -> Self {
        assert!(boot.committed <= boot.log.last().seq, "committed beyond the log");
        let configs = Configs::new(boot.configs, boot.committed);
        let silence_us = configs.newest().timers.election_timeout_min_us;
        let mut core = Self {
            node: boot.node,
            disk: boot.disk,
            incarnation: boot.incarnation,
            version_max: boot.version_max,
            tuning,
            hard: boot.hard,
            durable: boot.hard,
            hard_id: 0,
            durable_id: 0,
            epoch_id: 0,
            held: Vec::new(),
            log: boot.log,
            configs,
            committed: boot.committed,
            acknowledgeable: boot.committed,
            applied: boot.committed,
            time: boot.time,
            sessions: BTreeMap::new(),
            duty: Duty::Replica { primary: None },
            election_due: now,
            silent_until: mutant!(NoSilenceAfterBoot, now, now.plus(silence_us)),
            heard: None,
            vote_round: 0,
            verified: Seq::ZERO,
            primary_round: 0,
            recover_through: None,
            installing: None,
            halted: None,
        };
        core.restart_election_timer(now, random);
        core
    }

    /// Takes one event. `random` must be a fresh, uniformly drawn number. Appends commands to
    /// `out`, to be carried out in order. After [`Command::Halt`] the core does nothing.
    pub fn step(&mut self, now: MonoTime, random: u64, event: Event, out: &mut Vec<Command>) {
        if self.halted.is_some() {
            return;
        }
        match event {
            Event::Tick => self.tick(now, random, out),
            Event::Connected { peer, session, disk, incarnation, generation, version_max } => {
                let number = session;
                let session = Session { number, disk, incarnation, version_max, up: true };
                self.on_connected(now, peer, session, generation, out);
            }
            Event::Disconnected { peer, session } => self.on_disconnected(now, peer, session, out),
            Event::Received { from, message } => self.on_message(now, random, from, message, out),
            Event::Propose { time } => self.propose(now, time, out),
            Event::ProposeMark { time } => self.propose_mark(now, time, out),
            Event::Reconfigure { token, change } => self.reconfigure(now, token, &change, out),
            Event::Transfer { token, to } => self.transfer(now, token, to, out),
            Event::SnapshotFetched { snapshot } => {
                self.on_snapshot_fetched(now, random, snapshot, out);
            }
            Event::SnapshotInstalled { last } => self.on_snapshot_installed(now, last, out),
            Event::HardStateSaved { id } => self.on_hard_state_saved(now, id, out),
            Event::InMemory { branch, id } => {
                self.log.on_in_memory(branch, id);
                self.on_own_cursor(now, out);
            }
            Event::Persisted { branch, id } => {
                self.log.on_persisted(branch, id);
                self.on_own_cursor(now, out);
            }
            Event::Applied { seq } => self.applied = self.applied.max(seq),
            Event::Sent { peer, session, through, bytes } => {
                let sent = through.map(|through| (through, bytes));
                self.on_sent(now, peer, session, sent, out);
            }
            Event::Read { token } => self.on_read(now, token, out),
            Event::Trimmed { preceding, .. } => self.log.trim(preceding),
        }
    }

    /// When [`Event::Tick`] is due at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> MonoTime {
        match &self.duty {
            Duty::Primary(tenure) => tenure.heartbeat_due,
            Duty::Replica { .. } | Duty::Candidate(_) => self.election_due,
        }
    }

    /// Role now.
    #[must_use]
    pub fn role(&self) -> Role {
        match &self.duty {
            Duty::Replica { .. } => Role::Replica,
            Duty::Candidate(_) => Role::Candidate,
            Duty::Primary(_) => Role::Primary,
        }
    }

    /// The current epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.hard.epoch
    }

    /// The primary of the current epoch, if it is this node or was heard within an election
    /// timeout.
    #[must_use]
    pub fn primary(&self) -> Option<NodeId> {
        match &self.duty {
            Duty::Replica { primary } => *primary,
            Duty::Candidate(_) => None,
            Duty::Primary(_) => Some(self.node),
        }
    }

    /// Whether this node is a replica of `peer` in the current epoch.
    pub(super) fn follows(&self, peer: NodeId) -> bool {
        matches!(self.duty, Duty::Replica { primary: Some(primary) } if primary == peer)
    }

    /// When any primary was last heard; `None` before the first.
    #[must_use]
    pub fn heard(&self) -> Option<MonoTime> {
        self.heard
    }

    /// This node's log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Configurations in the log.
    #[must_use]
    pub fn configs(&self) -> &Configs {
        &self.configs
    }

    /// The commit position.
    #[must_use]
    pub fn committed(&self) -> Seq {
        self.committed
    }

    /// The position up to which the policy in force is met.
    #[must_use]
    pub fn acknowledgeable(&self) -> Seq {
        self.acknowledgeable
    }

    /// The hard state as decided; it may not be synced yet.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.hard
    }

    /// Whether this node may have lost entries that it acknowledged from memory: until the
    /// cleared flag is synced (S5).
    #[must_use]
    pub fn memory_loss(&self) -> bool {
        self.hard.memory_loss || self.durable.memory_loss
    }

    /// Cluster time as of the last entry or heartbeat.
    #[must_use]
    pub fn time(&self) -> ClusterTime {
        self.time
    }

    /// Whether this node, on this disk, votes and counts under the newest configuration.
    #[must_use]
    pub fn is_voter(&self) -> bool {
        self.counts_in(self.configs.newest(), self.node)
    }

    /// Whether a member's votes and copies count under `config`: a voter on the disk that it is
    /// bound to (S6).
    pub(super) fn counts_in(&self, config: &ClusterEntry, peer: NodeId) -> bool {
        let disk = if peer == self.node {
            Some(self.disk)
        } else {
            self.sessions.get(&peer).map(|session| session.disk)
        };
        let voter = mutant!(LearnerCounts, config.member(peer).is_some(), config.is_voter(peer));
        voter && disk.is_some_and(|disk| config.binds(peer, disk))
    }

    pub(super) fn save_hard_state(&mut self, out: &mut Vec<Command>) {
        self.hard_id += 1;
        out.push(Command::SaveHardState { id: self.hard_id, state: self.hard });
    }

    fn on_hard_state_saved(&mut self, now: MonoTime, id: u64, out: &mut Vec<Command>) {
        if id <= self.durable_id || id > self.hard_id {
            return;
        }
        self.durable_id = id;
        if id == self.hard_id {
            self.durable = self.hard;
        }
        for (needed, to, message) in std::mem::take(&mut self.held) {
            if needed <= id {
                out.push(Command::Send { to, message });
            } else {
                self.held.push((needed, to, message));
            }
        }
        self.count_own_vote(now, out);
        self.order_install(out);
    }

    /// Sends once the hard state with this number is durable (S1). Of too many waiting messages
    /// the oldest is dropped: loss is harmless.
    pub(super) fn send_after(
        &mut self,
        hard_id: u64,
        to: NodeId,
        message: Message,
        out: &mut Vec<Command>,
    ) {
        const HELD_MAX: usize = 64;
        if hard_id <= self.durable_id {
            out.push(Command::Send { to, message });
            return;
        }
        if self.held.len() == HELD_MAX {
            self.held.remove(0);
        }
        self.held.push((hard_id, to, message));
    }

    fn on_connected(
        &mut self,
        now: MonoTime,
        peer: NodeId,
        session: Session,
        generation: Generation,
        out: &mut Vec<Command>,
    ) {
        // S12: what was recovered without a node is not spoken about with it.
        if generation != self.configs.in_force().generation {
            self.sessions.remove(&peer);
            return;
        }
        let old = self.sessions.insert(peer, session);
        let same_life = old
            .is_some_and(|old| (old.disk, old.incarnation) == (session.disk, session.incarnation));
        self.on_peer_session(now, peer, same_life, out);
    }

    /// The session's facts are kept so that a reconnect in the same life is recognised; the peer
    /// leaves the view.
    fn on_disconnected(
        &mut self,
        now: MonoTime,
        peer: NodeId,
        session: u64,
        out: &mut Vec<Command>,
    ) {
        let current = self.sessions.get_mut(&peer).filter(|current| current.number == session);
        if let Some(current) = current {
            current.up = false;
            self.on_peer_gone(now, peer, out);
        }
    }

    fn on_message(
        &mut self,
        now: MonoTime,
        random: u64,
        from: NodeId,
        message: Message,
        out: &mut Vec<Command>,
    ) {
        if !self.sessions.contains_key(&from) || message.epoch() > Epoch::MAX {
            return;
        }
        match message {
            Message::PreVote(request) => self.on_pre_vote(now, from, request, out),
            Message::PreVoteReply(reply) => {
                let ballot = Ballot { from, real: false, reply };
                self.on_vote_reply(now, random, ballot, out);
            }
            Message::Vote(request) => self.on_vote(now, random, from, request, out),
            Message::VoteReply(reply) => {
                let ballot = Ballot { from, real: true, reply };
                self.on_vote_reply(now, random, ballot, out);
            }
            Message::Append(append) => self.on_append(now, random, from, append, out),
            Message::AppendAck(ack) => self.on_ack(now, random, from, ack, out),
            Message::TimeoutNow(order) => self.on_timeout_now(now, random, from, order, out),
            Message::SnapshotOffer(offer) => self.on_snapshot_offer(from, offer, out),
        }
    }

    fn tick(&mut self, now: MonoTime, random: u64, out: &mut Vec<Command>) {
        match &self.duty {
            Duty::Primary(_) => self.tick_primary(now, random, out),
            Duty::Replica { .. } | Duty::Candidate(_) => {
                if now >= self.election_due {
                    self.start_pre_vote(now, random, out);
                }
            }
        }
    }

    pub(super) fn on_own_cursor(&mut self, now: MonoTime, out: &mut Vec<Command>) {
        match &self.duty {
            Duty::Primary(_) => self.advance_commit(now, out),
            Duty::Replica { primary: Some(primary) } => {
                let primary = *primary;
                self.leave_memory_loss(out);
                self.acknowledge(primary, None, out);
            }
            Duty::Replica { primary: None } | Duty::Candidate(_) => {}
        }
    }

    /// Follows `epoch`, which is higher than the own one, or gives up a role in it.
    pub(super) fn become_replica(
        &mut self,
        now: MonoTime,
        random: u64,
        epoch: Epoch,
        primary: Option<NodeId>,
        out: &mut Vec<Command>,
    ) {
        assert!(epoch >= self.hard.epoch, "epoch {epoch} below {}", self.hard.epoch);
        let was_primary = matches!(self.duty, Duty::Primary(_));
        if let Duty::Primary(tenure) = &mut self.duty {
            mutant!(DropReads, (), tenure.fail_reads(out));
            tenure.end_handover(out);
            mutant!(DropChange, (), tenure.doubt_change(out));
        }
        self.duty = Duty::Replica { primary };
        if epoch > self.hard.epoch {
            self.enter_epoch(epoch, None, out);
        }
        if was_primary {
            // A former primary waits a whole timeout like everyone else.
            self.restart_election_timer(now, random);
        }
        out.push(Command::RoleChanged);
    }

    /// Enters a higher epoch with this vote; what was verified or promised in the old one is void.
    pub(super) fn enter_epoch(
        &mut self,
        epoch: Epoch,
        vote: Option<NodeId>,
        out: &mut Vec<Command>,
    ) {
        self.hard.epoch = epoch;
        self.hard.vote = vote;
        self.save_hard_state(out);
        self.epoch_id = self.hard_id;
        self.verified = mutant!(VerifiedInAnyEpoch, self.verified, Seq::ZERO);
        self.primary_round = 0;
        self.recover_through = None;
    }

    /// A random timeout for every round, so that candidates part (S2's timers).
    pub(super) fn restart_election_timer(&mut self, now: MonoTime, random: u64) {
        let min_us = self.configs.newest().timers.election_timeout_min_us;
        let spread_us = self.tuning.election_timeout_max_us.saturating_sub(min_us).max(1);
        self.election_due = now.plus(min_us + random % spread_us);
    }

    /// A configuration in force that this binary doesn't follow ends the node.
    pub(super) fn check_cluster_version(&mut self, out: &mut Vec<Command>) {
        let (cluster, supported) = (self.configs.in_force().version, self.version_max);
        if cluster > supported {
            self.halt(Violation::ClusterVersion { cluster, supported }, out);
        }
    }

    pub(super) fn halt(&mut self, violation: Violation, out: &mut Vec<Command>) {
        self.halted = Some(violation);
        out.push(Command::Halt { violation });
    }
}
