//! What tests of backups share: the commands, and an oracle that knows what a restore must hold.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use quorate_cluster_tests::harness::{
    Cluster, NodeProcess, NodeSettings, Ports, RECOVERY_LIMIT, Role, Status, binary, poll,
};
use quorate_cluster_tests::resp::{Client, Value};
use serde_json::Value as Json;

/// Keys of the oracle: few, so that most are overwritten between two points.
pub(crate) const KEYS: u64 = 40;

pub(crate) fn quorate(arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    // What is meant for the tests is no setting of a node's, and would be refused.
    command.env_remove("QUORATE_BENCH_BACKUP_BYTES");
    command.args(arguments).stdin(Stdio::null()).output().expect("start the binary")
}

pub(crate) fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

pub(crate) fn json(output: &Output) -> Json {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(output)))
}

pub(crate) fn back_up(
    cluster: &Cluster,
    node: u64,
    target: impl AsRef<Path>,
    further: &[&str],
) -> Output {
    let admin = format!("http://{}", cluster.settings(node).ports.admin);
    let target = target.as_ref().display().to_string();
    let first = ["backup", "--admin", &admin, "--json", "create", "--target", &target];
    quorate(&[&first[..], further].concat())
}

pub(crate) fn verify(target: impl AsRef<Path>, further: &[&str]) -> Output {
    let target = target.as_ref().display().to_string();
    quorate(&[&["backup", "--json", "verify", "--target", &target][..], further].concat())
}

/// Settings of a node for which nothing exists yet.
pub(crate) fn elsewhere(cluster: &Cluster, name: &str) -> NodeSettings {
    let settings = NodeSettings {
        dir: cluster.dir().join(name),
        ports: Ports::free(),
        environment: Vec::new(),
        ..cluster.settings(1).clone()
    };
    settings.write();
    settings
}

pub(crate) fn restore(settings: &NodeSettings, target: impl AsRef<Path>, to: &str) -> Output {
    let (config, target) = (settings.config_file(), target.as_ref().display().to_string());
    let config = config.display().to_string();
    quorate(&["restore", "--config", &config, "--target", &target, "--json", "--to", to])
}

/// What a node says that must not start.
pub(crate) fn refused_start(settings: &NodeSettings) -> String {
    let config = settings.config_file().display().to_string();
    let mut process = NodeProcess::start(&["start", "--config", &config], &settings.log_file());
    let ended = process.wait_for_end(RECOVERY_LIMIT).expect("it ends by itself");
    assert!(!ended.success(), "{ended}");
    process.log()
}

/// Starts a restored node and waits until it leads its own cluster.
pub(crate) fn start(settings: &NodeSettings) -> (NodeProcess, Client) {
    let config = settings.config_file().display().to_string();
    let process = NodeProcess::start(&["start", "--config", &config], &settings.log_file());
    poll(RECOVERY_LIMIT, "the restored node to lead", || {
        Status::of(settings.ports.admin).filter(|status| status.role == Role::Primary)
    });
    let client = Client::connect(settings.ports.client, RECOVERY_LIMIT).expect("it listens");
    (process, client)
}

pub(crate) fn contents(client: &mut Client) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for key in 0..KEYS {
        let key = format!("oracle:{key}");
        match client.command(&["GET", &key]).expect("a reply") {
            Value::Bulk(value) => {
                found.insert(key, String::from_utf8_lossy(&value).into_owned());
            }
            other => assert!(other.is_null(), "{other:?}"),
        }
    }
    found
}

/// Writes and deletes one key after the other, and knows at each position what is there.
pub(crate) struct Oracle {
    client: Client,
    pub(crate) now: BTreeMap<String, String>,
    count: u64,
    pub(crate) points: Vec<(u64, BTreeMap<String, String>)>,
}

impl Oracle {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        let client = cluster.connect(cluster.wait_for_primary());
        Self { client, now: BTreeMap::new(), count: 0, points: Vec::new() }
    }

    pub(crate) fn write(&mut self, writes: u64) {
        for _ in 0..writes {
            self.count += 1;
            let key = format!("oracle:{}", self.count * 7 % KEYS);
            if self.count.is_multiple_of(5) {
                self.client.command(&["DEL", &key]).expect("a reply");
                self.now.remove(&key);
            } else {
                let value = format!("value {}", self.count);
                let reply = self.client.command(&["SET", &key, &value]).expect("a reply");
                assert_eq!(reply, Value::Simple("OK".into()));
                self.now.insert(key, value);
            }
        }
    }

    /// Remembers what is there now, and at which position.
    pub(crate) fn remember(&mut self) {
        let reply = self.client.command(&["QUORATE", "LASTWRITE"]).expect("a reply");
        let Some([_, _, _, Value::Integer(seq)]) = reply.elements() else { panic!("{reply:?}") };
        self.points.push((seq.unsigned_abs(), self.now.clone()));
        // So that the next write is sealed at a later moment than this point.
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
