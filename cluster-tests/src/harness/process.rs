//! One process of the real binary.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::files::binary;
use super::wait::try_poll;

/// How long a killed process may take to be gone.
const REAP_LIMIT: Duration = Duration::from_secs(10);

/// A process; it is killed when this is dropped.
#[derive(Debug)]
pub struct NodeProcess {
    child: Child,
    paused: bool,
    log: PathBuf,
}

impl NodeProcess {
    /// Starts `quorate` with these arguments; its output goes to the end of `log`.
    ///
    /// # Panics
    ///
    /// If it can't be started.
    #[must_use]
    pub fn start(arguments: &[&str], log: &Path) -> Self {
        Self::start_with(arguments, &[], log)
    }

    /// The same, with further variables in its environment.
    ///
    /// # Panics
    ///
    /// If it can't be started.
    #[must_use]
    pub fn start_with(arguments: &[&str], environment: &[(String, String)], log: &Path) -> Self {
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap_or_else(|error| panic!("open {}: {error}", log.display()));
        let errors = output.try_clone().expect("duplicate the log's handle");
        let mut command = Command::new(binary());
        // What is meant for the tests is no setting of a node's, and would be refused.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("QUORATE_") {
                command.env_remove(name);
            }
        }
        let child = command
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .expect("start the binary");
        Self { child, paused: false, log: log.to_owned() }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    /// SIGSTOP, and waits until every thread stands still: until then it may still answer.
    ///
    /// # Panics
    ///
    /// If a thread goes on.
    pub fn pause(&mut self) {
        self.signal(Signal::SIGSTOP);
        self.paused = true;
        let stopped = || all_threads_stopped(self.child.id()).then_some(());
        assert!(try_poll(REAP_LIMIT, stopped).is_some(), "SIGSTOP has not stopped every thread");
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.signal(Signal::SIGCONT);
        self.paused = false;
    }

    /// Whether it was paused and not resumed.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Panics
    ///
    /// If it has not ended within `limit`.
    pub fn stop(mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_for_end(limit)
            .unwrap_or_else(|| panic!("no end within {limit:?} of SIGTERM: {}", self.log_end(5)))
    }

    /// Its exit status, if it ends within `limit`.
    pub fn wait_for_end(&mut self, limit: Duration) -> Option<ExitStatus> {
        try_poll(limit, || self.child.try_wait().expect("wait for a child"))
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it has printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        read_log(&self.log)
    }

    /// The last lines that it has printed.
    #[must_use]
    pub fn log_end(&self, lines: usize) -> String {
        log_end(&self.log, lines)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("process ids fit"));
        kill(pid, signal).unwrap_or_else(|error| panic!("send {signal} to {pid}: {error}"));
    }

    fn end(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.wait_for_end(REAP_LIMIT);
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether every thread is in the state `T`, which follows the name in parentheses.
fn all_threads_stopped(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        fs::read_to_string(thread.path().join("stat"))
            .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')))
    })
}

/// The last lines of a log file.
pub(crate) fn log_end(log: &Path, lines: usize) -> String {
    let text = read_log(log);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn read_log(log: &Path) -> String {
    fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
