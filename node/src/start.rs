//! `quorate start`: one node in the foreground, from its configuration to its report.

use std::io::IsTerminal as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use quorate_actors::metrics::Metrics;
use quorate_actors::node::{Certificates, FinalBackup, NodeConfig, RunningNode};
use quorate_actors::supervisor::{ExitReason, Lifecycle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::adapter::Adapter;
use crate::admin::status::EXPIRY_WARNING_DAYS;
use crate::admin::{
    AdminState, Front, NodeView, STREAMS_MAX, StartingNode, keep_certificate, router, serve_orders,
    watch_cluster,
};
use crate::config::{self, Settings, Source};
use crate::failure::Failure;
use crate::logging::Log;
use crate::output::say;
use crate::reload::Reloader;
use crate::stop::{Stop, StopReport, Told};
use crate::{logging, notify};

/// Threads for work that reads disks: metrics, hashes, certificates.
const BLOCKING_THREADS_MAX: usize = 8;

/// A stop keeps its deadline by itself. One that hangs beyond it is given up.
const STOP_MARGIN: Duration = Duration::from_secs(3);

/// Tells a node that restarts by itself how long the snapshot took that it restarts for, in
/// milliseconds.
const INSTALL_MS: &str = "QUORATE_SNAPSHOT_INSTALL_MS";

/// How often it is looked whether a certificate is about to expire.
const EXPIRY_PERIOD: Duration = Duration::from_hours(24);

/// How long the last tasks may take to end once the node has stopped.
const LAST_TASKS_LIMIT: Duration = Duration::from_secs(2);

/// Runs the node until it is told to stop, or until it must. The flag adds to what the settings
/// say.
pub(crate) fn run(source: &Source, allow_volatile: bool) -> Result<(), Failure> {
    let lifecycle = Arc::new(Lifecycle::default());
    if let Some(ms) = std::env::var(INSTALL_MS).ok().and_then(|ms| ms.parse().ok()) {
        lifecycle.snapshot_installed(Duration::from_millis(ms));
    }
    let mut settings =
        config::resolve_checked(source).map_err(|errors| Failure::Usage(errors.to_string()))?;
    settings.node.allow_volatile |= allow_volatile;
    if let Some(version) = pretended_version() {
        settings.node.cluster_version_max = version;
    }
    let log = logging::start(&settings.log)?;
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
    let outcome = runtime.block_on(serve((source.clone(), settings, log), lifecycle));
    if let Err(failure) = &outcome {
        tracing::error!("{failure}");
    }
    // Tasks there hold the state open. RocksDB aborts the process if that is closed while the
    // process is ending.
    runtime.shutdown_timeout(LAST_TASKS_LIMIT);
    match outcome? {
        End::Stopped => Ok(()),
        End::Superseded { installed } => Err(restart(installed)),
    }
}

/// For tests of an upgrade alone: this binary acts as one that follows this cluster version.
fn pretended_version() -> Option<u32> {
    std::env::var("QUORATE_PRETEND_CLUSTER_VERSION").ok()?.parse().ok()
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
    Superseded {
        /// How long the snapshot took that replaced it.
        installed: Option<Duration>,
    },
}

/// Replaces this process's program by itself: the same binary, arguments and process id, and
/// nothing left of the old node, which is what makes the switch to a snapshot an ordinary start.
/// Returns only where that fails.
fn restart(installed: Option<Duration>) -> Failure {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "quorate".into());
    // Not the path, where an upgrade may have put another binary.
    let mut command = Command::new("/proc/self/exe");
    command.arg0(name).args(arguments).env_remove(INSTALL_MS);
    if let Some(took) = installed {
        command.env(INSTALL_MS, took.as_millis().to_string());
    }
    let error = command.exec();
    Failure::failed("the node has a new state and can't restart by itself", error)
}

