//! One node's part: its content at a position, and whether its files can be read.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_protocol::types::Seq;

use super::hashes::{Examined, RangeHashes};
use crate::storage::apply::ApplyHandle;
use crate::storage::state::{StateError, StateReader, verify_files};

/// How long the state may take to get to the position.
const REACH_DEADLINE: Duration = Duration::from_secs(2);

/// Hashes and reads through this node's state, one caller at a time. Blocks for as long as it takes
/// to read everything.
#[derive(Debug)]
pub(crate) struct Examiner {
    state: StateReader,
    apply: ApplyHandle,
    /// Where a checkpoint may be made, which a start removes if it is left behind.
    scratch: PathBuf,
    /// A file whose time tells when this node was last examined.
    stamp: PathBuf,
    busy: Mutex<()>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotHere {
    /// The state is beyond the position, or did not reach it in time.
    Elsewhere,
    /// Another scrub is at work.
    Busy,
}

impl Examiner {
    /// `scratch` is a folder, `stamp` a file: both are made where they are needed.
    pub(crate) fn new(
        state: StateReader,
        apply: ApplyHandle,
        scratch: PathBuf,
        stamp: PathBuf,
    ) -> Arc<Self> {
        Arc::new(Self { state, apply, scratch, stamp, busy: Mutex::new(()) })
    }

    /// What this node holds at `seq`, and whether its files can be read.
    ///
    /// # Errors
    /// See [`NotHere`]. That something can't be read is part of an answer.
    pub(crate) fn examine(&self, seq: Seq) -> Result<Examined, NotHere> {
        let _busy = self.busy.try_lock().ok_or(NotHere::Busy)?;
        let hashes = match self.hashes_at(seq) {
            Ok(Some(hashes)) => hashes,
            Ok(None) => return Err(NotHere::Elsewhere),
            Err(error) => {
                self.stamp();
                // An iterator's error counts as the storage's, whoever walks.
                self.state.report(&error);
                return Ok(Examined { hashes: None, fault: Some(error.to_string()) });
            }
        };
        let fault = self.verify().err();
        self.stamp();
        Ok(Examined { hashes: Some(hashes), fault })
    }

    /// Most nodes hold something else in these slots at `seq`: the state is given up, to be rebuilt
    /// as a damaged one is, as soon as the others do without this node.
    pub(crate) fn give_up(&self, seq: Seq, first_slot: u16, last_slot: u16) {
        self.state.report(&StateError::Different { first_slot, last_slot, seq });
    }

    /// How long ago this node was last examined; since its first start where it never was.
    pub(crate) fn last_examined(&self) -> Duration {
        let modified = std::fs::metadata(&self.stamp).and_then(|meta| meta.modified());
        match modified {
            Ok(at) => at.elapsed().unwrap_or_default(),
            Err(_) => {
                self.stamp();
                Duration::ZERO
            }
        }
    }

    /// A file's time survives restarts. Without it scrubs come sooner or later, which does no harm.
    fn stamp(&self) {
        let stamped = std::fs::File::create(&self.stamp)
            .and_then(|file| file.set_modified(std::time::SystemTime::now()));
        if let Err(error) = stamped {
            tracing::warn!(path = %self.stamp.display(), %error, "the time of a scrub isn't kept");
        }
    }

    /// `None` where the state is not at `seq`.
    fn hashes_at(&self, seq: Seq) -> Result<Option<RangeHashes>, StateError> {
        // An idle state is there already.
        if self.state.applied()?.id.seq > seq {
            return Ok(None);
        }
        // A state that can't be read is found out below.
        let applied = || self.state.applied().map_or(Seq(u64::MAX), |applied| applied.id.seq);
        let paused = self.apply.pause_at(seq, REACH_DEADLINE, applied);
        let snapshot = self.state.snapshot();
        drop(paused);
        if snapshot.applied()?.id.seq != seq {
            return Ok(None);
        }
        snapshot.range_hashes().map(Some)
    }

    /// That no checkpoint can be made says nothing about the files, so it is no error of the storage;
    /// a block that can't be read is.
    fn verify(&self) -> Result<(), String> {
        remove(&self.scratch);
        let made = self.scratch.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.map_err(|error| format!("{}: {error}", self.scratch.display()))?;
        self.state.checkpoint(&self.scratch).map_err(|error| error.to_string())?;
        let verified = verify_files(&self.scratch);
        remove(&self.scratch);
        verified.map_err(|error| {
            self.state.report(&error);
            error.to_string()
        })
    }
}

/// What stays behind is removed by the next scrub or start.
fn remove(scratch: &std::path::Path) {
    if let Err(error) = std::fs::remove_dir_all(scratch)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %scratch.display(), %error, "a checkpoint stays behind");
    }
}

#[cfg(test)]
#[path = "examine_test.rs"]
mod tests;
