//! The thread that makes, sends, receives and installs snapshots, and what others have of it.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use quorate_protocol::core::Snapshot;
use quorate_protocol::types::{DiskId, EntryId, NodeId};
use tokio::sync::{Notify, mpsc, oneshot};

use super::receiving::remove;
use super::stats::SnapshotStats;
use super::successor::Successor;
use super::worker::{Decision, Queues, Wanted, Worker};
use crate::divergence::{Divergence, Doubt, Suspicion};
use crate::health::Health;
use crate::metrics::{ChainMetrics, ScrubMetrics};
use crate::orders::{OrderDesk, OrderInbox, receive};
use crate::replication::{Knock, TlsMaterial};
use crate::scrub::Scrubber;
use crate::storage::JournalHold;
use crate::storage::apply::ApplyHandle;
use crate::storage::identity::Current;
use crate::storage::journal::JournalReader;
use crate::storage::state::StateReader;
use crate::view::Published;
use crate::wake::Wake;

/// Attempts to connect that wait to be answered.
const KNOCKS_MAX: usize = 8;
/// Threads for disks: one that makes a snapshot, one that sends or receives, one that compares.
const BLOCKING_THREADS_MAX: usize = 3;

/// How long work with disks may take to end when the node stops.
const STOP_DEADLINE: Duration = Duration::from_secs(3);

/// What the thread works with.
pub(crate) struct SnapshotParts {
    /// The node's data directory.
    pub data_dir: PathBuf,
    /// Address of the peers' endpoint: bulk is fetched through the same interface.
    pub listen: SocketAddr,
    /// Part of every node's certificate.
    pub cluster_name: String,
    /// This node's certificate.
    pub tls: TlsMaterial,
    /// The state, to make snapshots of.
    pub state: StateReader,
    /// The journal that continues them.
    pub journal: JournalReader,
    /// How far the node is.
    pub published: Arc<Published>,
    /// Most bytes sent in a second, to all others together.
    pub bytes_per_second: u64,
    /// Wakes the quorum actor.
    pub wake: Arc<Wake>,
    /// The apply loop, which pauses for a scrub.
    pub apply: ApplyHandle,
    /// What scrubs find.
    pub scrub_metrics: ScrubMetrics,
    /// This node's disk, which its orders name.
    pub disk: DiskId,
    /// Whether this node would lead.
    pub health: Arc<Health>,
    /// Between two scrubs that the primary makes by itself; zero: none.
    pub scrub_period: Duration,
    /// How the node doubts its own log.
    pub divergence: DivergenceParts,
}

/// What the comparison with other nodes' logs needs.
pub(crate) struct DivergenceParts {
    /// This node.
    pub node: NodeId,
    /// Between two comparisons; zero is never.
    pub period: Duration,
    /// Marks the node.
    pub suspicion: Arc<Suspicion>,
    /// Set where this start can't trust what it found.
    pub doubt: Option<Doubt>,
    /// What comparisons find.
    pub metrics: ChainMetrics,
}

/// What others have of the thread. Cheap to clone; no call waits.
#[derive(Clone)]
pub(crate) struct SnapshotHandle {
    wanted: mpsc::Sender<Wanted>,
    decisions: mpsc::Sender<Decision>,
    pub(super) fetched: Arc<Mutex<VecDeque<Snapshot>>>,
    pub(super) stats: Arc<SnapshotStats>,
    pub(super) installed: Arc<Notify>,
    scrubber: Scrubber,
    orders: OrderDesk,
    pub(super) tls: Arc<ArcSwap<TlsMaterial>>,
    pub(super) bytes_per_second: Arc<AtomicU64>,
    pub(super) divergence: Arc<Divergence>,
    pub(super) successor: Arc<Successor>,
    succession: mpsc::Sender<()>,
}

/// The running thread.
pub(crate) struct SnapshotService {
    thread: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    stopping: Arc<AtomicBool>,
    handle: SnapshotHandle,
    hold: Arc<JournalHold>,
    knocks: mpsc::Sender<Knock>,
    inbox: Mutex<Option<OrderInbox>>,
}

impl SnapshotHandle {
    /// Fetches a snapshot unless that is under way.
    pub(crate) fn fetch(&self, from: NodeId, address: SocketAddr, above: EntryId) {
        // A full queue is no loss: the core asks again.
        let _ = self.wanted.try_send(Wanted { from, address, above, naming: None });
    }

    /// The same for a node without a log: any snapshot will do whose configuration names it, on this
    /// disk.
    pub(crate) fn fetch_first(&self, from: NodeId, address: SocketAddr, own: (NodeId, DiskId)) {
        let (above, naming) = (EntryId::ZERO, Some(own));
        let _ = self.wanted.try_send(Wanted { from, address, above, naming });
    }

    /// A snapshot that has arrived since this was last asked.
    pub(crate) fn take_fetched(&self) -> Option<Snapshot> {
        self.fetched.lock().pop_front()
    }

    /// Puts the fetched snapshot in force; then the node must restart.
    pub(crate) fn install(&self) {
        self.decide(Decision::Install);
    }

