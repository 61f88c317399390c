//! The folder of a development cluster.
//!
//! ```text
//! DIR/cluster.json       how many nodes, ports, policy
//! DIR/lock               held by the `quorate dev` that runs here
//! DIR/tls/               an authority of its own, and a certificate for each node
//! DIR/node-<i>/          quorate.toml, data/, log, pid
//! ```

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Pid;
use quorate_protocol::policy::Policy;
use serde::{Deserialize, Serialize};

use super::process::NodeProcess;
use crate::failure::Failure;
use crate::pki;

const CLUSTER_NAME: &str = "dev";

/// How much of a log is shown when its node fails.
const LOG_END_BYTES: u64 = 4_000;
const LOG_END_LINES: usize = 12;

/// What the command line asks for; what it leaves open is taken from the folder, else a default.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) nodes: Option<u16>,
    pub(super) base_port: Option<u16>,
    pub(super) policy: Option<String>,
}

/// What the folder holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Shape {
    nodes: u16,
    base_port: u16,
    policy: String,
}

/// A folder with a cluster in it.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    dir: PathBuf,
    /// As it was given: shorter to type.
    given: PathBuf,
    shape: Shape,
}

/// Refuses a second `quorate dev` in the same folder. The file holds the process id of the first.
pub(super) fn lock(dir: &Path) -> Result<Flock<File>, Failure> {
    std::fs::create_dir_all(dir).map_err(|error| Failure::failed(dir.display(), error))?;
    let path = dir.join("lock");
    let failed = |error: std::io::Error| Failure::failed(path.display(), error);
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| Failure::Failed(format!("another `quorate dev` runs in {}", dir.display())))?;
    lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id())).map_err(failed)?;
    Ok(lock)
}

/// Who holds the lock.
pub(super) fn lock_holder(dir: &Path) -> Option<Pid> {
    let pid = std::fs::read_to_string(dir.join("lock")).ok()?.trim().parse().ok()?;
    Some(Pid::from_raw(pid))
}

