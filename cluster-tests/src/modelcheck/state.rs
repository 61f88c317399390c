//! The whole cluster at one moment, and what was promised on the way there.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::core::Role;
use quorate_protocol::types::{EntryId, EntryKind, Epoch, NodeId, Seq};

use super::fold::Fold;
use super::network::Network;
use super::node::{Effects, Node};

/// What is broken: the names of the simulator's invariants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Broken {
    /// Two primaries in one epoch.
    ElectionSafety,
    /// A primary of a later epoch lacks what was committed.
    LeaderCompleteness,
    /// Two different entries are committed at one position.
    CommittedImmutable,
    /// A node takes for committed what no primary committed.
    CommitIsReal,
    /// Two logs hold one entry after different ones.
    LogMatching,
    /// A configuration came in force without the copies that the old and the new one ask for.
    JointRule,
    /// A node stopped itself for a broken invariant.
    NeverHalts,
}

impl Broken {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ElectionSafety => "ElectionSafety",
            Self::LeaderCompleteness => "LeaderCompleteness",
            Self::CommittedImmutable => "CommittedImmutable",
            Self::CommitIsReal => "CommitIsReal",
            Self::LogMatching => "LogMatching",
            Self::JointRule => "JointRule",
            Self::NeverHalts => "NeverHalts",
        }
    }
}

/// A primary's tenure.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Won {
    /// Its epoch.
    pub(super) epoch: Epoch,
    /// Who won.
    pub(super) node: NodeId,
    /// The winner's log when it won.
    pub(super) log: Vec<EntryId>,
}

/// What must stay true for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct History {
    /// Every tenure, by epoch.
    pub(super) won: Vec<Won>,
    /// Every committed entry, by position, and the lowest epoch whose primary committed it.
    pub(super) committed: Vec<(EntryId, Epoch)>,
}

/// The cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub(super) nodes: Vec<Arc<Node>>,
    /// Hashes of the nodes: a node is hashed once, when it changes.
    pub(super) hashes: Vec<u64>,
    pub(super) network: Network,
    pub(super) history: Arc<History>,
    /// Kills and power cuts so far.
    pub(super) crashes: u8,
    /// Configuration changes asked for so far.
    pub(super) changes: u8,
    /// What is broken, if anything.
    pub(super) broken: Option<Broken>,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.hashes.hash(hasher);
        self.network.hash(hasher);
        self.history.hash(hasher);
        (self.crashes, self.changes, self.broken).hash(hasher);
    }
}

impl State {
    /// A cluster of these nodes in which nothing happened yet.
    pub(super) fn new(nodes: Vec<Node>) -> Self {
        let first = nodes[0].entries[0].id;
        let hashes = nodes.iter().map(hash_of).collect();
        Self {
            nodes: nodes.into_iter().map(Arc::new).collect(),
            hashes,
            network: Network::default(),
            history: Arc::new(History { won: Vec::new(), committed: vec![(first, first.epoch)] }),
            crashes: 0,
            changes: 0,
            broken: None,
        }
    }

