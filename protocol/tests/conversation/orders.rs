//! The words of a script.

use std::fmt::Write as _;

use quorate_protocol::cluster::ClusterChange;
use quorate_protocol::core::message::EntryMeta;
use quorate_protocol::core::{Event, Refused, Role};
use quorate_protocol::policy::Policy;
use quorate_protocol::types::{ClusterTime, EntryId, EntryKind, Epoch, NodeId, Seq};

use super::{Cluster, ENTRY_BYTES, Node, member, show};

/// More deliveries than any script needs before nothing is on its way.
const DELIVERIES_MAX: usize = 10_000;

impl Cluster {
    /// Carries out one line.
    ///
    /// - `cluster N PRESET`, `disks instant|manual`, `quiet`, `loud`
    /// - `advance MS` (clock only), `tick N`, `run MS` (clock, ticks and messages)
    /// - `deliver` (everything, until nothing is on its way), `deliver A B` (what is on its way
    ///   now), `drop A B`, `wire`, `keep A B` (remembers what is on its way), `replay`
    /// - `cut A B` (both ways), `oneway A B`, `mend`, `reconnect A B` (a new session),
    ///   `lose A B` (A's session with B ends, B doesn't know)
    /// - `save N`, `write N`, `sync N`: the disk finishes hard state, journal write, journal sync
    /// - `propose N`, `read N TOKEN`, `lease N`, `admits N`
    /// - `policy N PRESET`, `add N ID`, `promote N ID`, `remove N ID`, `version N NUMBER`,
    ///   `mark N`: changes and marks proposed at node N
    /// - `transfer N`, `transfer N TO`
    /// - `trim N SEQ`, `fetch N FROM` (a snapshot of what FROM has applied), `install N`
    /// - `join N FROM`: a new node starts with a snapshot of FROM; `recover N PRESET` (while it is
    ///   down): it goes on alone
    /// - `repeat COUNT ORDER; ORDER...`
    /// - `kill N`, `power N`, `boot N`, `log N EPOCH.SEQ...` (while it is down), `status`
    pub(crate) fn carry_out(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| -> u64 {
            words[index].parse().unwrap_or_else(|_| panic!("no number: {line}"))
        };
        let node = |index: usize| NodeId(number(index));
        match words[..] {
            ["cluster", _, preset] => self.form(number(1), policy(preset)),
            ["disks", how] => self.instant = how == "instant",
            ["quiet"] => self.quiet = true,
            ["loud"] => self.quiet = false,
            ["advance", _] => self.now = self.now.plus(number(1) * 1_000),
            ["tick", _] => self.step(node(1), Event::Tick),
            ["run", _] => self.run(number(1) * 1_000),
            ["deliver"] => self.deliver_all(),
            ["deliver", _, _] => self.deliver(node(1), node(2)),
            ["drop", _, _] => {
                let way = (node(1), node(2));
                self.wire.retain(|(from, to, _)| (*from, *to) != way);
            }
            ["wire"] => self.show_wire(),
            ["keep", _, _] => {
                let way = (node(1), node(2));
                let on_way = self.wire.iter().filter(|(from, to, _)| (*from, *to) == way);
                self.kept.extend(on_way.cloned());
            }
            ["replay"] => {
                for (from, to, message) in self.kept.clone() {
                    self.step(to, Event::Received { from, message });
                }
            }
            ["cut", _, _] => self.cut.extend([(node(1), node(2)), (node(2), node(1))]),
            ["oneway", _, _] => self.cut.push((node(1), node(2))),
            ["mend"] => self.cut.clear(),
            ["reconnect", _, _] => {
                self.connect(node(1), node(2));
                self.connect(node(2), node(1));
            }
            ["lose", _, _] => self.lose(node(1), node(2)),
            ["save", _] => self.finish_hard_state(node(1)),
            ["write", _] => self.finish_write(node(1)),
            ["sync", _] => self.finish_sync(node(1)),
            ["propose", _] => {
                self.step(node(1), Event::Propose { time: ClusterTime(0) });
            }
            ["read", _, _] => self.step(node(1), Event::Read { token: number(2) }),
            ["admits", _] => self.show_admission(node(1)),
            ["lease", _] => self.show_lease(node(1)),
            ["kill", _] => self.crash(node(1), false),
            ["power", _] => self.crash(node(1), true),
            ["boot", _] => self.boot(node(1)),
            ["log", _, ..] => self.set_log(node(1), &words[2..]),
            ["status"] => self.show_status(),
            _ => self.carry_out_change(line),
        }
    }

