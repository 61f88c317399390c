//! The thread that makes, sends, receives and installs snapshots, on a runtime of its own.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
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
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use super::fetch::Dialled;
use super::fetch::{Fetch, FetchError};
use super::receiving::{Receiving, remove};
use super::serve::{Pace, Served, blocking, serve};
use super::source::{Made, Source};
use super::stats::SnapshotStats;
use super::successor::Successor;
use crate::divergence::{ChainWatch, Chains, Divergence, Doubt, Suspicion};
use crate::health::Health;
use crate::metrics::{ChainMetrics, ScrubMetrics};
use crate::orders::{Ask, OrderDesk, OrderInbox, Reception, carry, receive};
use crate::replication::{BulkDialler, Knock, TlsMaterial, answer_join};
use crate::scrub::{Examiner, ScrubOrder, ScrubReply, ScrubRun, Scrubber};
use crate::storage::JournalHold;
use crate::storage::apply::ApplyHandle;
use crate::storage::identity::Current;
use crate::storage::journal::JournalReader;
use crate::storage::state::StateReader;
use crate::view::{Published, Role};
use crate::wake::Wake;

/// Connections that are served at once: transfers, scrubs and orders.
const CONNECTIONS_MAX: usize = 12;
/// Nodes that join whose requests are served at once. Each has deadlines of seconds.
const JOINS_MAX: usize = 8;
/// Orders that are on their way to other nodes at once.
const ORDERS_MAX: usize = 16;
/// Attempts to connect that wait to be answered.
const KNOCKS_MAX: usize = 8;
/// Threads for disks: one that makes a snapshot, one that sends or receives, one that compares.
const BLOCKING_THREADS_MAX: usize = 3;

/// Between two questions which log is right, on a node that takes part in nothing until it knows.
const DOUBT_PERIOD: Duration = Duration::from_secs(1);

/// In the data directory: when this node was last examined by a scrub.
const SCRUB_STAMP: &str = "SCRUBBED";

/// How often it is looked whether a snapshot is still asked for, and a scrub due.
const EXPIRE_PERIOD: Duration = Duration::from_secs(5);

/// Between two attempts to fetch: doubled from the first to the second.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);

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
    fetched: Arc<Mutex<VecDeque<Snapshot>>>,
    stats: Arc<SnapshotStats>,
    installed: Arc<Notify>,
    scrubber: Scrubber,
    orders: OrderDesk,
    tls: Arc<ArcSwap<TlsMaterial>>,
    bytes_per_second: Arc<AtomicU64>,
    divergence: Arc<Divergence>,
    successor: Arc<Successor>,
    succession: mpsc::Sender<()>,
}

/// The core needs a snapshot.
struct Wanted {
    from: NodeId,
    address: SocketAddr,
    above: EntryId,
    naming: Option<(NodeId, DiskId)>,
}

/// What the core says of the one that was fetched.
enum Decision {
    Install,
    Discard,
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
        let hold = worker.served.source.hold.clone();
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

/// What the thread owns.
struct Worker {
    data_dir: PathBuf,
    receiving_dir: PathBuf,
    listen: SocketAddr,
    cluster_name: String,
    served: Arc<Served>,
    wake: Arc<Wake>,
    handle: SnapshotHandle,
    /// With the certificates that it dials by.
    dialler: Option<(Arc<TlsMaterial>, Arc<BulkDialler>)>,
    fetching: JoinSet<Result<Receiving, FetchError>>,
    received: Option<Receiving>,
    published: Arc<Published>,
    scrub_metrics: ScrubMetrics,
    /// Zero is never.
    scrub_period: Duration,
    scrubbing: JoinSet<()>,
    asking: JoinSet<()>,
    chain_watch: Arc<ChainWatch>,
    /// Zero is never.
    chain_period: Duration,
    comparing: JoinSet<()>,
    succeeding: JoinSet<()>,
    not_before: Instant,
    backoff: Duration,
}

/// What reaches the thread.
struct Queues {
    asked: mpsc::Receiver<Wanted>,
    decided: mpsc::Receiver<Decision>,
    scrubs: mpsc::Receiver<ScrubOrder>,
    asks: mpsc::Receiver<Ask>,
    successions: mpsc::Receiver<()>,
    knocks: mpsc::Receiver<Knock>,
}

impl Worker {
    fn new(
        parts: SnapshotParts,
        handle: &SnapshotHandle,
        stopping: &Arc<AtomicBool>,
        orders: Reception,
    ) -> Self {
        let dir = parts.data_dir.join("snapshots");
        let stamp = parts.data_dir.join(SCRUB_STAMP);
        let (state, scratch) = (parts.state.clone(), dir.join("scrub"));
        let examiner = Examiner::new(state, parts.apply, scratch, stamp);
        let published = parts.published.clone();
        let receiving_dir = dir.join("receiving");
        let chains = Arc::new(Chains {
            journal: parts.journal.clone(),
            state: parts.state.clone(),
            published: published.clone(),
        });
        let source = Source {
            dir,
            state: parts.state,
            journal: parts.journal,
            published: parts.published,
            hold: Arc::default(),
            stats: handle.stats.clone(),
            stopping: stopping.clone(),
            made: Mutex::new(Made::Nothing),
        };
        let DivergenceParts { node, period, suspicion, doubt, metrics } = parts.divergence;
        let chain_period = if doubt.is_some() { DOUBT_PERIOD } else { period };
        let chain_watch = ChainWatch {
            node,
            published: published.clone(),
            chains: chains.clone(),
            suspicion,
            metrics,
            doubt,
            told: handle.divergence.clone(),
        };
        Self {
            data_dir: parts.data_dir,
            receiving_dir,
            listen: parts.listen,
            cluster_name: parts.cluster_name,
            served: Arc::new(Served {
                source: Arc::new(source),
                pace: Pace::new(handle.bytes_per_second.clone()),
                examiner,
                chains,
                health: parts.health,
                orders,
            }),
            wake: parts.wake,
            handle: handle.clone(),
            dialler: None,
            fetching: JoinSet::new(),
            received: None,
            published,
            scrub_metrics: parts.scrub_metrics,
            scrub_period: parts.scrub_period,
            scrubbing: JoinSet::new(),
            asking: JoinSet::new(),
            chain_watch: Arc::new(chain_watch),
            chain_period,
            comparing: JoinSet::new(),
            succeeding: JoinSet::new(),
            not_before: Instant::now(),
            backoff: RETRY_MIN,
        }
    }

