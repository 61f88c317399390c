//! Where an archive's files are: a directory, or an S3 store. Names are relative, with `/` between
//! folders. Whatever has a name is whole.

mod directory;
mod s3;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;

use super::error::ArchiveError;
use super::location::{Location, S3Settings};
use directory::Directory;
use s3::S3;

/// Bytes handed on at once.
const PIECE_BYTES: usize = 1 << 20;

/// Told of each piece of a file on its way.
pub(super) type OnPiece<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<()>;

/// An archive's files. Everything blocks, for as long as the target takes within its limits; made
/// and dropped where that is allowed.
#[derive(Clone, Debug)]
pub struct Target {
    store: Store,
}

#[derive(Clone, Debug)]
enum Store {
    Directory(Directory),
    S3(Arc<S3>),
}

/// What a target is opened with.
#[derive(Clone, Debug, Default)]
pub struct TargetOptions {
    /// How an S3 store is reached.
    pub s3: S3Settings,
    /// Set when whatever waits for an S3 store must stop waiting.
    pub stopping: Arc<AtomicBool>,
}

impl Target {
    /// The archive at this place; a directory is made where it isn't there.
    ///
    /// # Errors
    /// It is no directory, or can't be made; or the settings of the store are of no use.
    pub fn open(location: &Location, options: &TargetOptions) -> Result<Self, ArchiveError> {
        Self::open_with(location, options, Directory::open)
    }

    /// The same, where a directory must be there: a file system that isn't mounted is no place to
    /// begin another archive.
    ///
    /// # Errors
    /// It isn't there, or is no directory; or the settings of the store are of no use.
    pub fn open_existing(
        location: &Location,
        options: &TargetOptions,
    ) -> Result<Self, ArchiveError> {
        Self::open_with(location, options, Directory::open_existing)
    }

    fn open_with(
        location: &Location,
        options: &TargetOptions,
        open: impl FnOnce(&Path) -> Result<Directory, ArchiveError>,
    ) -> Result<Self, ArchiveError> {
        let store = match location {
            Location::Directory(path) => Store::Directory(open(path)?),
            Location::S3 { bucket, prefix } => {
                Store::S3(Arc::new(S3::open((bucket, prefix), location.to_string(), options)?))
            }
        };
        Ok(Self { store })
    }

    /// A node's data directory and an archive must not lie within each other: a node removes what it
    /// doesn't know there.
    ///
    /// # Errors
    /// [`ArchiveError::OwnData`].
    pub(super) fn must_be_apart(&self, data_dir: &Path) -> Result<(), ArchiveError> {
        match &self.store {
            Store::Directory(directory) => directory.must_be_apart(data_dir),
            Store::S3(_) => Ok(()),
        }
    }

    /// As the operator named it.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.store {
            Store::Directory(directory) => directory.name(),
            Store::S3(s3) => s3.name().to_owned(),
        }
    }

    /// A small file's bytes; `None` where there is none.
    pub(super) fn read(&self, name: &str, bytes_max: u64) -> Result<Option<Bytes>, ArchiveError> {
        must_be_inside(name)?;
        match &self.store {
            Store::Directory(directory) => directory.read(name, bytes_max),
            Store::S3(s3) => s3.read(name, bytes_max),
        }
    }

    /// Puts a file there, whole, in place of one of that name.
    pub(super) fn write(&self, name: &str, bytes: Vec<u8>) -> Result<(), ArchiveError> {
        match &self.store {
            Store::Directory(directory) => directory.write(name, &bytes),
            Store::S3(s3) => s3.write(name, bytes),
        }
    }

    /// Puts a copy of a local file there, handing its bytes to `each` on the way.
    pub(super) fn upload(
        &self,
        name: &str,
        from: &Path,
        each: OnPiece<'_>,
    ) -> Result<(), ArchiveError> {
        must_be_inside(name)?;
        match &self.store {
            Store::Directory(directory) => directory.upload(name, from, each),
            Store::S3(s3) => s3.upload(name, from, each),
        }
    }

    /// Copies a file to a local one, handing its bytes to `each` on the way. Synced when this
    /// returns.
    pub(super) fn download(
        &self,
        name: &str,
        to: &Path,
        each: OnPiece<'_>,
    ) -> Result<(), ArchiveError> {
        must_be_inside(name)?;
        match &self.store {
            Store::Directory(directory) => directory.download(name, to, each),
            Store::S3(s3) => s3.download(name, to, each),
        }
    }

    /// Hands out a file's bytes.
    pub(super) fn each_piece(&self, name: &str, each: OnPiece<'_>) -> Result<(), ArchiveError> {
        must_be_inside(name)?;
        match &self.store {
            Store::Directory(directory) => directory.each_piece(name, each),
            Store::S3(s3) => s3.each_piece(name, each),
        }
    }

    /// Replaces a small file if it still has these bytes: of two that try, one succeeds. No two may
    /// write the same bytes.
    ///
    /// # Errors
    /// [`ArchiveError::Fenced`] if another one was faster. After any other error it may have been
    /// replaced, or may yet be.
    pub(super) fn swap(
        &self,
        name: &str,
        expected: Option<&Bytes>,
        bytes: Vec<u8>,
    ) -> Result<(), ArchiveError> {
        match &self.store {
            Store::Directory(directory) => directory.swap(name, expected, &bytes),
            Store::S3(s3) => s3.swap(name, expected, &bytes.into()),
        }
    }

    /// All files below a folder, sorted.
    pub(super) fn list(&self, folder: &str) -> Result<Vec<String>, ArchiveError> {
        match &self.store {
            Store::Directory(directory) => directory.list(folder),
            Store::S3(s3) => s3.list(folder),
        }
    }

    /// Removes a file; one that isn't there is removed already.
    pub(super) fn remove(&self, name: &str) -> Result<(), ArchiveError> {
        must_be_inside(name)?;
        match &self.store {
            Store::Directory(directory) => directory.remove(name),
            Store::S3(s3) => s3.remove(name),
        }
    }
}

/// Names come from the archive's own files, which anyone may have written.
fn must_be_inside(name: &str) -> Result<(), ArchiveError> {
    if name.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(ArchiveError::foreign(name, "the name leads out of the archive"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::scratch::Scratch;

    #[test]
    fn no_name_leads_out_of_the_archive() {
        let dir = Scratch::new();
        std::fs::write(dir.path().join("secret"), b"1").expect("written");
        let location = Location::Directory(dir.path().join("a"));
        let target = Target::open(&location, &TargetOptions::default()).expect("made");
        let out = dir.path().join("secret").display().to_string();
        for name in ["../secret", "a/../../secret", &out, "", "a//b", "./a"] {
            let read = target.read(name, 10);
            assert!(matches!(read, Err(ArchiveError::Foreign { .. })), "{name}");
            let removed = target.remove(name);
            assert!(matches!(removed, Err(ArchiveError::Foreign { .. })), "{name}");
        }
        assert!(dir.path().join("secret").exists());
    }
}
