//! Opening everything that a node keeps but its state, in the one order that is safe.
//!
//! Directory and lock; hard state as the last life left it; journal, repaired and synced; hard
//! state of this life, synced; and at a first start, last, the identity. A crash before that last
//! step leaves a directory without identity and without history, which is made anew. A directory
//! without identity that has a history has lost it.

use std::path::PathBuf;

use quorate_protocol::core::HardState;
use quorate_protocol::types::{ClusterId, EntryId, Epoch, Generation, Incarnation};

use super::data_dir::{DataDir, DataDirError, DataDirOptions};
use crate::storage::hardstate::{
    BootEvidence, BootId, HardStateError, HardStateFile, MemoryTail, NodeHardState, decide_boot,
};
use crate::storage::journal::{JournalOptions, OpenError, OpenJournal};

/// What a node's storage is opened with.
#[derive(Clone, Debug)]
pub struct StartOptions {
    /// The directory and whose it is.
    pub dir: DataDirOptions,
    /// The journal's sizes. Its folders, identity and history are filled in here.
    pub journal: JournalOptions,
    /// A folder that outlives the process and not the machine, for the record that tells a kill
    /// from a power cut; usually `/dev/shm`.
    pub witness_dir: Option<PathBuf>,
}

/// A node's storage, opened; its hard state speaks of this life and is durable.
#[derive(Debug)]
pub struct OpenStorage {
    /// The directory; dropping it gives up the lock.
    pub dir: DataDir,
    /// Everything in it is synced. Look at its damage before anything else (S6).
    pub journal: OpenJournal,
    /// Incarnation, epoch, vote and memory-loss flag of this life.
    pub hard: HardStateFile,
    /// Whether the directory was made now.
    pub first_start: bool,
}

/// Why a node's storage can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// Hard state.
    #[error(transparent)]
    HardState(#[from] HardStateError),
    /// The journal's segments are another cluster's.
    #[error(
        "data directory {path} belongs to cluster {identity}, but its journal to cluster {journal}",
        path = path.display()
    )]
    ForeignCluster {
        /// The directory.
        path: PathBuf,
        /// As the identity says.
        identity: ClusterId,
        /// As the newest segment says.
        journal: ClusterId,
    },
}

impl OpenStorage {
    /// Opens or makes a node's storage.
    ///
    /// # Errors
    /// [`StartError`]: each names what to do.
    pub fn open(options: StartOptions) -> Result<Self, StartError> {
        let mut dir = DataDir::open(&options.dir)?;
        let io = |path: PathBuf| move |source| DataDirError::Io { path, source };
        let path = dir.path().to_owned();
        let boot = BootId::current().map_err(io("/proc/sys/kernel/random/boot_id".into()))?;
        let has_hard_state = HardStateFile::exists(&path).map_err(io(path.clone()))?;
        let known = dir.is_complete() || has_hard_state;
        let hard = known.then(|| HardStateFile::load(&path)).transpose();
        // Both slots of a first start may have been cut short.
        let hard = match hard {
            Err(HardStateError::DiskLoss { .. }) if !dir.is_complete() => None,
            hard => hard?,
        };
        let journal = OpenJournal::open(journal_options(&dir, hard.as_ref(), options))?;
        check_cluster(&dir, &journal)?;
        let first_start = !dir.is_complete();
        let hard = match hard {
            Some(mut hard) if !first_start => {
                let next = next_life(&hard.state(), &journal, boot);
                hard.write(next).map_err(io(path))?;
                hard
            }
            hard => {
                let used = hard.is_some_and(|hard| hard.state().core.epoch > Epoch::ZERO);
                if used || journal.recovered().last != EntryId::ZERO {
                    let path = path.join("identity");
                    return Err(DataDirError::Damaged { path }.into());
                }
                let hard = HardStateFile::create(&path, first_life(boot))?;
                dir.complete()?;
                hard
            }
        };
        Ok(Self { dir, journal, hard, first_start })
    }
}

fn journal_options(
    dir: &DataDir,
    hard: Option<&HardStateFile>,
    options: StartOptions,
) -> JournalOptions {
    JournalOptions {
        dir: dir.path().join("journal"),
        divergent: dir.path().join("divergent"),
        cluster: dir.identity().cluster.unwrap_or_default(),
        generation: hard.map_or(Generation(0), |hard| hard.state().generation),
        witness: options.witness_dir.map(|folder| dir.witness_path(&folder)),
        must_exist: dir.is_complete(),
        ..options.journal
    }
}

fn check_cluster(dir: &DataDir, journal: &OpenJournal) -> Result<(), StartError> {
    match (dir.identity().cluster, journal.recovered().cluster) {
        (Some(identity), Some(journal)) if identity != journal => {
            let path = dir.path().to_owned();
            Err(StartError::ForeignCluster { path, identity, journal })
        }
        (_, _) => Ok(()),
    }
}

fn next_life(last: &NodeHardState, journal: &OpenJournal, boot: BootId) -> NodeHardState {
    let recovered = journal.recovered();
    let memory = if recovered.witnessed == Some(last.incarnation) {
        MemoryTail::Covered
    } else {
        MemoryTail::Unknown
    };
    let tail_short = recovered.damage.is_some();
    decide_boot(last, &BootEvidence { boot, tail_short, memory })
}

