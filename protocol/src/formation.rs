//! First boot: how empty nodes become a cluster, without two wiped nodes ever forming one by
//! themselves (S6).
//!
//! Only the lowest initial id may form the cluster, and only after every other initial member has
//! promised itself to that node's disk: each syncs the promise before it answers. The lowest id
//! then writes the first cluster entry, which binds every node id to its disk, and hands it to
//! the others. A node without a log joins when a first entry names its node id *and* its disk; a
//! node that was wiped has another disk, so no entry names it and it waits.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::{ClusterEntry, Member, MemberKind, SafetyTimers};
use crate::entry::Entry;
use crate::policy::Policy;
use crate::types::{ClusterId, DiskId, EntryId, EntryKind, Epoch, Generation, NodeId, Seq};
use crate::wire::{FormReply, Formation};

/// The id of every cluster's first entry.
pub const FIRST_ENTRY: EntryId = EntryId { epoch: Epoch(1), seq: Seq(1) };

/// The oldest cluster version: what a new cluster starts with.
pub const CLUSTER_VERSION: u32 = 1;

/// What the operator configured for the first boot, and who this node is.
#[derive(Clone, Debug)]
pub struct Plan {
    /// This node.
    pub node: NodeId,
    /// Its data directory.
    pub disk: DiskId,
    /// The operator's name for the cluster.
    pub cluster_name: String,
    /// Every initial member, this node among them; none where it joins a formed cluster.
    pub initial: Vec<NodeId>,
    /// How this node is reached.
    pub addresses: Addresses,
    /// The policy to start with.
    pub policy: Policy,
    /// The safety timers to start with.
    pub timers: SafetyTimers,
}

/// Where a node is reached, each as `host:port`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// QUIC endpoint.
    pub peer: String,
    /// Cluster-mode listener.
    pub client: String,
    /// Plain listener; empty where it has none.
    pub plain: String,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this to a peer.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Formation,
    },
    /// Sync the promise to this disk, then send the reply.
    Reserve {
        /// The disk of the node that forms the cluster.
        disk: DiskId,
        /// To whom the reply goes.
        to: NodeId,
        /// The reply.
        message: Formation,
    },
    /// Every initial member is empty and promised: write this as the first entry, sync it, and
    /// start.
    Form(Arc<ClusterEntry>),
}

/// A node without a log, waiting for its cluster.
#[derive(Clone, Debug)]
pub struct Forming {
    plan: Plan,
    reservation: Option<DiskId>,
    peers: BTreeMap<NodeId, Peer>,
}

#[derive(Clone, Debug)]
enum Peer {
    /// Its session is up; it has not answered yet.
    Asked,
    /// It promised itself to this node.
    Promised(FormReply),
    /// It can't take part, and why.
    Refuses(String),
}

impl Forming {
    /// `reservation` is the promise found on disk.
    #[must_use]
    pub fn new(plan: Plan, reservation: Option<DiskId>) -> Self {
        Self { plan, reservation, peers: BTreeMap::new() }
    }

    /// A lone initial member needs no one's answer.
    #[must_use]
    pub fn start(&self, cluster: ClusterId) -> Vec<Step> {
        self.form_if_complete(cluster).into_iter().collect()
    }

    /// A session with a peer is up; `formed` is what it says about its log.
    #[must_use]
    pub fn on_connected(&mut self, peer: NodeId, formed: bool) -> Vec<Step> {
        if !self.leads() || !self.plan.initial.contains(&peer) {
            return Vec::new();
        }
        if formed {
            let why = "belongs to a formed cluster, while this node's directory is empty";
            self.peers.insert(peer, Peer::Refuses(why.to_owned()));
            return Vec::new();
        }
        self.peers.insert(peer, Peer::Asked);
        let message =
            Formation::Query { disk: self.plan.disk, cluster_name: self.plan.cluster_name.clone() };
        vec![Step::Send { to: peer, message }]
    }

    /// The session is gone: what the peer promised stays on its disk, but it is asked again.
    pub fn on_disconnected(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
    }

    /// A formation message arrived. `cluster` is the id to use if it completes the set.
    #[must_use]
    pub fn on_message(
        &mut self,
        from: NodeId,
        message: Formation,
        cluster: ClusterId,
    ) -> Vec<Step> {
        match message {
            Formation::Query { disk, cluster_name } => {
                self.on_query(from, disk, &cluster_name).into_iter().collect()
            }
            Formation::Reply(reply) => {
                self.on_reply(from, reply);
                self.form_if_complete(cluster).into_iter().collect()
            }
            // Judged by `accepts`; an acknowledgement means nothing to a node without a log.
            Formation::Formed { .. } | Formation::FormedAck => Vec::new(),
        }
    }

