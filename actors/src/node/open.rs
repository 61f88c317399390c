//! A node's storage, opened and fitted together.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_protocol::types::{ClusterId, EntryId, Generation, Seq};
use quorate_protocol::wire::{WireError, decode_cluster};

use super::config::NodeConfig;
use super::error::StartError;
use super::recovery::{Recovery, RecoveryError, StatePosition, Suspected, recover};
use super::running::WITNESS_DIR;
use crate::divergence::{Doubt, Finding, Suspect};
use crate::quorum::Found;
use crate::snapshot::remove_leftovers;
use crate::storage::hardstate::{HardStateFile, NodeHardState};
use crate::storage::identity::{Current, DataDir, DataDirOptions, OpenStorage, StartOptions};
use crate::storage::journal::{Covered, JournalOptions, OpenJournal};
use crate::storage::options::RocksOptions;
use crate::storage::state::{State, StateError, StateWriter, damage, position_in};
use crate::supervisor::{ColdStep, Lifecycle};

/// Commands that may wait for the journal: one for each append of a full lane of the transport.
const JOURNAL_COMMANDS_MAX: usize = 1 << 17;

/// A node before its threads run.
pub(super) struct Opened {
    pub(super) data_dir: DataDir,
    pub(super) hard: HardStateFile,
    pub(super) journal: OpenJournal,
    pub(super) found: Option<Found>,
    pub(super) state: State,
    pub(super) writer: StateWriter,
    /// Set where the state is lost and the journal begins behind this entry.
    pub(super) lacking: Option<EntryId>,
    /// Set where the voters must be asked first which of journal and state is right.
    pub(super) doubt: Option<Doubt>,
    pub(super) cluster: Option<ClusterId>,
    pub(super) generation: Generation,
    /// The cluster that this directory belongs to since now: a snapshot was put in force that made
    /// this node a member.
    pub(super) joined: Option<(ClusterId, Generation)>,
}

/// Opens directory, hard state, journal and state, and fits them together.
pub(super) fn open(config: &NodeConfig, lifecycle: &Lifecycle) -> Result<Opened, StartError> {
    let opened = open_for_recovery(config, lifecycle)?;
    let newest = opened.found.as_ref().and_then(|found| found.configs.last());
    match newest.map(|(_, config)| config.generation) {
        Some(log) if log < opened.generation => {
            Err(StartError::HalfRecovered { log, hard: opened.generation })
        }
        Some(_) | None => Ok(opened),
    }
}

/// The same, where a lossy recovery may have been cut short.
pub(super) fn open_for_recovery(
    config: &NodeConfig,
    lifecycle: &Lifecycle,
) -> Result<Opened, StartError> {
    lifecycle.begin(ColdStep::JournalReplay);
    config.disk().make_room().map_err(StartError::Reserve)?;
    let storage = OpenStorage::open(StartOptions {
        dir: DataDirOptions {
            path: config.data_dir.clone(),
            node: config.node,
            allow_volatile: config.allow_volatile,
        },
        journal: journal_options(config),
        witness_dir: Some(WITNESS_DIR.into()),
    })?;
    lifecycle.begin(ColdStep::Restore);
    let current = Current::load(&config.data_dir)?;
    let state_dir = Current::state_dir(&config.data_dir, current.as_ref());
    // What the journal doesn't hold from the beginning must come from another member.
    let whole_journal = current.is_none() && storage.journal.recovered().preceding == EntryId::ZERO;
    let may_rebuild = whole_journal || config.cluster.names_others();
    let OpenState { state, writer, position, rebuilt } =
        open_state(&state_dir, &config.rocksdb, may_rebuild)?;
    lifecycle.begin(ColdStep::WarmUp);
    let mut hard = storage.hard;
    let mark = Suspect::load(&config.data_dir).map_err(StartError::Suspect)?;
    // What is known of the journal is done with once the log begins anew.
    let settled = mark.as_ref().is_some_and(|mark| mark.finding == Finding::Journal);
    let suspected = Suspected { mark, state_dir: &state_dir };
    let Recovery { journal, mut found, behind_state, lacking, doubt } =
        recover(storage.journal, &position, current.as_ref(), hard.state().core, suspected)?;
    if let Some(doubt) = doubt.as_ref().filter(|doubt| doubt.config.members.len() < 2) {
        let reason = doubt.suspect.reason.clone();
        return Err(RecoveryError::Contradiction { reason }.into());
    }
    if settled && found.is_some() {
        Suspect::remove(&config.data_dir).map_err(StartError::Suspect)?;
    }
    if let Some(above) = lacking.filter(|_| !may_rebuild) {
        return Err(StartError::state(format_args!(
            "it is lost, the journal begins behind {above}, and there is no other member to ask"
        )));
    }
    let mut next = hard_state(hard.state(), current.as_ref(), behind_state);
    let mut data_dir = storage.dir;
    let joined = join(&mut data_dir, found.as_ref(), &mut next)?;
    if next != hard.state() {
        hard.write(next).map_err(StartError::HardState)?;
        if let Some(found) = &mut found {
            found.hard = next.core;
        }
    }
    // Only when what is in force has proven to be whole.
    if lacking.is_none() && doubt.is_none() && !rebuilt {
        remove_leftovers(&config.data_dir, current.as_ref()).map_err(StartError::Leftovers)?;
    }
    let generation = hard.state().generation;
    let cluster = data_dir.identity().cluster;
    // For `quorate members add --disk`.
    tracing::info!(disk = %data_dir.identity().disk, "the data directory is recovered");
    Ok(Opened {
        data_dir,
        hard,
        journal,
        found,
        state,
        writer,
        lacking,
        doubt,
        cluster,
        generation,
        joined,
    })
}

