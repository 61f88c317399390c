//! What surrounds a core in a node: carries out its commands and brings it completions.

use bytes::Bytes;
use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::core::message::EntryMeta;
use quorate_protocol::core::{Command, Event, Role, Violation};
use quorate_protocol::entry::Entry;
use quorate_protocol::mutants::Mutant;
use quorate_protocol::types::{Branch, ClusterTime, EntryId, EntryKind, Epoch, Seq};
use quorate_protocol::wire::encode_cluster;

use super::disk::Done;
use super::fault::Fault;
use super::ledger::{Fact, TenureRecord};
use super::log::Entries;
use super::world::{Action, World};

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
                Command::Seal { id, kind, time, branch, cluster } => {
                    self.seal(node, id, kind, time, cluster.as_deref());
                    if let Some(cluster) = cluster {
                        self.note_configuration(node, id, cluster);
                    }
                    self.push(node, id, branch);
                    let tenure =
                        self.ledger.tenures.get_mut(&id.epoch).expect("only a primary seals");
                    tenure.log.push(id);
                }
                Command::Truncate { from, .. } => self.cut_log(node, from),
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
                Command::ReadReady { token, at } => self.on_read_answer(node, token, Some(at)),
                Command::ReadFailed { token } => self.on_read_answer(node, token, None),
                command @ (Command::LeaseGivenUp
                | Command::Reconfigured { .. }
                | Command::HandoverStarted { .. }
                | Command::HandoverEnded { .. }
                | Command::FetchSnapshot { .. }
                | Command::SnapshotRefused { .. }
                | Command::InstallSnapshot { .. }) => self.carry_out_change(node, command),
                Command::Halt { violation } => self.on_halt(node, violation),
            }
        }
    }

    fn cut_log(&mut self, node: usize, from: Seq) {
        self.outcome.mark("tail cut");
        let process = self.nodes[node].process.as_mut().expect("runs");
        let cut = process.log.range(from, process.log.last().seq);
        if cut.iter().any(|id| self.ledger.clusters.contains_key(id)) {
            self.outcome.mark("configuration undone");
        }
        process.log.truncate(from);
        process.journal.truncate(from);
        self.journal_starts(node);
    }

    /// An invariant is broken; but a removed node that goes on may well meet a version that its
    /// binary does not follow.
    fn on_halt(&mut self, node: usize, violation: Violation) {
        let removed = self.nodes[node].process.as_ref().is_some_and(|p| p.core.is_removed());
        if removed && matches!(violation, Violation::ClusterVersion { .. }) {
            self.outcome.mark("removed node halts");
        } else {
            self.fail("Halt", format!("node {}: {violation}", node + 1));
        }
    }

    /// Builds the record of an entry of this node's own tenure; for commands, out of what waits.
    fn seal(
        &mut self,
        node: usize,
        id: EntryId,
        kind: EntryKind,
        time: ClusterTime,
        cluster: Option<&ClusterEntry>,
    ) {
        let payload = match (kind, cluster) {
            (EntryKind::Commands, _) => self.take_payload(node, id),
            (_, Some(cluster)) => encode_cluster(cluster).expect("cluster entries can be encoded"),
            (EntryKind::Cluster | EntryKind::EpochStart | EntryKind::Mark, None) => Bytes::new(),
        };
        let process = self.nodes[node].process.as_ref().expect("runs");
        let chain = self.ledger.chain(process.log.last());
        let time = time.max(process.core.time());
        let entry = Entry::seal(id, kind, time, chain, payload);
        if let Err(what) = self.ledger.seal(entry) {
            self.fail("LogMatching", what);
        }
    }

    fn push(&mut self, node: usize, id: EntryId, branch: Branch) {
        let process = self.nodes[node].process.as_mut().expect("runs");
        let previous = process.log.last();
        process.log.push(id);
        process.journal.append(id, branch);
        self.journal_starts(node);
        self.observe(&Fact::Pushed { id, previous });
    }

    fn on_committed(&mut self, node: usize, from: Seq, to: Seq, acknowledgeable: Seq) {
        self.observe(&Fact::Committed { node, from, to, acknowledgeable });
        let process = self.nodes[node].process.as_mut().expect("runs");
        process.acknowledgeable_before = acknowledgeable;
        let primary = process.core.role() == Role::Primary;
        while primary && self.ledger.committed_through() < to {
            let seq = self.ledger.committed_through().next();
            let Some(id) = process.log.at(seq) else { break };
            self.ledger.commit(id, process.core.epoch());
            self.outcome.mark("entry committed");
            if !self.ledger.copies.get(&id).is_some_and(|copies| copies.disk[node]) {
                self.outcome.mark("entry committed before the primary's disk has it");
            }
        }
        if primary {
            let epoch = process.log.at(to).map_or(Epoch::ZERO, |id| id.epoch);
            self.ledger.epoch_committed = self.ledger.epoch_committed.max(epoch);
        }
        let tenure = if primary { Some(process.core.epoch()) } else { process.won };
        if let Some(tenure) = tenure.filter(|_| primary || Mutant::OkAfterDepose.is_active()) {
            self.acknowledge(node, tenure, acknowledgeable);
        }
        self.apply_starts(node);
    }

    fn on_role_changed(&mut self, node: usize) {
        let process = self.nodes[node].process.as_mut().expect("runs");
        let epoch = process.core.epoch();
        let primary = process.core.role() == Role::Primary;
        if primary && process.won == Some(epoch) {
            return;
        }
        if !primary {
            return self.depose(node);
        }
        let process = self.nodes[node].process.as_mut().expect("runs");
        process.won = Some(epoch);
        process.acknowledgeable_before = process.core.acknowledgeable();
        let log = process.log.clone();
        if self.ledger.configs_of(process).len() > 1 {
            self.outcome.mark("election won under two configurations");
        }
        self.outcome.mark("election won");
        if self.nodes[node].disk.hard.memory_loss {
            self.outcome.mark("election won with memory loss");
        }
        if self.ledger.votes.get(&epoch).is_some_and(|votes| votes.values().any(|lost| *lost)) {
            self.outcome.mark("election won by a vote with memory loss");
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
            let syncs = if process.journal.is_installing() { 10 * self.plan.sync_us } else { 0 };
            self.journal_works(node, self.plan.write_us + syncs);
        }
    }

    pub(super) fn journal_works(&mut self, node: usize, mean_us: u64) {
        let usual_us = self.random.latency(mean_us * self.nodes[node].disk_factor).min(DISK_US_MAX);
        let stall_us = self.stalled_until_us[node].saturating_sub(self.now_us);
        let life = self.nodes[node].life;
        self.after(usual_us + stall_us, Action::Journal { node, life });
    }

    pub(super) fn on_journal(&mut self, node: usize) {
        let syncs = self.nodes[node].process.as_ref().is_some_and(|p| p.journal.is_syncing());
        if syncs && self.nodes[node].sync_fails {
            self.sync_fails(node);
        }
        let machine = &mut self.nodes[node];
        let Some(process) = machine.process.as_mut() else {
            return;
        };
        let before = machine.disk.journal.synced();
        let done = process.journal.finish(&mut machine.disk);
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
            Done::Installed(last, keep_suffix) => {
                if keep_suffix {
                    process.log.trim(last);
                } else {
                    process.log = Entries::after(last);
                }
                process.applied = last.seq;
                process.state = machine.disk.state.clone();
                self.outcome.mark("snapshot installed");
                self.note_state(node);
                self.state_taken(node);
                Some(Event::SnapshotInstalled { last })
            }
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
        let from = process.applied.next();
        let seq = Seq(self.random.between(from.0, committed.0));
        let ids = process.log.range(from, seq).to_vec();
        for id in ids {
            self.apply(node, id);
        }
        self.apply_starts(node);
        self.step(node, Event::Applied { seq });
        self.release(node, Vec::new());
    }

    fn apply(&mut self, node: usize, id: EntryId) {
        let process = self.nodes[node].process.as_mut().expect("lives");
        let replies = process.state.apply(self.ledger.entry(id));
        process.applied = id.seq;
        let digest = process.state.digest();
        self.observe(&Fact::Applied { node, id, digest, replies: &replies });
        self.gate_applied(node, id, replies);
    }

    /// A node has another state than the one that it applied entries to.
    pub(super) fn state_taken(&mut self, node: usize) {
        let disk = &self.nodes[node].disk;
        let (through, digest) = (disk.flushed, disk.state.digest());
        self.observe(&Fact::StateTaken { node, through, digest });
    }

    /// The state is flushed, as far as it is applied; without the fault, never ahead of what the
    /// journal has synced.
    pub(super) fn flush(&mut self, node: usize) {
        let next_us = self.random.between(50_000, 1_500_000);
        self.after(next_us, Action::Flush { node });
        let ahead = self.plan.strength(Fault::StateAhead) > 0;
        if Mutant::TrimBeforeFlush.is_active() && self.random.percent(50) {
            let applied = self.nodes[node].process.as_ref().map(|process| process.applied);
            return self.trim(node, Fault::DeepTrim, applied.unwrap_or(Seq::ZERO));
        }
        let machine = &mut self.nodes[node];
        let Some(process) = &machine.process else {
            return;
        };
        let limit = if ahead { Seq(u64::MAX) } else { machine.disk.journal.synced() };
        // A flush takes the state as it is: it waits where that is ahead of its limit.
        let due = process.applied <= limit;
        let seq = if Mutant::EtcdIndexSavedEarly.is_active() {
            process.core.committed()
        } else {
            process.applied
        };
        let synced = machine.disk.journal.synced();
        if let Some(id) = process.log.at(seq)
            && due
            && seq > machine.disk.flushed.seq
        {
            machine.disk.flushed = id;
            machine.disk.state = process.state.clone();
            let held = process.log.range(process.log.preceding().seq, seq);
            let config = held.iter().rev().find_map(|id| {
                let cluster = self.ledger.clusters.get(id)?;
                Some((*id, cluster.clone()))
            });
            if let Some(config) = config {
                machine.disk.config = config;
            }
            if seq > synced {
                self.outcome.fault(Fault::StateAhead);
            }
        }
        let deep = self.plan.strength(Fault::DeepTrim) > 0 && self.random.percent(50);
        if deep {
            let flushed = self.nodes[node].disk.flushed.seq;
            self.trim(node, Fault::DeepTrim, flushed);
        } else if self.plan.strength(Fault::Trim) > 0 {
            let needed = self.nodes.iter().filter(|machine| machine.joined);
            let needed = needed.map(|machine| machine.disk.flushed.seq).min();
            self.trim(node, Fault::Trim, needed.expect("there are nodes"));
        }
    }

    /// The journal loses entries through `limit` at most.
    fn trim(&mut self, node: usize, fault: Fault, limit: Seq) {
        let machine = &mut self.nodes[node];
        let Some(process) = machine.process.as_mut().filter(|process| process.journal.is_idle())
        else {
            return;
        };
        let start = process.log.preceding().seq;
        let through = Seq(self.random.between(start.0, limit.0.max(start.0)));
        let Some(preceding) = process.log.at(through).filter(|_| through > start) else {
            return;
        };
        process.log.trim(preceding);
        machine.disk.journal.trim(preceding);
        self.outcome.fault(fault);
        self.step(node, Event::Trimmed { first: through.next(), preceding });
    }
}
