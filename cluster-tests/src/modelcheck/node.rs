//! One node: the real core, and the least runtime that carries out its commands.

use std::collections::VecDeque;
use std::sync::Arc;

use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::core::message::{
    Append, AppendAck, EntryMeta, Message, VoteReply, VoteRequest,
};
use quorate_protocol::core::{Boot, Command, Core, Event, HardState, Log, Role, Tuning};
use quorate_protocol::types::{
    ClusterTime, DiskId, EntryId, Epoch, Generation, Incarnation, MonoTime, NodeId, Seq,
};

/// The moment at which every step happens. Later moments make timers due; see [`FAR`].
pub(super) const NOW: MonoTime = MonoTime(1_000_000_000);

/// So late that every timer is due and every silence over.
pub(super) const FAR: MonoTime = MonoTime(2_000_000_000);

/// A node. Time is forgotten in its core after every step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Node {
    /// Its number.
    pub(super) id: NodeId,
    /// The core.
    pub(super) core: Core,
    /// The log's entries from position 1 on. Writing is part of the step that appends.
    pub(super) entries: Vec<EntryMeta>,
    /// Whether its life began with memory loss.
    pub(super) lost_memory: bool,
    /// Its life.
    pub(super) incarnation: Incarnation,
    /// In which life it knows each node; its own place is not used.
    pub(super) known: Vec<Incarnation>,
}

/// What a step let out.
#[derive(Default)]
pub(super) struct Effects {
    /// Messages to send.
    pub(super) sent: Vec<(NodeId, Message)>,
    /// It became primary, with this log.
    pub(super) won: Option<(Epoch, Vec<EntryId>)>,
    /// It stopped for a broken invariant.
    pub(super) halted: bool,
}

/// The directory of a node: each has one for ever.
pub(super) fn disk_of(node: NodeId) -> DiskId {
    DiskId(u128::from(node.0))
}

impl Node {
    /// Boots from what the disk holds: entries, of which those through `persisted` are proven.
    pub(super) fn boot(
        id: NodeId,
        incarnation: Incarnation,
        hard: HardState,
        entries: Vec<EntryMeta>,
        persisted: Seq,
        known: Vec<Incarnation>,
    ) -> Self {
        let mut runs: Vec<(Seq, Epoch)> = Vec::new();
        for entry in &entries {
            if runs.last().is_none_or(|(_, epoch)| *epoch < entry.id.epoch) {
                runs.push((entry.id.seq, entry.id.epoch));
            }
        }
        let last = entries.last().map_or(EntryId::ZERO, |entry| entry.id);
        let configs: Vec<(EntryId, Arc<ClusterEntry>)> = entries
            .iter()
            .filter_map(|entry| entry.cluster.clone().map(|cluster| (entry.id, cluster)))
            .collect();
        let boot = Boot {
            node: id,
            disk: disk_of(id),
            incarnation,
            hard,
            log: Log::new(EntryId::ZERO, runs, last, persisted),
            configs,
            // Nothing but the first entry is known to be committed: what the state has flushed
            // can be older than everything.
            committed: Seq(1),
            time: ClusterTime(0),
            version_max: 1,
        };
        let core = Core::new(boot, Tuning::default(), NOW, 0);
        let lost_memory = hard.memory_loss;
        let mut node = Self { id, core, entries, lost_memory, incarnation, known };
        for (index, life) in node.known.clone().into_iter().enumerate() {
            let peer = NodeId(index as u64 + 1);
            if peer != id {
                node.connect(peer, life, &mut Effects::default());
            }
        }
        node.core.forget_time(NOW);
        node
    }

    /// A session with the peer's current life.
    pub(super) fn connect(&mut self, peer: NodeId, life: Incarnation, effects: &mut Effects) {
        self.known[peer.0 as usize - 1] = life;
        let disk = disk_of(peer);
        let event = Event::Connected {
            peer,
            session: 1,
            disk,
            incarnation: life,
            generation: Generation(0),
            version_max: 1,
        };
        self.step(NOW, event, effects);
    }

    /// Whether it leads and has committed an entry of its epoch.
    pub(super) fn leads_committed(&self) -> bool {
        let committed = self.at(self.core.committed()).map(|entry| entry.id.epoch);
        self.core.role() == Role::Primary && committed == Some(self.core.epoch())
    }

    /// The entry at a position.
    pub(super) fn at(&self, seq: Seq) -> Option<&EntryMeta> {
        self.entries.get(seq.0.checked_sub(1)? as usize)
    }

    /// Takes an event and everything that follows from it at once: hard state is synced and
    /// entries are written within the step.
    pub(super) fn step(&mut self, now: MonoTime, event: Event, effects: &mut Effects) {
        let mut events = VecDeque::from([event]);
        let mut out = Vec::new();
        while let Some(event) = events.pop_front() {
            let carried = match &event {
                Event::Received { message: Message::Append(append), .. } => append.entries.clone(),
                _ => Vec::new(),
            };
            self.core.step(now, 0, event, &mut out);
            for command in out.drain(..) {
                self.carry_out(command, &carried, &mut events, effects);
            }
        }
        self.core.forget_time(NOW);
    }

