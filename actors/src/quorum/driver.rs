//! Drives the replication core: gives it what happened, and does what it says, in its order.
//!
//! Runs on the consensus thread, inside the actor's handler, and never waits: journal, hard state,
//! apply loop, senders and gate are reached through bounded queues.

mod admission;
mod crossing;
mod durability;
mod members;
mod peers;
mod publishing;
mod random;
mod relief;
mod sampling;
mod snapshots;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::core::{
    Boot, Command, Core, Event, HandoverOutcome, HardState, Log, Role, Tuning,
};
use quorate_protocol::entry::Entry;
use quorate_protocol::gate::Degradation;
use quorate_protocol::policy::Policy;
use quorate_protocol::types::{
    Branch, Chain, ClusterTime, DiskId, EntryId, EntryKind, MonoTime, NodeId, Seq,
};
use tokio::sync::mpsc;

use super::copies::CopySampler;
use super::handle::{ConfirmedRead, QuorumQueues};
use super::orders::{Orders, Taken};
use super::sealing::{Payload, refuse, take_payload};
use crate::clock;
use crate::divergence::ChainPoint;
use crate::gate::Attribution;
use crate::metrics::Stage;
use crate::replication::{PeerEvent, Session};
use crate::submit::{Batch, DoubtReason, GateInput, Refusal, Sealed};
use crate::view::Published;

use super::ports::{Fatal, Ports};
use crossing::Crossing;
use durability::Further;
use members::Membership;
use random::Random;
use relief::Relief;

/// Bytes of one entry's payload, unless a single batch is larger.
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// Batches taken from the submission queue in one round.
const ROUND_BATCHES_MAX: usize = 4_096;

/// How long batches wait, from when a transfer began, for the primary that it leads to.
const PARKED_US: u64 = 1_500_000;

/// The driver's own state; everything that must survive is in the core's hands.
pub(crate) struct Driver {
    core: Core,
    ports: Ports,
    published: Arc<Published>,
    submitted: mpsc::Receiver<Batch>,
    reads: mpsc::Receiver<ConfirmedRead>,
    orders: Orders,
    /// Until when batches wait for the primary that leadership goes to.
    parked_until: MonoTime,
    /// Attempts to hand over while another voter should lead.
    relief: Relief,
    /// Chain after the log's last entry.
    chain: Chain,
    /// Batches that wait to be sealed.
    waiting: VecDeque<Batch>,
    /// Reads that wait for a heartbeat round, by token.
    confirming: HashMap<u64, Vec<ConfirmedRead>>,
    next_token: u64,
    /// Current session of each peer, as the transport numbers them.
    sessions: HashMap<NodeId, Session>,
    /// Whether cursors in memory matter now; read by the journal thread.
    report_in_memory: Arc<AtomicBool>,
    /// Whether they do by the policy, and not only in a window.
    needs_memory: bool,
    /// Watches how long copies take.
    copies: CopySampler,
    /// The policy that they were sampled under.
    sampled_under: Option<Policy>,
    was_primary: bool,
    attribution: Attribution,
    /// What waiting replies wait for.
    crossing: Crossing,
    /// Policies of sessions that waiting replies wait for.
    further: Vec<Further>,
    /// Whether the policy can be met, and what was said of it.
    degradation: Degradation,
    /// Who belongs to the cluster, and where.
    membership: Membership,
    /// Where the primary's journal starts, if that is beyond what this node holds.
    lacks: Option<EntryId>,
    view_due: MonoTime,
    /// When expired keys may be removed again by an entry of their own.
    expiry_due: MonoTime,
    random: Random,
    stage: Stage,
    /// Whether this round found anything to do.
    worked: bool,
    commands: Vec<Command>,
    events: Vec<PeerEvent>,
}