    async fn run(mut self, queues: Queues, mut stop: oneshot::Receiver<()>) {
        let Queues { mut asked, mut decided, mut scrubs, mut asks, mut successions, mut knocks } =
            queues;
        let mut serving = JoinSet::new();
        let mut joining = JoinSet::new();
        let mut expire = tokio::time::interval(EXPIRE_PERIOD);
        let compares = !self.chain_period.is_zero();
        let mut compare = tokio::time::interval(self.chain_period.max(EXPIRE_PERIOD / 5));
        compare.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = &mut stop => return,
                Some(decision) = decided.recv() => self.carry_out(decision).await,
                Some(wanted) = asked.recv() => self.want(wanted),
                Some(fetched) = self.fetching.join_next() => self.fetched(fetched),
                Some(knock) = knocks.recv(), if joining.len() < JOINS_MAX => {
                    if knock.joins() {
                        joining.spawn(answer_join(knock, self.served.orders.joins()));
                        continue;
                    }
                    // Beyond the limit it is refused by being dropped; the other side comes again.
                    if serving.len() < CONNECTIONS_MAX {
                        serving.spawn(serve(knock, self.served.clone()));
                    }
                }
                Some(ended) = serving.join_next() => pass_panic_on(ended),
                Some(ended) = joining.join_next() => pass_panic_on(ended),
                Some(ScrubOrder { repair, reply }) = scrubs.recv(), if self.scrubbing.is_empty() => {
                    self.scrub(repair, Some(reply));
                }
                Some(ended) = self.scrubbing.join_next() => pass_panic_on(ended),
                Some(ask) = asks.recv(), if self.asking.len() < ORDERS_MAX => {
                    let dialler = self.dialler();
                    self.asking.spawn(carry(ask, dialler));
                }
                Some(ended) = self.asking.join_next() => pass_panic_on(ended),
                Some(()) = successions.recv(), if self.succeeding.is_empty() => self.find_successor(),
                Some(ended) = self.succeeding.join_next() => pass_panic_on(ended),
                _ = expire.tick() => {
                    self.served.source.expire();
                    self.scrub_if_due();
                }
                _ = compare.tick(), if compares && self.comparing.is_empty() => self.compare(),
                Some(ended) = self.comparing.join_next() => pass_panic_on(ended),
            }
        }
    }

    fn want(&mut self, wanted: Wanted) {
        if let Err(error) = self.fetch(wanted) {
            tracing::error!(%error, "snapshots can't be fetched");
            self.retry_later();
        }
    }

    async fn carry_out(&mut self, decision: Decision) {
        match decision {
            Decision::Install => self.install().await,
            Decision::Discard => {
                if self.received.take().is_some()
                    && let Err(error) = remove(&self.receiving_dir)
                {
                    tracing::warn!(%error, "a snapshot of no use stays behind");
                }
                *self.handle.stats.fetching_since.lock() = None;
                self.retry_later();
            }
        }
    }

    fn fetch(&mut self, wanted: Wanted) -> Result<(), String> {
        let Wanted { from, address, above, naming } = wanted;
        let busy = !self.fetching.is_empty() || self.received.is_some();
        if busy || Instant::now() < self.not_before {
            return Ok(());
        }
        let dialler = self.dialler()?;
        let dir = self.receiving_dir.clone();
        let stats = self.handle.stats.clone();
        stats.fetching_since.lock().get_or_insert_with(std::time::Instant::now);
        let fetch = Fetch { from, address, above, naming, dir, dialler, stats };
        self.fetching.spawn(fetch.run());
        Ok(())
    }

    fn dialler(&mut self) -> Result<Arc<BulkDialler>, String> {
        let tls = self.handle.tls.load_full();
        if let Some((used, dialler)) = &self.dialler
            && Arc::ptr_eq(used, &tls)
        {
            return Ok(dialler.clone());
        }
        let bound = BulkDialler::bind(self.listen, &self.cluster_name, &tls);
        let dialler = Arc::new(bound.map_err(|error| error.to_string())?);
        self.dialler = Some((tls, dialler.clone()));
        Ok(dialler)
    }

    fn dial(&mut self) -> Dialled {
        let dialler = self.dialler();
        Arc::new(move |node, address| {
            let dialler = dialler.clone();
            Box::pin(async move {
                dialler?.dial(node, address).await.map_err(|error| error.to_string())
            })
        })
    }

    fn compare(&mut self) {
        let (watch, dial) = (self.chain_watch.clone(), self.dial());
        self.comparing.spawn(async move { watch.look(&dial).await });
    }

    fn find_successor(&mut self) {
        let Some(config) = self.published.view().config.clone() else { return };
        let (successor, node) = (self.handle.successor.clone(), self.chain_watch.node);
        let (dial, wake) = (self.dial(), self.wake.clone());
        self.succeeding.spawn(async move {
            successor.find(node, &config, &dial).await;
            wake.wake();
        });
    }

    /// The primary's part, so that one node at most asks for it. Nodes that were examined lately,
    /// for whomever, are not due.
    fn scrub_if_due(&mut self) {
        let due = !self.scrub_period.is_zero()
            && self.scrubbing.is_empty()
            && self.published.role() == Role::Primary
            && self.served.examiner.last_examined() >= self.scrub_period;
        if due {
            tracing::info!("scrub: due by the schedule");
            self.scrub(true, None);
        }
    }

    /// One at a time.
    fn scrub(&mut self, repair: bool, reply: Option<ScrubReply>) {
        let dial = self.dial();
        let run = ScrubRun {
            published: self.published.clone(),
            examiner: self.served.examiner.clone(),
            dial,
            metrics: self.scrub_metrics.clone(),
        };
        self.scrubbing.spawn(async move {
            let outcome = run.run(repair).await;
            if let Some(reply) = reply {
                // A caller that has gone sees metrics and log.
                let _ = reply.send(outcome);
            }
        });
    }

    fn fetched(&mut self, ended: Result<Result<Receiving, FetchError>, JoinError>) {
        let receiving = match ended {
            Ok(Ok(receiving)) => receiving,
            Ok(Err(error)) => {
                tracing::warn!(%error, retry_in = ?self.backoff, "snapshot not received");
                return self.retry_later();
            }
            Err(error) => return pass_panic_on(Err(error)),
        };
        match receiving.manifest().snapshot() {
            Ok(snapshot) => {
                self.backoff = RETRY_MIN;
                self.received = Some(receiving);
                self.handle.fetched.lock().push_back(snapshot);
                self.wake.wake();
            }
            Err(error) => {
                tracing::error!(%error, "the snapshot can't be used");
                self.retry_later();
            }
        }
    }

    async fn install(&mut self) {
        let Some(receiving) = self.received.take() else { return };
        let data_dir = self.data_dir.clone();
        let installed = blocking(move || {
            receiving.install(&data_dir).map_err(|error| io::Error::other(error.to_string()))
        });
        match installed.await {
            Ok(Current { instance, preceding, .. }) => {
                tracing::info!(instance, last = %preceding, "snapshot installed: restarting");
                self.handle.installed.notify_one();
            }
            // The core waits for the switch and takes no entries: only a restart helps.
            Err(error) => {
                tracing::error!(%error, "the snapshot can't be installed: restarting");
                self.handle.installed.notify_one();
            }
        }
    }

    fn retry_later(&mut self) {
        self.not_before = Instant::now() + self.backoff;
        self.backoff = (self.backoff * 2).min(RETRY_MAX);
    }
}

/// A panic in any part ends the node.
fn pass_panic_on(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        resume_unwind(error.into_panic());
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
