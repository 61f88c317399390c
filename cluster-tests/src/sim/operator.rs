//! What an operator does to a running cluster: members, policy, version, leadership.

use std::sync::Arc;

use quorate_protocol::cluster::{ClusterChange, ClusterEntry, MemberKind};
use quorate_protocol::core::{ChangeOutcome, ChangeRefused, Command, Event, HandoverOutcome};
use quorate_protocol::entry::Entry;
use quorate_protocol::policy::Policy;
use quorate_protocol::types::{ClusterTime, EntryId, EntryKind, Generation, NodeId, Seq};
use quorate_protocol::wire::encode_cluster;

use super::clock::Clock;
use super::fault::Fault;
use super::ledger::NODES_MAX;
use super::node::Node;
use super::random::Random;
use super::world::{Action, World, member};

/// Versions that binaries know.
const VERSION_MAX: u32 = 4;
/// How often a machine that is to join asks whether it may.
const JOIN_US: u64 = 100_000;

impl World {
    /// An operator does something, at the primary if there is one, else at `node`.
    pub(super) fn operate(&mut self, fault: Fault, node: usize, random: &mut Random) {
        let at = (0..self.nodes.len()).rev().find(|node| self.nodes[*node].is_primary());
        let at = at.unwrap_or(node);
        let Some(newest) = self.newest_at(at) else {
            return;
        };
        self.outcome.fault(fault);
        match fault {
            Fault::AddNode => {
                if let Some(index) = self.machine_to_add(&newest, random) {
                    self.ask(at, "member added", ClusterChange::AddLearner(member(index)));
                }
            }
            Fault::RemoveNode => {
                if let Some(gone) = self.member_to_remove(&newest, random) {
                    self.ask(at, "member removed", ClusterChange::Remove(gone));
                }
            }
            Fault::PolicyChange => {
                let policies =
                    [Policy::LOCAL, Policy::MEMORY, Policy::HYBRID, Policy::MAJORITY, Policy::ALL];
                let policy = policies[random.index(policies.len())];
                self.ask(at, "policy changed", ClusterChange::SetPolicy(policy));
            }
            Fault::VersionRise => {
                let index = random.index(self.nodes.len());
                // An upgrade: binaries are never replaced by older ones here.
                let next = &mut self.nodes[index].next_version;
                *next = (*next).max(VERSION_MAX.min(newest.version + 1));
                let version = newest.version + 1;
                self.ask(at, "version raised", ClusterChange::RaiseVersion(version));
            }
            Fault::Transfer => {
                let to = random.percent(70).then(|| NodeId(1 + random.below(5)));
                self.token += 1;
                let token = self.token;
                if let Some(process) = &mut self.nodes[at].process {
                    process.asked.insert(token, "leadership transferred");
                }
                self.step(at, Event::Transfer { token, to });
            }
            _ => {
                let time = ClusterTime(self.now_us / 1_000);
                self.step(at, Event::ProposeMark { time });
            }
        }
    }

    fn newest_at(&self, node: usize) -> Option<Arc<ClusterEntry>> {
        let machine = &self.nodes[node];
        let runs = machine.paused_until_us <= self.now_us;
        machine.process.as_ref().filter(|_| runs).map(|p| p.core.configs().newest().clone())
    }

    fn ask(&mut self, at: usize, what: &'static str, change: ClusterChange) {
        self.token += 1;
        let token = self.token;
        if let Some(process) = &mut self.nodes[at].process {
            process.asked.insert(token, what);
        }
        self.step(at, Event::Reconfigure { token, change });
    }

    /// A machine that is no member yet; a new one, if there is room.
    fn machine_to_add(&mut self, newest: &ClusterEntry, random: &mut Random) -> Option<usize> {
        let known = |index: usize| {
            let node = NodeId(index as u64 + 1);
            newest.member(node).is_some() || newest.removed.contains(&node)
        };
        let idle = (0..self.nodes.len())
            .find(|index| !self.nodes[*index].joined && !self.dead[*index] && !known(*index));
        if idle.is_some() || self.nodes.len() == NODES_MAX || newest.members.len() >= 6 {
            return idle;
        }
        let index = self.nodes.len();
        let clock = Clock::new(self.now_us, random.below(1 << 40), 0);
        let any = self.nodes[0].disk.config.1.clone();
        let mut machine = Node::new(index, clock, any);
        machine.joined = false;
        machine.next_version = VERSION_MAX;
        self.nodes.push(machine);
        self.after(JOIN_US, Action::Join { node: index });
        let at_us = random.between(50_000, 1_000_000);
        self.after(at_us, Action::Flush { node: index });
        Some(index)
    }