fn first_life(boot: BootId) -> NodeHardState {
    NodeHardState {
        core: HardState::default(),
        incarnation: Incarnation(1),
        generation: Generation(0),
        boot,
        clean: false,
        io_error: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::scratch::Scratch;
    use quorate_protocol::types::{Branch, NodeId};
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use crate::storage::journal::{Journal, JournalHooks};

    fn options(scratch: &Scratch) -> StartOptions {
        let path = scratch.path().join("data");
        let witness_dir = scratch.path().join("shm");
        fs::create_dir_all(&witness_dir).expect("it can be made");
        StartOptions {
            dir: DataDirOptions { path: path.clone(), node: NodeId(1), allow_volatile: true },
            journal: JournalOptions {
                segment_bytes: 64 << 10,
                ..JournalOptions::in_data_dir(&path)
            },
            witness_dir: Some(witness_dir),
        }
    }

    fn open(scratch: &Scratch) -> Result<OpenStorage, StartError> {
        OpenStorage::open(options(scratch))
    }

    /// Lives until the point where the journal runs, and ends without a stop.
    fn live(scratch: &Scratch) -> NodeHardState {
        let storage = open(scratch).expect("it opens");
        let hooks = JournalHooks::new(Arc::new(|| ()), Arc::new(|fault| panic!("{fault}")));
        let state = storage.hard.state();
        let journal = Journal::start(storage.journal, state.incarnation, Branch(1), hooks);
        assert!(journal.expect("it starts").stop());
        state
    }

    fn remove(scratch: &Scratch, name: &str) {
        fs::remove_file(scratch.path().join("data").join(name)).expect("it was there");
    }

    #[test]
    fn each_life_has_its_own_incarnation_and_a_kill_loses_no_memory() {
        let scratch = Scratch::new();
        for life in 1..5 {
            let state = live(&scratch);
            assert_eq!(state.incarnation, Incarnation(life));
            assert!(!state.core.memory_loss);
            assert_eq!(state.boot, BootId::current().expect("there is one"));
        }
    }

    #[test]
    fn a_life_without_a_record_counts_as_a_loss_of_memory_until_it_is_cleared() {
        let scratch = Scratch::new();
        live(&scratch);
        for record in fs::read_dir(scratch.path().join("shm")).expect("it is there") {
            fs::remove_file(record.expect("it is there").path()).expect("it can be removed");
        }
        assert!(live(&scratch).core.memory_loss);
        assert!(live(&scratch).core.memory_loss, "a plain restart doesn't clear it");
    }

    #[test]
    fn a_first_start_cut_short_anywhere_is_a_first_start_again() {
        let scratch = Scratch::new();
        drop(open(&scratch).expect("it opens"));
        for lost in [
            &["identity"][..],
            &["identity", "hardstate.b"],
            &["identity", "hardstate.a", "hardstate.b"],
            &["identity", "hardstate.a", "hardstate.b", "journal/00000000000000000001.qj"],
        ] {
            let copy = scratch.crashed();
            for name in lost {
                remove(&copy, name);
            }
            let storage = open(&copy).unwrap_or_else(|error| panic!("{lost:?}: {error}"));
            assert!(storage.first_start);
            assert_eq!(storage.hard.state().incarnation, Incarnation(1));
        }
    }

    #[test]
    fn lost_files_are_never_taken_for_a_first_start() {
        let scratch = Scratch::new();
        let mut storage = open(&scratch).expect("it opens");
        let mut state = storage.hard.state();
        state.core.epoch = Epoch(1);
        storage.hard.write(state).expect("it is written");
        drop(storage);
        let copy = scratch.crashed();
        remove(&copy, "identity");
        let error = open(&copy).expect_err("its identity is lost");
        assert!(matches!(error, StartError::DataDir(DataDirError::Damaged { .. })), "{error}");
        let copy = scratch.crashed();
        remove(&copy, "hardstate.a");
        remove(&copy, "hardstate.b");
        let error = open(&copy).expect_err("its hard state is lost");
        assert!(matches!(error, StartError::HardState(HardStateError::DiskLoss { .. })), "{error}");
        let copy = scratch.crashed();
        remove(&copy, "journal/00000000000000000001.qj");
        let storage = open(&copy).expect("damage is for the caller to judge");
        assert!(storage.journal.recovered().damage.is_some());
    }

    #[test]
    fn a_journal_of_another_cluster_is_refused() {
        let (ours, theirs) = (Scratch::new(), Scratch::new());
        for (scratch, cluster) in [(&ours, 5), (&theirs, 6)] {
            let mut storage = open(scratch).expect("it opens");
            storage.dir.set_cluster(ClusterId(cluster)).expect("it is written");
            let hooks = JournalHooks::new(Arc::new(|| ()), Arc::new(|fault| panic!("{fault}")));
            let journal = Journal::start(storage.journal, Incarnation(1), Branch(1), hooks)
                .expect("it starts");
            journal.identify(ClusterId(cluster), Generation(0)).expect("there is room");
            let chain = quorate_protocol::types::Chain(1);
            let id = EntryId::new(Epoch(1), quorate_protocol::types::Seq(4));
            journal.start_after(id, chain, Branch(2)).expect("there is room");
            assert!(journal.stop());
        }
        let segment = Path::new("data/journal/00000000000000000005.qj");
        fs::copy(theirs.path().join(segment), ours.path().join(segment)).expect("it is there");
        let error = open(&ours).expect_err("the journal isn't ours");
        assert!(matches!(error, StartError::ForeignCluster { .. }), "{error}");
    }
}
