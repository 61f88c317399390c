//! A snapshot that is being received, on disk: `snapshots/receiving/` holds the manifest, in `files/`
//! what is whole, checked and synced, and in `partial/` what has arrived of the next file. It outlives
//! lost connections and restarts: a partial file is hashed again and goes on where it ends, as long
//! as the same snapshot is still to be had.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::manifest::{FileEntry, MANIFEST_BYTES_MAX, Manifest, ManifestError, SnapshotId};
use crate::storage::durable::{move_file, read_bounded, replace_file, sync_dir};
use crate::storage::identity::Current;
use crate::storage::state::{OpenError, position_in};

/// Read at a time while what is there is hashed again.
const HASH_PIECE_BYTES: usize = 1 << 20;

/// Why a snapshot can't be received.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("more bytes arrived of {0:?} than it has")]
    Long(String),
    #[error("{0:?} arrived with another hash than the manifest says")]
    Hash(String),
    #[error("the files are of another position than the manifest says")]
    Position,
    #[error(transparent)]
    State(#[from] OpenError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("{needed} bytes are needed, and {free} are free")]
    Space { needed: u64, free: u64 },
}

/// The folder of a snapshot that is being received.
#[derive(Debug)]
pub(super) struct Receiving {
    dir: PathBuf,
    manifest: Manifest,
    id: SnapshotId,
}

/// One file of it.
#[derive(Debug)]
pub(super) struct PartialFile {
    path: PathBuf,
    /// Where it goes when it is whole.
    whole: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    offset: u64,
    entry: FileEntry,
}

impl Receiving {
    /// Begins or resumes: what is there of another snapshot is removed.
    ///
    /// # Errors
    /// The manifest is none, or the disk fails or is too small.
    pub(super) fn begin(dir: &Path, bytes: &[u8]) -> Result<Self, ReceiveError> {
        let (manifest, id) = Manifest::decode(bytes)?;
        let io = |source| ReceiveError::Io { path: dir.to_owned(), source };
        let name = dir.join("manifest");
        let same = read_bounded(&name, MANIFEST_BYTES_MAX).is_ok_and(|known| known == bytes);
        if !same {
            remove(dir).map_err(io)?;
        }
        let (files, partial) = (dir.join("files"), dir.join("partial"));
        fs::create_dir_all(&files).and_then(|()| fs::create_dir_all(&partial)).map_err(io)?;
        let receiving = Self { dir: dir.to_owned(), manifest, id };
        let here = size_of_dir(&files) + size_of_dir(&partial);
        let needed = receiving.manifest.total_bytes().saturating_sub(here);
        let free = free_bytes(dir).map_err(io)?;
        if needed > free {
            return Err(ReceiveError::Space { needed, free });
        }
        if !same {
            replace_file(&name, bytes).map_err(io)?;
        }
        Ok(receiving)
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub(super) fn id(&self) -> SnapshotId {
        self.id
    }

    /// Opens a file where what is there of it ends, and hashes that anew; `None` if it is whole.
    ///
    /// # Errors
    /// As the system reports them.
    pub(super) fn file(&self, index: usize) -> Result<Option<PartialFile>, ReceiveError> {
        let entry = self.manifest.files[index].clone();
        let whole = self.dir.join("files").join(&entry.name);
        if whole.metadata().is_ok_and(|meta| meta.len() == entry.size) {
            return Ok(None);
        }
        let path = self.dir.join("partial").join(&entry.name);
        PartialFile::open(path.clone(), whole, entry)
            .map(Some)
            .map_err(|source| ReceiveError::Io { path, source })
    }

    /// Once every file is whole: makes their names durable and compares the position in them with
    /// the manifest's.
    ///
    /// # Errors
    /// They differ, or can't be read.
    pub(super) fn finish(&self) -> Result<(), ReceiveError> {
        let files = self.dir.join("files");
        sync_dir(&files).map_err(|source| ReceiveError::Io { path: files.clone(), source })?;
        let (applied, cluster) = position_in(&files)?;
        let manifest = &self.manifest;
        let config = cluster.map(|stored| (stored.id, stored.payload));
        let found = (applied.id, applied.chain, applied.time, config.as_ref());
        let said = (manifest.last, manifest.chain, manifest.time, Some(&manifest.config));
        if found == said { Ok(()) } else { Err(ReceiveError::Position) }
    }

    /// Puts the snapshot in force as the next instance of the state: the file `CURRENT` is the
    /// point of no return. The running node goes on with the old instance; it must end.
    ///
    /// # Errors
    /// As the system reports them; the old instance is then in force.
    pub(super) fn install(&self, data_dir: &Path) -> Result<Current, ReceiveError> {
        let before = Current::load(data_dir)
            .map_err(|error| io::Error::other(error.to_string()))
            .map_err(|source| ReceiveError::Io { path: data_dir.to_owned(), source })?;
        let instance = Current::next_instance(before.as_ref());
        let to = Current::instance_dir(data_dir, instance);
        let io = |source| ReceiveError::Io { path: to.clone(), source };
        // Of an attempt that ended before its point of no return.
        remove(&to).map_err(io)?;
        move_file(&self.dir.join("files"), &to).map_err(io)?;
        let Manifest { epoch, last, chain, .. } = self.manifest;
        let current = Current { instance, epoch, preceding: last, chain };
        current.store(data_dir).map_err(io)?;
        // What stays behind is in nobody's way.
        let _ = remove(&self.dir);
        Ok(current)
    }
}

impl PartialFile {
    fn open(path: PathBuf, whole: PathBuf, entry: FileEntry) -> io::Result<Self> {
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let mut file = options.open(&path)?;
        if file.metadata()?.len() > entry.size {
            file.set_len(0)?;
        }
        let mut hasher = blake3::Hasher::new();
        let mut piece = vec![0; HASH_PIECE_BYTES];
        let mut offset = 0;
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                break;
            }
            hasher.update(&piece[..read]);
            offset += read as u64;
        }
        Ok(Self { path, whole, file, hasher, offset, entry })
    }

    /// Where it goes on.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// What is still to come.
    pub(super) fn missing(&self) -> u64 {
        self.entry.size - self.offset
    }

    /// Appends what arrived.
    ///
    /// # Errors
    /// It is more than the file has, or the disk fails.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), ReceiveError> {
        if bytes.len() as u64 > self.missing() {
            return Err(ReceiveError::Long(self.entry.name.clone()));
        }
        self.file
            .write_all(bytes)
            .map_err(|source| ReceiveError::Io { path: self.path.clone(), source })?;
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Checks and syncs the whole file, and puts it among the others. One with a wrong hash is
    /// removed, to be fetched anew.
    ///
    /// # Errors
    /// The hash is another one, or the disk fails.
    pub(super) fn finish(self) -> Result<(), ReceiveError> {
        let io = |source| ReceiveError::Io { path: self.path.clone(), source };
        if self.missing() > 0 || self.hasher.finalize() != self.entry.hash {
            fs::remove_file(&self.path).map_err(io)?;
            return Err(ReceiveError::Hash(self.entry.name));
        }
        self.file.sync_all().and_then(|()| fs::rename(&self.path, &self.whole)).map_err(io)
    }
}

