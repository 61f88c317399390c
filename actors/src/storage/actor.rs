//! The storage actor: looks after journal and state, and closes them in order.
//!
//! Data doesn't pass through here. The quorum actor speaks to the journal's writer, the apply
//! loop takes its entries from the log, and connections read the state, each through handles of
//! their own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_protocol::types::Seq;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr};
use tokio::task::JoinHandle;

use super::apply::Apply;
use super::hold::JournalHold;
use super::journal::Journal;
use super::state::{StateError, StateReader};
use super::upkeep::{Positions, UpkeepOptions};
use crate::health::Health;
use crate::supervisor::spawn;

/// Speaks to the storage actor. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StorageHandle {
    actor: ActorRef<StorageMessage>,
}

/// What the actor owns from now on.
#[derive(Debug)]
pub struct StorageParts {
    /// Reads of the state.
    pub state: StateReader,
    /// The running journal.
    pub journal: Journal,
    /// The running apply thread.
    pub apply: Apply,
    /// What a replica needs of the journal that fetches a snapshot.
    pub hold: Arc<JournalHold>,
    /// Whether the disk is full.
    pub health: Arc<Health>,
    /// When to flush, what to keep.
    pub options: UpkeepOptions,
}

/// What closing achieved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StorageClosed {
    /// Everything in the journal is synced and marked.
    pub journal_synced: bool,
    /// Everything that was committed is applied and on disk.
    pub state_flushed: bool,
}

/// Why the storage didn't do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The state failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The actor is gone, or was too slow.
    #[error("the storage doesn't answer")]
    Unavailable,
}

/// Messages of the actor.
#[derive(Debug)]
pub enum StorageMessage {
    /// Time to look after things.
    Upkeep,
    /// A flush is done.
    Flushed(Result<(), StateError>),
    /// Write the state to disk now; answers with the position that is there.
    Flush(RpcReplyPort<Result<Seq, StateError>>),
    /// Finish everything and close.
    Close(RpcReplyPort<StorageClosed>),
}

#[derive(Debug)]
struct Storage;

/// Owned by the actor.
#[derive(Debug)]
struct StorageState {
    state: StateReader,
    journal: Journal,
    /// Taken when it is closed.
    apply: Option<Apply>,
    hold: Arc<JournalHold>,
    health: Arc<Health>,
    options: UpkeepOptions,
    /// The flush that runs now, if one does.
    flush: Option<JoinHandle<()>>,
    /// Since when the state has held something that isn't on disk.
    unflushed_since: Option<Instant>,
}

impl StorageHandle {
    /// Starts the actor, linked to `supervisor` where there is one: if the state can't be kept on
    /// disk, the actor fails and the node ends.
    ///
    /// # Errors
    /// When the actor can't be started.
    pub async fn spawn(
        parts: StorageParts,
        supervisor: Option<ActorCell>,
    ) -> Result<Self, SpawnErr> {
        let actor = spawn(supervisor, Storage, parts).await?;
        Ok(Self { actor })
    }

    /// Writes the state to disk now. The position that is returned is what a restart would find.
    ///
    /// # Errors
    /// RocksDB's, or no answer before the deadline.
    pub async fn flush(&self, deadline: Duration) -> Result<Seq, StorageError> {
        let answer = self.actor.call(StorageMessage::Flush, Some(deadline)).await;
        match answer.map_err(|_| StorageError::Unavailable)? {
            ractor::rpc::CallResult::Success(flushed) => Ok(flushed?),
            ractor::rpc::CallResult::Timeout | ractor::rpc::CallResult::SenderError => {
                Err(StorageError::Unavailable)
            }
        }
    }

    /// Syncs the journal, applies what is committed, flushes the state, ends RocksDB's background
    /// work, and stops the actor. What isn't done by the deadline is reported as not done, and
    /// goes on in the background: the process may exit all the same.
    pub async fn close(&self, deadline: Duration) -> StorageClosed {
        let answer = self.actor.call(StorageMessage::Close, Some(deadline)).await;
        match answer {
            Ok(ractor::rpc::CallResult::Success(closed)) => closed,
            Ok(ractor::rpc::CallResult::Timeout | ractor::rpc::CallResult::SenderError)
            | Err(_) => StorageClosed::default(),
        }
    }

    /// The actor, for its supervisor.
    #[must_use]
    pub fn cell(&self) -> ActorCell {
        self.actor.get_cell()
    }
}

impl Actor for Storage {
    type Msg = StorageMessage;
    type State = StorageState;
    type Arguments = StorageParts;

