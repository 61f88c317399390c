//! The reserve: a file that holds space, given up when the disk is full, so that deletes, and the
//! flushes and compactions that turn them into space, still have room.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;

use super::disk::{DiskGate, DiskLook, DiskOptions, Space};
use crate::storage::durable::sync_dir;

/// Name of the file in the data directory.
const FILE: &str = "reserve";

/// Segments of the journal that the reserve has room for: the one that deletes begin when the
/// current one is used up, and one for what RocksDB writes to be rid of what was deleted.
const SEGMENTS: u64 = 2;

/// A data directory's file system, and the reserve on it.
#[derive(Clone, Debug)]
pub struct Disk {
    dir: PathBuf,
    options: DiskOptions,
    segment_bytes: u64,
}

impl Disk {
    /// The file system of a data directory whose journal has segments of this size.
    #[must_use]
    pub fn new(data_dir: &Path, options: DiskOptions, segment_bytes: u64) -> Self {
        Self { dir: data_dir.to_owned(), options, segment_bytes }
    }

    /// How much must stay free.
    #[must_use]
    pub fn options(&self) -> &DiskOptions {
        &self.options
    }

    /// Looks at the disk, while memory holds so many bytes that go there.
    ///
    /// # Errors
    /// As the system reports them.
    pub fn look(&self, unflushed_bytes: u64) -> io::Result<DiskLook> {
        let found = statvfs(&self.dir)?;
        let space = Space {
            free_bytes: found.blocks_available() * found.fragment_size(),
            total_bytes: found.blocks() * found.fragment_size(),
            free_inodes: found.files_available(),
            total_inodes: found.files(),
        };
        let held = fs::metadata(self.path()).map_or(0, |file| file.len());
        let reserve_missing_bytes = self.reserve_bytes(&space).saturating_sub(held);
        Ok(DiskLook { space, reserve_missing_bytes, unflushed_bytes })
    }

    /// Holds the reserve while the gate is open and gives it up while it is closed.
    ///
    /// # Errors
    /// As the system reports them. Without a reserve a node works all the same.
    pub fn keep_reserve(&self, gate: DiskGate, look: &DiskLook) -> io::Result<()> {
        if gate.is_full() {
            return self.give_up();
        }
        if look.reserve_missing_bytes == 0 {
            return Ok(());
        }
        self.hold(self.reserve_bytes(&look.space)).inspect_err(|_| {
            // A file that got part of its space would hold what is left.
            let _ = self.give_up();
        })
    }

    /// Before a node starts, which itself needs some space.
    ///
    /// # Errors
    /// As the system reports them.
    pub fn make_room(&self) -> io::Result<()> {
        if !self.path().try_exists()? {
            return Ok(());
        }
        let gate = DiskGate::default().step(&self.look(0)?, &self.options);
        if gate.is_full() { self.give_up() } else { Ok(()) }
    }

    /// At most what must stay free anyway, so that a small disk isn't filled by it.
    fn reserve_bytes(&self, space: &Space) -> u64 {
        (SEGMENTS * self.segment_bytes).min(self.options.min_free_bytes(space))
    }

    fn hold(&self, bytes: u64) -> io::Result<()> {
        let path = self.path();
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        posix_fallocate(&file, 0, i64::try_from(bytes).map_err(io::Error::other)?)?;
        file.sync_all()?;
        sync_dir(&self.dir)
    }

    fn give_up(&self) -> io::Result<()> {
        match fs::remove_file(self.path()) {
            Ok(()) => sync_dir(&self.dir),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::scratch::Scratch;

    #[test]
    fn the_reserve_is_held_while_there_is_space_and_given_up_while_there_is_not() {
        let dir = Scratch::new();
        let roomy = DiskOptions { min_free_bytes: Some(3 << 20), min_free_inodes: Some(0) };
        let disk = Disk::new(dir.path(), roomy, 1 << 20);
        let before = disk.look(0).unwrap();
        assert_eq!(before.reserve_missing_bytes, 2 << 20);
        disk.keep_reserve(DiskGate::default(), &before).unwrap();
        let held = disk.look(0).unwrap();
        assert_eq!(held.reserve_missing_bytes, 0);
        assert_eq!(fs::metadata(dir.path().join(FILE)).unwrap().len(), 2 << 20);
        disk.make_room().unwrap();
        assert_eq!(disk.look(0).unwrap().reserve_missing_bytes, 0, "there is room already");

        let none = DiskOptions { min_free_bytes: Some(u64::MAX), ..roomy };
        let short = Disk::new(dir.path(), none, 1 << 20);
        let gate = DiskGate::default().step(&short.look(0).unwrap(), &none);
        assert!(gate.is_full());
        short.keep_reserve(gate, &held).unwrap();
        assert!(!dir.path().join(FILE).exists());
        short.keep_reserve(gate, &held).unwrap();

        disk.keep_reserve(DiskGate::default(), &before).unwrap();
        short.make_room().unwrap();
        assert!(!dir.path().join(FILE).exists(), "given up before a start");
    }

    #[test]
    fn a_node_that_may_fill_its_disk_keeps_no_reserve() {
        let dir = Scratch::new();
        let options = DiskOptions { min_free_bytes: Some(0), min_free_inodes: Some(0) };
        let disk = Disk::new(dir.path(), options, 1 << 20);
        let look = disk.look(0).unwrap();
        assert_eq!(look.reserve_missing_bytes, 0);
        disk.keep_reserve(DiskGate::default(), &look).unwrap();
        assert!(!dir.path().join(FILE).exists());
    }
}
