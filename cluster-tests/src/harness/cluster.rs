//! Several nodes that form one cluster.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use super::files::{binary, work_dir};
use super::lock::ClusterLock;
use super::loop_disk::LoopDisk;
use super::ports::Ports;
use super::process::{NodeProcess, log_end};
use super::settings::NodeSettings;
use super::status::{ContentHash, Role, Status};
use super::wait::{poll, try_poll};
use crate::resp::{Client, Value};

/// How long an election, a restart or a catch-up may take on a busy machine.
pub const RECOVERY_LIMIT: Duration = Duration::from_secs(30);
/// How long an orderly stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// The longest wait for one reply.
const REPLY_LIMIT: Duration = Duration::from_secs(10);
/// Where the identity file has the disk's id: behind magic, version and node.
const DISK_ID_AT: usize = 24;
/// Keys asked for at once when everything is read.
const READ_CHUNK: usize = 500;

/// What kind of cluster.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// How many nodes.
    pub nodes: usize,
    /// The durability policy.
    pub policy: &'static str,
    /// Further lines for each node's configuration.
    pub extra: &'static str,
}

impl Default for ClusterOptions {
    /// Three nodes, `majority`.
    fn default() -> Self {
        Self { nodes: 3, policy: "majority", extra: "" }
    }
}

/// A cluster of real processes on loopback. Nodes are named by their id, from 1.
#[derive(Debug)]
pub struct Cluster {
    // Before the lock: the processes must be gone when the next cluster starts.
    nodes: Vec<Node>,
    dir: PathBuf,
    _lock: ClusterLock,
}

#[derive(Debug)]
struct Node {
    settings: NodeSettings,
    process: Option<NodeProcess>,
    disk: Option<LoopDisk>,
}

impl Cluster {
    /// Three nodes that have a primary.
    #[must_use]
    pub fn start(name: &str) -> Self {
        Self::start_with(name, &ClusterOptions::default())
    }

    /// A cluster that has a primary and takes writes.
    #[must_use]
    pub fn start_with(name: &str, options: &ClusterOptions) -> Self {
        let mut cluster = Self::prepare(name, options);
        for id in cluster.ids() {
            cluster.start_node(id);
        }
        cluster.wait_until_writable();
        cluster
    }

    /// Certificates and configurations, and no process yet.
    #[must_use]
    pub fn prepare(name: &str, options: &ClusterOptions) -> Self {
        let lock = ClusterLock::acquire();
        let dir = work_dir(name);
        let certificates = dir.join("pki");
        make_certificates(&certificates, options.nodes);
        let ports: Vec<Ports> = (0..options.nodes).map(|_| Ports::free()).collect();
        let members: Vec<(u64, String)> =
            (1..).zip(&ports).map(|(id, ports)| (id, ports.peer.to_string())).collect();
        let node = |(id, ports): (u64, &Ports)| {
            let settings = NodeSettings {
                id,
                dir: dir.join(format!("node-{id}")),
                ports: *ports,
                certificates: certificates.clone(),
                policy: options.policy.to_owned(),
                members: members.clone(),
                joins: false,
                extra: options.extra.to_owned(),
                environment: Vec::new(),
            };
            settings.write();
            Node { settings, process: None, disk: None }
        };
        let nodes = (1..).zip(&ports).map(node).collect();
        Self { nodes, dir, _lock: lock }
    }

    /// Gives all nodes, which are down, other ports, and writes their files anew.
    ///
    /// # Panics
    ///
    /// If one is running.
    pub fn move_all(&mut self) {
        assert!(self.nodes.iter().all(|node| node.process.is_none()), "a node is running");
        for node in &mut self.nodes {
            node.settings.ports = Ports::free();
        }
        let members: Vec<(u64, String)> = self
            .nodes
            .iter()
            .map(|node| (node.settings.id, node.settings.ports.peer.to_string()))
            .collect();
        for node in &mut self.nodes {
            node.settings.members.clone_from(&members);
            node.settings.write();
        }
    }

    /// Certificate and configuration of a node that joins, by way of these members. It is not started.
    ///
    /// # Panics
    ///
    /// If the number is taken.
    pub fn add_node(&mut self, id: u64, by_way_of: &[u64]) {
        assert!(self.ids().iter().all(|other| *other != id), "node {id} is there already");
        let model = self.nodes[0].settings.clone();
        certify(&model.certificates, id);
        let members = by_way_of
            .iter()
            .map(|member| (*member, self.settings(*member).ports.peer.to_string()))
            .collect();
        let settings = NodeSettings {
            id,
            dir: self.dir.join(format!("node-{id}")),
            ports: Ports::free(),
            members,
            joins: true,
            environment: Vec::new(),
            ..model
        };
        settings.write();
        self.nodes.push(Node { settings, process: None, disk: None });
    }