    async fn pre_start(
        &self,
        myself: ActorRef<StorageMessage>,
        parts: StorageParts,
    ) -> Result<StorageState, ActorProcessingErr> {
        myself.send_after(parts.options.period, || StorageMessage::Upkeep);
        Ok(StorageState {
            state: parts.state,
            journal: parts.journal,
            apply: Some(parts.apply),
            hold: parts.hold,
            health: parts.health,
            options: parts.options,
            flush: None,
            unflushed_since: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<StorageMessage>,
        message: StorageMessage,
        state: &mut StorageState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            StorageMessage::Upkeep => state.look_after(&myself)?,
            StorageMessage::Flushed(outcome) => {
                state.flush = None;
                match outcome {
                    // The state stands still, and can be read. The disk watch ends the node once
                    // there is space and RocksDB doesn't go on.
                    Err(error) if error.is_lack_of_space() => state.health.report(&error),
                    outcome => outcome?,
                }
            }
            StorageMessage::Flush(reply) => state.flush_now(reply),
            StorageMessage::Close(reply) => state.close(&myself, reply),
        }
        Ok(())
    }
}

impl StorageState {
    /// Starts a flush or trims the journal where that is due.
    fn look_after(&mut self, myself: &ActorRef<StorageMessage>) -> Result<(), StateError> {
        let at = |segments| -> Result<Positions<'_>, StateError> {
            let applied = self.state.applied()?.id.seq;
            let flushed = self.state.flushed()?.id.seq;
            Ok(Positions { segments, applied, flushed, held: self.hold.first() })
        };
        let segments = self.journal.reader().sizes();
        let at = at(&segments)?;
        let full = self.health.view().disk_full;
        let options = if full { self.options.when_disk_is_full() } else { self.options };
        if at.applied == at.flushed {
            self.unflushed_since = None;
        }
        if at.applied > at.flushed && self.unflushed_since.is_none() {
            self.unflushed_since = Some(Instant::now());
        }
        let unflushed_for = self.unflushed_since.map_or(Duration::ZERO, |since| since.elapsed());
        if self.flush.is_none() && options.flush_is_due(at, unflushed_for) {
            // What is applied meanwhile counts from now on.
            self.unflushed_since = None;
            let (state, myself) = (self.state.clone(), myself.clone());
            self.flush = Some(tokio::task::spawn_blocking(move || {
                let outcome = state.flush();
                // Nobody is there to learn of it during a stop.
                let _ = myself.send_message(StorageMessage::Flushed(outcome));
            }));
        }
        if let Some(below) = options.trim_below(at) {
            // A full queue is no reason to worry: it is asked again at the next time.
            let _ = self.journal.trim(below);
        }
        myself.send_after(self.options.period, || StorageMessage::Upkeep);
        Ok(())
    }

    fn flush_now(&self, reply: RpcReplyPort<Result<Seq, StateError>>) {
        let state = self.state.clone();
        tokio::task::spawn_blocking(move || {
            let flushed = state.flush().and_then(|()| Ok(state.flushed()?.id.seq));
            let _ = reply.send(flushed);
        });
    }

