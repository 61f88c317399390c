//! Who would lead in this node's place: asked when this node's disk is full, since a transfer to a
//! node that doesn't take over costs the lease for the rest of the epoch.

use std::time::Duration;

use parking_lot::Mutex;
use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::types::NodeId;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::fetch::{Dialled, connect, would_lead};

/// How long a voter may take to answer, a connection included.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// How long an answer holds.
const FRESH: Duration = Duration::from_secs(2);

/// The voter that would lead, as of a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Successor(Mutex<Option<(NodeId, Instant)>>);

impl Successor {
    /// Who it is. One answer is good for one attempt.
    pub(super) fn take(&self) -> Option<NodeId> {
        self.0.lock().take().filter(|(_, at)| at.elapsed() < FRESH).map(|(node, _)| node)
    }

    /// Asks all voters but this node; the first that is willing is remembered.
    pub(super) async fn find(&self, node: NodeId, config: &ClusterEntry, dial: &Dialled) {
        let mut asking = JoinSet::new();
        for voter in config.voters().filter(|voter| *voter != node) {
            let address = config.member(voter).map(|member| member.peer_addr.clone());
            let (address, dial) = (address.unwrap_or_default(), dial.clone());
            asking.spawn(async move {
                let asked = async {
                    let connection = connect(&dial, voter, &address).await?;
                    let willing = would_lead(&connection).await;
                    connection.close(0u32.into(), b"");
                    willing
                };
                // Who doesn't answer doesn't lead.
                let willing = timeout(ANSWER_DEADLINE, asked).await.is_ok_and(|w| w == Ok(true));
                willing.then_some(voter)
            });
        }
        while let Some(answer) = asking.join_next().await {
            if let Ok(Some(voter)) = answer {
                *self.0.lock() = Some((voter, Instant::now()));
                return;
            }
        }
    }
}
