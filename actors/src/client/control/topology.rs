//! `CLUSTER …` and `ROLE`: the cluster as Redis Cluster clients know it, one shard with all slots.
//!
//! The primary comes first. Replicas that the primary doesn't hear are left out. With no primary
//! the last one stays first, and the cluster's state is `fail`.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_protocol::cluster::{ClusterEntry, Member};
use quorate_protocol::command::{Cluster, SLOTS, slot};
use quorate_protocol::resp::Reply;
use quorate_protocol::types::{ClusterId, NodeId};

use super::{bulk, text, verbatim};
use crate::client::refusal::error;
use crate::client::shared::Shared;
use crate::clock;
use crate::view::{Role, View};

/// How often a question that waits looks whether a primary was heard.
const HEARD_POLL: Duration = Duration::from_millis(5);

/// Answers a `CLUSTER` command of the cluster listener.
pub(super) fn cluster(shared: &Shared, query: &Cluster) -> Reply {
    let view = shared.published.view();
    let first = view.primary.or_else(|| shared.published.last_primary());
    let topology = Topology::of(&view, shared.options.node, first);
    match query {
        Cluster::Slots => slots(&topology),
        Cluster::Shards => shards(&topology, shared),
        Cluster::Nodes => verbatim(nodes(&topology)),
        Cluster::Info => verbatim(info(&topology)),
        Cluster::MyId => text(node_hex(topology.cluster, shared.options.node)),
        Cluster::MyShardId => text(shard_hex(topology.cluster)),
        Cluster::Links => Reply::Array(Vec::new()),
        Cluster::KeySlot { key } => Reply::Integer(i64::from(slot(key))),
        Cluster::Replicas { node } => replicas(&topology, node),
        Cluster::CountFailureReports { node } => match topology.find(node) {
            Some(_) => Reply::Integer(0),
            None => unknown_node(node),
        },
    }
}

/// Returns once what this node knows of the primary is as new as the question: the primary itself
/// holds its lease, a replica has heard from one since. Waits at most until `until`.
///
/// Clients ask because a connection to the primary broke, and some ask again at once, a few times,
/// and then give up. Until a replica misses the primary it would send them back to a dead one; so
/// it answers with the primary's next heartbeat, or with the first of the next primary.
pub(in crate::client) async fn current(shared: &Shared, until: Instant) {
    let asked = clock::now();
    let knows = || {
        shared.published.may_read(clock::now())
            || (shared.published.role() != Role::Primary && shared.published.heard() > asked)
    };
    while !knows() && Instant::now() < until {
        tokio::time::sleep_until((Instant::now() + HEARD_POLL).min(until).into()).await;
    }
}

/// Whether the answer names the primary, so that it has to be current.
pub(in crate::client) fn names_primary(query: &Cluster) -> bool {
    match query {
        Cluster::Slots | Cluster::Shards | Cluster::Nodes | Cluster::Replicas { .. } => true,
        Cluster::Info
        | Cluster::MyId
        | Cluster::MyShardId
        | Cluster::Links
        | Cluster::KeySlot { .. }
        | Cluster::CountFailureReports { .. } => false,
    }
}

/// `ROLE`, in Redis's words.
pub(super) fn role(shared: &Shared) -> Reply {
    let view = shared.published.view();
    let offset = shared.published.committed().0 as i64;
    if shared.published.role() == Role::Primary {
        let replicas = view
            .peers
            .iter()
            .filter(|peer| peer.connected)
            .filter_map(|peer| Some((view.config.as_ref()?.member(peer.node)?, peer)))
            .map(|(member, peer)| {
                let (host, port) = split(&member.client_addr);
                Reply::Array(vec![
                    text(host.to_owned()),
                    text(port.to_string()),
                    text(peer.in_memory.to_string()),
                ])
            });
        return Reply::Array(vec![
            bulk("master"),
            Reply::Integer(offset),
            Reply::Array(replicas.collect()),
        ]);
    }
    let primary = view.primary.and_then(|id| view.config.as_ref()?.member(id).cloned());
    let (host, port, state) = match &primary {
        Some(member) => {
            let (host, port) = split(&member.client_addr);
            (host.to_owned(), port, "connected")
        }
        None => (String::new(), 0, "connect"),
    };
    Reply::Array(vec![
        bulk("slave"),
        text(host),
        Reply::Integer(i64::from(port)),
        bulk(state),
        Reply::Integer(shared.published.applied().0 as i64),
    ])
}