/// What either phase of the actor works with.
pub(crate) struct DriverParts {
    /// This node's data directory.
    pub disk: DiskId,
    /// The core's timers and limits.
    pub tuning: Tuning,
    /// Everything it acts upon.
    pub ports: Ports,
    /// Where the node's state is published.
    pub published: Arc<Published>,
    /// What clients and operators ask.
    pub queues: QuorumQueues,
    /// Sessions that were up before there was a core, as the events that announced them.
    pub early: Vec<PeerEvent>,
    /// Whether the journal should report cursors in memory.
    pub report_in_memory: Arc<AtomicBool>,
    /// Seeds election timeouts.
    pub seed: u64,
    /// Counts rounds.
    pub stage: Stage,
    /// Whether it is noted what replies wait for.
    pub attribution: Attribution,
}

/// What a node with a log found on its disk.
pub(crate) struct Found {
    /// Hard state, with the memory-loss flag as decided for this boot.
    pub hard: HardState,
    /// The log.
    pub log: Log,
    /// Chain after the log's last entry.
    pub chain: Chain,
    /// Cluster entries in state and log, in order.
    pub configs: Vec<(EntryId, Arc<ClusterEntry>)>,
    /// The state's position.
    pub committed: Seq,
    /// The last entry's time.
    pub time: ClusterTime,
}

impl Driver {
    pub(crate) fn new(parts: DriverParts, found: Found) -> Self {
        let mut random = Random(parts.seed);
        // An epoch that the log shows was known when its entries were acknowledged; only a first
        // entry, which is written without an election, can be ahead of the hard state.
        let hard = match found.hard.epoch.cmp(&found.log.last().epoch) {
            std::cmp::Ordering::Less => {
                HardState { epoch: found.log.last().epoch, vote: None, ..found.hard }
            }
            std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => found.hard,
        };
        let boot = Boot {
            node: parts.ports.node,
            disk: parts.disk,
            incarnation: parts.ports.incarnation,
            hard,
            log: found.log,
            configs: found.configs,
            committed: found.committed,
            time: found.time,
            version_max: parts.ports.hello.cluster_version_max,
        };
        // What is in the state was committed in this epoch or an earlier one.
        parts.published.set_committed_epoch(hard.epoch);
        let core = Core::new(boot, parts.tuning, clock::now(), random.next());
        parts.published.set_positions(found.committed, found.committed);
        let driver = Self {
            core,
            ports: parts.ports,
            published: parts.published,
            submitted: parts.queues.submitted,
            reads: parts.queues.reads,
            orders: Orders::new(parts.queues.orders),
            parked_until: MonoTime(0),
            relief: Relief::default(),
            chain: found.chain,
            waiting: VecDeque::new(),
            confirming: HashMap::new(),
            next_token: 0,
            sessions: HashMap::new(),
            report_in_memory: parts.report_in_memory,
            needs_memory: true,
            copies: CopySampler::new(parts.queues.copy_times),
            sampled_under: None,
            was_primary: false,
            attribution: parts.attribution,
            crossing: Crossing::default(),
            further: Vec::new(),
            degradation: Degradation::default(),
            membership: Membership::default(),
            lacks: None,
            view_due: MonoTime(0),
            expiry_due: MonoTime(0),
            random,
            stage: parts.stage,
            worked: false,
            commands: Vec::new(),
            events: parts.early,
        };
        // Before the first round: a node that is said to be ready must not be taken for empty.
        driver.published.set_view(driver.view(clock::now()));
        driver
    }

    /// One round: takes everything that waits, acts on it, publishes. Returns when the next round
    /// is due even if nothing arrives.
    ///
    /// # Errors
    /// A broken invariant, or a neighbour that is gone: the node must stop.
    pub(super) fn round(&mut self) -> Result<MonoTime, Fatal> {
        let (now, began) = (clock::now(), Instant::now());
        self.take_completions(now)?;
        self.take_peer_events(now)?;
        self.take_reads(now)?;
        self.take_orders(now)?;
        self.hand_over_if_unfit(now)?;
        self.give_up_lost_state(now)?;
        self.take_batches();
        self.seal_waiting(now)?;
        self.expire_idle(now)?;
        if now >= self.core.next_deadline() {
            self.step(now, Event::Tick, Vec::new())?;
        }
        self.watch_copies();
        self.publish(now)?;
        if std::mem::take(&mut self.worked) {
            self.stage.busy(began.elapsed());
        } else {
            self.stage.idle();
        }
        if self.core.is_removed() && self.core.role() == Role::Replica {
            return Err(self.ports.removed());
        }
        Ok(self.next_round(now))
    }