/// Deletes the cluster in the folder, whose nodes don't run, and nothing else.
pub(super) fn clear(dir: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::failed(dir.display(), error);
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name == "tls" || name.strip_prefix("node-").is_some_and(|i| i.len() == 1);
        if ours && entry.path().is_dir() {
            quorate_actors::node::forget(&entry.path().join("data"));
            std::fs::remove_dir_all(entry.path()).map_err(failed)?;
        }
    }
    match std::fs::remove_file(dir.join("cluster.json")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Layout {
    /// The cluster in the folder, if there is one.
    pub(crate) fn find(dir: &Path) -> Result<Option<Self>, Failure> {
        let path = dir.join("cluster.json");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::failed(path.display(), error)),
        };
        let shape =
            serde_json::from_str(&text).map_err(|error| Failure::failed(path.display(), error))?;
        Ok(Some(Self { dir: absolute(dir)?, given: dir.to_owned(), shape }))
    }

    /// The cluster in the folder, made if there is none. What exists is never changed.
    pub(super) fn prepare(dir: &Path, wanted: &Wanted) -> Result<Self, Failure> {
        let layout = match Self::find(dir)? {
            Some(layout) => {
                layout.check(wanted)?;
                layout
            }
            None => {
                let shape = Shape {
                    nodes: wanted.nodes.unwrap_or(3),
                    base_port: wanted.base_port.unwrap_or(7400),
                    policy: wanted.policy.clone().unwrap_or_else(|| "majority".to_owned()),
                };
                Policy::parse(&shape.policy, usize::from(shape.nodes))
                    .map_err(|error| Failure::Usage(format!("--policy: {error}")))?;
                Self { dir: absolute(dir)?, given: dir.to_owned(), shape }
            }
        };
        layout.write_missing()?;
        Ok(layout)
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder as the user wrote it.
    pub(super) fn shown_dir(&self) -> std::path::Display<'_> {
        self.given.display()
    }

    /// The policy that the cluster was made with.
    pub(super) fn policy(&self) -> &str {
        &self.shape.policy
    }

    /// The numbers of the nodes.
    pub(crate) fn ids(&self) -> std::ops::RangeInclusive<u16> {
        1..=self.shape.nodes
    }

    /// The highest of them.
    pub(super) fn last(&self) -> u16 {
        self.shape.nodes
    }

    /// Where a node listens for cluster-mode clients.
    pub(crate) fn client(&self, id: u16) -> SocketAddr {
        self.port(id, 0)
    }

    /// Where it listens for its peers.
    fn peer(&self, id: u16) -> SocketAddr {
        self.port(id, 10)
    }

    /// Where it listens for operators.
    pub(crate) fn admin(&self, id: u16) -> SocketAddr {
        self.port(id, 20)
    }

    /// Where it listens for plain clients.
    pub(super) fn plain(&self, id: u16) -> SocketAddr {
        self.port(id, 30)
    }

    /// A node's configuration.
    pub(crate) fn config(&self, id: u16) -> PathBuf {
        self.node(id).join("quorate.toml")
    }

    /// A node's data directory.
    pub(crate) fn data(&self, id: u16) -> PathBuf {
        self.node(id).join("data")
    }

    /// The nodes' processes, not looked for yet.
    pub(crate) fn processes(&self) -> Vec<NodeProcess> {
        self.ids().map(|id| NodeProcess::new(id, self.node(id), self.config(id))).collect()
    }

    /// The last lines of a node's log.
    pub(super) fn log_end(&self, id: u16) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(self.node(id).join("log"))?;
            let size = file.metadata()?.len();
            file.seek(SeekFrom::Start(size.saturating_sub(LOG_END_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_else(|error| format!("no log: {error}"));
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_END_LINES)..]
            .iter()
            .map(|line| format!("  {line}"))
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn node(&self, id: u16) -> PathBuf {
        self.dir.join(format!("node-{id}"))
    }

    fn port(&self, id: u16, offset: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.shape.base_port + offset + id))
    }

    /// Members, ports and policy of a cluster live in its log: other arguments can't change them.
    fn check(&self, wanted: &Wanted) -> Result<(), Failure> {
        let Shape { nodes, base_port, policy } = &self.shape;
        let same = wanted.nodes.is_none_or(|wanted| wanted == *nodes)
            && wanted.base_port.is_none_or(|wanted| wanted == *base_port)
            && wanted.policy.as_ref().is_none_or(|wanted| wanted == policy);
        if same {
            return Ok(());
        }
        Err(Failure::Usage(format!(
            "{} holds a cluster of {nodes} nodes with base port {base_port} and policy {policy}; \
             --reset replaces it, --dir makes another one",
            self.dir.display()
        )))
    }

    fn write_missing(&self) -> Result<(), Failure> {
        let tls = self.dir.join("tls");
        let failed = |error: pki::PkiError| Failure::failed("certificates", error);
        if !tls.join("ca.crt").exists() {
            pki::create_authority(&tls, CLUSTER_NAME, true).map_err(failed)?;
        }
        for id in self.ids() {
            if !tls.join(format!("node-{id}.crt")).exists() {
                let hosts = ["127.0.0.1".to_owned()];
                pki::create_node(&tls, u64::from(id), CLUSTER_NAME, &hosts, true)
                    .map_err(failed)?;
            }
            let path = self.config(id);
            if !path.exists() {
                write(&path, &self.config_text(id))?;
            }
        }
        let shape = serde_json::to_string(&self.shape)
            .map_err(|error| Failure::failed("cluster.json", error))?;
        // Last: it says that all the rest is there.
        write(&self.dir.join("cluster.json"), &shape)
    }

    fn config_text(&self, id: u16) -> String {
        let members: Vec<String> =
            self.ids().map(|id| format!("\"{id}@{}\"", self.peer(id))).collect();
        format!(
            "# Node {id} of a development cluster. Start it by hand with:\n\
             #   quorate start --config {path}\n\
             # `quorate init` writes a file with all keys.\n\n\
             [node]\nid = {id}\ndata_dir = \"data\"\npid_file = \"pid\"\ndrill_allowed = true\n\n\
             [cluster]\nname = \"{CLUSTER_NAME}\"\ninitial_members = [{members}]\n\
             policy = {policy}\n\n\
             [client]\nlisten = \"{client}\"\nlisten_plain = \"{plain}\"\n\n\
             [peer]\nlisten = \"{peer}\"\n\n\
             [admin]\nlisten = \"{admin}\"\n\n\
             [tls]\nca = \"../tls/ca.crt\"\ncert = \"../tls/node-{id}.crt\"\n\
             key = \"../tls/node-{id}.key\"\n\
             # Nodes that join with a token have their certificates from here.\n\
             ca_key = \"../tls/ca.key\"\n\n\
             # The folder may be in a container's overlay: nothing here is meant to last.\n\
             [storage]\nallow_volatile = true\n\n\
             [log]\nfile = \"log\"\n",
            path = self.config(id).display(),
            members = members.join(", "),
            policy = toml::Value::String(self.shape.policy.clone()),
            client = self.client(id),
            plain = self.plain(id),
            peer = self.peer(id),
            admin = self.admin(id),
        )
    }
}

