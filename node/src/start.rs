//! `quorate start`: one node in the foreground, from its configuration to its report.

use std::io::IsTerminal as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_actors::archive::{Archive, ArchiveStatus};
use quorate_actors::clock;
use quorate_actors::health::{Health, HealthView};
use quorate_actors::metrics::Metrics;
use quorate_actors::node::{RunningNode, ShutdownReport};
use quorate_actors::orders::OrderDesk;
use quorate_actors::quorum::QuorumHandle;
use quorate_actors::scrub::Scrubber;
use quorate_actors::snapshot::{SnapshotProgress, SnapshotStats};
use quorate_actors::storage::state::{CompactError, Compacted, StateReader};
use quorate_actors::storage::{Freed, MemoryRelief};
use quorate_actors::supervisor::{Phase, Supervisor};
use quorate_actors::view::Published;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::admin::{AdminState, ContentHash, NodeView, Positions, router, serve_orders};
use crate::config::{self, Settings, Source};
use crate::failure::Failure;
use crate::{logging, notify};

/// Threads for work that reads disks: metrics, hashes, certificates.
const BLOCKING_THREADS_MAX: usize = 8;

/// A stop keeps its deadline by itself. One that hangs beyond it is given up.
const STOP_MARGIN: Duration = Duration::from_secs(3);

/// How long the last tasks may take to end once the node has stopped.
const LAST_TASKS_LIMIT: Duration = Duration::from_secs(2);

/// Runs the node until it is told to stop, or until it must. The flag adds to what the settings
/// say.
pub(crate) fn run(source: &Source, allow_volatile: bool) -> Result<(), Failure> {
    let started = Instant::now();
    let mut settings =
        config::resolve_checked(source).map_err(|errors| Failure::Usage(errors.to_string()))?;
    settings.node.allow_volatile |= allow_volatile;
    logging::start(&settings.log)?;
    if let (Some(file), true) = (&settings.log.file, std::io::stderr().is_terminal()) {
        eprintln!("node {} logs to {}", settings.node.node, file.display());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(client_threads())
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("client")
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("client threads", error))?;
    let outcome = runtime.block_on(serve(settings, started));
    if let Err(failure) = &outcome {
        tracing::error!("{failure}");
    }
    // Tasks there hold the state open. RocksDB aborts the process if that is closed while the
    // process is ending.
    runtime.shutdown_timeout(LAST_TASKS_LIMIT);
    match outcome? {
        End::Stopped => Ok(()),
        End::Superseded => Err(restart()),
    }
}

/// Threads that serve clients. Consensus, journal, hard state and the apply loop have their own, and
/// take the other half of the machine: more threads here only hand connections to each other.
fn client_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2).max(1)
}

/// How a node came to its end.
enum End {
    /// It was told to.
    Stopped,
    /// Its state was replaced, or must be.
    Superseded,
}

/// Replaces this process's program by itself: the same binary, arguments and process id, and
/// nothing left of the old node, which is what makes the switch to a snapshot an ordinary start.
/// Returns only where that fails.
fn restart() -> Failure {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "quorate".into());
    // Not the path, where an upgrade may have put another binary.
    let error = Command::new("/proc/self/exe").arg0(name).args(arguments).exec();
    Failure::failed("the node has a new state and can't restart by itself", error)
}

async fn serve(settings: Settings, started: Instant) -> Result<End, Failure> {
    let failed = |error| Failure::failed("signals", error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let Settings { node: node_config, pid_file, public_metrics, .. } = settings;
    let deadline = node_config.timers.shutdown_deadline;
    let cluster_name: Arc<str> = node_config.cluster.name.as_str().into();
    tracing::info!(
        node = node_config.node.0,
        version = env!("CARGO_PKG_VERSION"),
        data_dir = %node_config.data_dir.display(),
        clients = %node_config.client.listen,
        peers = %node_config.peer.listen,
        admin = %node_config.admin_listen,
        "starting"
    );
    // From the beginning: a node that has restarted by itself is watched already.
    let watchdog = tokio::spawn(keep_watchdog_quiet());
    // Before the node shows itself to others: a port in use is found out first.
    let admin = bind(node_config.admin_listen)?;
    let node = RunningNode::start(node_config)
        .await
        .map_err(|error| Failure::failed("the node doesn't start", error))?;
    let pid_file = PidFile::write(&pid_file)?;

    let asked = Arc::new(Notify::new());
    let state = AdminState {
        node: Arc::new(Adapter::new(&node, asked.clone())),
        cluster_name,
        started,
        public_metrics,
    };
    if let Some(inbox) = node.take_order_inbox() {
        // Ends when the node stops, which closes the inbox.
        tokio::spawn(serve_orders(state.clone(), inbox));
    }
    let service = router(state).into_make_service_with_connect_info::<SocketAddr>();
    let http = tokio::spawn(async move { axum::serve(admin, service).await });
    notify::notify("READY=1");

    let (why, end) = tokio::select! {
        _ = terminate.recv() => ("SIGTERM", End::Stopped),
        _ = interrupt.recv() => ("SIGINT", End::Stopped),
        () = asked.notified() => ("an operator's request", End::Stopped),
        why = node.superseded() => (why, End::Superseded),
        reason = node.failure() => {
            pid_file.remove();
            return Err(Failure::Failed(format!("the node can't go on: {reason}")));
        }
    };
    tracing::info!(why, "stopping");
    if let End::Stopped = end {
        notify::notify("STOPPING=1");
    }
    // A second signal waits for the same stop: nothing may skip the last sync. The handlers stay
    // registered, so it doesn't kill the process either.
    let stopped = tokio::time::timeout(deadline + STOP_MARGIN, node.shutdown(deadline)).await;
    watchdog.abort();
    http.abort();
    pid_file.remove();
    if let End::Superseded = end {
        let told = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = asked.notified() => {}
            }
        };
        // A restart would forget that it was told to stop meanwhile.
        if tokio::time::timeout(Duration::ZERO, told).await.is_err() {
            // The next start proves what this one left, as after any end.
            return Ok(End::Superseded);
        }
    }
    match stopped {
        Ok(report) => finish(&report).map(|()| End::Stopped),
        Err(_) => Err(Failure::Failed(format!("the stop took longer than {deadline:?}"))),
    }
}

