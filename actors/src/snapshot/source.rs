//! Snapshots that this node makes for others: one at a time, used by all who ask while the journal
//! still continues it, removed when nobody has asked for a while.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_protocol::types::EntryId;
use tokio::task::JoinHandle;

use super::manifest::{FileEntry, Manifest, SnapshotId};
use super::receiving::remove;
use super::stats::SnapshotStats;
use crate::storage::JournalHold;
use crate::storage::journal::JournalReader;
use crate::storage::state::{OpenError, StateError, StateReader, position_in};
use crate::view::Published;

/// How long a snapshot is kept that nobody asks for. In that time its receiver must have come back
/// after it was installed, for until then the journal is kept for it, too.
const IDLE_MAX: Duration = Duration::from_mins(1);

/// How long no other is begun after one could not be made.
const FAILED_PAUSE: Duration = Duration::from_secs(10);

/// Read at a time while files are hashed.
const HASH_PIECE_BYTES: usize = 1 << 20;

/// Numbers the folders.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Makes and keeps the snapshot.
pub(super) struct Source {
    /// `snapshots/`.
    pub(super) dir: PathBuf,
    pub(super) state: StateReader,
    pub(super) journal: JournalReader,
    pub(super) published: Arc<Published>,
    pub(super) hold: Arc<JournalHold>,
    pub(super) stats: Arc<SnapshotStats>,
    /// Set when the node stops: hashing ends early.
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) made: Mutex<Made>,
}

/// What there is now.
#[derive(Default)]
pub(super) enum Made {
    #[default]
    Nothing,
    /// Under way, on a thread of its own, which ends after this has become something else.
    Making(JoinHandle<()>),
    /// Not made, and when that was found out.
    Failed(Instant),
    Ready(Arc<Checkpoint>),
}

/// A snapshot on disk. Its folder is removed with the last user.
pub(super) struct Checkpoint {
    dir: Folder,
    pub(super) manifest: Manifest,
    pub(super) bytes: Bytes,
    pub(super) id: SnapshotId,
    used: Mutex<Instant>,
}

/// Why none could be made.
#[derive(Debug, thiserror::Error)]
enum MakeError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the state holds no cluster entry")]
    NoCluster,
    #[error("the node is stopping")]
    Stopping,
}

/// The answer to who asks for a snapshot.
pub(super) enum Offer {
    Ready(Arc<Checkpoint>),
    Preparing,
    Failed,
}

impl Source {
    /// A snapshot that ends at or after `above` and that the journal continues. Where there is
    /// none, one is begun.
    pub(super) fn offer(self: &Arc<Self>, above: EntryId) -> Offer {
        let mut made = self.made.lock();
        match &*made {
            Made::Making(_) => return Offer::Preparing,
            Made::Failed(at) if at.elapsed() < FAILED_PAUSE => return Offer::Failed,
            Made::Ready(checkpoint) if self.is_of_use(checkpoint, above) => {
                checkpoint.touch();
                return Offer::Ready(checkpoint.clone());
            }
            Made::Ready(_) | Made::Failed(_) | Made::Nothing => {}
        }
        // Before the checkpoint: nothing above it may go from now on.
        self.hold.keep_after(self.published.applied().min(self.journal.last().seq));
        let source = self.clone();
        *made = Made::Making(tokio::task::spawn_blocking(move || source.make()));
        Offer::Preparing
    }

    /// The snapshot with this id, if it is still there.
    pub(super) fn get(&self, id: &SnapshotId) -> Option<Arc<Checkpoint>> {
        match &*self.made.lock() {
            Made::Ready(checkpoint) if checkpoint.id == *id => {
                checkpoint.touch();
                Some(checkpoint.clone())
            }
            Made::Ready(_) | Made::Making(_) | Made::Failed(_) | Made::Nothing => None,
        }
    }

    /// Removes a snapshot that nobody has asked for lately, and lets go of the journal.
    ///
    /// # Panics
    /// The thread that makes one has panicked.
    pub(super) fn expire(&self) {
        let mut made = self.made.lock();
        if let Made::Making(task) = &*made {
            assert!(!task.is_finished(), "making a snapshot panicked");
        }
        if let Made::Ready(checkpoint) = &*made
            && checkpoint.idle() > IDLE_MAX
        {
            tracing::info!(last = %checkpoint.manifest.last, "snapshot is no longer asked for");
            *made = Made::Nothing;
            self.hold.release();
        }
    }

