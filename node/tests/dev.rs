//! `quorate dev` as a user sees it: ready, a node killed, started by hand, all stopped, resumed.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Generous: three nodes start on a machine that runs other tests.
const LIMIT: Duration = Duration::from_secs(90);

/// `quorate dev`, and the lines that it prints.
struct Dev {
    child: Child,
    lines: Receiver<String>,
    seen: String,
}

impl Dev {
    fn start(dir: &Path, base_port: u16) -> Self {
        Self::start_with(dir, base_port, &[])
    }

    fn start_with(dir: &Path, base_port: u16, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .args(["dev", "--base-port", &base_port.to_string(), "--dir"])
            .arg(dir)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The test may be over.
                let _ = sender.send(line);
            }
        });
        Self { child, lines, seen: String::new() }
    }

    /// Waits for a line that contains the text.
    fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push_str(&line);
                    self.seen.push('\n');
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no {text:?} in what it printed:\n{}", self.seen)
                }
            }
        }
    }

    fn stop(mut self) {
        terminate(self.child.id());
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(Instant::now() < deadline, "it doesn't stop");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A cluster's folder; its nodes are stopped and it is deleted, however the test ends.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .args(["dev", "--stop", "--dir"])
            .arg(&self.0)
            .status();
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

#[test]
fn a_cluster_starts_loses_a_node_gets_it_back_stops_and_resumes() {
    let dir = std::env::temp_dir().join(format!("quorate-dev-test-{}", std::process::id()));
    let folder = Folder(dir.clone());
    let base = free_base_port();
    let mut dev = Dev::start(&dir, base);
    let primary = primary_of(&dev.wait_for("cluster ready: primary node-"));
    assert_eq!(ask(base + primary, &["SET", "kept", "yes"]), "+OK");

    // A second one in the same folder is refused.
    let second = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(["dev", "--dir"])
        .arg(&dir)
        .output()
        .expect("the binary starts");
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another `quorate dev` runs in"));

    kill(pid(&dir, primary), Signal::SIGKILL).expect("it runs");
    dev.wait_for(&format!("node-{primary} is down (killed by SIGKILL)"));
    let command = dev.wait_for("quorate start --config");
    let successor = number_after(&dev.wait_for("is primary now"), "node-");
    assert_ne!(successor, primary);
    assert_eq!(ask(base + successor, &["GET", "kept"]), "$3");

    let config = command.rsplit(' ').next().expect("a path");
    let mut by_hand = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(["start", "--config", config])
        .spawn()
        .expect("the binary starts");
    dev.wait_for(&format!("node-{primary} runs again"));
    assert_eq!(ask(base + successor, &["SET", "kept", "still"]), "+OK");

    dev.stop();
    assert!(by_hand.wait().expect("our child").success(), "the one started by hand stops, too");
    for id in 1..=3 {
        assert!(!dir.join(format!("node-{id}/pid")).exists(), "node {id} stopped in order");
    }

    let mut dev = Dev::start(&dir, base);
    let primary = primary_of(&dev.wait_for("cluster ready: primary node-"));
    assert_eq!(ask(base + primary, &["GET", "kept"]), "$5");

    // Stopped from elsewhere, it ends as by Ctrl-C.
    let stopped = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(["dev", "--stop", "--dir"])
        .arg(&dir)
        .status()
        .expect("the binary starts");
    assert!(stopped.success());
    assert!(dev.child.wait().expect("our child").success());
    drop(folder);
}

/// Under `local` what the others lack is on the primary's disk alone. The drill sees to it that there is
/// such a thing, and has to find that it is gone.
#[test]
fn a_drill_counts_what_a_wiped_primary_had_alone() {
    let dir = std::env::temp_dir().join(format!("quorate-drill-test-{}", std::process::id()));
    let folder = Folder(dir.clone());
    let base = free_base_port();
    let mut dev = Dev::start_with(&dir, base, &["--policy", "local"]);
    dev.wait_for("cluster ready: primary node-");
    let drill = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(["drill", "failover", "--kill", "--wipe", "--json", "--dir"])
        .arg(&dir)
        .args(["--admin", &format!("http://127.0.0.1:{}", base + 21)])
        .output()
        .expect("the binary starts");
    let said = String::from_utf8_lossy(&drill.stderr).into_owned();
    let report: serde_json::Value = serde_json::from_slice(&drill.stdout).expect(&said);
    println!("{said}{report}");
    assert_eq!(drill.status.code(), Some(1), "{said}");
    let lost = report["summary"]["lost"].as_u64().expect("a number");
    assert!(lost >= 90, "a hundred were acknowledged by the primary alone: {report}");
    assert!(said.contains(&format!("{lost} acknowledged writes are lost")), "{said}");
    let run = &report["runs"][0];
    assert_eq!((&report["passed"], &run["recovered"]), (&false.into(), &true.into()));
    let kept_in = run["kept_in"].as_str().expect("a path");
    assert!(Path::new(kept_in).join("identity").exists() && said.contains(kept_in), "{said}");
    let survivor = run["successor"].as_u64().expect("a number") as u16;
    assert_eq!(ask(base + survivor, &["SET", "kept", "yes"]), "+OK", "it goes on alone");
    drop((dev, folder));
}

fn primary_of(line: &str) -> u16 {
    number_after(line, "primary node-")
}

fn number_after(line: &str, prefix: &str) -> u16 {
    let digits = line.split(prefix).nth(1).expect("the prefix").chars();
    digits.take_while(char::is_ascii_digit).collect::<String>().parse().expect("a number")
}

fn pid(dir: &Path, id: u16) -> Pid {
    let text = fs::read_to_string(dir.join(format!("node-{id}/pid"))).expect("a pid file");
    Pid::from_raw(text.trim().parse().expect("a number"))
}

fn terminate(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
    kill(pid, Signal::SIGTERM).expect("it runs");
}

/// The first line of a node's answer. A primary that was just elected may not answer yet.
fn ask(port: u16, command: &[&str]) -> String {
    let words: String =
        command.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    let request = format!("*{}\r\n{words}", command.len());
    let deadline = Instant::now() + LIMIT;
    loop {
        let line = exchange(port, &request).unwrap_or_else(|error| error.to_string());
        if line.starts_with(['+', '$', ':']) || Instant::now() > deadline {
            return line;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn exchange(port: u16, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(request.as_bytes())?;
    let mut bytes = [0; 256];
    let count = stream.read(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
    Ok(text.lines().next().unwrap_or("").to_owned())
}

/// A base port whose ports for three nodes are free now, and which no other test of this process got:
/// nobody listens there before its nodes start.
fn free_base_port() -> u16 {
    static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let mut given = GIVEN.lock().expect("no test panics here");
    // Below those that the kernel gives to whoever names none: nodes dial from such.
    let first = u16::try_from(std::process::id() % 120).expect("small");
    let base = (0..120u16)
        .map(|step| 20_000 + (first + step) % 120 * 100)
        .filter(|base| !given.contains(base))
        .find(|base| {
            (1..=3).all(|id| {
                [0, 20, 30].iter().all(|o| TcpListener::bind(("127.0.0.1", base + o + id)).is_ok())
                    && UdpSocket::bind(("127.0.0.1", base + 10 + id)).is_ok()
            })
        })
        .expect("free ports");
    given.push(base);
    base
}