    /// Answers what is left when the node stops.
    pub(super) fn stop(&mut self) {
        loop {
            self.take_batches();
            if self.waiting.is_empty() {
                break;
            }
            refuse(std::mem::take(&mut self.waiting), &Refusal::NoPrimary);
        }
        self.fail_reads();
        self.published.set_lease(false, MonoTime(0));
        self.ports.gate(GateInput::Deposed { reason: DoubtReason::Shutdown }).ok();
    }

    /// A record of the primary's doesn't continue this log, though the ids do.
    pub(super) fn doubt(&self, id: EntryId, last: EntryId, chain: Chain) -> Result<(), Fatal> {
        let last = ChainPoint { id: last, chain };
        let reason = format!("entry {id} of the primary doesn't continue this log, {last}");
        let stored = self.ports.suspicion.raise(last.id.seq, &reason);
        stored
            .map_err(|e| Fatal::Store { what: "the mark of a suspect log", reason: e.to_string() })
    }

    fn next_round(&self, now: MonoTime) -> MonoTime {
        let next = self.core.next_deadline().min(self.view_due);
        // Batches that were not sealed wait for a commit, which wakes; their deadlines don't.
        if self.waiting.is_empty() { next } else { next.min(now.plus(10_000)) }
    }

    fn take_completions(&mut self, now: MonoTime) -> Result<(), Fatal> {
        let applied = self.published.applied();
        self.step(now, Event::Applied { seq: applied }, Vec::new())?;
        if let Some(snapshot) = self.ports.snapshots.take_fetched() {
            self.step(now, Event::SnapshotFetched { snapshot }, Vec::new())?;
        }
        if let Some(id) = self.ports.hard_state_saved() {
            self.step(now, Event::HardStateSaved { id }, Vec::new())?;
        }
        let Some(progress) = self.ports.journal_progress(self.core.log().branch()) else {
            return Ok(());
        };
        let branch = progress.branch;
        if self.report_in_memory.load(Ordering::Relaxed) {
            let id = progress.in_memory;
            self.step(now, Event::InMemory { branch, id }, Vec::new())?;
        }
        self.step(now, Event::Persisted { branch, id: progress.persisted }, Vec::new())
    }

    /// All reads that arrived since the last round share one heartbeat round.
    fn take_reads(&mut self, now: MonoTime) -> Result<(), Fatal> {
        let mut arrived = Vec::new();
        while let Ok(read) = self.reads.try_recv() {
            arrived.push(read);
        }
        if arrived.is_empty() {
            return Ok(());
        }
        self.next_token += 1;
        let token = self.next_token;
        self.confirming.insert(token, arrived);
        self.step(now, Event::Read { token }, Vec::new())
    }

    fn take_orders(&mut self, now: MonoTime) -> Result<(), Fatal> {
        while let Some(taken) = self.orders.take() {
            match taken {
                Taken::Event(event) => self.step(now, event, Vec::new())?,
                // A dropped receiver is a caller that stopped waiting.
                Taken::Question { change, reply } => {
                    let _ = reply.send(self.core.outlook(now, &change));
                }
            }
        }
        Ok(())
    }

    fn take_batches(&mut self) {
        while self.waiting.len() < ROUND_BATCHES_MAX {
            let Ok(batch) = self.submitted.try_recv() else { break };
            self.waiting.push_back(batch);
        }
    }