/// The 40 hexadecimal digits that stand for a node, the same as long as the cluster lives.
pub(super) fn node_hex(cluster: ClusterId, node: NodeId) -> String {
    hex40(b"quorate node", cluster, node.0)
}

/// `host` and `port` of an address; an address without a port has port 0.
pub(super) fn split(address: &str) -> (&str, u16) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
    (host.trim_start_matches('[').trim_end_matches(']'), port.parse().unwrap_or(0))
}

/// The members that clients are told about, the primary first.
struct Topology {
    cluster: ClusterId,
    epoch: u64,
    /// Whether the first is a primary that is heard.
    led: bool,
    members: Vec<Node>,
}

struct Node {
    id: NodeId,
    hex: String,
    host: String,
    port: u16,
    peer_port: u16,
    is_self: bool,
    offset: u64,
}

impl Topology {
    fn of(view: &View, this: NodeId, first: Option<NodeId>) -> Self {
        let cluster = view.cluster.unwrap_or_default();
        let mut members: Vec<Node> = Vec::new();
        if let Some(config) = &view.config {
            for member in &config.members {
                if is_shown(view, config, member, this, first) {
                    members.push(Node::of(view, cluster, member, this));
                }
            }
        }
        members.sort_by_key(|node| (Some(node.id) != first, node.id));
        Self { cluster, epoch: view.epoch.0, led: view.primary.is_some(), members }
    }

    fn find(&self, hex: &[u8]) -> Option<&Node> {
        self.members.iter().find(|node| node.hex.as_bytes() == hex)
    }
}

/// A primary knows who is connected. A replica knows only of itself and its primary, so it shows
/// every voter: clients that try a silent one are told by the next answer.
fn is_shown(
    view: &View,
    config: &ClusterEntry,
    member: &Member,
    this: NodeId,
    first: Option<NodeId>,
) -> bool {
    if member.client_addr.is_empty() || !config.is_voter(member.node) {
        return false;
    }
    if member.node == this || Some(member.node) == first || view.role != Role::Primary {
        return true;
    }
    view.peers.iter().any(|peer| peer.node == member.node && peer.connected)
}

impl Node {
    fn of(view: &View, cluster: ClusterId, member: &Member, this: NodeId) -> Self {
        let (host, port) = split(&member.client_addr);
        let peer = view.peers.iter().find(|peer| peer.node == member.node);
        let offset = if member.node == this {
            view.last.seq
        } else {
            peer.map_or_else(Default::default, |peer| peer.in_memory)
        };
        Self {
            id: member.node,
            hex: node_hex(cluster, member.node),
            host: host.to_owned(),
            port,
            peer_port: split(&member.peer_addr).1,
            is_self: member.node == this,
            offset: offset.0,
        }
    }
}

fn slots(topology: &Topology) -> Reply {
    if topology.members.is_empty() {
        return Reply::Array(Vec::new());
    }
    let mut range = vec![Reply::Integer(0), Reply::Integer(i64::from(SLOTS) - 1)];
    range.extend(topology.members.iter().map(|node| {
        Reply::Array(vec![
            text(node.host.clone()),
            Reply::Integer(i64::from(node.port)),
            text(node.hex.clone()),
            Reply::Array(Vec::new()),
        ])
    }));
    Reply::Array(vec![Reply::Array(range)])
}

