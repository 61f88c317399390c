//! What the data directory of a stopped node holds, read without changing it.

use std::path::Path;
use std::sync::Arc;

use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::types::{ClusterId, DiskId, EntryId, Epoch, Generation, NodeId};
use quorate_protocol::wire::decode_cluster;

use super::error::StartError;
use super::recovery::RecoveryError;
use super::running::WITNESS_DIR;
use crate::divergence::{Finding, Suspect};
use crate::storage::hardstate::{BootEvidence, BootId, HardStateFile, MemoryTail, decide_boot};
use crate::storage::identity::{Current, DataDir, DataDirError};
use crate::storage::journal;
use crate::storage::state::position_in;

/// A stopped node's log, its promises and what it knows of its cluster.
#[derive(Clone, Debug)]
pub struct OfflineCopy {
    /// Whose it is.
    pub node: NodeId,
    /// The data directory's id.
    pub disk: DiskId,
    /// The cluster; `None` before it was formed.
    pub cluster: Option<ClusterId>,
    /// Lossy recoveries that its log went through.
    pub generation: Generation,
    /// The highest epoch that it took part in.
    pub epoch: Epoch,
    /// The last entry in journal or state.
    pub last: EntryId,
    /// The last entry in the state.
    pub applied: EntryId,
    /// Whether entries that it acknowledged from memory may be gone (S5).
    pub memory_loss: bool,
    /// Cluster entries in state and log, in order.
    pub configs: Vec<(EntryId, Arc<ClusterEntry>)>,
    /// Synced entries that are damaged or gone (S6).
    pub damage: Option<String>,
}

impl OfflineCopy {
    /// Reads the directory, which no process may be using. Takes as long as reading the journal.
    ///
    /// # Errors
    /// It is in use, is no data directory, or can't be read.
    pub fn read(path: &Path) -> Result<Self, StartError> {
        let dir = DataDir::open_existing(path)?;
        let io = |source| DataDirError::Io { path: path.to_owned(), source };
        let hard = HardStateFile::peek(path).map_err(crate::storage::identity::StartError::from)?;
        let journal = journal::inspect(&path.join("journal")).map_err(io)?;
        let current = Current::load(path)?;
        let state = position_in(&Current::state_dir(path, current.as_ref())).ok();
        let mut configs = Vec::new();
        let stored = state.iter().filter_map(|(_, stored)| stored.as_ref());
        let stored = stored.map(|stored| (stored.id, stored.payload.clone()));
        for (id, payload) in stored.chain(journal.log.clusters.iter().cloned()) {
            if configs.last().is_none_or(|(last, _): &(EntryId, _)| last.seq < id.seq) {
                let config = decode_cluster(&payload)
                    .map_err(|source| RecoveryError::Cluster { id, source })?;
                configs.push((id, Arc::new(config)));
            }
        }
        let boot = BootId::current().map_err(io)?;
        let witness = dir.witness_path(Path::new(WITNESS_DIR));
        let memory = if journal::witnessed(&witness, &journal.log) == Some(hard.incarnation) {
            MemoryTail::Covered
        } else {
            MemoryTail::Unknown
        };
        let applied = state.map(|(applied, _)| applied.id).unwrap_or_default();
        let damage =
            journal.log.damage.map(|damage| format!("from {}: {}", damage.at, damage.what));
        let evidence = BootEvidence { boot, tail_short: damage.is_some(), memory };
        let suspect = Suspect::load(path).map_err(StartError::Suspect)?;
        let lost = suspect.filter(|mark| mark.finding == Finding::Lost).map(|mark| mark.reason);
        Ok(Self {
            node: dir.identity().node,
            disk: dir.identity().disk,
            cluster: dir.identity().cluster,
            // A recovery that was cut short is only in the hard state.
            generation: configs
                .last()
                .map_or(hard.generation, |(_, config): &(_, Arc<ClusterEntry>)| config.generation),
            epoch: hard.core.epoch,
            last: journal.log.last.max(applied),
            applied,
            memory_loss: decide_boot(&hard, &evidence).core.memory_loss,
            configs,
            damage: damage.or(lost),
        })
    }
}