    /// Gives the core one event and carries out what it says. `entries` are those of the message
    /// in the event.
    fn step(&mut self, now: MonoTime, event: Event, entries: Vec<Entry>) -> Result<(), Fatal> {
        let random = self.random.next();
        // That one comes each time, whether anything was applied or not.
        self.worked |= !matches!(event, Event::Applied { .. });
        let mut commands = std::mem::take(&mut self.commands);
        let attributes = self.attribution.is_on();
        self.crossing.before(&self.core, self.ports.node, &event, attributes);
        self.core.step(now, random, event, &mut commands);
        self.crossing.after(&self.core, self.ports.node);
        let mut entries = Some(entries);
        for command in commands.drain(..) {
            self.carry_out(now, command, &mut entries)?;
        }
        self.commands = commands;
        self.tell_durable(now)
    }

    fn carry_out(
        &mut self,
        now: MonoTime,
        command: Command,
        received: &mut Option<Vec<Entry>>,
    ) -> Result<(), Fatal> {
        match command {
            Command::SaveHardState { id, state } => {
                self.ports.save_hard_state(id, state);
                Ok(())
            }
            Command::Send { to, message } => {
                self.send(to, message);
                Ok(())
            }
            command @ Command::SendEntries { .. } => {
                self.send_entries(&command);
                Ok(())
            }
            Command::Seal { id, kind, time, cluster, branch } => {
                self.seal(id, kind, time, cluster.as_deref(), branch)
            }
            Command::Truncate { from, branch } => {
                self.chain = self.ports.truncate(from, branch)?;
                Ok(())
            }
            Command::Append { first, last, branch } => {
                let mut entries = received.take().expect("one append per message");
                entries.retain(|entry| (first..=last).contains(&entry.id.seq));
                self.append(entries, branch)
            }
            Command::Committed { committed, acknowledgeable } => {
                self.on_committed(now, committed, acknowledgeable)
            }
            Command::RoleChanged => self.on_role_changed(),
            Command::ReadReady { token, at } => {
                self.answer_reads(token, &Ok(at));
                Ok(())
            }
            Command::ReadFailed { token } => {
                let primary = self.core.primary();
                self.answer_reads(token, &Err(Refusal::NotPrimary { primary }));
                Ok(())
            }
            Command::LeaseGivenUp => {
                self.published.set_lease(false, MonoTime(0));
                Ok(())
            }
            Command::Reconfigured { token, outcome } => {
                self.view_due = MonoTime(0);
                self.orders.changed(token, outcome);
                Ok(())
            }
            Command::HandoverStarted { to } => {
                self.log_handover(to);
                self.parked_until = clock::now().plus(PARKED_US);
                Ok(())
            }
            Command::HandoverEnded { token, outcome } => {
                self.on_handover_ended(token, outcome);
                Ok(())
            }
            Command::FetchSnapshot { from, above } => {
                self.fetch_snapshot(from, above);
                Ok(())
            }
            Command::InstallSnapshot { snapshot, .. } => {
                self.install_snapshot(&snapshot);
                Ok(())
            }
            Command::SnapshotRefused { last, reason } => {
                self.discard_snapshot(last, &reason);
                Ok(())
            }
            Command::Halt { violation } => Err(Fatal::Violation(violation)),
        }
    }

    fn answer_reads(&mut self, token: u64, answer: &Result<Seq, Refusal>) {
        for read in self.confirming.remove(&token).into_iter().flatten() {
            // A dropped receiver is a connection that is gone.
            let _ = read.reply.send(answer.clone());
        }
    }

    fn log_handover(&self, to: NodeId) {
        let journal_stall = self.ports.journal.busy_for();
        tracing::info!(%to, ?journal_stall, "handing leadership over");
    }

    fn on_handover_ended(&mut self, token: Option<u64>, outcome: HandoverOutcome) {
        if self.note_relief(token, &outcome) {
            return;
        }
        tracing::info!(?outcome, "handing over ended");
        if let Some(token) = token {
            self.orders.transferred(token, outcome);
        }
    }

