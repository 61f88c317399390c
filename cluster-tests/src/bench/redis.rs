//! Redis with two replicas.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::harness::{RedisServer, poll};
use crate::resp::{Client, Value};

const LINK_LIMIT: Duration = Duration::from_secs(30);

/// A primary that syncs its append-only file before each reply, and two replicas.
#[derive(Debug)]
pub struct RedisReplication {
    // Replicas first: they go before their primary does.
    _replicas: Vec<RedisServer>,
    primary: RedisServer,
}

impl RedisReplication {
    /// Starts the three servers and waits until both replicas follow.
    #[must_use]
    pub fn start(dir: &Path) -> Self {
        let durable = ["--appendonly", "yes", "--appendfsync", "always"];
        let primary = RedisServer::start(&dir.join("primary"), &durable);
        let port = primary.address().port().to_string();
        let replicas = (1..=2)
            .map(|index| {
                let mut options = durable.to_vec();
                options.extend(["--replicaof", "127.0.0.1", port.as_str()]);
                RedisServer::start(&dir.join(format!("replica-{index}")), &options)
            })
            .collect();
        poll(LINK_LIMIT, "two Redis replicas", || {
            let mut client = Client::connect(primary.address(), LINK_LIMIT).ok()?;
            client.command(&["SET", "probe", "1"]).ok()?;
            (client.command(&["WAIT", "2", "100"]).ok()? == Value::Integer(2)).then_some(())
        });
        Self { _replicas: replicas, primary }
    }

    /// Where the primary listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.primary.address()
    }
}