    /// Orders about the configuration, leadership and snapshots.
    fn carry_out_change(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| -> u64 {
            words[index].parse().unwrap_or_else(|_| panic!("no number: {line}"))
        };
        let node = |index: usize| NodeId(number(index));
        match words[..] {
            ["mark", _] => self.step(node(1), Event::ProposeMark { time: ClusterTime(0) }),
            ["policy", _, preset] => {
                self.reconfigure(node(1), ClusterChange::SetPolicy(policy(preset)));
            }
            ["add", _, _] => self.reconfigure(node(1), ClusterChange::AddLearner(member(node(2)))),
            ["promote", _, _] => self.reconfigure(node(1), ClusterChange::Promote(node(2))),
            ["repeat", _, ..] => {
                let orders = line.splitn(3, ' ').nth(2).expect("orders to repeat");
                for _ in 0..number(1) {
                    orders.split("; ").for_each(|order| self.carry_out(order));
                }
            }
            ["remove", _, _] => self.reconfigure(node(1), ClusterChange::Remove(node(2))),
            ["version", _, _] => {
                let version = u32::try_from(number(2)).expect("a small number");
                self.reconfigure(node(1), ClusterChange::RaiseVersion(version));
            }
            ["transfer", _] => self.step(node(1), Event::Transfer { token: 0, to: None }),
            ["transfer", _, _] => {
                self.step(node(1), Event::Transfer { token: 0, to: Some(node(2)) });
            }
            ["trim", _, _] => self.trim(node(1), Seq(number(2))),
            ["fetch", _, _] => {
                let snapshot = self.node(node(2)).snapshot();
                self.step(node(1), Event::SnapshotFetched { snapshot });
            }
            ["install", _] => self.finish_install(node(1)),
            ["join", _, _] => {
                let snapshot = self.node(node(2)).snapshot();
                self.nodes.push(Node::new(node(1), snapshot.last, snapshot.config));
                self.boot(node(1));
            }
            ["recover", _, preset] => self.recover(node(1), policy(preset)),
            _ => panic!("unknown order: {line}"),
        }
    }

    fn reconfigure(&mut self, id: NodeId, change: ClusterChange) {
        self.step(id, Event::Reconfigure { token: 0, change });
    }

    fn recover(&mut self, id: NodeId, policy: Policy) {
        let node = self.node(id);
        assert!(node.core.is_none(), "only a node that is down is recovered");
        let mut boot = node.found();
        let (id, entry) = boot.recover(policy).expect("one voter can meet it");
        node.hard = boot.hard;
        let kind = EntryKind::Cluster;
        node.log.push(EntryMeta { id, kind, bytes: ENTRY_BYTES, cluster: Some(entry) });
        (node.written, node.synced) = (id.seq, id.seq);
    }

    /// Lets time pass: whoever is due gets a tick, messages arrive at once.
    fn run(&mut self, for_us: u64) {
        let end = self.now.plus(for_us);
        loop {
            self.deliver_all();
            let due = self
                .nodes
                .iter()
                .filter_map(|node| Some((node.core.as_ref()?.next_deadline(), node.id)))
                .min();
            match due {
                Some((at, id)) if at <= end => {
                    self.now = self.now.max(at);
                    self.step(id, Event::Tick);
                }
                Some(_) | None => break,
            }
        }
        self.now = end;
    }