    /// The node with this number.
    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize - 1]
    }

    /// Replaces a node and judges what it did. What it sent is the caller's part.
    pub(super) fn put(&mut self, node: Node, effects: Effects) {
        let index = node.id.0 as usize - 1;
        let before = self.nodes[index].core.committed();
        if effects.halted {
            self.breaks(Broken::NeverHalts);
        }
        if let Some((epoch, log)) = effects.won {
            self.judge_winner(Won { epoch, node: node.id, log });
        }
        self.judge_commit(&node, before);
        self.judge_configuration(&node);
        // Hashed anew when the action is over.
        self.hashes[index] = 0;
        self.nodes[index] = Arc::new(node);
        self.judge_logs(index);
    }

    /// An action is over: forgets messages without effect, and hashes what changed.
    pub(super) fn settle(&mut self) {
        self.network.forget_dead(&self.nodes);
        for (hash, node) in self.hashes.iter_mut().zip(&self.nodes) {
            if *hash == 0 {
                *hash = hash_of(node);
            }
        }
    }

    pub(super) fn has_committed_write(&self) -> bool {
        self.nodes.iter().any(|node| {
            let committed = node.core.committed().0 as usize;
            node.entries[..committed].iter().any(|entry| entry.kind == EntryKind::Commands)
        })
    }

    pub(super) fn has_left_memory_loss(&self) -> bool {
        self.nodes.iter().any(|node| node.lost_memory && !node.core.memory_loss())
    }

    pub(super) fn has_changed(&self) -> bool {
        self.nodes.iter().any(|node| node.core.configs().in_force_at().seq > Seq(1))
    }

    fn breaks(&mut self, what: Broken) {
        self.broken = self.broken.or(Some(what));
    }

    fn judge_winner(&mut self, won: Won) {
        let other = self.history.won.iter().any(|w| w.epoch == won.epoch && w.node != won.node);
        if other {
            self.breaks(Broken::ElectionSafety);
        }
        let holds = |id: EntryId| won.log.get(id.seq.0 as usize - 1) == Some(&id);
        let lacks = self.history.committed.iter().any(|(id, by)| *by < won.epoch && !holds(*id));
        if lacks {
            self.breaks(Broken::LeaderCompleteness);
        }
        let history = Arc::make_mut(&mut self.history);
        let index = history.won.partition_point(|w| w.epoch <= won.epoch);
        history.won.insert(index, won);
    }

    fn judge_commit(&mut self, node: &Node, before: Seq) {
        let committed = node.core.committed();
        let epoch = node.core.epoch();
        let leads = node.core.role() == Role::Primary;
        for seq in before.0 + 1..=committed.0 {
            let id = node.at(Seq(seq)).expect("what is committed is held").id;
            match self.history.committed.get(seq as usize - 1).copied() {
                Some((other, _)) if other != id => self.breaks(Broken::CommittedImmutable),
                Some((_, by)) if leads && epoch < by => {
                    Arc::make_mut(&mut self.history).committed[seq as usize - 1].1 = epoch;
                }
                Some(_) => {}
                None if leads => Arc::make_mut(&mut self.history).committed.push((id, epoch)),
                None => self.breaks(Broken::CommitIsReal),
            }
            let lacks = |won: &Won| won.epoch > epoch && won.log.get(seq as usize - 1) != Some(&id);
            if leads && self.history.won.iter().any(lacks) {
                self.breaks(Broken::LeaderCompleteness);
            }
        }
    }

    /// S10: what a primary brings in force is on the disks of `b(old)` old and `b(new)` new voters.
    fn judge_configuration(&mut self, node: &Node) {
        let before = &self.nodes[node.id.0 as usize - 1].core;
        let (old, new) = (before.configs(), node.core.configs());
        let led = before.role() == Role::Primary && node.core.role() == Role::Primary;
        if !led || old.in_force_at() == new.in_force_at() {
            return;
        }
        let id = new.in_force_at();
        let copies = |config: &ClusterEntry| {
            let held = |voter: NodeId| {
                let holder = if voter == node.id { node } else { self.node(voter) };
                holder.core.log().persisted() >= id.seq && holder.core.log().holds(id)
            };
            let form = config.policy.normal_form(config.voters().count());
            config.voters().filter(|voter| held(*voter)).count() >= form.sealing_copies()
        };
        if !copies(old.in_force()) || !copies(new.in_force()) {
            self.breaks(Broken::JointRule);
        }
    }

    /// Log matching between one node and all others: from the highest common entry down the logs
    /// are the same.
    fn judge_logs(&mut self, index: usize) {
        let own = &self.nodes[index].entries;
        let differs = self.nodes.iter().any(|other| {
            let shared = own.iter().zip(&other.entries).rposition(|(a, b)| a.id == b.id);
            shared.is_some_and(|last| own[..=last] != other.entries[..=last])
        });
        if differs {
            self.breaks(Broken::LogMatching);
        }
    }
}

fn hash_of(node: &Node) -> u64 {
    let mut hasher = Fold::default();
    node.hash(&mut hasher);
    hasher.finish()
}