fn journal_options(config: &NodeConfig) -> JournalOptions {
    JournalOptions {
        segment_bytes: config.journal.segment_bytes,
        group_bytes_max: config.journal.group_bytes_max,
        queue_commands_max: JOURNAL_COMMANDS_MAX,
        divergent_bytes_max: config.journal.divergent_bytes_max,
        covered: covered(config.data_dir.clone()),
        ..JournalOptions::in_data_dir(&config.data_dir)
    }
}

/// The rest of joining by a snapshot: from now on the directory belongs to its cluster. After the
/// switch to the snapshot, because a directory that knows its cluster and has no log has lost it.
fn join(
    data_dir: &mut DataDir,
    found: Option<&Found>,
    hard: &mut NodeHardState,
) -> Result<Option<(ClusterId, Generation)>, StartError> {
    let (None, Some(found)) = (data_dir.identity().cluster, found) else { return Ok(None) };
    let newest = found.configs.last().map(|(_, config)| config.as_ref());
    let Some(config) = newest else { return Ok(None) };
    data_dir.set_cluster(config.cluster)?;
    hard.generation = hard.generation.max(config.generation);
    Ok(Some((config.cluster, hard.generation)))
}

/// A state that can be read.
struct OpenState {
    state: State,
    writer: StateWriter,
    position: StatePosition,
    /// Whether it is a new one in place of one that couldn't be.
    rebuilt: bool,
}

/// Opens the state; one that is damaged is set aside, and an empty one made in its place.
fn open_state(
    dir: &Path,
    options: &RocksOptions,
    may_rebuild: bool,
) -> Result<OpenState, StartError> {
    let marked = damage::marked(dir).map_err(StartError::state)?;
    let reason = match marked {
        Some(reason) => reason,
        None => match State::open(dir, options) {
            Ok((state, writer)) => match state_position(&state) {
                Ok(position) => return Ok(OpenState { state, writer, position, rebuilt: false }),
                Err(PositionError::State(error)) if error.is_loss() => error.to_string(),
                Err(error) => return Err(StartError::state(error)),
            },
            Err(error) if error.is_loss() => error.to_string(),
            Err(error) => return Err(StartError::state(error)),
        },
    };
    if !may_rebuild {
        return Err(StartError::state(format_args!(
            "{reason}; no other member has what the journal here doesn't hold"
        )));
    }
    let aside = damage::set_aside(dir).map_err(StartError::state)?;
    tracing::error!(reason, aside = %aside.display(), "the state is damaged: it is set aside");
    let (state, writer) = State::open(dir, options).map_err(StartError::state)?;
    Ok(OpenState { state, writer, position: StatePosition::default(), rebuilt: true })
}

/// Why a state's position isn't known.
#[derive(Debug, thiserror::Error)]
enum PositionError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the cluster entry in the state can't be read: {0}")]
    Cluster(#[from] WireError),
}

/// How far the state on disk is, read from its files before it is opened; nothing where that fails,
/// and then every entry is needed.
fn covered(data_dir: PathBuf) -> Covered {
    Covered(Arc::new(move || {
        let Ok(current) = Current::load(&data_dir) else { return Seq::ZERO };
        let position = position_in(&Current::state_dir(&data_dir, current.as_ref()));
        position.map_or(Seq::ZERO, |(applied, _)| applied.id.seq)
    }))
}

/// A snapshot may be of an epoch that this node had not heard of when it was put in force, and a
/// primary of an earlier one may lack what is in it (ADR 0031).
fn hard_state(
    mut hard: NodeHardState,
    current: Option<&Current>,
    behind_state: bool,
) -> NodeHardState {
    hard.core.memory_loss |= behind_state;
    if let Some(current) = current.filter(|current| current.epoch > hard.core.epoch) {
        hard.core.epoch = current.epoch;
        hard.core.vote = None;
    }
    hard
}

fn state_position(state: &State) -> Result<StatePosition, PositionError> {
    let applied = state.applied_at_open();
    let stored = state.reader().cluster()?;
    let cluster = stored
        .map(|stored| decode_cluster(&stored.payload).map(|entry| (stored.id, Arc::new(entry))))
        .transpose()?;
    Ok(StatePosition { applied: applied.id, chain: applied.chain, time: applied.time, cluster })
}
