//! The directory itself: lock, identity, reservation.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use quorate_protocol::types::{ClusterId, DiskId, NodeId};

use super::filesystem::volatile;
use super::records::{Identity, RECORD_BYTES, RecordFault, decode_reservation, encode_reservation};
use crate::storage::durable::{random_u128, read_bounded, replace_file, sync_dir};

const LOCK: &str = "LOCK";
const IDENTITY: &str = "identity";
const RESERVATION: &str = "reservation";

/// Marks a directory into which an archive is being restored.
pub const RESTORING: &str = "RESTORING";

/// A data directory that this process alone uses, until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Identity,
    complete: bool,
    _lock: Flock<File>,
}

/// What a directory is opened with.
#[derive(Clone, Debug)]
pub struct DataDirOptions {
    /// Where it is; made if it isn't there.
    pub path: PathBuf,
    /// The node that it must belong to.
    pub node: NodeId,
    /// Accept a file system that forgets.
    pub allow_volatile: bool,
}

/// Why a directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The system refused.
    #[error("data directory {path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// As the system reports it.
        source: io::Error,
    },
    /// Another process has it.
    #[error("data directory {path} is in use by {holder}", path = path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// `process N`, or `another process` where its number isn't known.
        holder: String,
    },
    /// What is synced there doesn't survive.
    #[error(
        "data directory {path} is on {kind}, which is emptied by a reboot or with its container: \
         a node that forgets its disk forgets its votes; use another file system, or \
         --allow-volatile for tests",
        path = path.display()
    )]
    Volatile {
        /// The directory.
        path: PathBuf,
        /// The file system.
        kind: &'static str,
    },
    /// A restore into it was cut short.
    #[error(
        "a restore into data directory {path} was cut short: run `quorate restore` again",
        path = path.display()
    )]
    HalfRestored {
        /// The directory.
        path: PathBuf,
    },
    /// Made by another node.
    #[error(
        "data directory {path} belongs to node {found}, not to node {expected}",
        path = path.display()
    )]
    ForeignNode {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who asked.
        expected: NodeId,
    },
    /// Made by a newer version.
    #[error("{path} has format {version}, newer than this version reads", path = path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
    /// A file that names the directory's owner can't be read (S6).
    #[error(
        "{path} is damaged or missing: this disk can't be used under its node id; remove the \
         node from the cluster, wipe the directory and join anew",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

