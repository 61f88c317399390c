//! Lists of members, and where a node that is in none of them is found.

use std::net::SocketAddr;

use quorate_actors::node::config::InitialMember;
use quorate_protocol::types::NodeId;

use super::{NOWHERE, Reader, check_host_port};

impl Reader<'_> {
    pub(super) fn members(&mut self, node: NodeId, joins: bool) -> Vec<InitialMember> {
        const KEY: &str = "cluster.initial_members";
        if node.0 == 0 {
            self.refuse("node.id", "must be at least 1");
        }
        if joins {
            if self.source.get(KEY).is_some() {
                self.refuse(KEY, "set this or cluster.join, not both");
            }
            return Vec::new();
        }
        let members = self.member_list(KEY);
        if members.len() > 9 {
            self.refuse(KEY, "at most 9 members");
        }
        if !members.is_empty() && !members.iter().any(|member| member.node == node) {
            self.refuse("node.id", format!("node {node} is not one of cluster.initial_members"));
        }
        members
    }

    /// Members with their addresses, by id.
    pub(super) fn member_list(&mut self, key: &str) -> Vec<InitialMember> {
        let mut members: Vec<InitialMember> = Vec::new();
        for text in self.list(key) {
            match parse_member(&text) {
                Ok(member) if members.iter().any(|other| other.node == member.node) => {
                    self.refuse(key, format!("node {} is listed twice", member.node));
                }
                Ok(member) => members.push(member),
                Err(message) => self.refuse(key, message),
            }
        }
        members.sort_by_key(|member| member.node);
        members
    }

    /// Where others reach this node, which no list names: where it listens, if that is an address.
    pub(super) fn joiner_address(&mut self, listen: SocketAddr) -> String {
        if self.source.get("cluster.join").is_some()
            && listen.ip().is_unspecified()
            && listen != NOWHERE
        {
            let message = format!("must be set, because {listen} is no address to be reached at");
            self.refuse("node.advertise_peer", message);
        }
        listen.to_string()
    }
}

fn parse_member(text: &str) -> Result<InitialMember, String> {
    let expected = || format!("{text:?} is not id@host:port, such as \"1@10.0.0.1:7411\"");
    let (id, address) = text.split_once('@').ok_or_else(expected)?;
    let id: u64 = id.trim().parse().ok().filter(|id| *id > 0).ok_or_else(expected)?;
    check_host_port(address).map_err(|_| expected())?;
    Ok(InitialMember { node: NodeId(id), peer_addr: address.to_owned() })
}
