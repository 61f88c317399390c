//! A real Redis server, to compare with.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::ports::free_port;
use super::wait::poll;
use crate::resp::{Client, Value};

const START_LIMIT: Duration = Duration::from_secs(10);

/// A `redis-server` process; it is killed when this is dropped.
#[derive(Debug)]
pub struct RedisServer {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl RedisServer {
    /// Starts one with its files in `dir` and these further options, and waits until it answers.
    ///
    /// # Panics
    ///
    /// If `redis-server` is missing or does not answer.
    #[must_use]
    pub fn start(dir: &Path, options: &[&str]) -> Self {
        let address = free_port();
        let log = dir.join("log");
        std::fs::create_dir_all(dir).expect("make the server's directory");
        let output = File::create(&log).expect("make the server's log");
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--dir", dir.to_str().expect("a path of ours"), "--save", ""])
            .args(options)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("duplicate the log's handle"))
            .stderr(output)
            .spawn()
            .expect("start redis-server (Debian package redis-server)");
        let server = Self { child, address, log };
        poll(START_LIMIT, "redis-server to answer", || server.answers());
        server
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it logs.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    fn answers(&self) -> Option<()> {
        let mut client = Client::connect(self.address, START_LIMIT).ok()?;
        (client.command(&["PING"]).ok()? == Value::Simple("PONG".into())).then_some(())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
