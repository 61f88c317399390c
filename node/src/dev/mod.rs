//! `quorate dev`: a cluster of child processes on this machine, to try things on.
//!
//! - `layout`: the folder: ports, certificates, configurations.
//! - `process`: one node's process, a child or one that was started by hand.
//! - `probe`: finds out when a write succeeds.
//! - `watch`: what is told while the cluster runs.

mod layout;
mod probe;
mod process;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::{Signal, kill};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;
use crate::output::say;

pub(crate) use layout::Layout;
pub(crate) use process::NodeProcess;

use layout::Wanted;

/// How long the first write may take to succeed.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// Longer than a node's own deadline for its stop.
const STOP_DEADLINE: Duration = Duration::from_secs(40);

const POLL: Duration = Duration::from_millis(100);

/// What `quorate dev` takes.
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// How many nodes, 1 to 9; three, or as many as the directory has
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: Option<u16>,
    /// Holds certificates, configurations, data and logs; a second run resumes what it holds
    #[arg(long, default_value = "dev-cluster")]
    dir: PathBuf,
    /// Node i listens on base+i (cluster mode), base+10+i (peers), base+20+i (HTTP) and base+30+i
    /// (plain); 7400, or what the directory has
    #[arg(long, value_parser = clap::value_parser!(u16).range(1024..=65_490))]
    base_port: Option<u16>,
    /// Durability policy of a new cluster; majority, or what the directory has
    #[arg(long)]
    policy: Option<String>,
    /// Stop what runs there and delete its data first
    #[arg(long)]
    reset: bool,
    /// Stop all nodes of the directory, and start none; with --reset, delete their data
    #[arg(long, conflicts_with_all = ["nodes", "base_port", "policy"])]
    stop: bool,
}

/// Runs the cluster until it is told to stop.
pub(crate) fn run(args: DevArgs) -> Result<(), Failure> {
    if args.stop {
        stop_cluster(&args.dir)?;
        return if args.reset && args.dir.exists() { layout::clear(&args.dir) } else { Ok(()) };
    }
    let stop = stop_signal()?;
    let _lock = layout::lock(&args.dir)?;
    if args.reset {
        if let Some(layout) = Layout::find(&args.dir)? {
            stop_all(layout.processes())?;
        }
        layout::clear(&args.dir)?;
    }
    let wanted = Wanted { nodes: args.nodes, base_port: args.base_port, policy: args.policy };
    let layout = Layout::prepare(&args.dir, &wanted)?;
    let mut nodes = layout.processes();
    let outcome = start_all(&layout, &mut nodes, &stop).map(|primary| {
        if let Some(primary) = primary {
            watch::run(&layout, &mut nodes, primary, &stop);
        }
    });
    say("stopping all nodes");
    let stopped = stop_all(nodes);
    outcome.and(stopped)
}

/// Starts or adopts every node, and waits until a write succeeds. Returns the primary, or none if
/// it was told to stop first.
fn start_all(
    layout: &Layout,
    nodes: &mut [NodeProcess],
    stop: &AtomicBool,
) -> Result<Option<u16>, Failure> {
    say(format_args!(
        "{} nodes in {}, policy {}",
        nodes.len(),
        layout.dir().display(),
        layout.policy()
    ));
    for node in nodes.iter_mut() {
        if node.adopt() {
            say(format_args!("node-{} runs already (pid {})", node.id(), node.pid_text()));
        } else {
            node.spawn()?;
        }
    }
    let deadline = Instant::now() + READY_DEADLINE;
    while !stop.load(Ordering::Relaxed) {
        if let Some(node) = nodes.iter_mut().find_map(NodeProcess::has_ended) {
            return Err(Failure::Failed(format!(
                "node-{} ended while starting ({}):\n{}",
                node.id,
                node.how,
                layout.log_end(node.id)
            )));
        }
        if let Some(primary) = layout.ids().find(|id| probe::write_succeeds(layout.client(*id))) {
            announce(layout, primary);
            return Ok(Some(primary));
        }
        if Instant::now() > deadline {
            return Err(Failure::Failed(format!(
                "no write succeeded within {} s; the nodes' logs are {}/node-*/log",
                READY_DEADLINE.as_secs(),
                layout.dir().display()
            )));
        }
        std::thread::sleep(POLL);
    }
    Ok(None)
}

fn announce(layout: &Layout, primary: u16) {
    let (first, last) = (layout.client(1).port(), layout.client(layout.last()).port());
    let plain = layout.plain(primary).port();
    let admin = layout.admin(1);
    say(format_args!("cluster ready: primary node-{primary} at {}", layout.client(primary)));
    say("");
    for (command, about) in [
        (format!("redis-cli -c -p {first} SET greeting hello"), "any node, it redirects"),
        (format!("redis-cli -c -p {last} GET greeting"), ""),
        (format!("redis-cli -p {plain} GET greeting"), "the primary, without cluster mode"),
        (format!("quorate status --admin http://{admin} --watch"), ""),
        (format!("curl http://{admin}/metrics"), ""),
        (
            format!("kill -9 $(cat {}/node-{primary}/pid)", layout.shown_dir()),
            "and watch another node take over",
        ),
    ] {
        say(format_args!("  {command:<48}  {about}").to_string().trim_end());
    }
    say("");
    say("Ctrl-C stops all nodes; the same command resumes them.");
}

/// Stops the cluster in the folder: the `quorate dev` that runs it, if there is one, and every
/// node.
fn stop_cluster(dir: &Path) -> Result<(), Failure> {
    let Some(layout) = Layout::find(dir)? else { return Ok(()) };
    let deadline = Instant::now() + STOP_DEADLINE;
    let mut told = false;
    let _lock = loop {
        match (layout::lock(dir), layout::lock_holder(dir)) {
            (Ok(lock), _) => break lock,
            (Err(_), Some(holder)) if Instant::now() < deadline => {
                if !told {
                    // It holds the lock, so it lives; it stops its nodes before it ends.
                    told = kill(holder, Signal::SIGTERM).is_ok();
                }
                std::thread::sleep(POLL);
            }
            (Err(failure), _) => return Err(failure),
        }
    };
    stop_all(layout.processes())
}

/// Stops every node in order, also those that were started by hand.
fn stop_all(mut nodes: Vec<NodeProcess>) -> Result<(), Failure> {
    for node in &mut nodes {
        node.adopt();
        node.terminate();
    }
    let deadline = Instant::now() + STOP_DEADLINE;
    while nodes.iter_mut().any(NodeProcess::is_running) {
        if Instant::now() > deadline {
            let names: Vec<String> = nodes
                .iter_mut()
                .filter_map(|node| node.is_running().then(|| format!("node-{}", node.id())))
                .collect();
            return Err(Failure::Failed(format!("still running: {}", names.join(", "))));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Becomes true at the first SIGINT or SIGTERM. Later ones change nothing: the nodes are being
/// stopped in order already.
fn stop_signal() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    let seen = flag.clone();
    let failed = |error: std::io::Error| Failure::failed("signals", error);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt()).map_err(failed)?,
            signal(SignalKind::terminate()).map_err(failed)?,
        )
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async move {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    seen.store(true, Ordering::Relaxed);
                }
            });
        })
        .map_err(failed)?;
    Ok(flag)
}
