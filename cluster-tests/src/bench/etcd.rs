//! etcd, three members.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::{Ports, poll};
use crate::http;

const START_LIMIT: Duration = Duration::from_mins(1);

/// Three etcd processes; they are killed when this is dropped.
#[derive(Debug)]
pub struct EtcdCluster {
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    child: Child,
    client: SocketAddr,
}

impl EtcdCluster {
    /// Whether etcd is installed.
    #[must_use]
    pub fn is_installed() -> bool {
        Command::new("etcd").arg("--version").output().is_ok_and(|output| output.status.success())
    }

    /// The first line of `etcd --version`.
    #[must_use]
    pub fn version() -> String {
        let output = Command::new("etcd").arg("--version").output();
        output.map_or_else(
            |_| "not installed".to_owned(),
            |output| {
                String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("?").to_owned()
            },
        )
    }

    /// Starts three members with etcd's default settings.
    ///
    /// # Panics
    ///
    /// If etcd can't be started.
    #[must_use]
    pub fn start(dir: &Path) -> Self {
        let ports: Vec<Ports> = (0..3).map(|_| Ports::free()).collect();
        let initial: Vec<String> = (1..)
            .zip(&ports)
            .map(|(id, ports)| format!("member-{id}=http://{}", ports.plain))
            .collect();
        let members = (1..)
            .zip(&ports)
            .map(|(id, ports)| {
                let name = format!("member-{id}");
                let member_dir = dir.join(&name);
                fs::create_dir_all(&member_dir).expect("make the member's directory");
                let log = File::create(member_dir.join("log")).expect("make the member's log");
                let (client, peer) =
                    (format!("http://{}", ports.client), format!("http://{}", ports.plain));
                let child = Command::new("etcd")
                    .args(["--name", &name])
                    .args(["--data-dir", member_dir.join("data").to_str().expect("our path")])
                    .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                    .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                    .args(["--initial-cluster", &initial.join(",")])
                    .args(["--initial-cluster-state", "new", "--log-level", "error"])
                    .stdin(Stdio::null())
                    .stdout(log.try_clone().expect("duplicate the log's handle"))
                    .stderr(log)
                    .spawn()
                    .expect("start etcd (Debian package etcd-server)");
                Member { child, client: ports.client }
            })
            .collect();
        let cluster = Self { members };
        let _ = cluster.leader();
        cluster
    }

    /// Where the leader listens for clients; waits for an election.
    #[must_use]
    pub fn leader(&self) -> SocketAddr {
        poll(START_LIMIT, "an etcd leader", || {
            self.members.iter().map(|member| member.client).find(|client| is_leader(*client))
        })
    }
}

/// etcd's metrics say which member leads.
fn is_leader(client: SocketAddr) -> bool {
    http::get(client, "/metrics", Duration::from_secs(2))
        .is_ok_and(|response| response.body.lines().any(|line| line == "etcd_server_is_leader 1"))
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            // An error means that it is gone already.
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
    }
}
