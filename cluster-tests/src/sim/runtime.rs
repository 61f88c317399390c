//! What surrounds a core in a node: carries out its commands and brings it completions.

use quorate_protocol::core::message::{Append, EntryMeta, Message};
use quorate_protocol::core::{Command, Event, Role};
use quorate_protocol::types::{EntryId, EntryKind, Epoch, Incarnation, Seq};

use super::disk::Done;
use super::ledger::{Fact, TenureRecord};
use super::node::{PeerSession, kind_of};
use super::plan::Fault;
use super::world::{Action, ReadStep, World};

/// Bytes that a simulated record takes.
const ENTRY_BYTES: u32 = 100;
/// The slowest that a disk gets, apart from stalls.
const DISK_US_MAX: u64 = 4_000_000;

impl World {
    pub(super) fn carry_out(
        &mut self,
        node: usize,
        commands: Vec<Command>,
        received: &[EntryMeta],
        committed: Seq,
    ) {
        let mut committed_before = committed;
        for command in commands {
            if self.trace {
                println!("{:>10} node {}   > {command:?}", self.now_us, node + 1);
            }
            match command {
                Command::SaveHardState { id, state } => {
                    let starts =
                        self.nodes[node].process.as_mut().is_some_and(|p| p.hard.save(id, state));
                    if starts {
                        self.hard_state_starts(node);
                    }
                }
                Command::Send { to, message } => self.send(node, to.0 as usize - 1, message),
                command @ Command::SendEntries { .. } => {
                    let slow = self.plan.strength(Fault::SlowSender);
                    let delay_us = self.random.latency(20 + slow * 20);
                    let life = self.nodes[node].life;
                    self.after(delay_us, Action::SendEntries { node, life, command });
                }
                Command::Seal { id, kind, branch, .. } => {
                    if kind == EntryKind::Commands {
                        self.nodes[node].process.as_mut().expect("runs").replies.push_back(id);
                    } else {
                        self.ledger.kinds.insert(id, kind);
                    }
                    self.push(node, id, branch);
                    let tenure =
                        self.ledger.tenures.get_mut(&id.epoch).expect("only a primary seals");
                    tenure.log.push(id);
                }
                Command::Truncate { from, .. } => {
                    self.outcome.mark("tail cut");
                    let process = self.nodes[node].process.as_mut().expect("runs");
                    process.log.truncate(from);
                    process.journal.truncate(from);
                    self.journal_starts(node);
                }
                Command::Append { first, last, branch } => {
                    for entry in received {
                        if entry.id.seq >= first && entry.id.seq <= last {
                            self.push(node, entry.id, branch);
                        }
                    }
                }
                Command::Committed { committed, acknowledgeable } => {
                    let from = std::mem::replace(&mut committed_before, committed);
                    self.on_committed(node, from, committed, acknowledgeable);
                }
                Command::RoleChanged => self.on_role_changed(node),
                Command::ReadReady { token, at } => {
                    let process = self.nodes[node].process.as_mut().expect("runs");
                    if let Some(floor) = process.reads.remove(&token) {
                        self.wait_for_state(node, ReadStep::Wait { floor, at, leased: false });
                    } else {
                        self.fail("ReadOnce", format!("read {token} is answered unasked"));
                    }
                }
                Command::ReadFailed { token } => {
                    self.nodes[node].process.as_mut().expect("runs").reads.remove(&token);
                }
                Command::LeaseGivenUp
                | Command::Reconfigured { .. }
                | Command::HandoverStarted { .. }
                | Command::HandoverEnded { .. }
                | Command::FetchSnapshot { .. }
                | Command::SnapshotRefused { .. }
                | Command::InstallSnapshot { .. } => {}
                Command::Halt { violation } => {
                    self.fail("Halt", format!("node {}: {violation}", node + 1));
                }
            }
        }
    }

    fn push(&mut self, node: usize, id: EntryId, branch: quorate_protocol::types::Branch) {
        let process = self.nodes[node].process.as_mut().expect("runs");
        let previous = process.log.last();
        process.log.push(id);
        process.journal.append(id, branch);
        self.journal_starts(node);
        self.observe(&Fact::Pushed { id, previous });
    }