    /// The fetched snapshot is of no use.
    pub(crate) fn discard(&self) {
        self.decide(Decision::Discard);
    }

    /// There is room: one snapshot is fetched at a time, and each is decided on once.
    fn decide(&self, decision: Decision) {
        if self.decisions.try_send(decision).is_err() {
            tracing::error!("the snapshots' thread is gone");
        }
    }

    /// Takes orders to scrub, which this thread carries out.
    pub(crate) fn scrubber(&self) -> &Scrubber {
        &self.scrubber
    }

    /// Certificates for connections from now on, and the rate of what is sent.
    pub(crate) fn configure(&self, tls: TlsMaterial, bytes_per_second: u64) {
        self.tls.store(Arc::new(tls));
        self.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Asks other nodes to do something.
    pub(crate) fn orders(&self) -> &OrderDesk {
        &self.orders
    }

    /// A voter that would lead in this node's place, by an answer that has just come. Where there is
    /// none, `ask` has all voters asked.
    pub(crate) fn successor(&self, ask: bool) -> Option<NodeId> {
        let known = self.successor.take();
        if known.is_none() && ask {
            // A full queue: they are being asked.
            let _ = self.succession.try_send(());
        }
        known
    }

    /// Who holds a different log, as of the last comparison.
    pub(crate) fn divergence(&self) -> &Arc<Divergence> {
        &self.divergence
    }

    /// Figures.
    pub(crate) fn stats(&self) -> &Arc<SnapshotStats> {
        &self.stats
    }

    /// Completes when a snapshot was put in force.
    pub(crate) fn installed(&self) -> Arc<Notify> {
        self.installed.clone()
    }
}

impl SnapshotService {
    /// Starts the thread. If it panics, `fatal` is called: the node must stop.
    ///
    /// # Errors
    /// The system can't start one.
    pub(crate) fn start(
        parts: SnapshotParts,
        fatal: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let (wanted, asked) = mpsc::channel(1);
        let (decisions, decided) = mpsc::channel(1);
        let (knocks, knocked) = mpsc::channel(KNOCKS_MAX);
        let (scrubs, scrub_orders) = mpsc::channel(1);
        let (succession, successions) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel();
        let stopping = Arc::new(AtomicBool::new(false));
        let (orders, inbox, reception, asks) = receive(parts.published.clone(), parts.disk);
        let handle = SnapshotHandle {
            wanted,
            decisions,
            fetched: Arc::default(),
            stats: Arc::default(),
            installed: Arc::default(),
            scrubber: Scrubber { orders: scrubs },
            tls: Arc::new(ArcSwap::from_pointee(parts.tls.clone())),
            bytes_per_second: Arc::new(AtomicU64::new(parts.bytes_per_second)),
            orders,
            divergence: Arc::default(),
            successor: Arc::default(),
            succession,
        };
        let worker = Worker::new(parts, &handle, &stopping, reception);
        let hold = worker.hold();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .build()?;
        let thread = std::thread::Builder::new().name("snapshots".to_owned()).spawn(move || {
            let queues =
                Queues { asked, decided, scrubs: scrub_orders, asks, successions, knocks: knocked };
            let run = worker.run(queues, stopped);
            if catch_unwind(AssertUnwindSafe(|| runtime.block_on(run))).is_err() {
                fatal();
            }
            runtime.shutdown_timeout(STOP_DEADLINE);
        })?;
        let inbox = Mutex::new(Some(inbox));
        Ok(Self { thread, stop, stopping, handle, hold, knocks, inbox })
    }

    pub(crate) fn handle(&self) -> &SnapshotHandle {
        &self.handle
    }

    /// What of the journal is needed by a replica that fetches a snapshot.
    pub(crate) fn hold(&self) -> &Arc<JournalHold> {
        &self.hold
    }

    /// Where connections go that ask for a snapshot.
    pub(crate) fn door(&self) -> mpsc::Sender<Knock> {
        self.knocks.clone()
    }

    /// What other members want done here. There is one taker.
    pub(crate) fn take_inbox(&self) -> Option<OrderInbox> {
        self.inbox.lock().take()
    }

    /// Ends transfers; what has arrived is kept.
    pub(crate) async fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Fails only when the thread has ended.
        let _ = self.stop.send(());
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the snapshots' thread ended by a panic");
        }
    }
}

/// Removes what earlier lives left: snapshots made for others, and instances of the state that are
/// not in force. What was received of a snapshot stays.
///
/// # Errors
/// As the system reports them.
pub(crate) fn remove_leftovers(data_dir: &Path, current: Option<&Current>) -> io::Result<()> {
    let state = Current::state_dir(data_dir, current);
    for dir in ["snapshots", "state"] {
        let entries = match fs::read_dir(data_dir.join(dir)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let keep = path == state || path.ends_with("snapshots/receiving");
            if !keep {
                tracing::info!(path = %path.display(), "removing what an earlier life left");
                remove(&path)?;
            }
        }
    }
    Ok(())
}
