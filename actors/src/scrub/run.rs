//! The asker's part: one position, every voter, one report.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::Connection;
use quorate_protocol::types::{NodeId, Seq};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::compare::{Difference, compare};
use super::examine::{Examiner, NotHere};
use super::hashes::{Examined, RangeHashes};
use crate::metrics::ScrubMetrics;
use crate::snapshot::examine_remotely;
use crate::view::Published;

/// How far ahead of the log's end the position is, attempt by attempt: nothing for a cluster at
/// rest, more for one under load, which has moved on by the time the question arrives.
const AHEAD: [u64; 6] = [0, 256, 0, 2_048, 512, 16_384];

/// From the first packet to a connection.
const DIAL_DEADLINE: Duration = Duration::from_secs(5);

/// How long a node may take to read everything that it holds.
const EXAMINE_DEADLINE: Duration = Duration::from_mins(30);

/// What a scrub found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubReport {
    /// The position at which the nodes were compared.
    pub seq: Seq,
    /// Every voter.
    pub nodes: Vec<NodeScrub>,
    /// Where they differ.
    pub differences: Vec<Difference>,
}

/// What one node said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeScrub {
    /// Which.
    pub node: NodeId,
    /// Live keys; `None` where its content could not be read or it did not answer.
    pub keys: Option<u64>,
    /// What can't be read there, or isn't what was written.
    pub fault: Option<String>,
    /// Why it did not answer.
    pub absent: Option<String>,
}

/// Why there is no report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScrubError {
    /// One is under way.
    #[error("another scrub is at work")]
    Busy,
    /// Under this load the nodes were never asked for a position that all of them still reached.
    #[error("no position was found at which all nodes could be compared; try again at less load")]
    NoPosition,
    /// There is no configuration yet.
    #[error("this node knows of no cluster yet")]
    NoCluster,
    /// The node is stopping.
    #[error("this node is stopping")]
    Stopping,
}

impl ScrubReport {
    /// Whether every voter answered, holds the same and can read all of it.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.differences.is_empty()
            && self.nodes.iter().all(|node| node.fault.is_none() && node.absent.is_none())
    }
}

/// Asks for scrubs. Cheap to clone.
#[derive(Clone)]
pub struct Scrubber {
    pub(crate) orders: mpsc::Sender<ScrubOrder>,
}

impl Scrubber {
    /// Compares all voters, and has each read its files through. Takes as long as they need to read
    /// everything that they hold.
    ///
    /// # Errors
    /// See [`ScrubError`]. What is found is no error but the report.
    pub async fn scrub(&self) -> Result<ScrubReport, ScrubError> {
        let (reply, report) = oneshot::channel();
        self.orders.try_send(reply).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ScrubError::Busy,
            mpsc::error::TrySendError::Closed(_) => ScrubError::Stopping,
        })?;
        report.await.unwrap_or(Err(ScrubError::Stopping))
    }
}

/// Where the report goes.
pub(crate) type ScrubOrder = oneshot::Sender<Result<ScrubReport, ScrubError>>;

/// Connects to another node, on the runtime of the snapshots' thread.
pub(crate) type Dialled = Arc<dyn Fn(NodeId, SocketAddr) -> DialFuture + Send + Sync>;
type DialFuture = std::pin::Pin<Box<dyn Future<Output = Result<Connection, String>> + Send>>;

/// One scrub.
pub(crate) struct ScrubRun {
    pub(crate) published: Arc<Published>,
    pub(crate) examiner: Arc<Examiner>,
    pub(crate) dial: Dialled,
    pub(crate) metrics: ScrubMetrics,
}

/// A voter, with a way to ask it.
struct Asked {
    node: NodeId,
    way: Way,
}

#[derive(Clone)]
enum Way {
    Here,
    There(Connection),
    Nowhere(String),
}

/// What came of one question.
type Answer = Result<Result<Examined, NotHere>, String>;

impl ScrubRun {
    /// Reports and raises the alarm: metrics and log.
    pub(crate) async fn run(self) -> Result<ScrubReport, ScrubError> {
        let outcome = self.compare().await;
        self.metrics.finished(outcome.as_ref().ok());
        match &outcome {
            Ok(report) if report.is_clean() => {
                tracing::info!(seq = %report.seq, "scrub: all nodes hold the same and can read it");
            }
            Ok(report) => tell(report),
            Err(error) => tracing::warn!(%error, "scrub: not done"),
        }
        outcome
    }