    fn on_committed(&mut self, node: usize, from: Seq, to: Seq, acknowledgeable: Seq) {
        self.observe(&Fact::Committed { node, from, to, acknowledgeable });
        let process = self.nodes[node].process.as_ref().expect("runs");
        let primary = process.core.role() == Role::Primary;
        while primary && self.ledger.committed_through() < to {
            let seq = self.ledger.committed_through().next();
            let Some(id) = process.log.at(seq) else { break };
            self.ledger.committed.push((id, process.core.epoch()));
            self.outcome.mark("entry committed");
            if !self.ledger.copies.get(&id).is_some_and(|copies| copies.disk[node]) {
                self.outcome.mark("entry committed before the primary's disk has it");
            }
        }
        if primary {
            let epoch = process.log.at(to).map_or(Epoch::ZERO, |id| id.epoch);
            self.ledger.epoch_committed = self.ledger.epoch_committed.max(epoch);
        }
        self.apply_starts(node);
        self.release_replies(node);
    }

    fn on_role_changed(&mut self, node: usize) {
        let process = self.nodes[node].process.as_mut().expect("runs");
        let epoch = process.core.epoch();
        let primary = process.core.role() == Role::Primary;
        if primary && process.won == Some(epoch) {
            return;
        }
        let in_doubt = process.replies.len();
        process.replies.clear();
        if in_doubt > 0 {
            self.outcome.mark("replies in doubt");
        }
        if !primary {
            return;
        }
        let process = self.nodes[node].process.as_mut().expect("runs");
        process.won = Some(epoch);
        process.acknowledgeable_at_win = process.core.acknowledgeable();
        let log = process.log.clone();
        self.outcome.mark("election won");
        if self.nodes[node].disk.hard.memory_loss {
            self.outcome.mark("election won with memory loss");
        }
        self.observe(&Fact::BecamePrimary { node, epoch });
        self.ledger.tenures.insert(epoch, TenureRecord { log });
    }

    // Journal, hard state, state.

    pub(super) fn journal_starts(&mut self, node: usize) {
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        if process.journal.start() {
            self.journal_works(node, self.plan.write_us);
        }
    }

    pub(super) fn journal_works(&mut self, node: usize, mean_us: u64) {
        let usual_us = self.random.latency(mean_us * self.nodes[node].disk_factor).min(DISK_US_MAX);
        let stall_us = self.stalled_until_us[node].saturating_sub(self.now_us);
        let life = self.nodes[node].life;
        self.after(usual_us + stall_us, Action::Journal { node, life });
    }

    pub(super) fn on_journal(&mut self, node: usize) {
        let machine = &mut self.nodes[node];
        let process = machine.process.as_mut().expect("lives");
        let before = machine.disk.journal.synced();
        let done = process.journal.finish(&mut machine.disk.journal);
        let incarnation = machine.disk.incarnation.0;
        let journal = &machine.disk.journal;
        let event = match done {
            Done::Written(branch, id) => {
                for id in journal.cached.range(before.next(), id.seq) {
                    self.ledger.note_memory(node, incarnation, *id);
                }
                Some(Event::InMemory { branch, id })
            }
            Done::Synced(branch, id) => {
                for id in journal.cached.range(before.next(), id.seq) {
                    self.ledger.note_disk(node, *id);
                }
                Some(Event::Persisted { branch, id })
            }
            Done::Truncated => None,
        };
        if self.nodes[node].process.as_ref().expect("lives").journal.is_busy() {
            self.journal_works(node, self.plan.sync_us);
        } else {
            self.journal_starts(node);
        }
        if let Some(event) = event {
            self.step(node, event);
        }
    }

    fn hard_state_starts(&mut self, node: usize) {
        let mean_us = 2 * self.plan.sync_us * self.nodes[node].hard_factor.min(20);
        let delay_us = self.random.latency(mean_us).min(DISK_US_MAX);
        let life = self.nodes[node].life;
        self.after(delay_us, Action::HardState { node, life });
    }

    pub(super) fn on_hard_state(&mut self, node: usize) {
        let machine = &mut self.nodes[node];
        let process = machine.process.as_mut().expect("lives");
        let lost = machine.disk.hard.memory_loss;
        let (id, another) = process.hard.finish(&mut machine.disk);
        if lost && !machine.disk.hard.memory_loss {
            self.outcome.mark("memory loss cleared");
        }
        if another {
            self.hard_state_starts(node);
        }
        self.step(node, Event::HardStateSaved { id });
    }

    fn apply_starts(&mut self, node: usize) {
        let process = self.nodes[node].process.as_mut().expect("runs");
        if process.applying || process.applied >= process.core.committed() {
            return;
        }
        process.applying = true;
        let delay_us = self.random.latency(200);
        let life = self.nodes[node].life;
        self.after(delay_us, Action::Apply { node, life });
    }