    /// Whether this is a first entry that names this node on this disk; if so, the configuration
    /// in it.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn accepts(&self, entry: &Entry, config: ClusterEntry) -> Result<ClusterEntry, String> {
        if entry.id != FIRST_ENTRY || entry.kind != EntryKind::Cluster {
            return Err(format!("entry {} is not a cluster's first entry", entry.id));
        }
        match config.member(self.plan.node) {
            Some(member) if member.disk == self.plan.disk => Ok(config),
            Some(member) => Err(format!(
                "the cluster knows node {} with disk {}, but this data directory is disk {}",
                self.plan.node, member.disk, self.plan.disk
            )),
            None => Err(format!("the cluster doesn't know node {}", self.plan.node)),
        }
    }

    /// What is missing, in words; an operator reads it.
    #[must_use]
    pub fn waiting_for(&self) -> String {
        if self.joins() {
            let (node, name) = (self.plan.node, &self.plan.cluster_name);
            return format!("a member of cluster {name:?} to take it in as node {node}");
        }
        if !self.leads() {
            let lowest = self.lowest();
            return format!("node {lowest} to form cluster {:?}", self.plan.cluster_name);
        }
        let missing = self.others().filter_map(|node| match self.peers.get(&node) {
            None => Some(format!("node {node} (not connected)")),
            Some(Peer::Asked) => Some(format!("node {node} (has not answered)")),
            Some(Peer::Refuses(why)) => Some(format!("node {node} ({why})")),
            Some(Peer::Promised(_)) => None,
        });
        missing.collect::<Vec<_>>().join(", ")
    }

    /// Whether this node joins a formed cluster.
    #[must_use]
    pub fn joins(&self) -> bool {
        self.plan.initial.is_empty()
    }

    /// Whether a snapshot with this configuration makes this node a part of its cluster: it must
    /// name the node, on its disk (S6).
    #[must_use]
    pub fn is_member_of(&self, config: &ClusterEntry) -> bool {
        config.binds(self.plan.node, self.plan.disk)
    }

    fn lowest(&self) -> NodeId {
        self.plan.initial.iter().copied().min().unwrap_or(self.plan.node)
    }

    fn leads(&self) -> bool {
        !self.joins() && self.lowest() == self.plan.node
    }

    fn others(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.plan.initial.iter().copied().filter(|node| *node != self.plan.node)
    }

    /// Promises this node to the asker's disk, once and for one disk only.
    fn on_query(&mut self, from: NodeId, disk: DiskId, cluster_name: &str) -> Option<Step> {
        if self.joins()
            || from != self.lowest()
            || self.leads()
            || cluster_name != self.plan.cluster_name
        {
            return None;
        }
        let reserved_for = *self.reservation.get_or_insert(disk);
        let message = Formation::Reply(FormReply {
            disk: self.plan.disk,
            empty: true,
            reserved_for: Some(reserved_for),
            peer_addr: self.plan.addresses.peer.clone(),
            client_addr: self.plan.addresses.client.clone(),
            plain_addr: self.plan.addresses.plain.clone(),
        });
        Some(Step::Reserve { disk: reserved_for, to: from, message })
    }

    fn on_reply(&mut self, from: NodeId, reply: FormReply) {
        if !self.leads() || !self.others().any(|node| node == from) {
            return;
        }
        let answer = if !reply.empty {
            Peer::Refuses("its directory is not empty".to_owned())
        } else if reply.reserved_for == Some(self.plan.disk) {
            Peer::Promised(reply)
        } else {
            Peer::Refuses(
                "it has promised itself to another data directory of this node".to_owned(),
            )
        };
        self.peers.insert(from, answer);
    }

    fn form_if_complete(&self, cluster: ClusterId) -> Option<Step> {
        if !self.leads() {
            return None;
        }
        let own = &self.plan.addresses;
        let mut members = vec![voter(self.plan.node, self.plan.disk, own.clone())];
        for node in self.others() {
            let Some(Peer::Promised(reply)) = self.peers.get(&node) else {
                return None;
            };
            let addresses = Addresses {
                peer: reply.peer_addr.clone(),
                client: reply.client_addr.clone(),
                plain: reply.plain_addr.clone(),
            };
            members.push(voter(node, reply.disk, addresses));
        }
        members.sort_unstable_by_key(|member| member.node);
        Some(Step::Form(Arc::new(ClusterEntry {
            cluster,
            generation: Generation(0),
            version: CLUSTER_VERSION,
            members,
            policy: self.plan.policy,
            timers: self.plan.timers,
            removed: Vec::new(),
            tokens: Vec::new(),
        })))
    }
}

