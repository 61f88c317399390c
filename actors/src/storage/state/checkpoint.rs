//! Checkpoints: the files of the state as of one position, as hard links where that is possible.

use std::path::Path;

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{DB, IteratorMode, Options, ReadOptions};

use super::error::{OpenError, Operation, StateError};
use super::keys;
use super::meta::{Applied, StoredCluster};
use super::reader::StateReader;

impl StateReader {
    /// Makes a checkpoint in `path`, which must not exist and be on the same file system. What is
    /// applied is flushed first. Blocks.
    ///
    /// # Errors
    /// As RocksDB reports them.
    pub fn checkpoint(&self, path: &Path) -> Result<(), StateError> {
        Checkpoint::new(&self.store().db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(path))
            .map_err(|error| StateError::rocksdb(Operation::Checkpoint, b"state", error))
    }
}

/// Reads every block of a checkpoint's files that holds a key, and verifies its checksum. It is
/// opened anew, so that nothing comes from the cache of the live state. Blocks.
///
/// # Errors
/// The first block that isn't what was written; RocksDB names the file.
pub(crate) fn verify_files(path: &Path) -> Result<(), StateError> {
    let failed = |error| StateError::rocksdb(Operation::Scan, b"files", error);
    let db = DB::open_for_read_only(&Options::default(), path, false).map_err(failed)?;
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    options.fill_cache(false);
    for item in db.iterator_opt(IteratorMode::Start, options) {
        item.map_err(failed)?;
    }
    Ok(())
}

/// The position that a checkpoint is of and the cluster entry in force there, read from the
/// checkpoint itself: the live state has moved on. Blocks.
///
/// # Errors
/// It can't be opened, or says nothing that can be read.
pub fn position_in(path: &Path) -> Result<(Applied, Option<StoredCluster>), OpenError> {
    let failed = |source| OpenError::RocksDb { path: path.to_owned(), source };
    let db = DB::open_for_read_only(&Options::default(), path, false).map_err(failed)?;
    let applied = db
        .get(keys::APPLIED)
        .map_err(failed)?
        .map(|bytes| Applied::from_bytes(&bytes))
        .unwrap_or_default()
        .ok_or(StateError::BadRecord { record: "applied position" })?;
    let cluster = db
        .get(keys::CLUSTER)
        .map_err(failed)?
        .map(|bytes| StoredCluster::from_bytes(&bytes))
        .map(|cluster| cluster.ok_or(StateError::BadRecord { record: "cluster entry" }))
        .transpose()?;
    Ok((applied, cluster))
}
