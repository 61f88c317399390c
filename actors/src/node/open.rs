//! A node's storage, opened and fitted together.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_protocol::wire::decode_cluster;

use super::config::NodeConfig;
use super::error::StartError;
use super::recovery::{Recovery, StatePosition, recover};
use super::running::WITNESS_DIR;
use crate::quorum::Found;
use crate::storage::hardstate::HardStateFile;
use crate::storage::identity::{DataDir, DataDirOptions, OpenStorage, StartOptions};
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
    let journal_options = JournalOptions {
        segment_bytes: config.journal.segment_bytes,
        group_bytes_max: config.journal.group_bytes_max,
        queue_commands_max: JOURNAL_COMMANDS_MAX,
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
    let (state, writer) =
        State::open(&state_dir(&config.data_dir), &config.rocksdb).map_err(StartError::state)?;
    let position = state_position(&state)?;
    let mut hard = storage.hard;
    let Recovery { journal, found, behind_state } =
        recover(storage.journal, &position, hard.state().core)?;
    let mut found = found;
    if behind_state && !hard.state().core.memory_loss {
        let mut next = hard.state();
        next.core.memory_loss = true;
        hard.write(next).map_err(StartError::HardState)?;
        if let Some(found) = &mut found {
            found.hard.memory_loss = true;
        }
    }
    Ok(Opened { data_dir: storage.dir, hard, journal, found, state, writer })
}

fn state_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("state").join("1")
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
