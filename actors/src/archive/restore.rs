//! Restoring an archive into an empty data directory: a cluster of one node, with an id of its own.
//!
//! Until all of it is there and synced the directory carries a mark with which no node starts. A
//! restore that was cut short is begun again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_protocol::cluster::{ClusterEntry, Member, MemberKind};
use quorate_protocol::core::{HardState, first_of_generation};
use quorate_protocol::entry::Entry;
use quorate_protocol::policy::Policy;
use quorate_protocol::types::{
    Branch, ClusterId, ClusterTime, EntryId, EntryKind, Epoch, Generation, Incarnation, NodeId,
};
use quorate_protocol::wire::encode_cluster;

use super::catalogue::Catalogue;
use super::error::ArchiveError;
use super::rebuild::{OnProgress, Plan, Point, Rebuilt};
use super::target::Target;
use crate::clock;
use crate::storage::durable::{random_u128, sync_dir};
use crate::storage::hardstate::{BootId, HardStateFile, NodeHardState};
use crate::storage::identity::{Current, DataDir, DataDirOptions, RESTORING};
use crate::storage::journal::{Journal, JournalFault, JournalHooks, JournalOptions, OpenJournal};
use crate::storage::options::RocksOptions;
use crate::storage::state::ContentHash;

/// Where and as whom an archive is restored.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The data directory, empty or not there.
    pub data_dir: PathBuf,
    /// The node that the directory is for.
    pub node: NodeId,
    /// Accept a file system that forgets.
    pub allow_volatile: bool,
    /// `host:port` of the node's listeners: peers, cluster clients, plain clients.
    pub addresses: [String; 3],
    /// How the state is opened.
    pub rocksdb: RocksOptions,
    /// The point to go to.
    pub point: Point,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The archive's cluster.
    pub from_cluster: String,
    /// The new cluster's id.
    pub cluster: ClusterId,
    /// Lossy recoveries and restores so far.
    pub generation: Generation,
    /// The last entry of the archive that is in it.
    pub last: EntryId,
    /// When that was sealed, in milliseconds since 1970.
    pub time_ms: u64,
    /// What the state holds.
    pub content: ContentHash,
    /// Whether the state held, on the way, what the archived one did when it was last hashed. There is
    /// nothing to compare at points before that.
    pub compared: bool,
    /// The policy: the archived one where one node can meet it, else `majority`.
    pub policy: Policy,
}

/// Rebuilds the archive's newest state in a folder, compares it with what was hashed, and removes it.
///
/// # Errors
/// Names the file that is missing or damaged; [`ArchiveError::Content`] where the state differs.
pub fn verify_by_restore(
    target: &Target,
    scratch: &Path,
    rocksdb: &RocksOptions,
    on_progress: OnProgress<'_>,
) -> Result<(EntryId, ContentHash, bool), ArchiveError> {
    let catalogue = Catalogue::load(target)?;
    let plan = Plan::make(&catalogue, Point::Latest)?;
    let folder = Removed(scratch.join(format!("verify-{:032x}", random(scratch)?)));
    let rebuilt = plan.rebuild(target, &folder.0, rocksdb, on_progress)?;
    Ok((rebuilt.applied.id, rebuilt.content, rebuilt.compared))
}

/// Restores.
///
/// # Errors
/// Names what is in the way. Nothing of the directory is used by a node before it is whole.
pub fn restore(
    target: &Target,
    options: &RestoreOptions,
    on_progress: OnProgress<'_>,
) -> Result<Restored, ArchiveError> {
    let catalogue = Catalogue::load(target)?;
    let plan = Plan::make(&catalogue, options.point)?;
    let dir = &options.data_dir;
    target.must_be_apart(dir)?;
    let local = |source| ArchiveError::Local { path: dir.clone(), source };
    begin(dir)?;
    let state_dir = Current::state_dir(dir, None);
    let rebuilt = plan.rebuild(target, &state_dir, &options.rocksdb, on_progress)?;
    let applied = rebuilt.applied;

    let mut data_dir = DataDir::open_restoring(&DataDirOptions {
        path: dir.clone(),
        node: options.node,
        allow_volatile: options.allow_volatile,
    })?;
    let (id, config) = found(&rebuilt, options, data_dir.identity().disk)?;
    let entry = {
        let time = ClusterTime(clock::wall().0.max(applied.time.0));
        let payload = encode_cluster(&config)?;
        Entry::seal(id, EntryKind::Cluster, time, applied.chain, payload)
    };
    let epoch = Epoch(plan.snapshot.epoch).max(applied.id.epoch);
    let current = Current { instance: 1, epoch, preceding: applied.id, chain: applied.chain };
    current.store(dir).map_err(local)?;
    write_journal(dir, &config, &current, entry)?;
    let core = HardState { epoch: id.epoch, vote: Some(options.node), memory_loss: false };
    let boot = BootId::current().map_err(local)?;
    let (generation, incarnation) = (config.generation, Incarnation(0));
    let hard = NodeHardState { core, incarnation, generation, boot, clean: true, io_error: false };
    HardStateFile::create(dir, hard)?;
    data_dir.set_cluster(config.cluster)?;
    // From here on it is a node's.
    fs::remove_file(dir.join(RESTORING)).and_then(|()| sync_dir(dir)).map_err(local)?;
    Ok(Restored {
        from_cluster: catalogue.head.origin.cluster_id.clone(),
        cluster: config.cluster,
        generation,
        last: applied.id,
        time_ms: applied.time.0,
        content: rebuilt.content,
        compared: rebuilt.compared,
        policy: config.policy,
    })
}