    pub(super) fn on_applied(&mut self, node: usize) {
        let process = self.nodes[node].process.as_mut().expect("lives");
        process.applying = false;
        // A round takes what is committed, or a part of it.
        let committed = process.core.committed();
        process.applied = Seq(self.random.between(process.applied.0 + 1, committed.0));
        let seq = process.applied;
        self.apply_starts(node);
        self.step(node, Event::Applied { seq });
        self.release_replies(node);
    }

    /// The state is flushed, as far as it is applied; without the fault, never ahead of what the
    /// journal has synced.
    pub(super) fn flush(&mut self, node: usize) {
        let next_us = self.random.between(50_000, 1_500_000);
        self.after(next_us, Action::Flush { node });
        let ahead = self.plan.strength(Fault::StateAhead) > 0;
        let machine = &mut self.nodes[node];
        let Some(process) = &machine.process else {
            return;
        };
        let limit = if ahead { Seq(u64::MAX) } else { machine.disk.journal.synced() };
        let seq = process.applied.min(limit);
        if let Some(id) = process.log.at(seq)
            && seq > machine.disk.flushed.seq
        {
            machine.disk.flushed = id;
        }
        if self.plan.strength(Fault::Trim) > 0 {
            self.trim(node);
        }
    }

    /// The journal loses a part of what every node's flushed state holds, so that no one will
    /// ever need it.
    fn trim(&mut self, node: usize) {
        let needed = self.nodes.iter().map(|machine| machine.disk.flushed.seq).min();
        let machine = &mut self.nodes[node];
        let Some(process) = machine.process.as_mut().filter(|process| process.journal.is_idle())
        else {
            return;
        };
        let start = process.log.preceding().seq;
        let through = Seq(self.random.between(start.0, needed.unwrap_or(start).0.max(start.0)));
        let Some(preceding) = process.log.at(through).filter(|_| through > start) else {
            return;
        };
        process.log.trim(preceding);
        machine.disk.journal.cached.trim(preceding);
        self.outcome.fault("journal trimmed");
        self.step(node, Event::Trimmed { first: through.next(), preceding });
    }

    /// Replies leave when their entry is applied and the policy is met.
    fn release_replies(&mut self, node: usize) {
        let process = self.nodes[node].process.as_mut().expect("runs");
        let through = process.applied.min(process.core.acknowledgeable());
        while let Some(id) = process.replies.front().copied().filter(|id| id.seq <= through) {
            process.replies.pop_front();
            self.outcome.mark("write acknowledged");
            self.ledger.seen = self.ledger.seen.max(id.seq);
            if self.ledger.committed_at(id.seq) != Some(id) {
                let what = format!("node {} acknowledges {id}, which is not committed", node + 1);
                return self.fail("ReplyTruth", what);
            }
        }
    }

    // Sending.

    pub(super) fn send(&mut self, node: usize, to: usize, message: Message) {
        self.observe(&Fact::Sent { from: node, to, message: &message });
        let session = self.nodes[node].process.as_ref().and_then(|process| process.sessions[to]);
        let Some(session) = session.filter(|session| session.up) else {
            return;
        };
        if self.plan.strength(Fault::Replay) > 0 {
            self.record_and_replay(node, to, &message);
        }
        if !self.network.is_open(node, to) {
            return;
        }
        let lossy = !self.calm && self.random.below(400) < self.plan.strength(Fault::Loss);
        if lossy {
            self.outcome.fault("message lost");
            return;
        }
        let twice = !self.calm && self.random.below(300) < self.plan.strength(Fault::Duplication);
        if twice {
            self.outcome.fault("message duplicated");
            self.transmit(node, to, Some(session.connection), message.clone());
        }
        self.transmit(node, to, Some(session.connection), message);
    }

    fn record_and_replay(&mut self, from: usize, to: usize, message: &Message) {
        const RECORDED_MAX: usize = 512;
        if self.recorded.len() == RECORDED_MAX {
            self.recorded.pop_front();
        }
        self.recorded.push_back((from, to, message.clone()));
        let strength = self.plan.strength(Fault::Replay);
        if !self.calm && self.random.below(1_000) < strength {
            let index = self.random.index(self.recorded.len());
            let (from, to, message) = self.recorded[index].clone();
            if self.network.is_open(from, to) {
                self.outcome.fault("message replayed");
                self.transmit(from, to, None, message);
            }
        }
    }