fn absolute(dir: &Path) -> Result<PathBuf, Failure> {
    std::fs::create_dir_all(dir)
        .and_then(|()| dir.canonicalize())
        .map_err(|error| Failure::failed(dir.display(), error))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::write(path, text))
        .map_err(|error| Failure::failed(path.display(), error))
}

#[cfg(test)]
mod tests {
    use quorate_actors::storage::identity::{DataDir, DataDirOptions};
    use quorate_protocol::types::NodeId;

    use super::*;
    use crate::config::{Source, resolve_checked};

    fn wanted(nodes: Option<u16>) -> Wanted {
        Wanted { nodes, base_port: Some(17400), policy: None }
    }

    #[test]
    fn what_is_made_is_valid_and_resumed_but_not_changed() {
        let dir = std::env::temp_dir().join(format!("quorate-dev-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let layout = Layout::prepare(&dir, &wanted(Some(2))).expect("a new cluster");
        for id in layout.ids() {
            let source = Source::load(&layout.config(id), []).expect("it parses");
            let settings = resolve_checked(&source).expect("it is valid");
            assert_eq!(settings.node.node.0, u64::from(id));
            assert_eq!(settings.node.client.listen.port(), 17400 + id);
            assert_eq!(settings.node.peer.listen.port(), 17410 + id);
            assert_eq!(settings.node.admin_listen.port(), 17420 + id);
            assert_eq!(settings.node.client.listen_plain.expect("plain").port(), 17430 + id);
            assert!(settings.node.drill_allowed);
            assert_eq!(settings.pid_file, layout.node(id).join("pid"));
        }
        let before = std::fs::read(dir.join("tls/ca.crt")).expect("made");
        let again = Layout::prepare(&dir, &wanted(None)).expect("resumed");
        assert_eq!(again.shape, layout.shape);
        assert_eq!(std::fs::read(dir.join("tls/ca.crt")).expect("kept"), before);
        let other = Layout::prepare(&dir, &wanted(Some(3))).expect_err("another shape");
        assert!(matches!(other, Failure::Usage(_)));

        // A node that was killed leaves a record outside its directory.
        let options = DataDirOptions {
            path: layout.node(1).join("data"),
            node: NodeId(1),
            allow_volatile: true,
        };
        let mut killed = DataDir::open(&options).expect("made");
        killed.complete().expect("made");
        let record = killed.witness_path(Path::new("/dev/shm"));
        drop(killed);
        std::fs::write(&record, b"").expect("written");
        clear(&dir).expect("deleted");
        assert!(Layout::find(&dir).expect("readable").is_none());
        assert!(!record.exists(), "{} is left", record.display());
        let _ = std::fs::remove_dir_all(&dir);
    }
}
