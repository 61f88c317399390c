//! Lossy recovery of a stopped node (S12): it goes on alone, in a new generation, with everything
//! that it holds.
//!
//! Two synced steps: the hard state, then the entry that makes it the only member. Between them
//! the node refuses to start, and the recovery is done again.

use std::path::Path;
use std::sync::Arc;

use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::core::Boot;
use quorate_protocol::entry::Entry;
use quorate_protocol::formation::CLUSTER_VERSION;
use quorate_protocol::policy::{Policy, PolicyError};
use quorate_protocol::types::{Branch, ClusterTime, EntryId, EntryKind, Generation};
use quorate_protocol::wire::{WireError, encode_cluster};

use super::config::NodeConfig;
use super::error::StartError;
use super::open::{Opened, open_for_recovery};
use super::running::WITNESS_DIR;
use crate::clock;
use crate::quorum::Found;
use crate::storage::hardstate::NodeHardState;
use crate::storage::journal::{Journal, JournalFault, JournalHooks};
use crate::supervisor::Lifecycle;

/// A stopped node that can go on alone.
pub struct Survivor {
    opened: Opened,
    found: Found,
}

/// What a lossy recovery wrote.
#[derive(Clone, Debug)]
pub struct NewGeneration {
    /// The last entry that the survivor held.
    pub kept: EntryId,
    /// The entry that makes it the only member.
    pub entry: EntryId,
    /// Lossy recoveries so far, this one included.
    pub generation: Generation,
    /// Members and policy from now on.
    pub config: Arc<ClusterEntry>,
}

/// Why a node can't go on alone. Nothing was lost.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// Its storage can't be opened.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It has no log, or lost the state that its log needs.
    #[error("this node can't go on alone: {0}")]
    Unfit(&'static str),
    /// One node can't meet the policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The new configuration can't be written.
    #[error("the new configuration: {0}")]
    Cluster(#[from] WireError),
    /// Hard state or journal can't be written; do it again.
    #[error("the recovery is not finished: {0}; run it again")]
    Unfinished(String),
}

impl Survivor {
    /// Opens a stopped node's storage as a start does.
    ///
    /// # Errors
    /// It is in use, can't be opened, or holds nothing to go on with.
    pub fn open(config: &NodeConfig) -> Result<Self, RecoverError> {
        let mut opened = open_for_recovery(config, &Lifecycle::default())?;
        if opened.lacking.is_some() {
            return Err(RecoverError::Unfit(
                "its state is lost, and its journal doesn't begin at 1",
            ));
        }
        let found = opened.found.take();
        let found = found.ok_or(RecoverError::Unfit("it was never part of a cluster"))?;
        Ok(Self { opened, found })
    }

    /// The last entry that it holds.
    #[must_use]
    pub fn last(&self) -> EntryId {
        self.found.log.last()
    }

    /// Makes this node the only member of a new generation. All of its log stays, committed or
    /// not. Synced when this returns.
    ///
    /// # Errors
    /// One voter can't meet `policy`, or the disk fails.
    pub fn recover(self, policy: Policy) -> Result<NewGeneration, RecoverError> {
        let Self { opened, found } = self;
        let Opened { data_dir, mut hard, journal, state, writer, .. } = opened;
        // Its position is known, and nothing is applied here.
        drop((writer, state));
        let last = found.log.last();
        let mut boot = Boot {
            node: data_dir.identity().node,
            disk: data_dir.identity().disk,
            incarnation: hard.state().incarnation,
            hard: found.hard,
            log: found.log,
            configs: found.configs,
            committed: found.committed,
            time: found.time,
            version_max: CLUSTER_VERSION,
        };
        let (id, config) = boot.recover(policy)?;
        let payload = encode_cluster(&config)?;
        let time = ClusterTime(clock::wall().0.max(found.time.0));
        let entry = Entry::seal(id, EntryKind::Cluster, time, found.chain, payload);

        let unfinished = |error: std::io::Error| RecoverError::Unfinished(error.to_string());
        let begun = NodeHardState {
            core: boot.hard,
            generation: config.generation,
            clean: false,
            ..hard.state()
        };
        hard.write(begun).map_err(unfinished)?;
        let (cluster, generation) = (config.cluster, config.generation);
        let fault = Arc::new(parking_lot::Mutex::new(None));
        let told = fault.clone();
        let hooks = JournalHooks::new(
            Arc::new(|| ()),
            Arc::new(move |fault: &JournalFault| *told.lock() = Some(fault.to_string())),
        );
        let branch = Branch(0);
        let journal = Journal::start(journal, begun.incarnation, branch, hooks);
        let journal = journal.map_err(unfinished)?;
        let queued = journal
            .identify(cluster, generation)
            .and_then(|()| journal.roll())
            .and_then(|()| journal.append(branch, vec![entry]));
        if !journal.stop() || queued.is_err() {
            let fault = fault.lock().take();
            let fault = fault.unwrap_or_else(|| "the journal ended".to_owned());
            return Err(RecoverError::Unfinished(fault));
        }
        hard.write(NodeHardState { clean: true, ..begun }).map_err(unfinished)?;
        data_dir.forget_witness(Path::new(WITNESS_DIR));
        Ok(NewGeneration { kept: last, entry: id, generation, config })
    }
}