    /// Has a bare machine join with a token, by way of a member; its process becomes the node's. Called
    /// again for a node that is down it goes on.
    ///
    /// # Panics
    ///
    /// If the node is running, or the process can't be started.
    pub fn join_by_token(&mut self, id: u64, token: &Path, by_way_of: u64) {
        let member = self.settings(by_way_of).ports.peer.to_string();
        if self.ids().iter().all(|other| *other != id) {
            let model = self.nodes[0].settings.clone();
            let dir = self.dir.join(format!("node-{id}"));
            fs::create_dir_all(&dir).expect("make the node's directory");
            let settings = NodeSettings { id, dir, ports: Ports::free(), joins: true, ..model };
            self.nodes.push(Node { settings, process: None, disk: None });
        }
        let node = self.node_mut(id);
        assert!(node.process.is_none(), "node {id} is running");
        let (settings, ports) = (&node.settings, node.settings.ports);
        let token = token.to_str().expect("a path of ours");
        let dir = settings.dir.to_str().expect("a path of ours");
        let [peer, client, admin] = [ports.peer, ports.client, ports.admin].map(|a| a.to_string());
        let arguments = [
            ["join", &member, "--token-file", token, "--dir", dir].as_slice(),
            &["--advertise-peer", &peer, "--listen-peer", &peer],
            &["--advertise-client", &client, "--listen-client", &client],
            &["--listen-admin", &admin],
        ]
        .concat();
        node.process = Some(NodeProcess::start(&arguments, &settings.log_file()));
    }

    /// Waits for the end of a node's process, and returns how it ended; the node is then down.
    ///
    /// # Panics
    ///
    /// If it goes on.
    pub fn wait_for_end(&mut self, id: u64) -> ExitStatus {
        let mut process = self.take_process(id);
        process
            .wait_for_end(RECOVERY_LIMIT)
            .unwrap_or_else(|| panic!("node {id} goes on:\n{}", process.log_end(20)))
    }

    /// Forgets a node that is down.
    ///
    /// # Panics
    ///
    /// If it is running.
    pub fn drop_node(&mut self, id: u64) {
        assert!(self.node(id).process.is_none(), "node {id} is running");
        forget_witness(&self.settings(id).data_dir());
        self.nodes.retain(|node| node.settings.id != id);
    }

