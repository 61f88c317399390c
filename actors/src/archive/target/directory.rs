//! An archive in a directory: files are written under another name, synced, and renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{OnPiece, PIECE_BYTES};
use crate::archive::catalogue::MANIFEST_BYTES_MAX;
use crate::archive::error::ArchiveError;
use crate::storage::durable::{random_u128, sync_dir};

/// Held while `HEAD` is replaced.
const LOCK: &str = "archive.lock";

/// How long another archiver may hold it.
const LOCK_LIMIT: Duration = Duration::from_secs(10);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// An archive's files.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    root: PathBuf,
}

impl Directory {
    pub(super) fn open(root: &Path) -> Result<Self, ArchiveError> {
        let failed = |source| ArchiveError::Target { name: root.display().to_string(), source };
        fs::create_dir_all(root).map_err(failed)?;
        Ok(Self { root: root.to_owned() })
    }

    pub(super) fn open_existing(root: &Path) -> Result<Self, ArchiveError> {
        let failed = |source| ArchiveError::Target { name: root.display().to_string(), source };
        if !fs::metadata(root).map_err(failed)?.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        Ok(Self { root: root.to_owned() })
    }

    pub(super) fn must_be_apart(&self, data_dir: &Path) -> Result<(), ArchiveError> {
        let real = |path: &Path| {
            // What isn't there yet is where the nearest folder is that is there.
            let known = path.ancestors().find_map(|known| {
                let rest = path.strip_prefix(known).ok()?;
                Some(fs::canonicalize(known).ok()?.join(rest))
            });
            known.unwrap_or_else(|| path.to_owned())
        };
        let (ours, theirs) = (real(&self.root), real(data_dir));
        if ours.starts_with(&theirs) || theirs.starts_with(&ours) {
            return Err(ArchiveError::OwnData { path: self.root.clone() });
        }
        Ok(())
    }

    pub(super) fn name(&self) -> String {
        self.root.display().to_string()
    }

    pub(super) fn read(&self, name: &str, bytes_max: u64) -> Result<Option<Bytes>, ArchiveError> {
        let failed = |source| self.failed(name, source);
        let mut file = match File::open(self.path(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        let read = (&mut file).take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
        if read as u64 > bytes_max {
            return Err(ArchiveError::damaged(
                name,
                format!("it is longer than {bytes_max} bytes"),
            ));
        }
        Ok(Some(bytes.into()))
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.put(name, |file| file.write_all(bytes))
    }

    pub(super) fn upload(
        &self,
        name: &str,
        from: &Path,
        each: OnPiece<'_>,
    ) -> Result<(), ArchiveError> {
        let source = |source| ArchiveError::Local { path: from.to_owned(), source };
        let mut local = File::open(from).map_err(source)?;
        self.put(name, |file| copy(&mut local, file, each))
    }

    pub(super) fn download(
        &self,
        name: &str,
        to: &Path,
        each: OnPiece<'_>,
    ) -> Result<(), ArchiveError> {
        let mut file = self.open_file(name)?;
        let local = |source| ArchiveError::Local { path: to.to_owned(), source };
        let mut out = File::create(to).map_err(local)?;
        copy(&mut file, &mut out, each).map_err(local)?;
        out.sync_all().map_err(local)
    }

    pub(super) fn each_piece(&self, name: &str, each: OnPiece<'_>) -> Result<(), ArchiveError> {
        let mut file = self.open_file(name)?;
        copy(&mut file, &mut io::sink(), each).map_err(|source| self.failed(name, source))
    }

    pub(super) fn swap(
        &self,
        name: &str,
        expected: Option<&Bytes>,
        bytes: &[u8],
    ) -> Result<(), ArchiveError> {
        let _lock = self.lock()?;
        if self.read(name, MANIFEST_BYTES_MAX)?.as_ref() != expected {
            return Err(ArchiveError::Fenced);
        }
        self.write(name, bytes)
    }

    pub(super) fn list(&self, folder: &str) -> Result<Vec<String>, ArchiveError> {
        let mut names = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let failed = |source| self.failed(&folder, source);
            let entries = match fs::read_dir(self.path(&folder)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(failed)?,
            };
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
                if entry.file_type().map_err(failed)?.is_dir() {
                    folders.push(name);
                } else {
                    names.push(name);
                }
            }
        }
        names.sort();
        Ok(names)
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), ArchiveError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(|source| self.failed(name, source))?,
        }
        // An empty folder says nothing.
        if let Some(parent) = path.parent() {
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }

    fn lock(&self) -> Result<Flock<File>, ArchiveError> {
        let failed = |source| self.failed(LOCK, source);
        let deadline = Instant::now() + LOCK_LIMIT;
        let mut file =
            OpenOptions::new().create(true).append(true).open(self.path(LOCK)).map_err(failed)?;
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err((_, Errno::EWOULDBLOCK)) if Instant::now() >= deadline => {
                    return Err(failed(io::Error::other("another process holds it")));
                }
                Err((file, Errno::EWOULDBLOCK)) => file,
                Err((_, errno)) => return Err(failed(errno.into())),
            };
            std::thread::sleep(LOCK_RETRY);
        }
    }

    fn put(
        &self,
        name: &str,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), ArchiveError> {
        let path = self.path(name);
        let folder = path.parent().unwrap_or(&self.root);
        let failed = |source| self.failed(name, source);
        fs::create_dir_all(folder).map_err(failed)?;
        // Two that write the same file must not write into each other's.
        let unique = random_u128().map_err(failed)?;
        let temporary = folder.join(format!(".{unique:032x}.part"));
        let written = File::create(&temporary)
            .and_then(|mut file| {
                write(&mut file)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| self.sync_folders(folder));
        written.map_err(|source| {
            let _ = fs::remove_file(&temporary);
            failed(source)
        })
    }

    /// From a file's folder up to the root: any of them may be new.
    fn sync_folders(&self, folder: &Path) -> io::Result<()> {
        let inside = folder.ancestors().take_while(|path| path.starts_with(&self.root));
        inside.into_iter().try_for_each(sync_dir)
    }

    fn open_file(&self, name: &str) -> Result<File, ArchiveError> {
        match File::open(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ArchiveError::Missing { name: name.to_owned() })
            }
            opened => opened.map_err(|source| self.failed(name, source)),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn failed(&self, name: &str, source: io::Error) -> ArchiveError {
        ArchiveError::Target { name: format!("{}/{name}", self.name()), source }
    }
}

