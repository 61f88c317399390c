//! Who belongs to the cluster, as the transport is told; and what members say of their addresses,
//! as the log is told.

use std::collections::BTreeMap;

use quorate_protocol::cluster::{ClusterChange, ClusterEntry, Member, MemberKind};
use quorate_protocol::core::{Core, Event, Role};
use quorate_protocol::formation::Addresses;
use quorate_protocol::types::{MonoTime, NodeId};
use quorate_protocol::wire::Hello;

use super::super::ports::{Fatal, Ports};
use super::Driver;
use crate::clock;
use crate::replication::{PeerAddress, Roster};

/// Between two changes that a primary proposes by itself.
const PROPOSAL_PERIOD_US: u64 = 1_000_000;

/// A token of nobody: those of operators' orders begin at 1.
const NOBODY: u64 = 0;

/// What was told to the transport, and what members say.
#[derive(Debug, Default)]
pub(super) struct Membership {
    /// What the transport was told last.
    told: Roster,
    /// Addresses that members gave in their last greeting.
    announced: BTreeMap<NodeId, Addresses>,
    /// When the next change may be proposed without an order.
    proposal_due: MonoTime,
}

impl Membership {
    /// A member has greeted.
    pub(super) fn greeted(&mut self, hello: &Hello) {
        self.announced.insert(hello.node, addresses(hello));
    }

    /// Tells the transport whom to talk to, if that has changed.
    pub(super) fn tell(&mut self, core: &Core, ports: &Ports) -> Result<(), Fatal> {
        let roster = roster(core, &ports.file_peers);
        if roster == self.told {
            return Ok(());
        }
        self.announced.retain(|node, _| roster.disks.contains_key(node));
        self.told = roster.clone();
        ports.replication.request_roster(roster).map_err(|_| Fatal::Gone("transport"))
    }

    /// The first member of the configuration that says that it is reached elsewhere.
    fn moved(&self, config: &ClusterEntry, own: (NodeId, &Hello)) -> Option<Member> {
        let own_addresses = addresses(own.1);
        config.members.iter().find_map(|member| {
            let said = if member.node == own.0 {
                Some(&own_addresses)
            } else {
                self.announced.get(&member.node)
            };
            said.filter(|said| !said.peer.is_empty() && **said != addresses_of(member)).map(
                |said| Member {
                    peer_addr: said.peer.clone(),
                    client_addr: said.client.clone(),
                    plain_addr: said.plain.clone(),
                    ..member.clone()
                },
            )
        })
    }
}

impl Driver {
    /// A primary records what members say of their addresses, and takes in nodes that call and have
    /// redeemed a token, one change at a time.
    pub(super) fn propose_members(&mut self, now: MonoTime) -> Result<(), Fatal> {
        if self.core.role() != Role::Primary || now < self.membership.proposal_due {
            return Ok(());
        }
        let config = self.core.configs().newest();
        let own = (self.ports.node, &self.ports.hello);
        let change = if let Some(member) = self.membership.moved(config, own) {
            tracing::info!(
                node = %member.node, peer = member.peer_addr, client = member.client_addr,
                "a member is reached elsewhere now"
            );
            ClusterChange::SetAddresses(member)
        } else if let Some(member) = self.invited(config) {
            tracing::info!(node = %member.node, disk = %member.disk, "a node with a token joins");
            ClusterChange::AddLearner(member)
        } else {
            return Ok(());
        };
        self.membership.proposal_due = now.plus(PROPOSAL_PERIOD_US);
        self.step(now, Event::Reconfigure { token: NOBODY, change }, Vec::new())
    }
}

impl Driver {
    /// A node that calls, and whose token was redeemed and has not ended.
    fn invited(&self, config: &ClusterEntry) -> Option<Member> {
        let now_s = clock::wall().0 / 1_000;
        let mut redeemed =
            config.tokens.iter().filter(|token| token.key.is_some() && token.is_open(now_s));
        // Nobody is looked for where nobody is invited.
        let first = redeemed.next()?;
        let candidates = self.ports.candidates.list();
        std::iter::once(first).chain(redeemed).find_map(|token| {
            let candidate = candidates.iter().find(|candidate| candidate.node == token.node)?;
            Some(Member {
                node: candidate.node,
                disk: candidate.disk,
                kind: MemberKind::Learner,
                peer_addr: candidate.peer_addr.clone(),
                client_addr: candidate.client_addr.clone(),
                plain_addr: candidate.plain_addr.clone(),
            })
        })
    }
}

/// Members of all configurations that may hold, each with its address there and in this node's own
/// file.
fn roster(core: &Core, file: &[PeerAddress]) -> Roster {
    let (newest, in_force) = (core.configs().newest(), core.configs().in_force());
    let mut roster =
        Roster { removed: in_force.removed.iter().copied().collect(), ..Roster::default() };
    let mut peers: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
    for member in newest.members.iter().chain(&in_force.members) {
        roster.disks.entry(member.node).or_insert(member.disk);
        let addresses = peers.entry(member.node).or_default();
        let in_file = file.iter().filter(|peer| peer.node == member.node);
        let all =
            std::iter::once(&member.peer_addr).chain(in_file.flat_map(|peer| &peer.addresses));
        for address in all {
            if !address.is_empty() && !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
    }
    roster.peers =
        peers.into_iter().map(|(node, addresses)| PeerAddress { node, addresses }).collect();
    roster
}

fn addresses(hello: &Hello) -> Addresses {
    Addresses {
        peer: hello.peer_addr.clone(),
        client: hello.client_addr.clone(),
        plain: hello.plain_addr.clone(),
    }
}

fn addresses_of(member: &Member) -> Addresses {
    Addresses {
        peer: member.peer_addr.clone(),
        client: member.client_addr.clone(),
        plain: member.plain_addr.clone(),
    }
}