    fn transmit(&mut self, from: usize, to: usize, connection: Option<u64>, message: Message) {
        let slow = if self.calm { 0 } else { self.plan.strength(Fault::Delay) };
        let mut delay_us = self.random.latency(self.plan.link_us);
        if self.random.below(200) < slow {
            self.outcome.fault("message delayed");
            delay_us += self.random.latency(slow * 2_000);
        }
        if self.plan.strength(Fault::Reorder) == 0 && connection.is_some() {
            let entries = matches!(&message, Message::Append(append) if !append.entries.is_empty());
            let lane = &mut self.lanes[from][to][usize::from(entries)];
            *lane = (*lane).max(self.now_us + delay_us);
            delay_us = *lane - self.now_us;
        }
        self.after(delay_us, Action::Deliver { from, to, connection, message });
    }

    /// A sender gets to what it was told to send, and reads the log as it is by then.
    pub(super) fn on_send_entries(&mut self, node: usize, command: &Command) {
        let Command::SendEntries {
            to,
            session,
            epoch,
            prev,
            first,
            last,
            bytes_max,
            commit,
            round,
            recover,
        } = command
        else {
            return;
        };
        let peer = to.0 as usize - 1;
        let process = self.nodes[node].process.as_ref().expect("lives");
        let count_max = (bytes_max / u64::from(ENTRY_BYTES)).max(1) as usize;
        let current =
            process.sessions[peer].is_some_and(|known| known.up && known.number == *session);
        let found = process.log.range(*first, *last);
        let intact = process.log.at(*first).is_some();
        let entries: Vec<EntryMeta> = found
            .iter()
            .take(if current && intact { count_max } else { 0 })
            .map(|id| EntryMeta {
                id: *id,
                kind: kind_of(&self.ledger.kinds, *id),
                bytes: ENTRY_BYTES,
                cluster: None,
            })
            .collect();
        let through = entries.last().map(|entry| entry.id.seq);
        let bytes = entries.len() as u64 * u64::from(ENTRY_BYTES);
        let time = process.core.time();
        if through.is_some() {
            let append = Append {
                epoch: *epoch,
                prev: *prev,
                commit: *commit,
                round: *round,
                time,
                recover: *recover,
                entries,
            };
            self.send(node, peer, Message::Append(append));
        }
        self.step(node, Event::Sent { peer: *to, session: *session, through, bytes });
    }

    pub(super) fn deliver(
        &mut self,
        from: usize,
        to: usize,
        connection: Option<u64>,
        message: Message,
    ) {
        let Some(process) = self.nodes[to].process.as_ref() else {
            return;
        };
        let session = process.sessions[from];
        let current = session.is_some_and(|s| s.up && Some(s.connection) == connection);
        if connection.is_some() && !current || !self.network.is_open(from, to) {
            return;
        }
        if let Message::VoteReply(reply) = &message
            && reply.granted
        {
            let votes = self.ledger.votes.entry(reply.epoch).or_default();
            *votes.entry(from).or_insert(true) &= reply.memory_loss;
            if reply.memory_loss {
                self.outcome.mark("vote with memory loss");
            }
        }
        let from = self.nodes[from].id;
        self.step(to, Event::Received { from, message });
    }

    // Sessions.

    pub(super) fn session_up(
        &mut self,
        node: usize,
        peer: usize,
        connection: u64,
        incarnation: Incarnation,
    ) {
        let (id, disk) = (self.nodes[peer].id, self.nodes[peer].disk_id);
        let process = self.nodes[node].process.as_mut().expect("lives");
        process.session_number += 1;
        let session = process.session_number;
        process.sessions[peer] =
            Some(PeerSession { number: session, connection, incarnation, up: true });
        let connected = Event::Connected {
            peer: id,
            session,
            disk,
            incarnation,
            generation: self.cluster.generation,
            version_max: self.cluster.version,
        };
        self.step(node, connected);
        if self.plan.strength(Fault::Replay) > 0 && !self.calm && self.random.percent(50) {
            self.replay_last(peer, node);
        }
    }

    /// What was on its way in the connection before this one comes after all.
    fn replay_last(&mut self, from: usize, to: usize) {
        const LATE_MAX: usize = 6;
        let late: Vec<Message> = self
            .recorded
            .iter()
            .rev()
            .filter(|(f, t, _)| (*f, *t) == (from, to))
            .take(LATE_MAX)
            .map(|(_, _, message)| message.clone())
            .collect();
        for message in late {
            self.outcome.fault("message replayed");
            self.transmit(from, to, None, message);
        }
    }

    pub(super) fn session_down(&mut self, node: usize, peer: usize, connection: u64) {
        let id = self.nodes[peer].id;
        let process = self.nodes[node].process.as_mut().expect("lives");
        let Some(session) = &mut process.sessions[peer] else {
            return;
        };
        if session.connection != connection || !session.up {
            return;
        }
        session.up = false;
        let session = session.number;
        self.step(node, Event::Disconnected { peer: id, session });
    }
}