    fn carry_out(
        &mut self,
        command: Command,
        carried: &[EntryMeta],
        events: &mut VecDeque<Event>,
        effects: &mut Effects,
    ) {
        match command {
            Command::SaveHardState { id, .. } => events.push_back(Event::HardStateSaved { id }),
            Command::Send { to, message } => effects.sent.push((to, without_counts(message))),
            Command::SendEntries {
                to, session, epoch, prev, first, last, commit, recover, ..
            } => {
                let entries = self.entries[first.0 as usize - 1..last.0 as usize].to_vec();
                let time = ClusterTime(0);
                let append = Append { epoch, prev, commit, round: 0, time, recover, entries };
                effects.sent.push((to, Message::Append(append)));
                events.push_back(Event::Sent { peer: to, session, through: Some(last), bytes: 0 });
            }
            Command::Seal { id, kind, cluster, branch, .. } => {
                self.entries.push(EntryMeta { id, kind, bytes: 1, cluster });
                events.push_back(Event::InMemory { branch, id });
            }
            Command::Truncate { from, .. } => self.entries.truncate(from.0 as usize - 1),
            Command::Append { first, last, branch } => {
                let new = carried.iter().filter(|e| e.id.seq >= first && e.id.seq <= last);
                self.entries.extend(new.cloned());
                events.push_back(Event::InMemory {
                    branch,
                    id: self.entries.last().expect("appended").id,
                });
            }
            Command::RoleChanged => {
                if self.core.role() == Role::Primary {
                    let log = self.entries.iter().map(|entry| entry.id).collect();
                    effects.won = Some((self.core.epoch(), log));
                }
            }
            Command::Halt { .. } => effects.halted = true,
            Command::Committed { .. }
            | Command::ReadReady { .. }
            | Command::ReadFailed { .. }
            | Command::Reconfigured { .. }
            | Command::LeaseGivenUp
            | Command::HandoverStarted { .. }
            | Command::HandoverEnded { .. }
            | Command::FetchSnapshot { .. }
            | Command::InstallSnapshot { .. }
            | Command::SnapshotRefused { .. } => {}
        }
    }

    /// Stands for election, as if its election timeout had passed and every pre-vote had been
    /// granted: a pre-vote moves nothing, so nothing is lost by not modelling its refusal.
    pub(super) fn campaign(&mut self, effects: &mut Effects) {
        let mut asked = Effects::default();
        self.step(FAR, Event::Tick, &mut asked);
        let epoch = self.core.epoch();
        for (to, message) in asked.sent {
            let Message::PreVote(request) = message else { continue };
            if self.core.role() != Role::Candidate || self.core.epoch() != epoch {
                break;
            }
            let round = request.round;
            let reply = VoteReply { round, epoch, granted: true, memory_loss: false };
            let message = Message::PreVoteReply(reply);
            self.step(NOW, Event::Received { from: to, message }, effects);
        }
        effects.won = effects.won.take().or(asked.won);
    }

    /// The process is killed and starts again: the machine keeps what was written.
    pub(super) fn kill(&self, known: Vec<Incarnation>) -> Self {
        self.reboot(self.entries.clone(), self.core.memory_loss(), known)
    }

    /// The machine loses power and the node starts again: what was not synced is gone (S5).
    pub(super) fn cut_power(&self, known: Vec<Incarnation>) -> Self {
        let kept = self.core.log().persisted().0 as usize;
        self.reboot(self.entries[..kept].to_vec(), true, known)
    }

    fn reboot(&self, entries: Vec<EntryMeta>, memory_loss: bool, known: Vec<Incarnation>) -> Self {
        let hard = HardState { memory_loss, ..self.core.hard_state() };
        let incarnation = Incarnation(self.incarnation.0 + 1);
        Self::boot(self.id, incarnation, hard, entries, self.core.log().persisted(), known)
    }
}

/// A message without numbers that only count: rounds, cluster time, and the state's position.
fn without_counts(message: Message) -> Message {
    match message {
        Message::PreVote(request) => Message::PreVote(VoteRequest { round: 0, ..request }),
        Message::PreVoteReply(reply) => Message::PreVoteReply(VoteReply { round: 0, ..reply }),
        Message::Vote(request) => Message::Vote(VoteRequest { round: 0, ..request }),
        Message::VoteReply(reply) => Message::VoteReply(VoteReply { round: 0, ..reply }),
        Message::Append(append) => {
            Message::Append(Append { round: 0, time: ClusterTime(0), ..append })
        }
        Message::AppendAck(ack) => {
            Message::AppendAck(AppendAck { round: 0, applied: Seq::ZERO, reach: 0, ..ack })
        }
        Message::TimeoutNow(_) | Message::SnapshotOffer(_) => message,
    }
}