/// Prints what the stop achieved.
fn finish(report: &ShutdownReport) -> Result<(), Failure> {
    let ShutdownReport { journal_synced, state_flushed, clean, duration } = report;
    tracing::info!(journal_synced, state_flushed, clean, ?duration, "stopped");
    if *clean {
        Ok(())
    } else {
        Err(Failure::Failed(format!(
            "stopped without a clean mark (journal synced: {journal_synced}, state flushed: \
             {state_flushed}); the next start proves the journal's tail"
        )))
    }
}

fn bind(address: SocketAddr) -> Result<tokio::net::TcpListener, Failure> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    });
    bound.map_err(|error| Failure::failed(format_args!("admin.listen {address}"), error))
}

/// A sign of life for systemd, from the threads that serve clients: if they hang, it stops.
async fn keep_watchdog_quiet() {
    let Some(period) = notify::watchdog_period() else { return };
    let mut ticks = tokio::time::interval(period);
    loop {
        ticks.tick().await;
        notify::notify("WATCHDOG=1");
    }
}

/// The file that holds this process's id, removed when the node stops in order.
struct PidFile(PathBuf);

impl PidFile {
    /// Written beside it and renamed, so that a reader never sees half of it.
    fn write(path: &Path) -> Result<Self, Failure> {
        let beside = path.with_extension("new");
        std::fs::write(&beside, format!("{}\n", std::process::id()))
            .and_then(|()| std::fs::rename(&beside, path))
            .map_err(|error| Failure::failed(format_args!("pid file {}", path.display()), error))?;
        Ok(Self(path.to_owned()))
    }

    fn remove(self) {
        // One that stays is recognised as stale: no process of that id runs this configuration.
        let _ = std::fs::remove_file(self.0);
    }
}

/// What the admin port sees of the running node.
struct Adapter {
    published: Arc<Published>,
    supervisor: Supervisor,
    metrics: Metrics,
    state: StateReader,
    relief: MemoryRelief,
    health: Arc<Health>,
    snapshots: Arc<SnapshotStats>,
    quorum: QuorumHandle,
    scrubber: Scrubber,
    orders: OrderDesk,
    archive: Archive,
    asked: Arc<Notify>,
}

impl Adapter {
    fn new(node: &RunningNode, asked: Arc<Notify>) -> Self {
        Self {
            published: node.published().clone(),
            supervisor: node.supervisor().clone(),
            metrics: node.metrics().clone(),
            state: node.state().clone(),
            relief: node.relief().clone(),
            health: node.health().clone(),
            snapshots: node.snapshots().clone(),
            quorum: node.quorum().clone(),
            scrubber: node.scrubber().clone(),
            orders: node.orders().clone(),
            archive: node.archive().clone(),
            asked,
        }
    }
}

impl NodeView for Adapter {
    fn phase(&self) -> Phase {
        self.supervisor.phase()
    }

    fn published(&self) -> &Published {
        &self.published
    }

    fn quorum(&self) -> &QuorumHandle {
        &self.quorum
    }

    fn orders(&self) -> Option<&OrderDesk> {
        Some(&self.orders)
    }

    fn scrubber(&self) -> Option<&Scrubber> {
        Some(&self.scrubber)
    }

    fn positions(&self) -> Positions {
        Positions {
            committed: self.published.committed().0,
            acknowledgeable: self.published.acknowledgeable().0,
            applied: self.published.applied().0,
        }
    }

    fn may_read(&self) -> bool {
        self.published.may_read(clock::now())
    }

    fn health(&self) -> Arc<HealthView> {
        self.health.view()
    }

    fn archive(&self) -> Arc<ArchiveStatus> {
        self.archive.status()
    }

    fn archiver(&self) -> Option<&Archive> {
        Some(&self.archive)
    }

    fn receiving(&self) -> Option<SnapshotProgress> {
        self.snapshots.progress()
    }

    fn metrics(&self) -> Result<String, String> {
        self.metrics.render().map_err(|error| error.to_string())
    }

    fn flush(&self) -> Result<u64, String> {
        let flushed = self.state.flush().and_then(|()| self.state.flushed());
        flushed.map(|position| position.id.seq.0).map_err(|error| error.to_string())
    }

    fn compact(&self) -> Result<Compacted, CompactError> {
        self.state.compact()
    }

    fn relieve(&self) -> Freed {
        self.relief.relieve()
    }

    fn content_hash(&self) -> Result<ContentHash, String> {
        let hash = self.state.content_hash().map_err(|error| error.to_string())?;
        let hex = hash.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(ContentHash { applied_seq: hash.id.seq.0, keys: hash.keys, content_hash: hex })
    }

    fn request_shutdown(&self) {
        self.asked.notify_one();
    }
}