    /// On a thread of its own: a stalled disk must not hold up the runtime.
    fn close(&mut self, myself: &ActorRef<StorageMessage>, reply: RpcReplyPort<StorageClosed>) {
        let (state, journal) = (self.state.clone(), self.journal.clone());
        let (apply, myself) = (self.apply.take(), myself.clone());
        tokio::task::spawn_blocking(move || {
            // The journal first: with it, all else can be made up for by the next start.
            let journal_synced = journal.stop();
            let applied = apply.and_then(Apply::stop).is_some();
            let flushed = state.flush().inspect_err(|error| {
                tracing::warn!(%error, "the state can't be flushed; the journal has it");
            });
            state.stop_background_work();
            let closed =
                StorageClosed { journal_synced, state_flushed: applied && flushed.is_ok() };
            let _ = reply.send(closed);
            myself.stop(None);
        });
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_protocol::command::batch::Encoder;
    use quorate_protocol::command::{Lookup, Set, SetCondition, SetExpiry, Write};
    use quorate_protocol::entry::Entry;
    use quorate_protocol::types::{
        Branch, Chain, ClusterTime, EntryId, EntryKind, Epoch, Incarnation,
    };
    use tokio::sync::mpsc;

    use super::*;
    use crate::health::{DiskOptions, LatchOptions};
    use crate::replication::LogSource;
    use crate::storage::apply::{ApplyHandle, ApplyHooks, ApplyOptions, ApplyParts};
    use crate::storage::cache::LogCache;
    use crate::storage::journal::{JournalHooks, JournalOptions, OpenJournal};
    use crate::storage::scratch::Scratch;
    use crate::storage::state::{State, tests::small};
    use crate::view::Published;

    /// Journal, state and apply loop, put together as a node does it.
    struct Node {
        storage: StorageHandle,
        journal: Journal,
        cache: Arc<LogCache>,
        apply: ApplyHandle,
        published: Arc<Published>,
        state: StateReader,
        opened_at: Seq,
        last: (EntryId, Chain),
    }

    impl Node {
        async fn start(dir: &Scratch, options: UpkeepOptions) -> Self {
            let sizes = JournalOptions {
                segment_bytes: 8 << 10,
                ..JournalOptions::in_data_dir(dir.path())
            };
            let open = OpenJournal::open(sizes).unwrap();
            let last = (open.recovered().last, open.recovered().last_chain);
            let hooks = JournalHooks::new(Arc::new(|| ()), Arc::new(|fault| panic!("{fault}")));
            let journal = Journal::start(open, Incarnation(1), Branch(0), hooks).unwrap();
            let (state, writer) = State::open(&dir.path().join("state"), &small()).unwrap();
            let cache = Arc::new(LogCache::new(1));
            let published = Published::new();
            let parts = ApplyParts {
                writer,
                log: Arc::new(LogSource { cache: cache.clone(), journal: journal.reader() }),
                published: published.clone(),
                gate: mpsc::channel(1).0,
                hooks: ApplyHooks::new(Arc::new(|_| ()), Arc::new(|fault| panic!("{fault}"))),
            };
            let apply = Apply::spawn(parts, ApplyOptions::default()).unwrap();
            apply.handle().commit(last.0.seq, None);
            let opened_at = state.applied_at_open().id.seq;
            let state = state.reader().clone();
            let (journal_, handle) = (journal.clone(), apply.handle().clone());
            let hold = Arc::default();
            let health = Health::new(LatchOptions::default(), DiskOptions::default());
            let parts =
                StorageParts { state: state.clone(), journal, apply, hold, health, options };
            let storage = StorageHandle::spawn(parts, None).await.unwrap();
            Self {
                storage,
                journal: journal_,
                cache,
                apply: handle,
                published,
                state,
                opened_at,
                last,
            }
        }

        /// Writes entries of about 1 KiB and waits until they are applied.
        async fn write(&mut self, count: u64) {
            for _ in 0..count {
                let mut encoder = Encoder::new();
                let id = EntryId::new(Epoch(1), self.last.0.seq.next());
                encoder.write(&Write::Set(Set {
                    key: Bytes::from(format!("key {}", id.seq)),
                    value: vec![b'v'; 1000].into(),
                    condition: SetCondition::Always,
                    expiry: SetExpiry::None,
                    get: false,
                }));
                let payload = encoder.finish().bytes;
                let time = ClusterTime(id.seq.0);
                let entry = Entry::seal(id, EntryKind::Commands, time, self.last.1, payload);
                self.last = (id, entry.chain);
                self.cache.push(entry.clone());
                self.journal.append(Branch(0), vec![entry]).unwrap();
            }
            self.apply.commit(self.last.0.seq, None);
            self.published.applied_through(self.last.0.seq).await;
        }
    }

    fn eager() -> UpkeepOptions {
        UpkeepOptions {
            period: Duration::from_millis(5),
            replay_bytes_max: 20 << 10,
            flush_after: Duration::from_hours(1),
            retain_bytes: 12 << 10,
            ..UpkeepOptions::default()
        }
    }

    async fn until(what: &str, mut met: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !met() {
            assert!(Instant::now() < deadline, "waited too long for {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    const DEADLINE: Duration = Duration::from_secs(20);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_growing_journal_is_flushed_away_and_a_restart_replays_the_rest() {
        let dir = Scratch::new();
        let mut node = Node::start(&dir, eager()).await;
        node.write(60).await;
        let reader = node.journal.reader();
        node.journal.roll().unwrap();
        until("the journal to be trimmed", || reader.first() > Seq(30)).await;
        assert!(node.state.flushed().unwrap().id.seq.next() >= reader.first());
        node.write(5).await;

        // Nothing may change while the files are copied.
        node.storage.cell().kill();
        node.storage.cell().wait(Some(DEADLINE)).await.unwrap();
        node.state.stop_background_work();
        assert!(node.journal.stop());
        let crashed = dir.crashed();
        let again = Node::start(&crashed, eager()).await;
        assert!(again.opened_at >= Seq(30) && again.opened_at <= Seq(65), "{}", again.opened_at);
        until("what it holds to be applied", || again.published.applied() == again.last.0.seq)
            .await;
        assert_eq!(again.state.count().unwrap(), again.last.0.seq.0);
        again.storage.close(DEADLINE).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_applied_is_flushed_after_a_while_and_on_demand() {
        let dir = Scratch::new();
        let options = UpkeepOptions { flush_after: Duration::from_millis(20), ..eager() };
        let mut node = Node::start(&dir, options).await;
        node.write(1).await;
        until("a flush", || node.state.flushed().unwrap().id.seq == Seq(1)).await;
        node.storage.close(DEADLINE).await;

        let dir = Scratch::new();
        let mut node = Node::start(&dir, eager()).await;
        node.write(1).await;
        assert_eq!(node.state.flushed().unwrap().id.seq, Seq(0));
        assert_eq!(node.storage.flush(DEADLINE).await.unwrap(), Seq(1));
        node.storage.close(DEADLINE).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn closing_leaves_nothing_to_replay() {
        let dir = Scratch::new();
        let mut node = Node::start(&dir, eager()).await;
        node.write(10).await;
        let closed = node.storage.close(DEADLINE).await;
        assert_eq!(closed, StorageClosed { journal_synced: true, state_flushed: true });
        // The actor is gone; a second call says so instead of hanging.
        assert_eq!(node.storage.close(DEADLINE).await, StorageClosed::default());
        drop(node);
        let again = Node::start(&dir.crashed(), eager()).await;
        assert_eq!((again.opened_at, again.last.0.seq), (Seq(10), Seq(10)));
        again.storage.close(DEADLINE).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_the_storage_does_can_be_watched() {
        use crate::health::{
            Disk, DiskWatch, DiskWatchParts, HealthMonitor, HealthOptions, HealthParts,
        };
        use crate::metrics::{HealthCollector, Metrics, StorageCollector, StorageSources};
        use crate::storage::apply::{Activity, Busy};

        let dir = Scratch::new();
        let mut node = Node::start(&dir, eager()).await;
        node.write(2).await;
        let metrics = Metrics::new().unwrap();
        let health = Health::new(LatchOptions::default(), DiskOptions::default());
        let sources = StorageSources {
            state: node.state.clone(),
            journal: node.journal.clone(),
            apply: node.apply.clone(),
        };
        StorageCollector::register(&metrics, sources).unwrap();
        HealthCollector::register(&metrics, health.clone()).unwrap();
        let parts = HealthParts {
            health: health.clone(),
            state: node.state.clone(),
            journal: node.journal.clone(),
            apply: node.apply.clone(),
            data_dir: dir.path().to_owned(),
        };
        // An apply loop that stands still is told, and in the end it is trouble.
        for (seconds, errors) in [(4, 0), (29, 0), (30, 1)] {
            let since = Duration::from_secs(seconds);
            parts.judge_apply(&Busy { activity: Activity::Writing, seq: Seq(3), since });
            assert_eq!(health.view().foreground_errors, errors, "after {seconds} s");
        }
        let monitor = HealthMonitor::spawn(parts, HealthOptions::default(), None).await.unwrap();
        let disk = Disk::new(dir.path(), DiskOptions::default(), 1 << 20);
        let parts = DiskWatchParts { health: health.clone(), state: node.state.clone(), disk };
        let watch = DiskWatch::spawn(parts, None).await.unwrap();
        until("a look at the disk", || health.view().disk.space.free_bytes > 0).await;
        assert!(health.view().disk.unflushed_bytes > 0, "{:?}", health.view());
        let text = metrics.render().unwrap();
        for line in [
            "quorate_state_keys 2",
            "quorate_state_flushed_seq 0",
            "quorate_journal_first_seq 1",
            "quorate_rocksdb_background_errors 0",
            "quorate_load_shed_active 0",
            "quorate_apply_stall_seconds 0",
            "quorate_state_write_stalls_total 0",
            "quorate_state_write_stall_seconds 0",
        ] {
            assert!(text.contains(line), "{line} is missing:\n{text}");
        }
        for property in ["rocksdb_memtable_bytes", "rocksdb_memtable_unflushed_bytes"] {
            assert!(!text.contains(&format!("quorate_{property} 0\n")), "{property}:\n{text}");
        }
        monitor.stop();
        watch.stop();
        node.storage.close(DEADLINE).await;
    }
}
