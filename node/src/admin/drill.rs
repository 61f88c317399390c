//! A node that breaks itself, for `quorate drill`: only the one that is named, and only where its
//! configuration or its operator allows it.

use std::process::{Command, Stdio};
use std::time::Duration;

use axum::http::StatusCode;
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answers::Broken;
use super::orders::Verdict;
use super::routes::AdminState;
use crate::failure::Failure;

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// Who is to be broken, and how.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Break {
    /// The node that is meant. It leads: leadership may have moved since it was chosen.
    pub(crate) node: u64,
    /// What is to happen.
    pub(crate) fault: Fault,
    /// Whether the operator insists where the configuration doesn't allow it.
    #[serde(default)]
    pub(crate) confirmed: bool,
}

/// How a process is broken.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fault {
    /// It ends at once, as by SIGKILL.
    Kill,
    /// It stands still for so many milliseconds, as by SIGSTOP.
    Pause(u64),
}

/// Does it. A node that is killed gives no answer, and one that is paused a late one.
pub(super) async fn break_here(state: &AdminState, actor: &str, order: Break) -> Verdict {
    let own = state.node.view().node.0;
    if order.node != own {
        let error = format!("node {} was to be broken, and node {own} leads", order.node);
        return Verdict::refused(StatusCode::CONFLICT, error);
    }
    if !state.drill_allowed && !order.confirmed {
        let error = format!(
            "node.drill_allowed is not set in the configuration of node {own}: nothing is broken \
             here unless you insist (--yes)"
        );
        return Verdict::refused(StatusCode::FORBIDDEN, error);
    }
    // Nothing can be recorded afterwards.
    tracing::warn!(
        event = "control", order = "drill", actor, outcome = "allowed", fault = ?order.fault,
        "this node breaks itself for a drill"
    );
    let broken = match order.fault {
        Fault::Kill => kill(Pid::this(), Signal::SIGKILL).map_err(std::io::Error::from),
        Fault::Pause(ms) => pause(Duration::from_millis(ms).min(PAUSE_MAX)).await,
    };
    match broken {
        Ok(()) => Verdict::done(Broken { broken: true }),
        Err(error) => Verdict::refused(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

/// A process that stands still can't wake itself: another one does.
async fn pause(length: Duration) -> std::io::Result<()> {
    let waker = Command::new("/proc/self/exe")
        .args(["resume", &Pid::this().to_string(), &length.as_millis().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut waker = waker?;
    raise(Signal::SIGSTOP)?;
    let ended = tokio::task::spawn_blocking(move || waker.wait()).await;
    ended.map_err(std::io::Error::other)?.map(|_| ())
}

/// Lets the process that started this one go on after so long.
pub(crate) fn resume(pid: i32, after: Duration) -> Result<(), Failure> {
    std::thread::sleep(after.min(PAUSE_MAX));
    let pid = Pid::from_raw(pid);
    if Pid::parent() != pid {
        return Err(Failure::Usage(format!("process {pid} did not start this one")));
    }
    kill(pid, Signal::SIGCONT).map_err(|error| Failure::failed("SIGCONT", error))
}
