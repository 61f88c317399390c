//! The nodes of a running cluster, as its clients reach them.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::time::{Duration, Instant};

use quorate_drill::history::Outcome;
use quorate_drill::resp::{Client, Value};
use quorate_drill::workload::Route;
use quorate_protocol::policy::Policy;

use crate::dev::Layout;
use crate::failure::Failure;
use crate::http::AdminUrl;
use crate::status;

/// The longest wait for one answer of a node.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// How long everything may take to be read back.
const READ_LIMIT: Duration = Duration::from_secs(60);

/// Keys in one command.
const CHUNK: usize = 500;

const POLL: Duration = Duration::from_millis(5);

/// A running cluster.
pub(super) struct DrillCluster {
    /// Its name.
    pub(super) name: String,
    /// The durability policy in force.
    pub(super) policy: String,
    /// Its members.
    pub(super) nodes: Vec<Node>,
    /// Where its files are, if it is a `quorate dev` cluster.
    pub(super) layout: Option<Layout>,
}

/// One member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) id: u64,
    /// Its listener for cluster-mode clients.
    pub(super) client: SocketAddr,
}

/// What a node says of itself to its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) primary: bool,
    pub(super) epoch: u64,
    pub(super) committed: u64,
    pub(super) applied: u64,
    /// The last entry of its log.
    pub(super) last: u64,
    /// Whether it knows who leads.
    pub(super) has_primary: bool,
}

impl DrillCluster {
    /// The cluster that the node at this admin port belongs to.
    pub(super) fn find(admin: &AdminUrl, dir: Option<&Path>) -> Result<Self, Failure> {
        let layout = match dir {
            Some(dir) => Some(Layout::find(dir)?.ok_or_else(|| {
                Failure::Usage(format!("{} holds no `quorate dev` cluster", dir.display()))
            })?),
            None => None,
        };
        let status = status::fetch(admin, Duration::from_secs(5))?;
        let Some(policy) = status.policy else {
            return Err(Failure::Failed(format!("{admin}: the cluster is not formed yet")));
        };
        let nodes = status.members.iter().map(|member| {
            let address = &member.client_addr;
            let found = address.to_socket_addrs().ok().and_then(|mut found| found.next());
            let client = found.ok_or_else(|| {
                Failure::Failed(format!("node {}: no address in {address:?}", member.node))
            })?;
            Ok(Node { id: member.node, client })
        });
        let nodes = nodes.collect::<Result<Vec<_>, Failure>>()?;
        if let Some(layout) = &layout {
            let same = |node: &Node| {
                u16::try_from(node.id)
                    .is_ok_and(|id| layout.ids().contains(&id) && layout.client(id) == node.client)
            };
            if let Some(other) = nodes.iter().find(|node| !same(node)) {
                return Err(Failure::Usage(format!(
                    "node {} of the cluster at {admin} is not in {}",
                    other.id,
                    layout.dir().display()
                )));
            }
        }
        Ok(Self { name: status.cluster_name, policy, nodes, layout })
    }

    /// Whether the primary acknowledges what no other node has.
    pub(super) fn acknowledges_alone(&self) -> bool {
        let voters = self.nodes.len();
        let policy = Policy::parse(&self.policy, voters);
        policy.is_ok_and(|policy| policy.normal_form(voters).copies <= 1)
    }

    /// Where clients reach it.
    pub(super) fn clients(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.client).collect()
    }

    /// The primary of the newest epoch among these nodes, as it says itself.
    pub(super) fn primary(&self, among: impl Fn(Node) -> bool) -> Option<(Node, Said)> {
        let nodes = self.nodes.iter().copied().filter(|node| among(*node));
        nodes
            .filter_map(|node| Some((node, said(node)?)))
            .filter(|(_, said)| said.primary)
            .max_by_key(|(_, said)| said.epoch)
    }

    /// Waits until a node follows and has all that is committed now.
    pub(super) fn wait_until_back(&self, node: Node, limit: Duration) -> bool {
        let goal = poll(limit, || self.primary(|_| true).map(|(_, said)| said.committed));
        let back = || {
            let said = said(node)?;
            (said.has_primary && goal.is_some_and(|goal| said.applied >= goal)).then_some(())
        };
        poll(limit, back).is_some()
    }

    /// Reads these keys at the primary; absent ones are left out.
    pub(super) fn read_all(&self, keys: &[String]) -> Result<HashMap<String, String>, Failure> {
        let mut store = HashMap::new();
        self.in_chunks("MGET", keys, |chunk, reply| {
            let values = reply.elements().filter(|values| values.len() == chunk.len());
            let values = values.ok_or("MGET gave no list")?;
            for (key, value) in chunk.iter().zip(values) {
                if let Some(bytes) = value.bytes() {
                    store.insert(key.clone(), String::from_utf8_lossy(bytes).into_owned());
                }
            }
            Ok(())
        })?;
        Ok(store)
    }

    /// Deletes them: a drill leaves nothing behind.
    pub(super) fn delete_all(&self, keys: &[String]) -> Result<(), Failure> {
        self.in_chunks("UNLINK", keys, |_, _| Ok(()))
    }

    fn in_chunks(
        &self,
        command: &str,
        keys: &[String],
        mut take: impl FnMut(&[String], &Value) -> Result<(), &'static str>,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + READ_LIMIT;
        let mut route = Route::new(&self.clients(), Duration::from_secs(5));
        for chunk in keys.chunks(CHUNK) {
            let mut words = vec![command.to_owned()];
            words.extend_from_slice(chunk);
            loop {
                match route.send_one(words.clone()) {
                    Outcome::Done(reply) => {
                        take(chunk, &reply).map_err(|error| Failure::Failed(error.to_owned()))?;
                        break;
                    }
                    // Both may be done twice.
                    Outcome::Refused(why) | Outcome::InDoubt(why) | Outcome::Lost(why) => {
                        if Instant::now() > deadline {
                            return Err(Failure::Failed(format!(
                                "{command} was not answered within {READ_LIMIT:?}: {why}"
                            )));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Looks until there is an answer; `None` once `limit` has passed.
pub(super) fn poll<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = look() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

/// Asks a node; `None` where it doesn't answer.
pub(super) fn said(node: Node) -> Option<Said> {
    let mut client = Client::connect(node.client, ANSWER_LIMIT).ok()?;
    let reply = client.command(&["QUORATE", "STATUS"]).ok()?;
    let fields = reply.elements()?;
    let field = |name: &str| {
        fields.chunks(2).find(|pair| pair[0].bytes() == Some(name.as_bytes())).map(|pair| &pair[1])
    };
    let number = |name| match field(name)? {
        Value::Integer(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    let leads = field("role")?.bytes() == Some(b"primary");
    Some(Said {
        primary: leads && number("primary") == number("node"),
        epoch: number("epoch")?,
        committed: number("committed")?,
        applied: number("applied")?,
        last: number("last")?,
        has_primary: number("primary").is_some(),
    })
}
