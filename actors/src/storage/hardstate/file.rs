//! The two slots on disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::slot::{NodeHardState, SLOT_BYTES, Slot, SlotFault};
use crate::storage::durable::{read_bounded, replace_file};

const NAMES: [&str; 2] = ["hardstate.a", "hardstate.b"];

/// The slots of one data directory, both holding the same state.
#[derive(Debug)]
pub struct HardStateFile {
    slots: [File; 2],
    current: Slot,
}

/// Why hard state can't be read.
#[derive(Debug, thiserror::Error)]
pub enum HardStateError {
    /// The system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The slot.
        path: PathBuf,
        /// As the system reports it.
        source: io::Error,
    },
    /// No slot can be read: the node's promises are gone, so it must neither vote nor count (S6).
    #[error(
        "{dir}: the hard state is lost ({detail}): this disk can't be used under its node id; \
         remove the node from the cluster, wipe the directory and join anew",
        dir = dir.display()
    )]
    DiskLoss {
        /// The data directory.
        dir: PathBuf,
        /// What is wrong with each slot.
        detail: String,
    },
    /// Written by a newer version.
    #[error("{path} has format {version}, newer than this version reads", path = path.display())]
    Newer {
        /// The slot.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
}

impl HardStateFile {
    /// Creates both slots in a directory that is being made.
    ///
    /// # Errors
    /// As the system reports them.
    pub fn create(dir: &Path, state: NodeHardState) -> Result<Self, HardStateError> {
        let current = Slot { number: 1, state };
        for name in NAMES {
            replace(dir, name, &current)?;
        }
        Self::with_slots(dir, current)
    }

    /// Reads the highest valid slot and copies it where the other differs.
    ///
    /// # Errors
    /// [`HardStateError`]; in particular `DiskLoss` where no slot is valid.
    pub fn load(dir: &Path) -> Result<Self, HardStateError> {
        let current = highest(dir)?;
        for name in NAMES {
            if read(dir, name)? != Ok(current) {
                replace(dir, name, &current)?;
            }
        }
        Self::with_slots(dir, current)
    }

    /// The state in the highest valid slot, without touching either.
    ///
    /// # Errors
    /// As for [`HardStateFile::load`].
    pub fn peek(dir: &Path) -> Result<NodeHardState, HardStateError> {
        highest(dir).map(|slot| slot.state)
    }

    /// Whether a directory has any slot, valid or not.
    ///
    /// # Errors
    /// As the system reports them.
    pub fn exists(dir: &Path) -> io::Result<bool> {
        Ok(dir.join(NAMES[0]).try_exists()? || dir.join(NAMES[1]).try_exists()?)
    }

    /// What both slots hold.
    #[must_use]
    pub fn state(&self) -> NodeHardState {
        self.current.state
    }

    /// Writes and syncs one slot, then the other. Only when this has returned may the state be
    /// revealed (S1).
    ///
    /// # Errors
    /// As the system reports them. What the slots hold is then unknown: nothing may be revealed
    /// and nothing retried.
    pub fn write(&mut self, state: NodeHardState) -> io::Result<()> {
        let slot = Slot { number: self.current.number + 1, state };
        let bytes = slot.encode();
        for file in &self.slots {
            file.write_all_at(&bytes, 0)?;
            file.sync_data()?;
        }
        self.current = slot;
        Ok(())
    }

    fn with_slots(dir: &Path, current: Slot) -> Result<Self, HardStateError> {
        let open = |name: &str| {
            let path = dir.join(name);
            OpenOptions::new()
                .write(true)
                .open(&path)
                .map_err(|source| HardStateError::Io { path, source })
        };
        Ok(Self { slots: [open(NAMES[0])?, open(NAMES[1])?], current })
    }
}