    async fn compare(&self) -> Result<ScrubReport, ScrubError> {
        let asked = self.voters().await?;
        for ahead in AHEAD {
            let view = self.published.view();
            let end = view.last.seq.max(self.published.committed());
            let seq = Seq(end.0 + ahead);
            let answers = self.ask_all(&asked, seq).await;
            let missed =
                |(_, answer): &(NodeId, Answer)| matches!(answer, Ok(Err(NotHere::Elsewhere)));
            if answers.iter().any(|(_, answer)| matches!(answer, Ok(Err(NotHere::Busy)))) {
                return Err(ScrubError::Busy);
            }
            if !answers.iter().any(missed) {
                return Ok(report(seq, answers));
            }
        }
        Err(ScrubError::NoPosition)
    }

    /// Every voter, with a connection where one can be had.
    async fn voters(&self) -> Result<Vec<Asked>, ScrubError> {
        let view = self.published.view();
        let config = view.config.as_ref().ok_or(ScrubError::NoCluster)?;
        let mut asked = Vec::new();
        for node in config.voters() {
            let way = if node == view.node {
                Way::Here
            } else {
                let address = config.member(node).map(|member| member.peer_addr.clone());
                match self.connect(node, &address.unwrap_or_default()).await {
                    Ok(connection) => Way::There(connection),
                    Err(error) => Way::Nowhere(error),
                }
            };
            asked.push(Asked { node, way });
        }
        Ok(asked)
    }

    async fn connect(&self, node: NodeId, address: &str) -> Result<Connection, String> {
        let dial = async {
            let found =
                tokio::net::lookup_host(address).await.map_err(|error| error.to_string())?;
            let address = found.into_iter().next().ok_or("its name has no address")?;
            (self.dial)(node, address).await
        };
        timeout(DIAL_DEADLINE, dial).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    /// All at once, so that all still are where they are asked for.
    async fn ask_all(&self, asked: &[Asked], seq: Seq) -> Vec<(NodeId, Answer)> {
        let mut asking = JoinSet::new();
        for Asked { node, way } in asked {
            let (node, way, examiner) = (*node, way.clone(), self.examiner.clone());
            asking.spawn(async move {
                let answer = match way {
                    Way::Here => tokio::task::spawn_blocking(move || examiner.examine(seq))
                        .await
                        .map_err(|error| error.to_string()),
                    Way::There(connection) => {
                        let examined = examine_remotely(&connection, seq);
                        timeout(EXAMINE_DEADLINE, examined)
                            .await
                            .unwrap_or_else(|_| Err("no answer in time".to_owned()))
                    }
                    Way::Nowhere(error) => Err(error),
                };
                (node, answer)
            });
        }
        let mut answers = asking.join_all().await;
        answers.sort_by_key(|(node, _)| *node);
        answers
    }
}

fn report(seq: Seq, answers: Vec<(NodeId, Answer)>) -> ScrubReport {
    let mut contents: Vec<(NodeId, RangeHashes)> = Vec::new();
    let mut nodes = Vec::new();
    for (node, answer) in answers {
        let mut scrub = NodeScrub { node, keys: None, fault: None, absent: None };
        match answer {
            Ok(Ok(Examined { hashes, fault })) => {
                scrub.fault = fault;
                scrub.keys = hashes.as_ref().map(RangeHashes::keys);
                contents.extend(hashes.map(|hashes| (node, hashes)));
            }
            Ok(Err(NotHere::Elsewhere | NotHere::Busy)) => {
                scrub.absent = Some("it did not look".to_owned());
            }
            Err(error) => scrub.absent = Some(error),
        }
        nodes.push(scrub);
    }
    ScrubReport { seq, nodes, differences: compare(&contents) }
}

/// One line for each thing that is wrong.
fn tell(report: &ScrubReport) {
    let seq = report.seq;
    for Difference { first_slot, last_slot, nodes } in &report.differences {
        tracing::error!(%seq, first_slot, last_slot, ?nodes, "scrub: nodes hold different content");
    }
    for node in &report.nodes {
        if let Some(fault) = &node.fault {
            tracing::error!(node = %node.node, fault, "scrub: a node can't read what it holds");
        }
        if let Some(reason) = &node.absent {
            tracing::warn!(node = %node.node, reason, "scrub: a node was not looked at");
        }
    }
}
