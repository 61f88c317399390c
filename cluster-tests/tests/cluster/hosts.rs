//! Nodes on hosts of their own, with admin ports that no other host reaches.

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use quorate_cluster_tests::harness::{
    ClusterLock, Hosts, NodeSettings, Ports, RECOVERY_LIMIT, binary, poll, work_dir,
};
use serde_json::Value as Json;

const FIRST: u8 = 3;

struct Machines {
    // Before the hosts that they run on.
    nodes: Vec<(u8, Child)>,
    hosts: Hosts,
    dir: PathBuf,
    _lock: ClusterLock,
}

impl Machines {
    fn start(name: &str, count: u8) -> Self {
        let lock = ClusterLock::acquire();
        let dir = work_dir(name);
        let mut machines =
            Self { nodes: Vec::new(), hosts: Hosts::new(count), dir: dir.clone(), _lock: lock };
        let pki = dir.join("pki");
        let text = pki.to_str().expect("a path of ours").to_owned();
        must(Command::new(binary()).args(["pki", "ca", "--dir", &text, "--cluster", "test"]));
        for id in 1..=FIRST {
            let id = id.to_string();
            let node = ["pki", "node", "--dir", &text, "--cluster", "test", "--id", &id];
            must(Command::new(binary()).args(node));
        }
        let members =
            (1..=FIRST).map(|id| (u64::from(id), machines.peer(id).to_string())).collect();
        let settings = NodeSettings {
            id: 0,
            dir: dir.clone(),
            ports: machines.ports(1),
            certificates: pki,
            policy: "majority".to_owned(),
            members,
            joins: false,
            extra: "ca_key = \"../pki/ca.key\"\n".to_owned(),
            environment: Vec::new(),
        };
        for id in 1..=FIRST {
            let settings = NodeSettings {
                id: u64::from(id),
                dir: dir.join(format!("node-{id}")),
                ports: machines.ports(id),
                ..settings.clone()
            };
            settings.write();
            let config = settings.config_file();
            machines.spawn(id, &["start", "--config", config.to_str().expect("ours")]);
        }
        machines
    }

    fn peer(&self, host: u8) -> SocketAddr {
        SocketAddr::from((self.hosts.address(host), 7411))
    }