    /// All ids.
    #[must_use]
    pub fn ids(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.settings.id).collect()
    }

    /// All ids but one.
    #[must_use]
    pub fn others(&self, id: u64) -> Vec<u64> {
        self.ids().into_iter().filter(|other| *other != id).collect()
    }

    /// One node's settings.
    #[must_use]
    pub fn settings(&self, id: u64) -> &NodeSettings {
        &self.node(id).settings
    }

    /// Settings that can be changed while the node is down; write them afterwards.
    pub fn settings_mut(&mut self, id: u64) -> &mut NodeSettings {
        &mut self.node_mut(id).settings
    }

    /// The directory that holds everything of this cluster.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where one node listens for cluster clients.
    #[must_use]
    pub fn client_address(&self, id: u64) -> SocketAddr {
        self.node(id).settings.ports.client
    }

    /// Where all nodes listen for cluster clients.
    #[must_use]
    pub fn client_addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.settings.ports.client).collect()
    }

    /// A node's process.
    ///
    /// # Panics
    ///
    /// If it is not running.
    pub fn process(&mut self, id: u64) -> &mut NodeProcess {
        self.node_mut(id).process.as_mut().unwrap_or_else(|| panic!("node {id} is not running"))
    }

    /// Starts a node that is down, on the data that it has.
    ///
    /// # Panics
    ///
    /// If it is running.
    pub fn start_node(&mut self, id: u64) {
        let node = self.node_mut(id);
        assert!(node.process.is_none(), "node {id} is running");
        let config = node.settings.config_file();
        let arguments = ["start", "--config", config.to_str().expect("a path of ours")];
        let (environment, log) = (&node.settings.environment, node.settings.log_file());
        node.process = Some(NodeProcess::start_with(&arguments, environment, &log));
    }

    /// What a service manager does: starts the nodes again whose processes have ended by
    /// themselves. Returns which these were.
    pub fn restart_ended(&mut self) -> Vec<u64> {
        let mut ended = Vec::new();
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process
                && process.wait_for_end(Duration::ZERO).is_some()
            {
                ended.push(node.settings.id);
                node.process = None;
            }
        }
        for id in &ended {
            self.start_node(*id);
        }
        ended
    }

    /// Gives a node that is down a file system of its own for its data.
    ///
    /// # Panics
    ///
    /// If it is running, or has one.
    pub fn mount_disk(&mut self, id: u64, bytes: u64) {
        let node = self.node_mut(id);
        assert!(node.process.is_none() && node.disk.is_none(), "node {id} is in use");
        let image = node.settings.dir.join("disk.image");
        node.disk = Some(LoopDisk::mount(&image, &node.settings.data_dir(), bytes));
    }

    /// Gives a node that is down a file system of its own in a file in `folder`, which takes space
    /// there only as it is written.
    ///
    /// # Panics
    ///
    /// If it is running, or has one.
    pub fn mount_overfull_disk(&mut self, id: u64, folder: &Path, bytes: u64) {
        let node = self.node_mut(id);
        assert!(node.process.is_none() && node.disk.is_none(), "node {id} is in use");
        let image = folder.join(format!("node-{id}.image"));
        let mount = node.settings.data_dir();
        node.disk = Some(LoopDisk::mount_overfull(&image, &mount, bytes));
    }

    /// A node's own file system.
    ///
    /// # Panics
    ///
    /// If it has none.
    #[must_use]
    pub fn disk(&self, id: u64) -> &LoopDisk {
        self.node(id).disk.as_ref().unwrap_or_else(|| panic!("node {id} has no disk of its own"))
    }

    /// SIGKILL.
    pub fn kill(&mut self, id: u64) {
        self.take_process(id).kill();
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self, id: u64) -> ExitStatus {
        self.take_process(id).stop(STOP_LIMIT)
    }

    /// SIGSTOP.
    pub fn pause(&mut self, id: u64) {
        self.process(id).pause();
    }

    /// SIGCONT.
    pub fn resume(&mut self, id: u64) {
        self.process(id).resume();
    }

    /// Deletes the data of a node that is down.
    ///
    /// # Panics
    ///
    /// If it is running, or its data can't be deleted.
    pub fn wipe(&mut self, id: u64) {
        assert!(self.node(id).process.is_none(), "node {id} is running");
        fs::remove_dir_all(self.settings(id).data_dir()).expect("delete the data directory");
    }

    /// What a node says of itself, if it runs, answers, and has recovered: before that it knows
    /// nothing of its log.
    #[must_use]
    pub fn status(&self, id: u64) -> Option<Status> {
        let status = self.is_answering(id).then(|| Status::of(self.settings(id).ports.admin));
        status.flatten().filter(|status| status.phase != "starting")
    }

    /// The node that says it is primary, in the highest epoch if several do.
    #[must_use]
    pub fn primary(&self) -> Option<u64> {
        self.ids()
            .into_iter()
            .filter_map(|id| Some((id, self.status(id)?)))
            .filter(|(_, status)| status.role == Role::Primary)
            .max_by_key(|(_, status)| status.epoch)
            .map(|(id, _)| id)
    }

    /// Waits for a primary.
    pub fn wait_for_primary(&self) -> u64 {
        poll(RECOVERY_LIMIT, "a primary", || self.primary())
    }

    /// Waits until a write succeeds, and returns the node that took it.
    pub fn wait_until_writable(&self) -> u64 {
        poll(RECOVERY_LIMIT, "a primary that takes writes", || {
            let id = self.primary()?;
            let mut client = Client::connect(self.client_address(id), REPLY_LIMIT).ok()?;
            let reply = client.command(&["SET", "harness:probe", "1"]).ok()?;
            (reply == Value::Simple("OK".into())).then_some(id)
        })
    }

    /// Waits until all running nodes have executed the same log and hold the same content.
    ///
    /// # Panics
    ///
    /// If they don't get there, or if two of them differ at the same position.
    pub fn wait_until_equal(&self) -> ContentHash {
        let running: Vec<u64> =
            self.ids().into_iter().filter(|id| self.is_answering(*id)).collect();
        let equal = || {
            let applied: Vec<u64> = running
                .iter()
                .map(|id| Some(self.status(*id)?.applied_seq))
                .collect::<Option<_>>()?;
            if applied.iter().any(|seq| *seq != applied[0]) {
                return None;
            }
            let hashes: Vec<ContentHash> = running
                .iter()
                .map(|id| ContentHash::of(self.settings(*id).ports.admin))
                .collect::<Option<_>>()?;
            if hashes.iter().any(|hash| hash.applied_seq != hashes[0].applied_seq) {
                return None;
            }
            Some(hashes)
        };
        let hashes = try_poll(RECOVERY_LIMIT, equal).unwrap_or_else(|| {
            let states: Vec<_> = running.iter().map(|id| (id, self.status(*id))).collect();
            panic!("nodes have not caught up within {RECOVERY_LIMIT:?}: {states:?}")
        });
        let first = &hashes[0];
        assert!(
            hashes.iter().all(|hash| hash == first),
            "nodes {running:?} hold different content at one position: {hashes:?}"
        );
        first.clone()
    }

    /// A connection to one node.
    ///
    /// # Panics
    ///
    /// If it can't be made.
    #[must_use]
    pub fn connect(&self, id: u64) -> Client {
        Client::connect(self.client_address(id), REPLY_LIMIT)
            .unwrap_or_else(|error| panic!("node {id}: {error}"))
    }

    /// Reads keys at the primary; absent ones are left out.
    ///
    /// # Panics
    ///
    /// If the primary does not answer in time.
    #[must_use]
    pub fn read_all(&self, keys: &[String]) -> HashMap<String, String> {
        let deadline = Instant::now() + RECOVERY_LIMIT;
        let mut store = HashMap::new();
        let mut client = self.connect(self.wait_for_primary());
        for chunk in keys.chunks(READ_CHUNK) {
            let mut command = vec!["MGET"];
            command.extend(chunk.iter().map(String::as_str));
            let values = loop {
                match client.command(&command) {
                    Ok(Value::Array(values)) => break values,
                    other => {
                        assert!(Instant::now() < deadline, "MGET: {other:?}");
                        thread::sleep(Duration::from_millis(50));
                        client = self.connect(self.wait_for_primary());
                    }
                }
            };
            for (key, value) in chunk.iter().zip(values) {
                if let Some(bytes) = value.bytes() {
                    store.insert(key.clone(), String::from_utf8_lossy(bytes).into_owned());
                }
            }
        }
        store
    }

    fn is_answering(&self, id: u64) -> bool {
        self.node(id).process.as_ref().is_some_and(|process| !process.is_paused())
    }

    fn node(&self, id: u64) -> &Node {
        self.nodes
            .iter()
            .find(|node| node.settings.id == id)
            .unwrap_or_else(|| panic!("no node {id}"))
    }

    fn node_mut(&mut self, id: u64) -> &mut Node {
        self.nodes
            .iter_mut()
            .find(|node| node.settings.id == id)
            .unwrap_or_else(|| panic!("no node {id}"))
    }

    fn take_process(&mut self, id: u64) -> NodeProcess {
        self.node_mut(id).process.take().unwrap_or_else(|| panic!("node {id} is not running"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.process = None;
        }
        if thread::panicking() {
            eprintln!("files kept in {}", self.dir.display());
            for node in &self.nodes {
                let log = log_end(&node.settings.log_file(), 25);
                eprintln!("--- end of node {}'s log\n{log}", node.settings.id);
            }
        } else {
            for node in &mut self.nodes {
                forget_witness(&node.settings.data_dir());
                node.disk = None;
            }
            // What can't be deleted is left for `cargo clean`.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Removes the record that a killed node leaves outside its directory, under the disk's id.
fn forget_witness(data_dir: &Path) {
    let Ok(identity) = fs::read(data_dir.join("identity")) else { return };
    if let Some(disk) = identity.get(DISK_ID_AT..).and_then(|bytes| bytes.first_chunk::<16>()) {
        let disk = u128::from_le_bytes(*disk);
        let _ = fs::remove_file(format!("/dev/shm/quorate-{disk:032x}.tail"));
    }
}

/// An authority and a certificate for each node, made by the binary itself.
fn make_certificates(dir: &Path, nodes: usize) {
    let dir = dir.to_str().expect("a path of ours");
    run(&["pki", "ca", "--dir", dir, "--cluster", "test"]);
    for id in 1..=nodes as u64 {
        certify(Path::new(dir), id);
    }
}

fn certify(dir: &Path, id: u64) {
    let dir = dir.to_str().expect("a path of ours");
    run(&["pki", "node", "--dir", dir, "--cluster", "test", "--id", &id.to_string()]);
}

fn run(arguments: &[&str]) {
    let output = Command::new(binary()).args(arguments).output().expect("start the binary");
    assert!(
        output.status.success(),
        "quorate {}: {}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