fn shards(topology: &Topology, shared: &Shared) -> Reply {
    if topology.members.is_empty() {
        return Reply::Array(Vec::new());
    }
    let nodes = topology.members.iter().enumerate().map(|(at, node)| {
        let primary = at == 0;
        let offset = if node.is_self { shared.published.applied().0 } else { node.offset };
        Reply::Map(vec![
            (bulk("id"), text(node.hex.clone())),
            (bulk("port"), Reply::Integer(i64::from(node.port))),
            (bulk("ip"), text(node.host.clone())),
            (bulk("endpoint"), text(node.host.clone())),
            (bulk("role"), bulk(if primary { "master" } else { "replica" })),
            (bulk("replication-offset"), Reply::Integer(offset as i64)),
            (bulk("health"), bulk(if primary && !topology.led { "fail" } else { "online" })),
        ])
    });
    Reply::Array(vec![Reply::Map(vec![
        (
            bulk("slots"),
            Reply::Array(vec![Reply::Integer(0), Reply::Integer(i64::from(SLOTS) - 1)]),
        ),
        (bulk("nodes"), Reply::Array(nodes.collect())),
    ])])
}

fn nodes(topology: &Topology) -> String {
    let mut lines = String::new();
    for at in 0..topology.members.len() {
        node_line(topology, at, &mut lines);
        lines.push('\n');
    }
    lines
}

fn node_line(topology: &Topology, at: usize, line: &mut String) {
    let node = &topology.members[at];
    let myself = if node.is_self { "myself," } else { "" };
    let primary = at == 0;
    let master = topology.members.first().filter(|_| !primary).map_or("-", |first| &first.hex);
    let role = match (primary, topology.led) {
        (true, true) => "master",
        (true, false) if node.is_self => "master",
        (true, false) => "master,fail?",
        (false, _) => "slave",
    };
    // Writing to a string can't fail.
    let _ = write!(
        line,
        "{} {}:{}@{} {myself}{role} {master} 0 0 {} connected",
        node.hex, node.host, node.port, node.peer_port, topology.epoch
    );
    if primary {
        let _ = write!(line, " 0-{}", SLOTS - 1);
    }
}

fn replicas(topology: &Topology, node: &Bytes) -> Reply {
    match topology.find(node) {
        None => unknown_node(node),
        Some(found) if topology.members.first().is_none_or(|first| first.id != found.id) => {
            error("ERR The specified node is not a master")
        }
        Some(_) => Reply::Array(
            (1..topology.members.len())
                .map(|at| {
                    let mut line = String::new();
                    node_line(topology, at, &mut line);
                    text(line)
                })
                .collect(),
        ),
    }
}

fn info(topology: &Topology) -> String {
    let state = if topology.led { "ok" } else { "fail" };
    let assigned = if topology.members.is_empty() { 0 } else { SLOTS };
    let reachable = if topology.led { assigned } else { 0 };
    let failing = assigned - reachable;
    let epoch = topology.epoch;
    format!(
        "cluster_enabled:1\r\n\
         cluster_state:{state}\r\n\
         cluster_slots_assigned:{assigned}\r\n\
         cluster_slots_ok:{reachable}\r\n\
         cluster_slots_pfail:0\r\n\
         cluster_slots_fail:{failing}\r\n\
         cluster_known_nodes:{}\r\n\
         cluster_size:1\r\n\
         cluster_current_epoch:{epoch}\r\n\
         cluster_my_epoch:{epoch}\r\n\
         cluster_stats_messages_sent:0\r\n\
         cluster_stats_messages_received:0\r\n\
         total_cluster_links_buffer_limit_exceeded:0\r\n",
        topology.members.len(),
    )
}

fn unknown_node(node: &Bytes) -> Reply {
    let shown: String =
        String::from_utf8_lossy(&node[..node.len().min(64)]).replace(['\r', '\n'], " ");
    Reply::Error(format!("ERR Unknown node {shown}").into())
}

fn shard_hex(cluster: ClusterId) -> String {
    hex40(b"quorate shard", cluster, 0)
}

fn hex40(domain: &[u8], cluster: ClusterId, number: u64) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(domain).update(&cluster.0.to_be_bytes()).update(&number.to_be_bytes());
    hasher.finalize().to_hex()[..40].to_owned()
}