/// Removes a folder with all that is in it, if it is there.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn size_of_dir(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum()
}

fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stats = nix::sys::statvfs::statvfs(dir)?;
    Ok(stats.blocks_available() * stats.fragment_size())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::manifest::tests::of;
    use crate::storage::scratch::Scratch;

    const A: &[u8] = b"the first file";
    const B: &[u8] = b"the second file";

    fn begin(scratch: &Scratch) -> Receiving {
        let (bytes, _) = of(&[("a", A), ("b", B)]).encode();
        Receiving::begin(&scratch.path().join("receiving"), &bytes).unwrap()
    }

    fn partial(receiving: &Receiving, index: usize) -> PartialFile {
        receiving.file(index).unwrap().expect("it isn't whole")
    }

    fn receive(receiving: &Receiving, index: usize, bytes: &[u8]) -> Result<(), ReceiveError> {
        let mut file = receiving.file(index)?.expect("it isn't whole");
        let offset = file.offset() as usize;
        file.write(&bytes[offset..])?;
        file.finish()
    }

    #[test]
    fn what_has_arrived_is_kept_over_a_restart_as_long_as_the_snapshot_is_the_same() {
        let scratch = Scratch::new();
        let receiving = begin(&scratch);
        receive(&receiving, 0, A).unwrap();
        partial(&receiving, 1).write(&B[..5]).unwrap();
        let again = begin(&scratch);
        assert!(again.file(0).unwrap().is_none(), "a whole file is kept");
        assert_eq!(partial(&again, 1).offset(), 5);
        receive(&again, 1, B).unwrap();

        let (other, _) = of(&[("a", A), ("b", b"another")]).encode();
        let dir = scratch.path().join("receiving");
        let other = Receiving::begin(&dir, &other).unwrap();
        assert_eq!(partial(&other, 0).offset(), 0, "a file of another snapshot was kept");
    }

    #[test]
    fn a_damaged_file_is_refused_and_fetched_anew() {
        let scratch = Scratch::new();
        let receiving = begin(&scratch);
        let mut damaged = A.to_vec();
        damaged[3] ^= 1;
        let error = receive(&receiving, 0, &damaged).unwrap_err();
        assert!(matches!(error, ReceiveError::Hash(name) if name == "a"));
        assert_eq!(partial(&receiving, 0).offset(), 0);
        receive(&receiving, 0, A).unwrap();
    }

    #[test]
    fn bytes_that_rotted_before_the_transfer_went_on_are_found() {
        let scratch = Scratch::new();
        let receiving = begin(&scratch);
        partial(&receiving, 1).write(&B[..5]).unwrap();
        let path = scratch.path().join("receiving/partial/b");
        fs::write(&path, b"XXXXX").unwrap();
        assert!(matches!(receive(&receiving, 1, B), Err(ReceiveError::Hash(_))));
        receive(&receiving, 1, B).unwrap();
    }

    #[test]
    fn too_little_and_too_much_are_refused() {
        let scratch = Scratch::new();
        let receiving = begin(&scratch);
        let mut file = partial(&receiving, 0);
        assert!(matches!(file.write(&[0; 100]), Err(ReceiveError::Long(_))));
        file.write(&A[..3]).unwrap();
        assert!(matches!(file.finish(), Err(ReceiveError::Hash(_))));
        // A longer file that was left there is of no use.
        fs::write(scratch.path().join("receiving/partial/a"), [1; 99]).unwrap();
        assert_eq!(partial(&receiving, 0).offset(), 0);
    }

    #[test]
    fn a_snapshot_that_does_not_fit_on_the_disk_is_not_begun() {
        let scratch = Scratch::new();
        let mut manifest = of(&[("a", A)]);
        manifest.files[0].size = u64::MAX / 2;
        let (bytes, _) = manifest.encode();
        let error = Receiving::begin(&scratch.path().join("receiving"), &bytes).unwrap_err();
        assert!(matches!(error, ReceiveError::Space { .. }), "{error}");
    }
}