    fn deliver_all(&mut self) {
        for _ in 0..DELIVERIES_MAX {
            let Some((from, to, message)) = self.wire.pop_front() else {
                return;
            };
            self.step(to, Event::Received { from, message });
        }
        panic!("messages without end");
    }

    fn deliver(&mut self, from: NodeId, to: NodeId) {
        let (due, rest): (Vec<_>, Vec<_>) =
            self.wire.drain(..).partition(|(f, t, _)| (*f, *t) == (from, to));
        self.wire = rest.into();
        for (from, to, message) in due {
            self.step(to, Event::Received { from, message });
        }
    }

    fn set_log(&mut self, id: NodeId, entries: &[&str]) {
        let entry = |text: &&str| -> EntryId {
            let (epoch, seq) = text.split_once('.').expect("an entry is EPOCH.SEQ");
            let number = |text: &str| text.parse().expect("an entry has numbers");
            EntryId::new(Epoch(number(epoch)), Seq(number(seq)))
        };
        let kind = EntryKind::Commands;
        let meta = |id| EntryMeta { id, kind, bytes: ENTRY_BYTES, cluster: None };
        let log: Vec<EntryMeta> = entries.iter().map(entry).map(meta).collect();
        let node = self.node(id);
        assert!(node.core.is_none(), "only the log of a node that is down can be set");
        let EntryId { epoch, seq } = log.last().expect("a log is not empty").id;
        if node.hard.epoch < epoch {
            node.hard.epoch = epoch;
            node.hard.vote = None;
        }
        (node.written, node.synced, node.log) = (seq, seq, log);
    }

    fn show_wire(&mut self) {
        for (from, to, message) in &self.wire {
            writeln!(self.answer, "{from} -> {to} {}", show::message(message))
                .expect("a string grows");
        }
    }

    fn show_admission(&mut self, id: NodeId) {
        let now = self.now;
        let core = self.node(id).core.as_ref().expect("it runs");
        let shown = match core.admits(now) {
            Ok(()) => "writes".to_owned(),
            Err(Refused::NotPrimary) => "nothing".to_owned(),
            Err(Refused::Starting) => "writes soon: it starts".to_owned(),
            Err(Refused::HandingOver(to)) => format!("writes soon: it hands over to {to}"),
            Err(Refused::Degraded(unmet)) => format!("nothing: {unmet}"),
        };
        writeln!(self.answer, "node {id} admits {shown}").expect("a string grows");
    }

    fn show_lease(&mut self, id: NodeId) {
        let now = self.now;
        let until = self.node(id).core.as_ref().and_then(|core| core.lease_until(now));
        let shown = match until {
            Some(until) if until > now => format!("for {} ms", (until.0 - now.0) / 1_000),
            Some(_) => "over".to_owned(),
            None => "none".to_owned(),
        };
        writeln!(self.answer, "node {id} lease: {shown}").expect("a string grows");
    }

    fn show_status(&mut self) {
        for node in &self.nodes {
            let Some(core) = &node.core else {
                writeln!(self.answer, "node {} down", node.id).expect("a string grows");
                continue;
            };
            let role = match core.role() {
                Role::Primary => "primary",
                Role::Candidate => "candidate",
                Role::Replica => "replica",
            };
            let loss = if core.memory_loss() { ", memory loss" } else { "" };
            writeln!(
                self.answer,
                "node {} {role} epoch {}, last {}, in memory {}, persisted {}, committed {}{loss}",
                node.id,
                core.epoch(),
                core.log().last(),
                core.log().in_memory(),
                core.log().persisted(),
                core.committed()
            )
            .expect("a string grows");
        }
    }
}

fn policy(preset: &str) -> Policy {
    match preset {
        "local" => Policy::LOCAL,
        "memory" => Policy::MEMORY,
        "hybrid" => Policy::HYBRID,
        "majority" => Policy::MAJORITY,
        "all" => Policy::ALL,
        _ => panic!("unknown preset: {preset}"),
    }
}