    /// The same on each host: only their addresses tell them apart, and that of the admin port doesn't.
    fn ports(&self, host: u8) -> Ports {
        Ports {
            client: SocketAddr::from((self.hosts.address(host), 7401)),
            plain: SocketAddr::from((Ipv4Addr::LOCALHOST, 7431)),
            peer: self.peer(host),
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 7421)),
        }
    }

    fn spawn(&mut self, host: u8, arguments: &[&str]) {
        let dir = self.dir.join(format!("node-{host}"));
        fs::create_dir_all(&dir).expect("make the node's directory");
        let log = OpenOptions::new().create(true).append(true).open(dir.join("log"));
        let log = log.expect("open the log");
        let child = self
            .hosts
            .command(host, &binary())
            .args(arguments)
            // Clients on other hosts may come without a password.
            .env("QUORATE_CLIENT__ALLOW_UNAUTHENTICATED", "true")
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a second handle"))
            .stdout(log)
            .spawn()
            .expect("start a node");
        self.nodes.push((host, child));
    }

    /// A command on a host, to the node there: its admin port is where it is by default.
    fn run(&self, host: u8, arguments: &[&str]) -> Output {
        let mut command = self.hosts.command(host, &binary());
        command.args(arguments).stdin(Stdio::null()).output().expect("start the command")
    }

    fn json(&self, host: u8, arguments: &[&str]) -> Json {
        let output = self.run(host, &[arguments, &["--json"]].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "host {host}: {arguments:?}: {error}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    fn primary(&self, host: u8) -> Option<u64> {
        let output = self.run(host, &["status", "--json"]);
        serde_json::from_slice::<Json>(&output.stdout).ok()?["primary"].as_u64()
    }

    fn wait_for_voter(&self, host: u8, node: u64) {
        poll(RECOVERY_LIMIT, "the node to become a voter", || {
            let listed = self.json(host, &["members", "list"]);
            let all = listed["members"].as_array()?;
            all.iter().any(|one| one["node"] == node && one["kind"] == "voter").then_some(())
        });
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for (host, child) in &mut self.nodes {
            let _ = child.kill();
            let _ = child.wait();
            if std::thread::panicking() {
                let log = fs::read_to_string(self.dir.join(format!("node-{host}/log")));
                let log = log.unwrap_or_default();
                let lines: Vec<&str> = log.lines().rev().take(25).collect();
                eprintln!("--- end of node {host}'s log, backwards\n{}", lines.join("\n"));
            }
        }
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn must(command: &mut Command) {
    let output = command.output().expect("start the command");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

#[test]
fn every_verb_works_from_every_host_while_admin_ports_reach_nobody() {
    if !Hosts::are_possible() {
        println!("skipped: this process can't make network namespaces");
        return;
    }
    let mut machines = Machines::start("hosts", 4);
    poll(RECOVERY_LIMIT, "a primary", || machines.primary(1));
    for host in 1..=FIRST {
        // Another host's admin port is not there.
        let other = machines.hosts.address(host % FIRST + 1);
        let url = format!("http://{other}:7421");
        let reached = machines.run(host, &["status", "--admin", &url]);
        assert_eq!(reached.status.code(), Some(3), "admin ports talk to each other");

        let policy = if host % 2 == 0 { "majority" } else { "hybrid" };
        machines.json(host, &["policy", "set", policy]);
        let to = u64::from(host % FIRST + 1).to_string();
        if machines.primary(host).map(|primary| primary.to_string()) != Some(to.clone()) {
            let promoted = machines.json(host, &["promote", "--to", &to]);
            assert_eq!(promoted["primary"].to_string(), to, "{promoted}");
        }
        let file = machines.dir.join(format!("{host}.token"));
        let id = (10 + u64::from(host)).to_string();
        let create = ["token", "create", "--id", &id, "--output", text(&file)];
        machines.json(host, &create);
        assert_eq!(
            machines.json(host, &["token", "revoke", "--id", &id])["revoked"].to_string(),
            id
        );
        let own = host.to_string();
        let forecast = machines.json(host, &["members", "remove", "--id", &own, "--dry-run"]);
        assert_eq!(forecast["possible"], true, "{forecast}");
        println!("host {host}: {forecast}");
    }

    // A fourth host joins by way of any, and is then as good as the others.
    let file = machines.dir.join("join.token");
    machines.json(2, &["token", "create", "--output", text(&file)]);
    let (dir, peer) = (machines.dir.join("node-4"), machines.peer(4).to_string());
    let client = machines.ports(4).client.to_string();
    let by_way_of = machines.peer(3).to_string();
    let join = [
        ["join", &by_way_of, "--token-file", text(&file), "--dir", text(&dir)].as_slice(),
        &["--advertise-peer", &peer, "--advertise-client", &client, "--listen-client", &client],
    ]
    .concat();
    machines.spawn(4, &join);
    machines.wait_for_voter(1, 4);
    machines.json(4, &["promote", "--to", "4"]);
    // It leads, and removes itself: it hands over first.
    machines.json(4, &["members", "remove", "--id", "4"]);
    let (_, node) = machines.nodes.iter_mut().find(|(host, _)| *host == 4).expect("it was started");
    let ended = poll(RECOVERY_LIMIT, "the removed node to end", || {
        node.try_wait().expect("a child of ours")
    });
    assert_eq!(ended.code(), Some(4));
    // Host 1 hears of it a moment after the primary.
    poll(RECOVERY_LIMIT, "the removal to be known everywhere", || {
        let listed = machines.json(1, &["members", "list"]);
        (listed["removed"] == serde_json::json!([4])).then_some(())
    });
}
