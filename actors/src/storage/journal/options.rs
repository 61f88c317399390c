//! What a journal is told when it is opened and started.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use quorate_protocol::types::{ClusterId, Generation, Seq};

use super::handle::JournalFault;

/// Where a journal lives and how it is written.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// The folder of the segments.
    pub dir: PathBuf,
    /// The folder for what is cut from the log.
    pub divergent: PathBuf,
    /// Written into new segments; 0 until the cluster is formed.
    pub cluster: ClusterId,
    /// Written into new segments.
    pub generation: Generation,
    /// Where to record, outside the disk, how far the log was written; on a tmpfs, so that it
    /// outlives the process and not the machine. Without it every unclean end of the process
    /// counts as a loss of memory (S5).
    pub witness: Option<PathBuf>,
    /// Whether this data directory had a journal before. If so, an empty folder is damage, not
    /// a first start (S6).
    pub must_exist: bool,
    /// Size of a segment in bytes. An entry that doesn't fit gets a larger one of its own.
    pub segment_bytes: u64,
    /// Most bytes that one write gathers before it is synced.
    pub group_bytes_max: usize,
    /// Most bytes of entries that wait for the writer.
    pub queue_bytes_max: usize,
    /// Most commands that wait for the writer.
    pub queue_commands_max: usize,
    /// Most bytes kept in the divergent folder; the oldest files go first.
    pub divergent_bytes_max: u64,
    /// How long nothing must arrive before the writer adds a mark for what it has synced.
    pub idle_mark_after: Duration,
    /// What is needed of the log no more; asked only where it is damaged.
    pub covered: Covered,
}

/// Tells up to which position the state on disk holds everything: segments that end there or before
/// may be missing, as after trimming, and so may be damaged.
#[derive(Clone)]
pub struct Covered(pub Arc<dyn Fn() -> Seq + Send + Sync>);

impl Default for Covered {
    /// Every entry is needed.
    fn default() -> Self {
        Self(Arc::new(|| Seq::ZERO))
    }
}

impl std::fmt::Debug for Covered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Covered")
    }
}

impl JournalOptions {
    /// Defaults for a data directory: segments of 64 MiB, groups of up to 4 MiB, 64 MiB waiting.
    #[must_use]
    pub fn in_data_dir(data_dir: &std::path::Path) -> Self {
        Self {
            dir: data_dir.join("journal"),
            divergent: data_dir.join("divergent"),
            cluster: ClusterId(0),
            generation: Generation(0),
            witness: None,
            must_exist: false,
            segment_bytes: 64 << 20,
            group_bytes_max: 4 << 20,
            queue_bytes_max: 64 << 20,
            queue_commands_max: 4096,
            divergent_bytes_max: 1 << 30,
            idle_mark_after: Duration::from_millis(20),
            covered: Covered::default(),
        }
    }
}

/// What the writer calls, on its own thread. None of them may block.
#[derive(Clone)]
pub struct JournalHooks {
    /// Something was published; see `Journal::progress`.
    pub wake: Arc<dyn Fn() + Send + Sync>,
    /// While false, progress in memory alone doesn't call `wake`: where no clause of the policy
    /// asks for memory, that call would only cost a thread switch.
    pub wake_in_memory: Arc<AtomicBool>,
    /// The journal has failed and its thread ends. The process must end too: nothing may be
    /// acknowledged after this (S1, fail-stop).
    pub fatal: Arc<dyn Fn(&JournalFault) + Send + Sync>,
    /// One group was written and synced.
    pub observe: Arc<dyn Fn(&GroupStats) + Send + Sync>,
}

impl JournalHooks {
    /// Hooks that do nothing but what `wake` and `fatal` do.
    #[must_use]
    pub fn new(
        wake: Arc<dyn Fn() + Send + Sync>,
        fatal: Arc<dyn Fn(&JournalFault) + Send + Sync>,
    ) -> Self {
        let wake_in_memory = Arc::new(AtomicBool::new(true));
        Self { wake, wake_in_memory, fatal, observe: Arc::new(|_| ()) }
    }
}

impl std::fmt::Debug for JournalHooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JournalHooks").finish_non_exhaustive()
    }
}

/// One group as it was written.
#[derive(Clone, Copy, Debug)]
pub struct GroupStats {
    /// Entries in it.
    pub entries: usize,
    /// Their bytes, headers included.
    pub bytes: usize,
    /// How long the write took.
    pub write: Duration,
    /// How long the sync took.
    pub sync: Duration,
    /// Whether nothing waited for the thread before it.
    pub after_idle: bool,
}
