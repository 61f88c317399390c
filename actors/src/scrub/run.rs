//! The asker's part: one position, every voter, one report.

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
use crate::snapshot::{Dialled, connect, examine_remotely, rebuild_remotely};
use crate::view::Published;

/// How far ahead of the log's end the position is, attempt by attempt: nothing for a cluster at
/// rest, more for one under load, which has moved on by the time the question arrives.
const AHEAD: [u64; 6] = [0, 256, 0, 2_048, 512, 16_384];

/// How long a node may take to hear that it must rebuild.
const REBUILD_DEADLINE: Duration = Duration::from_secs(5);

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
    /// Nodes that were told to rebuild their state.
    pub repaired: Vec<NodeId>,
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

    /// Who holds something else than more than half of all voters, with the first slots of it.
    /// Who can't read what it holds has found that out itself, and rebuilds by itself.
    fn repairable(&self) -> Vec<(NodeId, u16, u16)> {
        let known = self.nodes.iter().filter(|node| node.keys.is_some()).count();
        let mut odd: Vec<(NodeId, u16, u16)> = Vec::new();
        for Difference { first_slot, last_slot, nodes } in &self.differences {
            if 2 * (known - nodes.len()) > self.nodes.len() {
                odd.extend(nodes.iter().map(|node| (*node, *first_slot, *last_slot)));
            }
        }
        odd.sort_unstable();
        odd.dedup_by_key(|(node, ..)| *node);
        odd
    }
}

/// Asks for scrubs. Cheap to clone.
#[derive(Clone)]
pub struct Scrubber {
    pub(crate) orders: mpsc::Sender<ScrubOrder>,
}

impl Scrubber {
    /// Compares all voters, and has each read its files through. Takes as long as they need to read
    /// everything that they hold. With `repair`, those that differ from what more than half of all
    /// voters hold are told to rebuild their state.
    ///
    /// # Errors
    /// See [`ScrubError`]. What is found is no error but the report.
    pub async fn scrub(&self, repair: bool) -> Result<ScrubReport, ScrubError> {
        let (reply, report) = oneshot::channel();
        self.orders.try_send(ScrubOrder { repair, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ScrubError::Busy,
            mpsc::error::TrySendError::Closed(_) => ScrubError::Stopping,
        })?;
        report.await.unwrap_or(Err(ScrubError::Stopping))
    }
}

/// What is asked for, and where the report goes.
pub(crate) struct ScrubOrder {
    pub(crate) repair: bool,
    pub(crate) reply: ScrubReply,
}

/// Where a report goes.
pub(crate) type ScrubReply = oneshot::Sender<Result<ScrubReport, ScrubError>>;

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
    pub(crate) async fn run(self, repair: bool) -> Result<ScrubReport, ScrubError> {
        let mut outcome = self.compare().await;
        if let (Ok(report), true) = (&mut outcome, repair) {
            self.repair(report).await;
        }
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

    /// Each of them rebuilds when all others are there, so never two of them at once.
    async fn repair(&self, report: &mut ScrubReport) {
        for (node, first_slot, last_slot) in report.repairable() {
            let told = self.tell_to_rebuild(node, (report.seq, first_slot, last_slot)).await;
            match told {
                Ok(()) => {
                    tracing::warn!(%node, seq = %report.seq, "scrub: the node rebuilds its state");
                    report.repaired.push(node);
                }
                Err(error) => tracing::error!(%node, error, "scrub: the node was not repaired"),
            }
        }
    }

    async fn tell_to_rebuild(&self, node: NodeId, what: (Seq, u16, u16)) -> Result<(), String> {
        let view = self.published.view();
        if node == view.node {
            self.examiner.give_up(what.0, what.1, what.2);
            return Ok(());
        }
        let member = view.config.as_ref().and_then(|config| config.member(node));
        let address = member.map(|member| member.peer_addr.clone()).unwrap_or_default();
        let connection = connect(&self.dial, node, &address).await?;
        let told = timeout(REBUILD_DEADLINE, rebuild_remotely(&connection, what)).await;
        told.unwrap_or_else(|_| Err("no answer in time".to_owned()))
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
                match connect(&self.dial, node, &address.unwrap_or_default()).await {
                    Ok(connection) => Way::There(connection),
                    Err(error) => Way::Nowhere(error),
                }
            };
            asked.push(Asked { node, way });
        }
        Ok(asked)
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
    ScrubReport { seq, nodes, differences: compare(&contents), repaired: Vec::new() }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn report(keys: &[Option<u64>], differences: &[(u16, &[u64])]) -> ScrubReport {
        let node = |(node, keys): (u64, &Option<u64>)| NodeScrub {
            node: NodeId(node),
            keys: *keys,
            fault: None,
            absent: None,
        };
        let difference = |(slot, nodes): &(u16, &[u64])| Difference {
            first_slot: *slot,
            last_slot: *slot + 63,
            nodes: nodes.iter().copied().map(NodeId).collect(),
        };
        ScrubReport {
            seq: Seq(9),
            nodes: (1..).zip(keys).map(node).collect(),
            differences: differences.iter().map(difference).collect(),
            repaired: Vec::new(),
        }
    }

    #[test]
    fn only_who_differs_from_more_than_half_of_all_voters_is_repaired() {
        let all = [Some(5), Some(5), Some(6)];
        let odd = report(&all, &[(64, &[3]), (640, &[3]), (6_400, &[1])]);
        assert_eq!(odd.repairable(), [(NodeId(1), 6_400, 6_463), (NodeId(3), 64, 127)]);
        assert_eq!(report(&all, &[(64, &[1, 2, 3])]).repairable(), []);
        // Two of three that differ: neither is right, and all are named.
        let silent = [Some(5), Some(6), None];
        assert_eq!(report(&silent, &[(64, &[1, 2])]).repairable(), []);
        // Of those that answered most agree, but they are not most of all five.
        let few = [Some(5), Some(5), Some(6), None, None];
        assert_eq!(report(&few, &[(64, &[3])]).repairable(), []);
    }
}