    /// Builds the record of an entry of this node's own tenure; for commands, out of what waits.
    fn seal(
        &mut self,
        id: EntryId,
        kind: EntryKind,
        time: ClusterTime,
        cluster: Option<&ClusterEntry>,
        branch: Branch,
    ) -> Result<(), Fatal> {
        let time = time.max(self.time());
        let payload = match (kind, cluster) {
            // Nothing waits where only expired keys are to be removed.
            (EntryKind::Commands, _) => {
                take_payload(&mut self.waiting, ENTRY_BYTES_MAX).unwrap_or_default()
            }
            (EntryKind::Cluster, Some(config)) => Payload::of_cluster(config)?,
            (EntryKind::Cluster | EntryKind::EpochStart | EntryKind::Mark, _) => Payload::default(),
        };
        let Payload { bytes, crc, waiting } = payload;
        let entry = Entry::seal_with_crc(id, kind, time, self.chain, bytes, crc);
        if !waiting.is_empty() {
            self.watch_entry(id.seq, &waiting);
            // Before the journal: the gate must know the entry before it can be applied.
            self.note_durability(id, &waiting);
            let sealed = Sealed { id, at: Instant::now(), waiting };
            self.ports.gate(GateInput::Sealed(sealed))?;
        }
        self.append(vec![entry], branch)
    }

    /// The same bytes to the cache (for senders and the apply loop) and to the journal. The chain
    /// is checked here, where the log's end is known: a record that doesn't continue it is of
    /// another history, whatever its id says.
    fn append(&mut self, entries: Vec<Entry>, branch: Branch) -> Result<(), Fatal> {
        let mut last = self.core.log().last();
        for entry in &entries {
            if !entry.follows(self.chain) {
                return Err(Fatal::Chain { id: entry.id, last, chain: self.chain });
            }
            (last, self.chain) = (entry.id, entry.chain);
        }
        self.ports.append(entries, branch)
    }

    /// Cluster time as this node may state it: as primary, its own clock where that is ahead.
    fn time(&self) -> ClusterTime {
        let known = self.core.time().max(ClusterTime(self.published.cluster_time_ms()));
        if self.was_primary { known.max(clock::wall()) } else { known }
    }

    fn on_committed(
        &mut self,
        now: MonoTime,
        committed: Seq,
        acknowledgeable: Seq,
    ) -> Result<(), Fatal> {
        let epoch = self.core.epoch();
        let primary = self.core.role() == Role::Primary;
        self.published.set_committed_epoch(epoch);
        self.published.set_positions(committed, acknowledgeable);
        if primary {
            let through = acknowledgeable;
            let policy = self.core.configs().in_force().policy;
            let met = self.crossing.met(&self.core, self.ports.node, now, policy, through);
            self.ports.gate(GateInput::Acknowledgeable { epoch, through, met })?;
            self.crossing.forget(through);
        }
        self.ports.apply_through(committed, primary.then_some(epoch));
        Ok(())
    }

    /// A tenure that ended answers everything that waits before an entry of a newer epoch is
    /// accepted: in doubt where it was sealed, refused where not.
    fn on_role_changed(&mut self) -> Result<(), Fatal> {
        let primary = self.core.role() == Role::Primary;
        if self.was_primary && !primary {
            self.published.set_lease(false, MonoTime(0));
            self.ports.gate(GateInput::Deposed { reason: DoubtReason::LeadershipLost })?;
        }
        if primary != self.was_primary {
            self.copies.clear();
            let epoch = self.core.epoch();
            tracing::info!(%epoch, primary, "role changed");
        }
        self.was_primary = primary;
        self.crossing = Crossing::default();
        self.further.clear();
        self.view_due = MonoTime(0);
        Ok(())
    }

    fn fail_reads(&mut self) {
        for read in self.confirming.drain().flat_map(|(_, reads)| reads) {
            let _ = read.reply.send(Err(Refusal::NoPrimary));
        }
    }
}