    fn is_of_use(&self, checkpoint: &Checkpoint, above: EntryId) -> bool {
        let last = checkpoint.manifest.last.seq;
        last >= above.seq && self.journal.first() <= last.next()
    }

    fn make(&self) {
        let began = Instant::now();
        match self.checkpoint() {
            Ok(checkpoint) => {
                let last = checkpoint.manifest.last;
                let (bytes, took) = (checkpoint.manifest.total_bytes(), began.elapsed());
                tracing::info!(%last, bytes, ?took, "snapshot made for a replica");
                self.hold.keep_after(last.seq);
                self.stats.made.fetch_add(1, Ordering::Relaxed);
                *self.made.lock() = Made::Ready(Arc::new(checkpoint));
            }
            Err(error) => {
                tracing::error!(%error, "a snapshot can't be made");
                self.hold.release();
                *self.made.lock() = Made::Failed(Instant::now());
            }
        }
    }

    fn checkpoint(&self) -> Result<Checkpoint, MakeError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| MakeError::Io { path, source }
        };
        fs::create_dir_all(&self.dir).map_err(io(&self.dir))?;
        // An earlier one may still be read from.
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("made-{count}"));
        remove(&path).map_err(io(&path))?;
        let dir = Folder(path);
        self.state.checkpoint(&dir.0)?;
        let (applied, cluster) = position_in(&dir.0)?;
        let cluster = cluster.ok_or(MakeError::NoCluster)?;
        // After the position was read: what it holds was committed by then.
        let epoch = self.published.committed_epoch().max(applied.id.epoch);
        let files = self.list(&dir.0)?;
        let manifest = Manifest {
            epoch,
            last: applied.id,
            chain: applied.chain,
            time: applied.time,
            config: (cluster.id, cluster.payload),
            files,
        };
        let (bytes, id) = manifest.encode();
        Ok(Checkpoint { dir, manifest, bytes, id, used: Mutex::new(Instant::now()) })
    }

    /// All files but RocksDB's own log and lock, in the order of their names.
    fn list(&self, dir: &Path) -> Result<Vec<FileEntry>, MakeError> {
        let mut files = Vec::new();
        let io = |path: &Path, source| MakeError::Io { path: path.to_owned(), source };
        for file in fs::read_dir(dir).map_err(|error| io(dir, error))? {
            let path = file.map_err(|error| io(dir, error))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !name.starts_with("LO") {
                let (size, hash) = self.hash(&path)?;
                files.push(FileEntry { name: name.to_owned(), size, hash });
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    fn hash(&self, path: &Path) -> Result<(u64, [u8; blake3::OUT_LEN]), MakeError> {
        let io = |source| MakeError::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let mut hasher = blake3::Hasher::new();
        let mut piece = vec![0; HASH_PIECE_BYTES];
        let mut size = 0;
        loop {
            if self.stopping.load(Ordering::Relaxed) {
                return Err(MakeError::Stopping);
            }
            let read = file.read(&mut piece).map_err(io)?;
            if read == 0 {
                return Ok((size, *hasher.finalize().as_bytes()));
            }
            hasher.update(&piece[..read]);
            size += read as u64;
        }
    }
}

impl Checkpoint {
    /// Opens one of its files, with its size.
    pub(super) fn open(&self, index: u32) -> io::Result<(File, u64)> {
        let entry = self.manifest.files.get(index as usize).ok_or(io::ErrorKind::NotFound)?;
        Ok((File::open(self.dir.0.join(&entry.name))?, entry.size))
    }

    /// Somebody uses it.
    pub(super) fn touch(&self) {
        *self.used.lock() = Instant::now();
    }

    fn idle(&self) -> Duration {
        self.used.lock().elapsed()
    }
}

/// A folder that is removed with this.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind is removed by the next start.
        let _ = remove(&self.0);
    }
}
