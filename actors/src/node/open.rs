//! A node's storage, opened and fitted together.

use std::sync::Arc;

use quorate_protocol::wire::decode_cluster;

use super::config::NodeConfig;
use super::error::StartError;
use super::recovery::{Recovery, StatePosition, recover};
use super::running::WITNESS_DIR;
use crate::quorum::Found;
use crate::snapshot::remove_leftovers;
use crate::storage::hardstate::{HardStateFile, NodeHardState};
use crate::storage::identity::{Current, DataDir, DataDirOptions, OpenStorage, StartOptions};
use crate::storage::journal::{JournalOptions, OpenJournal};
use crate::storage::state::{State, StateWriter};

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
}

/// Opens directory, hard state, journal and state, and fits them together.
pub(super) fn open(config: &NodeConfig) -> Result<Opened, StartError> {
    config.disk().make_room().map_err(StartError::Reserve)?;
    let journal_options = JournalOptions {
        segment_bytes: config.journal.segment_bytes,
        group_bytes_max: config.journal.group_bytes_max,
        queue_commands_max: JOURNAL_COMMANDS_MAX,
        divergent_bytes_max: config.journal.divergent_bytes_max,
        ..JournalOptions::in_data_dir(&config.data_dir)
    };
    let storage = OpenStorage::open(StartOptions {
        dir: DataDirOptions {
            path: config.data_dir.clone(),
            node: config.node,
            allow_volatile: config.allow_volatile,
        },
        journal: journal_options,
        witness_dir: Some(WITNESS_DIR.into()),
    })?;
    let current = Current::load(&config.data_dir)?;
    let state_dir = Current::state_dir(&config.data_dir, current.as_ref());
    let (state, writer) = State::open(&state_dir, &config.rocksdb).map_err(StartError::state)?;
    let position = state_position(&state)?;
    let mut hard = storage.hard;
    let Recovery { journal, mut found, behind_state } =
        recover(storage.journal, &position, current.as_ref(), hard.state().core)?;
    let next = hard_state(hard.state(), current.as_ref(), behind_state);
    if next != hard.state() {
        hard.write(next).map_err(StartError::HardState)?;
        if let Some(found) = &mut found {
            found.hard = next.core;
        }
    }
    // Only now, when what is in force has proven to be whole.
    remove_leftovers(&config.data_dir, current.as_ref()).map_err(StartError::Leftovers)?;
    Ok(Opened { data_dir: storage.dir, hard, journal, found, state, writer })
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

fn state_position(state: &State) -> Result<StatePosition, StartError> {
    let applied = state.applied_at_open();
    let stored = state.reader().cluster().map_err(StartError::state)?;
    let cluster = stored
        .map(|stored| decode_cluster(&stored.payload).map(|entry| (stored.id, Arc::new(entry))))
        .transpose()
        .map_err(StartError::state)?;
    Ok(StatePosition { applied: applied.id, chain: applied.chain, time: applied.time, cluster })
}
