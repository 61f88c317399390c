//! A state that can't be trusted: marked while the node runs, set aside when it starts.
//!
//! The journal, the hard state and the identity are as good as ever, so the node keeps its vote
//! (sharper 14). What is lost is only what the log and another node's snapshot can bring back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::storage::durable::{move_file, read_bounded, replace_file};

/// Name of the mark in the state's folder; RocksDB leaves names that it doesn't know alone.
const MARK: &str = "DAMAGED";

/// Longest reason that is read back.
const REASON_BYTES_MAX: usize = 4 << 10;

/// A running node's way to give its state up. Only the first reason counts.
#[derive(Debug)]
pub struct StateLoss {
    state_dir: PathBuf,
    given_up: AtomicBool,
    told: Notify,
}

impl StateLoss {
    /// Of the state in this folder.
    #[must_use]
    pub fn new(state_dir: &Path) -> Arc<Self> {
        Arc::new(Self {
            state_dir: state_dir.to_owned(),
            given_up: AtomicBool::new(false),
            told: Notify::new(),
        })
    }

    /// Marks the state; then the node must be stopped and started again.
    ///
    /// # Errors
    /// The mark can't be written: a restart would find the same state.
    pub fn give_up(&self, reason: &str) -> io::Result<()> {
        if self.given_up.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        tracing::error!(reason, "the state is damaged: it is given up and rebuilt");
        mark(&self.state_dir, reason)?;
        self.told.notify_one();
        Ok(())
    }

    /// Completes when the state was given up.
    pub async fn given_up(&self) {
        self.told.notified().await;
    }
}

/// Marks a state, durably: the next start sets it aside.
///
/// # Errors
/// As the system reports them.
pub fn mark(state_dir: &Path, reason: &str) -> io::Result<()> {
    let length = reason.floor_char_boundary(REASON_BYTES_MAX);
    replace_file(&state_dir.join(MARK), &reason.as_bytes()[..length])
}

/// Why a state is marked, if it is.
///
/// # Errors
/// As the system reports them.
pub fn marked(state_dir: &Path) -> io::Result<Option<String>> {
    match read_bounded(&state_dir.join(MARK), REASON_BYTES_MAX) {
        Ok(reason) => Ok(Some(String::from_utf8_lossy(&reason).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Moves a state out of the way, so that its folder's name is free. It stays beside it until a
/// start finds the one in force whole.
///
/// # Errors
/// As the system reports them.
pub fn set_aside(state_dir: &Path) -> io::Result<PathBuf> {
    let aside = state_dir.with_extension("damaged");
    if aside.try_exists()? {
        fs::remove_dir_all(&aside)?;
    }
    move_file(state_dir, &aside)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::scratch::Scratch;

    #[test]
    fn a_marked_state_is_known_as_such_until_it_is_set_aside() {
        let dir = Scratch::new();
        let state = dir.path().join("state/1");
        fs::create_dir_all(&state).unwrap();
        assert_eq!(marked(&state).unwrap(), None);
        mark(&state, "get of `key`: Corruption").unwrap();
        assert_eq!(marked(&state).unwrap().as_deref(), Some("get of `key`: Corruption"));
        for _ in 0..2 {
            assert_eq!(set_aside(&state).unwrap(), dir.path().join("state/1.damaged"));
            assert!(!state.exists());
            fs::create_dir_all(&state).unwrap();
        }
        mark(&state, &"ä".repeat(REASON_BYTES_MAX)).unwrap();
        assert_eq!(marked(&state).unwrap().unwrap().len(), REASON_BYTES_MAX);
    }
}