impl DataDir {
    /// Opens the directory, or makes it with a new disk id. A directory without an identity is a
    /// new one only until [`DataDir::complete`]; the caller checks that nothing else is in it.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn open(options: &DataDirOptions) -> Result<Self, DataDirError> {
        let path = options.path.clone();
        if path.join(RESTORING).exists() {
            return Err(DataDirError::HalfRestored { path });
        }
        Self::open_restoring(options)
    }

    /// The same, for whoever is restoring into it.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub(crate) fn open_restoring(options: &DataDirOptions) -> Result<Self, DataDirError> {
        let path = options.path.clone();
        make_dir(&path).map_err(|source| DataDirError::Io { path: path.clone(), source })?;
        let kind =
            volatile(&path).map_err(|source| DataDirError::Io { path: path.clone(), source })?;
        if let (Some(kind), false) = (kind, options.allow_volatile) {
            return Err(DataDirError::Volatile { path, kind });
        }
        let lock = lock(&path)?;
        let found = read_record(&path.join(IDENTITY))?
            .map(|bytes| Identity::decode(&bytes))
            .transpose()
            .map_err(|fault| of_fault(fault, path.join(IDENTITY)))?;
        let identity = match found {
            Some(found) if found.node != options.node => {
                let (found, expected) = (found.node, options.node);
                return Err(DataDirError::ForeignNode { path, found, expected });
            }
            Some(found) => found,
            None => {
                let disk = random_u128()
                    .map_err(|source| DataDirError::Io { path: path.clone(), source })?;
                Identity { node: options.node, disk: DiskId(disk), cluster: None }
            }
        };
        Ok(Self { path, identity, complete: found.is_some(), _lock: lock })
    }

    /// Opens a directory that is there, whoever's it is; a file system that forgets will do.
    ///
    /// # Errors
    /// [`DataDirError`]; in particular `Damaged` where it has no identity.
    pub fn open_existing(path: &Path) -> Result<Self, DataDirError> {
        let file = path.join(IDENTITY);
        let bytes = read_record(&file)?.ok_or_else(|| DataDirError::Damaged { path: file.clone() });
        let identity = Identity::decode(&bytes?).map_err(|fault| of_fault(fault, file))?;
        let lock = lock(path)?;
        Ok(Self { path: path.to_owned(), identity, complete: true, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether it was made completely, now or at an earlier start.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The last step of making a directory: from now on a missing file is a lost one.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn complete(&mut self) -> Result<(), DataDirError> {
        self.write(IDENTITY, &self.identity.encode())?;
        self.complete = true;
        Ok(())
    }

    /// Binds the directory to a cluster; durable when this returns.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn set_cluster(&mut self, cluster: ClusterId) -> Result<(), DataDirError> {
        self.identity.cluster = Some(cluster);
        self.write(IDENTITY, &self.identity.encode())
    }

    /// The node that this one promised itself to at first boot, by its disk.
    ///
    /// # Errors
    /// [`DataDirError`]; a damaged promise is never taken for none.
    pub fn load_reservation(&self) -> Result<Option<DiskId>, DataDirError> {
        let path = self.path.join(RESERVATION);
        read_record(&path)?
            .map(|bytes| decode_reservation(&bytes))
            .transpose()
            .map_err(|fault| of_fault(fault, path))
    }

    /// Promises this node to the disk of the one that forms the cluster; durable when this
    /// returns, so before the answer that reveals it.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn save_reservation(&self, disk: DiskId) -> Result<(), DataDirError> {
        self.write(RESERVATION, &encode_reservation(disk))
    }

    /// Where the journal records its end outside the disk, given a folder for such records.
    #[must_use]
    pub fn witness_path(&self, folder: &Path) -> PathBuf {
        witness_path(folder, self.identity.disk)
    }

    /// Removes that record: after an orderly stop, whose mark is durable, it says nothing more.
    pub fn forget_witness(&self, folder: &Path) {
        let _ = fs::remove_file(self.witness_path(folder));
    }

    /// The same for a directory that is about to be deleted and that no process uses: nothing else
    /// would remove the record after a kill before the machine restarts. Does nothing where the
    /// directory has no legible identity.
    pub fn forget_witness_of(path: &Path, folder: &Path) {
        let identity = read_record(&path.join(IDENTITY)).ok().flatten();
        if let Some(identity) = identity.and_then(|bytes| Identity::decode(&bytes).ok()) {
            let _ = fs::remove_file(witness_path(folder, identity.disk));
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), DataDirError> {
        let path = self.path.join(name);
        replace_file(&path, bytes).map_err(|source| DataDirError::Io { path, source })
    }
}

fn witness_path(folder: &Path, disk: DiskId) -> PathBuf {
    folder.join(format!("quorate-{disk}.tail"))
}

fn make_dir(path: &Path) -> io::Result<()> {
    if path.try_exists()? {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        Some(_) | None => sync_dir(Path::new(".")),
    }
}

/// Takes the lock that lasts as long as the process, however it ends, and writes who holds it.
fn lock(dir: &Path) -> Result<Flock<File>, DataDirError> {
    let path = dir.join(LOCK);
    let io = |source| DataDirError::Io { path: path.clone(), source };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io)?;
    let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((file, Errno::EWOULDBLOCK)) => {
            let mut text = String::new();
            let read = file.take(32).read_to_string(&mut text);
            let pid: Option<u32> = read.ok().and_then(|_| text.trim().parse().ok());
            let holder = pid.map_or("another process".to_owned(), |pid| format!("process {pid}"));
            return Err(DataDirError::Locked { path: dir.to_owned(), holder });
        }
        Err((_, errno)) => return Err(io(errno.into())),
    };
    lock.set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| writeln!(lock, "{}", std::process::id()))
        .map_err(io)?;
    Ok(lock)
}

/// A small file's bytes; `None` if it isn't there.
fn read_record(path: &Path) -> Result<Option<Vec<u8>>, DataDirError> {
    match read_bounded(path, RECORD_BYTES) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => Ok(None),
            io::ErrorKind::InvalidData => Err(DataDirError::Damaged { path: path.to_owned() }),
            _ => Err(DataDirError::Io { path: path.to_owned(), source: error }),
        },
    }
}

