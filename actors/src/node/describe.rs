//! What the configuration says of this node, in the words of the parts that need it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::core::Tuning;
use quorate_protocol::formation::{Addresses, FIRST_ENTRY, Plan};
use quorate_protocol::types::{DiskId, NodeId};
use quorate_protocol::wire::{Hello, WIRE_VERSION, decode_cluster};

use super::error::StartError;
use super::open::Opened;
use super::recovery::RecoveryError;
use super::wiring::Wiring;
use crate::replication::PeerAddress;
use crate::storage::journal::{Journal, ReadError};

impl Wiring {
    pub(super) fn hello(&self, opened: &Opened, reservation: Option<DiskId>) -> Hello {
        // Not by the first entry, which the journal may have no more.
        let newest = opened.found.as_ref().and_then(|found| found.configs.last());
        let config = newest.map(|(_, config)| config.as_ref());
        // Without its state it is a member of a cluster, though it can't say of which members.
        let formed = config.is_some() || opened.lacking.is_some();
        let lost = opened.lacking.map(|_| (opened.cluster, opened.generation));
        let (cluster, generation) = lost.unwrap_or_else(|| {
            let generation = config.map(|config| config.generation).unwrap_or_default();
            (config.map(|config| config.cluster), generation)
        });
        Hello {
            wire_version: WIRE_VERSION,
            cluster_name: self.config.cluster.name.clone(),
            cluster,
            generation,
            node: self.config.node,
            disk: self.disk,
            incarnation: self.incarnation,
            binary_version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_version_max: self.config.cluster_version_max,
            formed,
            reservation,
            peer_addr: self.config.peer.advertise.clone(),
            client_addr: self.config.client.advertise.clone(),
            plain_addr: self.config.client.advertise_plain.clone(),
        }
    }

    pub(super) fn plan(&self) -> Plan {
        let cluster = &self.config.cluster;
        Plan {
            node: self.config.node,
            disk: self.disk,
            cluster_name: cluster.name.clone(),
            initial: cluster.initial_members.iter().map(|member| member.node).collect(),
            addresses: Addresses {
                peer: self.config.peer.advertise.clone(),
                client: self.config.client.advertise.clone(),
                plain: self.config.client.advertise_plain.clone(),
            },
            policy: cluster.policy,
            timers: cluster.safety_timers,
        }
    }

    /// Where this node's own file says that others are.
    pub(super) fn peers(&self) -> Vec<PeerAddress> {
        let cluster = &self.config.cluster;
        let mut addresses: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
        for member in cluster.peers.iter().chain(&cluster.initial_members).chain(&cluster.join) {
            if member.node != self.config.node {
                addresses.entry(member.node).or_default().push(member.peer_addr.clone());
            }
        }
        addresses.into_iter().map(|(node, addresses)| PeerAddress { node, addresses }).collect()
    }

    pub(super) fn tuning(&self) -> Tuning {
        let timers = &self.config.timers;
        Tuning {
            heartbeat_us: timers.heartbeat.as_micros() as u64,
            election_timeout_max_us: timers.election_timeout_max.as_micros() as u64,
            ..Tuning::default()
        }
    }
}

/// The record of the log's first entry, where the journal still has it.
pub(super) fn first_entry(
    journal: &Journal,
) -> Result<Option<(Bytes, Arc<ClusterEntry>)>, StartError> {
    let entries = match journal.reader().read(FIRST_ENTRY.seq, 1) {
        Ok(entries) => entries,
        Err(ReadError::Compacted { .. } | ReadError::Ahead { .. }) => return Ok(None),
        Err(error) => return Err(StartError::Journal(error)),
    };
    let Some(entry) = entries.into_iter().next() else { return Ok(None) };
    let id = entry.id;
    let config = decode_cluster(&entry.payload)
        .map_err(|source| StartError::Recovery(RecoveryError::Cluster { id, source }))?;
    Ok(Some((entry.record(), Arc::new(config))))
}