    /// Someone whose disk is lost, or anyone while enough are left.
    fn member_to_remove(&self, newest: &ClusterEntry, random: &mut Random) -> Option<NodeId> {
        let members: Vec<NodeId> = newest.members.iter().map(|member| member.node).collect();
        let lost = members.iter().copied().find(|node| self.dead[node.0 as usize - 1]);
        if lost.is_some() && random.percent(80) {
            return lost;
        }
        let any = members[random.index(members.len())];
        let learner = newest.member(any).is_some_and(|m| m.kind == MemberKind::Learner);
        (learner || newest.voters().count() > 3 || random.percent(10)).then_some(any)
    }

    // Answers.

    /// What a core says about configuration, leadership and snapshots.
    pub(super) fn carry_out_change(&mut self, node: usize, command: Command) {
        match command {
            Command::LeaseGivenUp => self.outcome.mark("lease given up"),
            Command::Reconfigured { token, outcome } => {
                self.on_reconfigured(node, token, &outcome);
            }
            Command::HandoverStarted { .. } => {
                let process = self.nodes[node].process.as_mut().expect("runs");
                process.handed_over_in = Some(process.core.epoch());
                self.outcome.mark("handover started");
            }
            Command::HandoverEnded { token, outcome } => {
                self.on_handover_ended(node, token, &outcome);
            }
            Command::FetchSnapshot { from, above } => {
                self.start_fetching(node, from.0 as usize - 1, above.seq);
            }
            Command::SnapshotRefused { reason, .. } => self.on_snapshot_refused(node, reason),
            Command::InstallSnapshot { snapshot, keep_suffix, .. } => {
                self.start_installing(node, snapshot, keep_suffix);
            }
            other => unreachable!("{other:?} is the runtime's"),
        }
    }

    fn on_reconfigured(&mut self, node: usize, token: u64, outcome: &ChangeOutcome) {
        let Some(what) = self.answered(node, token) else {
            return;
        };
        match outcome {
            ChangeOutcome::InForce(_) => {
                self.outcome.mark(what);
                if what.starts_with("member") {
                    self.outcome.mark("membership changed");
                }
            }
            ChangeOutcome::InDoubt(_) => self.outcome.mark("change in doubt"),
            ChangeOutcome::Refused(refused) => self.outcome.mark(match refused {
                ChangeRefused::NotPrimary => "change refused: not primary",
                ChangeRefused::NotReady => "change refused: not ready",
                ChangeRefused::Pending(_) => "change refused: another is pending",
                ChangeRefused::HandingOver => "change refused: handing over",
                ChangeRefused::RemovesPrimary(_) => "change refused: removes the primary",
                ChangeRefused::Unreachable { .. } => "change refused: voters missing",
                ChangeRefused::Version { .. } => "change refused: old binary",
                ChangeRefused::Invalid(_) => "change refused: invalid",
            }),
        }
    }

    fn on_handover_ended(&mut self, node: usize, token: Option<u64>, outcome: &HandoverOutcome) {
        if let Some(token) = token
            && self.answered(node, token).is_none()
        {
            return;
        }
        self.outcome.mark(match (outcome, token) {
            (HandoverOutcome::SteppedDown(_), Some(_)) => "leadership transferred",
            (HandoverOutcome::SteppedDown(_), None) => "leadership handed over by itself",
            (HandoverOutcome::TimedOut(_), _) => "handover timed out",
            (HandoverOutcome::Refused(_), _) => "handover refused",
        });
    }