async fn serve(
    (source, settings, log): (Source, Settings, Log),
    lifecycle: Arc<Lifecycle>,
) -> Result<End, Failure> {
    let Settings { node: config, pid_file, .. } = settings.clone();
    let deadline = config.timers.shutdown_deadline;
    let stop = Arc::new(Stop::default());
    let mut told = Told::new(&stop)?;
    let hangup = signal(SignalKind::hangup()).map_err(|error| Failure::failed("signals", error))?;
    announce(&config);
    // From the beginning: a node that has restarted by itself is watched already.
    let watchdog = tokio::spawn(keep_watchdog_quiet());
    let metrics = metrics_of(lifecycle.clone())?;
    // Before the node shows itself to others: a port in use is found out first. And before it
    // recovers, so that its probes are answered meanwhile.
    let starting = StartingNode::new(config.node, lifecycle.clone(), metrics.clone(), stop.clone());
    let state = admin_state(&settings, Arc::new(starting))?;
    let front = Front::serve(bind(config.admin_listen)?, router(state.clone()));
    let node = tokio::select! {
        started = RunningNode::start(config, lifecycle, metrics) => {
            started.map_err(|error| Failure::failed("the node doesn't start", error))?
        }
        by = told.overdue(deadline) => {
            return Err(Failure::Failed(format!(
                "told to stop by {by}, and recovery did not end within {deadline:?}: the next \
                 start begins it anew"
            )));
        }
    };
    let pid_file = PidFile::write(&pid_file)?;
    let (identity, reload) = (state.identity.clone(), node.reload().clone());
    let reloader = Arc::new(Reloader::new((source, settings), log, identity, reload));
    let adapter = Arc::new(Adapter::new(&node, stop.clone(), reloader.clone()));
    let state = AdminState { node: adapter, ..state };
    if let Some(inbox) = node.take_order_inbox() {
        // Ends when the node stops, which closes the inbox.
        tokio::spawn(serve_orders(state.clone(), inbox));
    }
    front.open(router(state.clone()));
    // Only now: whoever is told that the node is ready is told what it holds.
    node.ready();
    notify::notify("READY=1");
    let upkeep = upkeep(&node, state, &reloader, hangup);

    let (why, superseded) = tokio::select! {
        by = told.wait() => (by, false),
        why = node.superseded() => (why, true),
        reason = node.failure() => {
            let failure = ended_by_itself(&node, front, &reason).await;
            pid_file.remove();
            return Err(failure);
        }
    };
    tracing::info!(why, "stopping");
    if !superseded {
        notify::notify("STOPPING=1");
    }
    let installed = node.snapshots().fetching_since().map(|since| since.elapsed());
    // A second signal waits for the same stop: nothing may skip the last sync.
    let deadline = reloader.shutdown_deadline();
    let limit = deadline + STOP_MARGIN;
    let backup = if superseded { FinalBackup::Never } else { stop.final_backup() };
    let report = match tokio::time::timeout(limit, node.shutdown(deadline, backup)).await {
        Ok(report) => StopReport::of(&report),
        Err(_) => StopReport::given_up(limit),
    };
    stop.done(report.clone());
    front.close().await;
    watchdog.abort();
    upkeep.iter().for_each(JoinHandle::abort);
    pid_file.remove();
    // A restart would forget that it was told to stop meanwhile.
    if superseded && !told.was_told().await {
        // The next start proves what this one left, as after any end.
        return Ok(End::Superseded { installed });
    }
    finish(&report).map(|()| End::Stopped)
}

/// What goes on for as long as the node runs.
fn upkeep(
    node: &RunningNode,
    state: AdminState,
    reloader: &Arc<Reloader>,
    hangup: Signal,
) -> [JoinHandle<()>; 4] {
    [
        tokio::spawn(watch_cluster(state.node.clone(), state.events.clone())),
        tokio::spawn(keep_certificate(state, reloader.clone())),
        tokio::spawn(reload_on(hangup, reloader.clone())),
        tokio::spawn(warn_of_expiry(node.certificates().clone())),
    ]
}

/// What the admin port's routes share, with what stands for the node.
fn admin_state(settings: &Settings, node: Arc<dyn NodeView>) -> Result<AdminState, Failure> {
    let identity = settings.identity().map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(AdminState {
        node,
        cluster_name: settings.node.cluster.name.as_str().into(),
        public_metrics: settings.public_metrics,
        drill_allowed: settings.node.drill_allowed,
        cluster_version_max: settings.node.cluster_version_max,
        identity: Arc::new(ArcSwap::from_pointee(identity)),
        events: Arc::default(),
        event_streams: Arc::new(Semaphore::new(STREAMS_MAX)),
    })
}

fn announce(config: &NodeConfig) {
    tracing::info!(
        node = config.node.0,
        version = env!("CARGO_PKG_VERSION"),
        data_dir = %config.data_dir.display(),
        clients = %config.client.listen,
        peers = %config.peer.listen,
        admin = %config.admin_listen,
        "starting"
    );
}

fn metrics_of(lifecycle: Arc<Lifecycle>) -> Result<Metrics, Failure> {
    let metrics = Metrics::new().and_then(|metrics| {
        metrics.watch_lifecycle(lifecycle)?;
        Ok(metrics)
    });
    metrics.map_err(|error| Failure::failed("metrics", error))
}

/// Why a node that can't go on ends.
async fn ended_by_itself(node: &RunningNode, front: Front, reason: &ExitReason) -> Failure {
    if !node.published().is_removed() {
        return Failure::Failed(format!("the node can't go on: {reason}"));
    }
    // Whoever had it removed may wait for the answer at this very node.
    front.close().await;
    Failure::Removed(removed(reason))
}

/// What is left to do for a node that was removed.
fn removed(reason: &ExitReason) -> String {
    format!(
        "{reason}. Its data directory is of no use to the cluster any more; keep it or delete it"
    )
}

/// Prints what the stop achieved.
fn finish(report: &StopReport) -> Result<(), Failure> {
    let text = serde_json::to_string(report).map_err(|error| Failure::failed("report", error))?;
    tracing::info!(report = text, "stopped");
    say(text);
    report.outcome()
}

/// Reads the configuration again at each SIGHUP.
async fn reload_on(mut hangup: Signal, reloader: Arc<Reloader>) {
    while hangup.recv().await.is_some() {
        let reloader = reloader.clone();
        // It says in the log what came of it.
        let _ = tokio::task::spawn_blocking(move || reloader.reload()).await;
    }
}

/// A line in the log each day while a certificate is about to expire.
async fn warn_of_expiry(certificates: Arc<Certificates>) {
    let mut days = tokio::time::interval(EXPIRY_PERIOD);
    loop {
        days.tick().await;
        let days_left = certificates.days_left();
        if days_left < EXPIRY_WARNING_DAYS {
            tracing::warn!(days_left, "a certificate expires: replace it and reload");
        }
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