/// Marks the directory, and removes what a restore left that was cut short.
fn begin(dir: &Path) -> Result<(), ArchiveError> {
    let local = |source| ArchiveError::Local { path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(local)?;
    let mark = dir.join(RESTORING);
    let mut left = Vec::new();
    for entry in fs::read_dir(dir).map_err(local)? {
        let path = entry.map_err(local)?.path();
        // A file system's own folder is no data.
        if path != mark && path.file_name().is_some_and(|name| name != "lost+found") {
            left.push(path);
        }
    }
    if !left.is_empty() && !mark.exists() {
        return Err(ArchiveError::NotEmpty { path: dir.to_owned() });
    }
    fs::write(&mark, b"").and_then(|()| sync_dir(dir)).map_err(local)?;
    for path in left {
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|source| ArchiveError::Local { path, source })?;
    }
    Ok(())
}

/// The entry with which the new cluster begins.
fn found(
    rebuilt: &Rebuilt,
    options: &RestoreOptions,
    disk: quorate_protocol::types::DiskId,
) -> Result<(EntryId, ClusterEntry), ArchiveError> {
    let [peer_addr, client_addr, plain_addr] = options.addresses.clone();
    let member = Member {
        node: options.node,
        disk,
        kind: MemberKind::Voter,
        peer_addr,
        client_addr,
        plain_addr,
    };
    let old = &rebuilt.config;
    let policy = if old.policy.check(1).is_ok() { old.policy } else { Policy::MAJORITY };
    let config = ClusterEntry {
        cluster: ClusterId(random(&options.data_dir)?),
        generation: Generation(old.generation.0 + 1),
        members: vec![member],
        policy,
        // Other machines may bear the old numbers now.
        removed: Vec::new(),
        tokens: Vec::new(),
        ..old.clone()
    };
    Ok((first_of_generation(Epoch::ZERO, rebuilt.applied.id), config))
}

fn write_journal(
    dir: &Path,
    config: &ClusterEntry,
    current: &Current,
    entry: Entry,
) -> Result<(), ArchiveError> {
    let path = dir.join("journal");
    let local = |source| ArchiveError::Local { path: path.clone(), source };
    let options = JournalOptions {
        cluster: config.cluster,
        generation: config.generation,
        ..JournalOptions::in_data_dir(dir)
    };
    let open = OpenJournal::open(options)?.start_after(current.preceding, current.chain)?;
    let fault = Arc::new(Mutex::new(None));
    let told = fault.clone();
    let hooks = JournalHooks::new(
        Arc::new(|| ()),
        Arc::new(move |fault: &JournalFault| *told.lock() = Some(fault.to_string())),
    );
    let journal = Journal::start(open, Incarnation(0), Branch(0), hooks).map_err(local)?;
    let queued = journal.append(Branch(0), vec![entry]);
    if !journal.stop() || queued.is_err() {
        let fault = fault.lock().take().unwrap_or_else(|| "it ended".to_owned());
        return Err(local(std::io::Error::other(fault)));
    }
    // The empty log before the snapshot was set aside, and says nothing.
    fs::remove_dir_all(dir.join("divergent")).map_err(local)
}

fn random(path: &Path) -> Result<u128, ArchiveError> {
    random_u128().map_err(|source| ArchiveError::Local { path: path.to_owned(), source })
}

/// A folder that is removed with this.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "a scratch restore stays behind");
        }
    }
}