fn voter(node: NodeId, disk: DiskId, addresses: Addresses) -> Member {
    Member {
        node,
        disk,
        kind: MemberKind::Voter,
        peer_addr: addresses.peer,
        client_addr: addresses.client,
        plain_addr: addresses.plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(node: u64, disk: u128) -> Plan {
        Plan {
            node: NodeId(node),
            disk: DiskId(disk),
            cluster_name: "c".to_owned(),
            initial: vec![NodeId(1), NodeId(2), NodeId(3)],
            addresses: Addresses::default(),
            policy: Policy::MAJORITY,
            timers: SafetyTimers::LAN,
        }
    }

    /// Carries a query of node 1 to `to` and the answer back.
    fn ask(one: &mut Forming, to: &mut Forming, node: u64) -> Vec<Step> {
        let [Step::Send { message, .. }] = &one.on_connected(NodeId(node), false)[..] else {
            panic!("node 1 asks whoever is not formed");
        };
        let steps = to.on_message(NodeId(1), message.clone(), ClusterId(0));
        let [Step::Reserve { message, .. }] = &steps[..] else {
            panic!("a promise is synced before it is given");
        };
        one.on_message(NodeId(node), message.clone(), ClusterId(9))
    }

    #[test]
    fn forms_only_when_every_initial_member_promised() {
        let mut one = Forming::new(plan(1, 11), None);
        let mut two = Forming::new(plan(2, 22), None);
        let mut three = Forming::new(plan(3, 33), None);
        assert_eq!(one.start(ClusterId(9)), []);
        assert_eq!(ask(&mut one, &mut two, 2), []);
        assert_eq!(one.waiting_for(), "node 3 (not connected)");
        let steps = ask(&mut one, &mut three, 3);
        let [Step::Form(config)] = &steps[..] else { panic!("complete: {steps:?}") };
        let disks: Vec<u128> = config.members.iter().map(|member| member.disk.0).collect();
        assert_eq!(disks, [11, 22, 33]);
        assert!(config.binds(NodeId(3), DiskId(33)));
    }

    #[test]
    fn two_wiped_nodes_form_nothing_while_the_third_is_away_or_formed() {
        let mut one = Forming::new(plan(1, 11), None);
        let mut two = Forming::new(plan(2, 22), None);
        assert_eq!(ask(&mut one, &mut two, 2), []);
        assert_eq!(one.on_connected(NodeId(3), true), []);
        assert!(one.waiting_for().starts_with("node 3 (belongs to a formed cluster"));
    }

    #[test]
    fn a_promise_binds_to_one_disk() {
        let mut two = Forming::new(plan(2, 22), Some(DiskId(11)));
        let mut other = Forming::new(plan(1, 99), None);
        assert_eq!(ask(&mut other, &mut two, 2), []);
        assert!(other.waiting_for().contains("promised itself to another data directory"));
    }

    #[test]
    fn only_the_lowest_id_asks_and_is_answered() {
        let mut two = Forming::new(plan(2, 22), None);
        assert_eq!(two.on_connected(NodeId(3), false), []);
        let query = Formation::Query { disk: DiskId(33), cluster_name: "c".to_owned() };
        assert_eq!(two.on_message(NodeId(3), query, ClusterId(0)), []);
        let foreign = Formation::Query { disk: DiskId(11), cluster_name: "d".to_owned() };
        assert_eq!(two.on_message(NodeId(1), foreign, ClusterId(0)), []);
    }

    #[test]
    fn a_node_that_joins_forms_nothing_and_promises_nothing() {
        let joining = Plan { initial: Vec::new(), ..plan(4, 44) };
        let mut four = Forming::new(joining, None);
        assert!(four.joins());
        assert_eq!(four.start(ClusterId(9)), []);
        assert_eq!(four.on_connected(NodeId(1), true), []);
        let query = Formation::Query { disk: DiskId(11), cluster_name: "c".to_owned() };
        assert_eq!(four.on_message(NodeId(1), query, ClusterId(9)), []);
        assert_eq!(four.waiting_for(), "a member of cluster \"c\" to take it in as node 4");
        let lone = Plan { initial: vec![NodeId(1)], ..plan(1, 11) };
        let steps = Forming::new(lone, None).start(ClusterId(9));
        let [Step::Form(config)] = &steps[..] else { panic!("{steps:?}") };
        assert!(!four.is_member_of(config));
        let mut joined = ClusterEntry::clone(config);
        joined.members.push(voter(NodeId(4), DiskId(44), Addresses::default()));
        assert!(four.is_member_of(&joined));
        joined.members[1].disk = DiskId(45);
        assert!(!four.is_member_of(&joined));
    }

    #[test]
    fn a_single_node_forms_at_once() {
        let lone = Plan { initial: vec![NodeId(1)], ..plan(1, 11) };
        let steps = Forming::new(lone, None).start(ClusterId(9));
        assert!(matches!(&steps[..], [Step::Form(config)] if config.members.len() == 1));
    }
}