fn copy(from: &mut File, to: &mut impl io::Write, each: OnPiece<'_>) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = from.read(&mut piece)?;
        if read == 0 {
            return Ok(());
        }
        each(&piece[..read])?;
        to.write_all(&piece[..read])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::scratch::Scratch;

    #[test]
    fn of_two_that_replace_the_head_one_succeeds() {
        let dir = Scratch::new();
        let target = Directory::open(&dir.path().join("a")).expect("a directory");
        target.swap("HEAD", None, b"1").expect("there was none");
        let seen = target.read("HEAD", 10).expect("readable");
        target.swap("HEAD", seen.as_ref(), b"2").expect("as it was seen");
        let late = target.swap("HEAD", seen.as_ref(), b"3");
        assert!(matches!(late, Err(ArchiveError::Fenced)));
        assert!(matches!(target.swap("HEAD", None, b"4"), Err(ArchiveError::Fenced)));
        assert_eq!(target.read("HEAD", 10).expect("readable").as_deref(), Some(&b"2"[..]));
    }

    #[test]
    fn files_are_whole_listed_and_removed() {
        let dir = Scratch::new();
        let target = Directory::open(dir.path()).expect("a directory");
        let from = dir.path().join("local");
        fs::write(&from, b"content").expect("written");
        let mut seen = Vec::new();
        let mut note = |piece: &[u8]| {
            seen.extend_from_slice(piece);
            Ok(())
        };
        target.upload("a/b/c", &from, &mut note).expect("uploaded");
        assert_eq!(seen, b"content");
        let failing =
            target.upload("a/b/d", &from, &mut |_| Err(io::ErrorKind::StorageFull.into()));
        assert!(failing.is_err());
        assert_eq!(target.list("a").expect("listed"), ["a/b/c"]);
        let to = dir.path().join("back");
        target.download("a/b/c", &to, &mut |_| Ok(())).expect("downloaded");
        assert_eq!(fs::read(&to).expect("there"), b"content");
        assert!(matches!(target.read("a/b/c", 3), Err(ArchiveError::Damaged { .. })));
        target.remove("a/b/c").expect("removed");
        target.remove("a/b/c").expect("it is gone already");
        assert!(target.list("a").expect("listed").is_empty());
        let missing = target.download("a/b/c", &to, &mut |_| Ok(()));
        assert!(matches!(missing, Err(ArchiveError::Missing { .. })));
    }
}