fn of_fault(fault: RecordFault, path: PathBuf) -> DataDirError {
    match fault {
        RecordFault::Damaged => DataDirError::Damaged { path },
        RecordFault::Newer(version) => DataDirError::Newer { path, version },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::scratch::Scratch;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    fn options(dir: &Path) -> DataDirOptions {
        DataDirOptions { path: dir.to_owned(), node: NodeId(2), allow_volatile: true }
    }

    fn completed(dir: &Path) -> DataDir {
        let mut data = DataDir::open(&options(dir)).expect("it opens");
        data.complete().expect("it is written");
        data
    }

    #[test]
    fn identity_and_reservation_survive() {
        let scratch = Scratch::new();
        let dir = scratch.path().join("a/b");
        let mut data = completed(&dir);
        assert_eq!(data.load_reservation().expect("none is fine"), None);
        data.save_reservation(DiskId(77)).expect("it is written");
        data.set_cluster(ClusterId(5)).expect("it is written");
        let before = data.identity();
        drop(data);
        let data = DataDir::open(&options(&dir)).expect("it opens");
        assert!(data.is_complete());
        assert_eq!(data.identity(), before);
        assert_eq!(data.identity().cluster, Some(ClusterId(5)));
        assert_eq!(data.load_reservation().expect("it is there"), Some(DiskId(77)));
    }

    #[test]
    fn each_new_directory_is_another_disk() {
        let (a, b) = (Scratch::new(), Scratch::new());
        assert_ne!(completed(a.path()).identity().disk, completed(b.path()).identity().disk);
    }

    #[test]
    fn a_second_user_is_refused_with_the_first_ones_pid() {
        let scratch = Scratch::new();
        let first = completed(scratch.path());
        let error = DataDir::open(&options(scratch.path())).expect_err("it is locked");
        assert!(matches!(error, DataDirError::Locked { .. }));
        let holder = format!("process {}", std::process::id());
        assert!(error.to_string().ends_with(&holder), "{error}");
        drop(first);
        DataDir::open(&options(scratch.path())).expect("it is free again");
    }

    /// Set for the process that a test starts: the directory to open.
    const CHILD: &str = "QUORATE_TEST_DATA_DIR";

    #[test]
    fn a_second_process_is_refused_until_the_first_one_is_killed() {
        if let Some(dir) = std::env::var_os(CHILD) {
            let _held = completed(Path::new(&dir));
            println!("held");
            // Until the parent kills this process, or has ended itself.
            let _ = io::stdin().read(&mut [0]);
            return;
        }
        let scratch = Scratch::new();
        let name = "a_second_process_is_refused_until_the_first_one_is_killed";
        let mut child = Command::new(std::env::current_exe().expect("it is known"))
            .args(["--nocapture", "--test-threads=1", name])
            .env(CHILD, scratch.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let held = output.lines().any(|line| line.expect("it is text").contains("held"));
        assert!(held, "the first process has the directory");
        let error = DataDir::open(&options(scratch.path())).expect_err("it is locked");
        assert!(error.to_string().ends_with(&format!("process {}", child.id())), "{error}");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
        DataDir::open(&options(scratch.path())).expect("it is free again");
    }

    #[test]
    fn another_nodes_directory_is_refused() {
        let scratch = Scratch::new();
        drop(completed(scratch.path()));
        let foreign = DataDirOptions { node: NodeId(3), ..options(scratch.path()) };
        let error = DataDir::open(&foreign).expect_err("it is node 2's");
        assert!(error.to_string().contains("belongs to node 2, not to node 3"), "{error}");
    }

    #[test]
    fn a_damaged_identity_or_reservation_is_refused() {
        let scratch = Scratch::new();
        let data = completed(scratch.path());
        fs::write(scratch.path().join(RESERVATION), [1; 70]).expect("it can be written");
        let error = data.load_reservation().expect_err("it is damaged");
        assert!(matches!(error, DataDirError::Damaged { .. }));
        drop(data);
        fs::write(scratch.path().join(IDENTITY), [0; RECORD_BYTES]).expect("it can be written");
        let error = DataDir::open(&options(scratch.path())).expect_err("it is damaged");
        assert!(matches!(error, DataDirError::Damaged { .. }));
    }

    #[test]
    fn a_file_system_that_forgets_is_refused() {
        let dir = PathBuf::from(format!("/dev/shm/quorate-test-{}", std::process::id()));
        let volatile = DataDirOptions { allow_volatile: false, ..options(&dir) };
        let error = DataDir::open(&volatile).expect_err("/dev/shm is a tmpfs");
        let _ = fs::remove_dir_all(&dir);
        assert!(matches!(error, DataDirError::Volatile { kind: "tmpfs", .. }), "{error}");
    }
}
