//! How far the search goes, and where it begins.

use std::sync::Arc;

use quorate_protocol::cluster::{ClusterChange, ClusterEntry, Member, MemberKind, SafetyTimers};
use quorate_protocol::core::HardState;
use quorate_protocol::core::message::EntryMeta;
use quorate_protocol::mutants::Mutant;
use quorate_protocol::policy::Policy;
use quorate_protocol::types::{
    ClusterId, EntryId, EntryKind, Epoch, Generation, Incarnation, NodeId, Seq,
};

use super::actions::{Action, apply};
use super::node::{Node, disk_of};
use super::state::State;

/// Where the search begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Node 1 stands for election in a freshly formed cluster. All nodes being equal, no other
    /// first step leads anywhere else.
    Formed,
    /// Node 1 leads, and every node holds all that it sealed, synced and known to be committed.
    Steady,
}

/// Bounds of one search.
#[derive(Clone, Debug)]
pub struct Scope {
    /// What it is called.
    pub name: &'static str,
    /// The policy at the start.
    pub policy: Policy,
    /// Voters at the start: nodes 1 to this number.
    pub voters: u64,
    /// Learners at the start: the nodes after them.
    pub learners: u64,
    /// Where it begins.
    pub start: Start,
    /// No election above this epoch. Formation is epoch 1, the first primary's epoch is 2.
    pub epoch_max: u64,
    /// Nodes above this one never stand.
    pub last_candidate: NodeId,
    /// No write at a primary whose log is this long.
    pub entries_max: u64,
    /// Changes of the configuration that may be asked for, one after the other: for each turn the
    /// choices.
    pub changes: Vec<Vec<ClusterChange>>,
    /// Kills and power cuts together.
    pub crashes_max: u8,
    /// Whether processes are killed.
    pub kills: bool,
    /// Whether machines lose power.
    pub power_cuts: bool,
    /// Whether a primary gives up for lack of answers.
    pub step_down: bool,
    /// Whether acknowledgements may arrive late or never. Where they don't, they arrive at once:
    /// a late one makes nothing committed that was not committed sooner otherwise.
    pub delayed_acks: bool,
    /// Whether replicas learn what is committed, which they do by heartbeats. It decides
    /// nothing there but which configurations are in force.
    pub commits: bool,
    /// Whether a prefix of a message's entries may arrive on its own.
    pub prefixes: bool,
    /// A deliberate mistake in the core, to see that it is found.
    pub mutant: Option<Mutant>,
    /// Whether a broken rule of configuration changes ends the search, or only what follows from
    /// it.
    pub judge_rules: bool,
    /// Whether changes wait until the primary has committed an entry of its own epoch, whatever
    /// the core thinks.
    pub changes_wait: bool,
}

impl Scope {
    /// A scope to start from: three voters and a steady primary, one more election, one write,
    /// no crash and no change.
    #[must_use]
    pub fn new(name: &'static str, policy: Policy) -> Self {
        Self {
            name,
            policy,
            voters: 3,
            learners: 0,
            start: Start::Steady,
            epoch_max: 3,
            last_candidate: NodeId(u64::MAX),
            entries_max: 3,
            changes: Vec::new(),
            crashes_max: 0,
            kills: false,
            power_cuts: false,
            step_down: false,
            delayed_acks: false,
            commits: false,
            prefixes: false,
            mutant: None,
            judge_rules: true,
            changes_wait: false,
        }
    }

    /// Whether the situation is one that this scope is for.
    pub(super) fn reaches(&self, mark: &str) -> bool {
        match mark {
            "a write is committed" => self.entries_max > 2,
            "memory loss is over" => self.power_cuts && self.crashes_max > 0,
            "a change is in force" => !self.changes.is_empty(),
            _ => true,
        }
    }

    /// Nodes in all.
    pub(super) fn nodes(&self) -> u64 {
        self.voters + self.learners
    }

    pub(super) fn first_state(&self) -> State {
        let first = first_entry(self.policy, self.voters, self.nodes());
        let boot = |index: u64| {
            let hard = HardState { epoch: Epoch(1), vote: None, memory_loss: false };
            let known = vec![Incarnation(1); self.nodes() as usize];
            Node::boot(NodeId(index), Incarnation(1), hard, vec![first.clone()], Seq(1), known)
        };
        let formed = State::new((1..=self.nodes()).map(boot).collect());
        let standing = apply(self, &formed, Action::Campaign(NodeId(1)));
        match self.start {
            Start::Formed => standing,
            Start::Steady => settle(self, standing),
        }
    }
}

fn first_entry(policy: Policy, voters: u64, nodes: u64) -> EntryMeta {
    let member = |index: u64| Member {
        node: NodeId(index),
        disk: disk_of(NodeId(index)),
        kind: if index <= voters { MemberKind::Voter } else { MemberKind::Learner },
        peer_addr: String::new(),
        client_addr: String::new(),
        plain_addr: String::new(),
    };
    let cluster = ClusterEntry {
        cluster: ClusterId(1),
        generation: Generation(0),
        version: 1,
        members: (1..=nodes).map(member).collect(),
        policy,
        timers: SafetyTimers::LAN,
        removed: Vec::new(),
        tokens: Vec::new(),
    };
    EntryMeta {
        id: EntryId::new(Epoch(1), Seq(1)),
        kind: EntryKind::Cluster,
        bytes: 1,
        cluster: Some(Arc::new(cluster)),
    }
}

/// Lets everything arrive and every sync return until nothing changes: one of the ways on from
/// here, taken without looking at the others.
fn settle(scope: &Scope, mut state: State) -> State {
    let nodes = scope.nodes();
    for _ in 0..100 {
        let before = state.clone();
        while state.network.iter().next().is_some() {
            let entries =
                state.network.get(0).map_or(0, |e| super::network::entries_in(&e.message));
            state = apply(scope, &state, Action::Deliver(0, entries));
        }
        for id in (1..=nodes).map(NodeId) {
            let log = state.node(id).core.log();
            if log.persisted() < log.last().seq {
                state = apply(scope, &state, Action::Sync(id));
            }
        }
        for to in (2..=nodes).map(NodeId) {
            state = apply(scope, &state, Action::Heartbeat(NodeId(1), to));
        }
        if state == before {
            return state;
        }
    }
    panic!("the cluster doesn't come to rest");
}