    /// What was asked; an answer comes once.
    fn answered(&mut self, node: usize, token: u64) -> Option<&'static str> {
        let process = self.nodes[node].process.as_mut().expect("runs");
        let what = process.asked.remove(&token);
        if what.is_none() {
            self.fail("AnswerOnce", format!("node {} answers {token} unasked", node + 1));
        }
        what
    }

    // Configurations.

    /// A primary seals a configuration: one at a time.
    pub(super) fn note_configuration(
        &mut self,
        node: usize,
        id: EntryId,
        cluster: Arc<ClusterEntry>,
    ) {
        let process = self.nodes[node].process.as_ref().expect("runs");
        let configs = process.core.configs();
        let in_force = configs.in_force();
        let voters = |entry: &ClusterEntry| entry.voters().count();
        if voters(&cluster) > voters(in_force) {
            self.outcome.mark("learner promoted");
        }
        self.ledger.clusters.insert(id, cluster);
    }

    pub(super) fn note_in_force(&mut self, node: usize) {
        if let Some(process) = &self.nodes[node].process {
            let configs = process.core.configs();
            // What a lossy recovery gave up is not in force any more, whoever still holds it.
            if configs.in_force().generation == self.ledger.generation {
                let at = configs.in_force_at();
                self.ledger.in_force.entry(at).or_insert_with(|| process.core.epoch());
            }
        }
    }

    /// Lossy recoveries that a node knows of.
    pub(super) fn generation(&self, node: usize) -> Generation {
        let machine = &self.nodes[node];
        let process = machine.process.as_ref();
        process.map_or(machine.disk.config.1.generation, |p| p.core.configs().in_force().generation)
    }

    // Lossy recovery.

    /// S12: no election is safe any more. One node, if it can be the one with the longest log,
    /// goes on alone; all others are stopped, and at most one of them comes back against the rule.
    /// False if there is none.
    pub(super) fn recover_lossily(&mut self) -> bool {
        for node in 0..self.nodes.len() {
            self.nodes[node].kill(&mut self.random);
            self.nodes[node].disk.journal.recover();
        }
        let usable = |machine: &&Node| {
            let found = machine.found(&self.ledger.clusters, Seq::ZERO);
            let (_, newest) = found.configs.last().expect("never empty");
            machine.joined && !machine.disk.is_damaged() && newest.member(machine.id).is_some()
        };
        let usable: Vec<&Node> = self.nodes.iter().filter(usable).collect();
        let last = |machine: &&&Node| machine.disk.journal.cached.last().max(machine.disk.flushed);
        let longest = usable.iter().max_by_key(last).map(|machine| machine.id);
        // The others may be out of the operator's reach.
        let any = usable.get(self.random.index(usable.len())).map(|machine| machine.id);
        let Some(id) = (if self.random.percent(70) { longest } else { any }) else {
            return false;
        };
        let survivor = id.0 as usize - 1;
        self.dead[survivor] = false;
        let machine = &mut self.nodes[survivor];
        machine.settle_journal();
        let mut found = machine.found(&self.ledger.clusters, machine.disk.journal.synced());
        let (id, entry) = found.recover(Policy::LOCAL).expect("one voter holds one copy");
        let chain = self.ledger.chain(machine.disk.journal.cached.last());
        let payload = encode_cluster(&entry).expect("the entry is valid");
        let record = Entry::seal(id, EntryKind::Cluster, found.time, chain, payload);
        self.ledger.seal(record).expect("no other entry is of this epoch");
        machine.disk.journal.append_synced(id);
        machine.disk.hard = found.hard;
        machine.disk.clean = true;
        self.ledger.clusters.insert(id, entry);
        self.ledger.note_disk(survivor, id);
        let log = self.nodes[survivor].disk.journal.cached.clone();
        // What clients were told so far is judged by what was true so far.
        self.conclude();
        self.ledger.forget_all_but(&log);
        self.clients.record.restart(&self.ledger, self.now_us);
        self.outcome.mark("recovered lossily");
        let back = self.random.index(2 * self.nodes.len());
        for node in (0..self.nodes.len()).filter(|node| *node != survivor) {
            self.dead[node] |= node != back;
            self.network.disconnect(survivor, node);
        }
        for node in [survivor, back] {
            if node < self.nodes.len() {
                self.boot(node);
            }
        }
        true
    }

    // Joining.

    /// A machine without a log takes a snapshot from a member that knows it as one.
    pub(super) fn join(&mut self, node: usize) {
        if self.nodes[node].joined || self.dead[node] {
            return;
        }
        let from = self.random.index(self.nodes.len());
        let source = self.nodes[from].process.as_ref().filter(|process| {
            let (id, disk) = (self.nodes[node].id, self.nodes[node].disk_id);
            process.core.configs().newest().binds(id, disk)
        });
        let usable = source.is_some()
            && self.network.is_open_both_ways(from, node)
            && self.nodes[from].paused_until_us <= self.now_us;
        let Some(snapshot) = self.snapshot_of(from).filter(|_| usable) else {
            self.after(JOIN_US, Action::Join { node });
            return;
        };
        self.outcome.mark("machine joined");
        let state = self.content_of(from);
        let machine = &mut self.nodes[node];
        machine.joined = true;
        machine.start_from(snapshot, state);
        self.ledger.note_disk(node, machine.disk.flushed);
        self.boot(node);
    }
}
