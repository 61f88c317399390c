//! `SUSPECT`: that a node's log or state may not be what the others hold, and what was found of it.
//!
//! Text: the finding, the position, and the reason, a line each.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate_protocol::types::Seq;
use tokio::sync::Notify;

use crate::storage::durable::{read_bounded, replace_file, sync_dir};

const NAME: &str = "SUSPECT";
const BYTES_MAX: usize = 4 << 10;

/// What the voters said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// Nothing yet: they must be asked before this node takes part in anything.
    Unverified,
    /// The state is what most hold, the journal is not.
    Journal,
    /// The journal is not, and nothing here holds what it should hold (S6).
    Lost,
}

impl Finding {
    const ALL: [Self; 3] = [Self::Unverified, Self::Journal, Self::Lost];

    fn name(self) -> &'static str {
        match self {
            Self::Unverified => "unverified",
            Self::Journal => "journal",
            Self::Lost => "lost",
        }
    }
}

/// The mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Suspect {
    /// What is known.
    pub(crate) finding: Finding,
    /// The position at which the difference was seen.
    pub(crate) seq: Seq,
    /// In words.
    pub(crate) reason: String,
}

impl Suspect {
    /// The data directory's mark, if there is one.
    ///
    /// # Errors
    /// As the system reports them; `InvalidData` where it can't be understood, which is never taken
    /// for absence.
    pub(crate) fn load(data_dir: &Path) -> io::Result<Option<Self>> {
        let bytes = match read_bounded(&data_dir.join(NAME), BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.splitn(3, '\n');
        let name = lines.next().unwrap_or_default();
        let finding = Finding::ALL.into_iter().find(|finding| finding.name() == name);
        let seq = lines.next().and_then(|seq| seq.parse().ok()).map(Seq);
        match (finding, seq, lines.next()) {
            (Some(finding), Some(seq), Some(reason)) => {
                Ok(Some(Self { finding, seq, reason: reason.trim_end().to_owned() }))
            }
            _ => {
                let text = format!("{} can't be understood", data_dir.join(NAME).display());
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
        }
    }

    /// Writes it, durably.
    pub(crate) fn store(&self, data_dir: &Path) -> io::Result<()> {
        let mut text = format!("{}\n{}\n{}\n", self.finding.name(), self.seq, self.reason);
        text.truncate(text.floor_char_boundary(BYTES_MAX));
        replace_file(&data_dir.join(NAME), text.as_bytes())
    }

    /// Removes it, durably.
    pub(crate) fn remove(data_dir: &Path) -> io::Result<()> {
        match fs::remove_file(data_dir.join(NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed?,
        }
        sync_dir(data_dir)
    }
}

/// A running node's way to doubt itself. Only the first reason counts.
#[derive(Debug)]
pub struct Suspicion {
    data_dir: PathBuf,
    raised: AtomicBool,
    told: Notify,
}

impl Suspicion {
    /// Of the node in this directory.
    #[must_use]
    pub fn new(data_dir: &Path) -> Arc<Self> {
        let raised = AtomicBool::new(false);
        Arc::new(Self { data_dir: data_dir.to_owned(), raised, told: Notify::new() })
    }

    /// Marks the node; then it must be stopped and started again.
    ///
    /// # Errors
    /// The mark can't be written.
    pub(crate) fn raise(&self, seq: Seq, reason: &str) -> io::Result<()> {
        if self.raised.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        tracing::error!(%seq, reason, "this node's log may not be the others': it stands back");
        let (finding, reason) = (Finding::Unverified, reason.to_owned());
        Suspect { finding, seq, reason }.store(&self.data_dir)?;
        self.told.notify_one();
        Ok(())
    }

    /// The node must be started again, to act upon what was found.
    pub(crate) fn settled(&self) {
        self.raised.store(true, Ordering::Relaxed);
        self.told.notify_one();
    }

    /// The directory.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Completes when the node must be started again.
    pub async fn raised(&self) {
        self.told.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::scratch::Scratch;

    #[test]
    fn the_mark_survives_and_is_never_taken_for_absent() {
        let dir = Scratch::new();
        assert_eq!(Suspect::load(dir.path()).unwrap(), None);
        let suspicion = Suspicion::new(dir.path());
        suspicion.raise(Seq(17), "entry 2.18 doesn't continue\nthis log").unwrap();
        suspicion.raise(Seq(99), "something later").unwrap();
        let mut mark = Suspect::load(dir.path()).unwrap().unwrap();
        assert_eq!((mark.finding, mark.seq), (Finding::Unverified, Seq(17)));
        assert_eq!(mark.reason, "entry 2.18 doesn't continue\nthis log");
        for finding in Finding::ALL {
            mark.finding = finding;
            mark.store(dir.path()).unwrap();
            assert_eq!(Suspect::load(dir.path()).unwrap(), Some(mark.clone()));
        }
        mark.reason = "ä".repeat(BYTES_MAX);
        mark.store(dir.path()).unwrap();
        assert!(Suspect::load(dir.path()).unwrap().unwrap().reason.starts_with('ä'));
        for text in ["", "lost", "lost\n7", "lost\nx\nwhy\n", "perhaps\n7\nwhy\n"] {
            fs::write(dir.path().join(NAME), text).unwrap();
            assert!(Suspect::load(dir.path()).is_err(), "{text:?}");
        }
        Suspect::remove(dir.path()).unwrap();
        Suspect::remove(dir.path()).unwrap();
        assert_eq!(Suspect::load(dir.path()).unwrap(), None);
    }
}