fn highest(dir: &Path) -> Result<Slot, HardStateError> {
    let mut found = Vec::new();
    let mut faults = Vec::new();
    for name in NAMES {
        match read(dir, name)? {
            Ok(slot) => found.push(slot),
            Err(fault) => faults.push(format!("{name}: {fault}")),
        }
    }
    found.iter().copied().max_by_key(|slot| slot.number).ok_or_else(|| {
        let detail = faults.join(", ");
        HardStateError::DiskLoss { dir: dir.to_owned(), detail }
    })
}

fn read(dir: &Path, name: &str) -> Result<Result<Slot, SlotFault>, HardStateError> {
    let path = dir.join(name);
    let bytes = match read_bounded(&path, SLOT_BYTES) {
        Ok(bytes) => bytes,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::InvalidData => {
                return Ok(Err(SlotFault::Damaged));
            }
            // A disk that can't read is not proof of loss: say so and let the operator look.
            _ => return Err(HardStateError::Io { path, source: error }),
        },
    };
    match Slot::decode(&bytes) {
        Err(SlotFault::Newer(version)) => Err(HardStateError::Newer { path, version }),
        slot => Ok(slot),
    }
}

fn replace(dir: &Path, name: &str, slot: &Slot) -> Result<(), HardStateError> {
    let path = dir.join(name);
    replace_file(&path, &slot.encode()).map_err(|source| HardStateError::Io { path, source })
}

#[cfg(test)]
mod tests {
    use super::super::slot::sample;
    use super::*;
    use crate::storage::scratch::Scratch;
    use quorate_protocol::types::Epoch;
    use std::fs;

    fn with_epoch(epoch: u64) -> NodeHardState {
        let mut state = sample();
        state.core.epoch = Epoch(epoch);
        state
    }

    #[test]
    fn a_write_survives_in_both_slots() {
        let dir = Scratch::new();
        let mut file = HardStateFile::create(dir.path(), sample()).expect("it is made");
        file.write(with_epoch(8)).expect("it is written");
        for name in NAMES {
            let copy = dir.crashed();
            fs::remove_file(copy.path().join(name)).expect("it was there");
            let file = HardStateFile::load(copy.path()).expect("the other slot is there");
            assert_eq!(file.state(), with_epoch(8));
            assert!(copy.path().join(name).exists(), "it is copied back");
        }
    }

    #[test]
    fn a_torn_write_of_either_slot_leaves_the_old_or_the_new_state() {
        let dir = Scratch::new();
        let mut file = HardStateFile::create(dir.path(), with_epoch(1)).expect("it is made");
        let old = fs::read(dir.path().join(NAMES[1])).expect("it is there");
        file.write(with_epoch(2)).expect("it is written");
        let new = fs::read(dir.path().join(NAMES[0])).expect("it is there");
        for written in 0..=SLOT_BYTES {
            let torn = [&new[..written], &old[written..]].concat();
            for (first, second) in [(&torn, &old), (&new, &torn)] {
                let copy = Scratch::new();
                fs::write(copy.path().join(NAMES[0]), first).expect("it can be written");
                fs::write(copy.path().join(NAMES[1]), second).expect("it can be written");
                let state = HardStateFile::load(copy.path()).expect("one is whole").state();
                assert!(state == with_epoch(1) || state == with_epoch(2));
                assert_eq!(HardStateFile::load(copy.path()).expect("again").state(), state);
                if first == &new {
                    assert_eq!(state, with_epoch(2), "the higher one wins");
                }
            }
        }
    }

    #[test]
    fn no_valid_slot_is_disk_loss_and_never_a_default() {
        let dir = Scratch::new();
        let loss = HardStateFile::load(dir.path()).expect_err("there is nothing");
        assert!(matches!(loss, HardStateError::DiskLoss { .. }), "{loss}");
        HardStateFile::create(dir.path(), sample()).expect("it is made");
        for name in NAMES {
            fs::write(dir.path().join(name), [0; SLOT_BYTES]).expect("it can be written");
        }
        let loss = HardStateFile::load(dir.path()).expect_err("both are damaged");
        assert!(matches!(loss, HardStateError::DiskLoss { .. }), "{loss}");
    }
}
