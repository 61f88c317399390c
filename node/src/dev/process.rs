//! One node's process: a child of this one, or one that was started by hand.

use std::fs::OpenOptions;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::failure::Failure;

/// A node's process, where there is one.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    id: u16,
    dir: PathBuf,
    config: PathBuf,
    running: Running,
}

/// How the process came to be.
#[derive(Debug)]
enum Running {
    No,
    Child(Child),
    ByHand(Pid),
}

/// A process that ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// The node's number.
    pub(super) id: u16,
    /// Its exit code or the signal.
    pub(super) how: String,
}

impl NodeProcess {
    /// A node that isn't known to run.
    pub(super) fn new(id: u16, dir: PathBuf, config: PathBuf) -> Self {
        Self { id, dir, config, running: Running::No }
    }

    /// The node's number.
    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    /// Its process id, for people.
    pub(super) fn pid_text(&self) -> String {
        self.pid().map_or_else(|| "none".to_owned(), |pid| pid.to_string())
    }

    /// Starts it as a child, in a process group of its own: Ctrl-C in the terminal reaches
    /// `quorate dev`, which then stops the nodes in order.
    pub(crate) fn spawn(&mut self) -> Result<(), Failure> {
        let failed =
            |error: std::io::Error| Failure::failed(format_args!("node-{}", self.id), error);
        let program = std::env::current_exe().map_err(failed)?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .map_err(failed)?;
        let mut command = Command::new(program);
        command.args(["start", "--config"]).arg(&self.config);
        for (name, _) in std::env::vars_os() {
            // An override meant for one node would reach all of them.
            if name.to_string_lossy().starts_with("QUORATE_") {
                command.env_remove(name);
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        self.running = Running::Child(child);
        Ok(())
    }

    /// Looks for a process that runs this node, where none is known.
    pub(crate) fn adopt(&mut self) -> bool {
        if self.is_running() {
            return true;
        }
        match running_by_pid_file(&self.dir.join("pid"), &self.config) {
            Some(pid) => {
                self.running = Running::ByHand(pid);
                true
            }
            None => false,
        }
    }

    /// Whether a process runs the node.
    pub(super) fn is_running(&mut self) -> bool {
        let _ = self.has_ended();
        !matches!(self.running, Running::No)
    }

    /// Says once that the process has ended.
    pub(super) fn has_ended(&mut self) -> Option<Ended> {
        let how = match &mut self.running {
            Running::No => return None,
            Running::Child(child) => match child.try_wait() {
                Ok(None) => return None,
                Ok(Some(status)) => describe(status),
                Err(error) => error.to_string(),
            },
            Running::ByHand(pid) if runs(*pid, &self.config) => return None,
            Running::ByHand(_) => "ended".to_owned(),
        };
        self.running = Running::No;
        Some(Ended { id: self.id, how })
    }

    /// Asks it to stop in order.
    pub(crate) fn terminate(&mut self) {
        // It may end at this very moment, which is what is wanted.
        self.signal(Signal::SIGTERM);
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
    }

    fn signal(&mut self, signal: Signal) {
        if let (true, Some(pid)) = (self.is_running(), self.pid()) {
            let _ = kill(pid, signal);
        }
    }

    fn pid(&self) -> Option<Pid> {
        match &self.running {
            Running::No => None,
            Running::Child(child) => i32::try_from(child.id()).ok().map(Pid::from_raw),
            Running::ByHand(pid) => Some(*pid),
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "stopped".to_owned(),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(number)) => {
            let name = Signal::try_from(number).map_or("unknown signal", Signal::as_str);
            format!("killed by {name}")
        }
        (None, None) => "ended".to_owned(),
    }
}

fn running_by_pid_file(pid_file: &Path, config: &Path) -> Option<Pid> {
    let pid = std::fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    let pid = Pid::from_raw(pid);
    runs(pid, config).then_some(pid)
}

/// Whether this process was started with this configuration: process ids are used again.
fn runs(pid: Pid, config: &Path) -> bool {
    let proc_dir = PathBuf::from(format!("/proc/{pid}"));
    let Ok(arguments) = std::fs::read(proc_dir.join("cmdline")) else { return false };
    let Ok(folder) = std::fs::read_link(proc_dir.join("cwd")) else { return false };
    arguments.split(|byte| *byte == 0).filter(|argument| !argument.is_empty()).any(|argument| {
        let argument = String::from_utf8_lossy(argument);
        let argument = argument.strip_prefix("--config=").unwrap_or(&argument);
        folder.join(argument).canonicalize().is_ok_and(|path| path == config)
    })
}
