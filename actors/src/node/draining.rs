//! Taking a node out of service while it runs: leadership goes first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_protocol::core::HandoverRefused;
use quorate_protocol::types::NodeId;

use crate::quorum::{QuorumHandle, TransferError};
use crate::supervisor::{Phase, Supervisor};
use crate::view::Published;

/// Drains a node, as often as it is asked to. Cheap to clone.
#[derive(Clone)]
pub struct Drain {
    pub(super) supervisor: Supervisor,
    pub(super) quorum: QuorumHandle,
    pub(super) published: Arc<Published>,
}

/// What became of a node's leadership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drained {
    /// The node is starting: nothing was changed.
    Starting,
    /// It didn't lead.
    Replica,
    /// Another one leads; `None` where it was not heard in time.
    HandedOver(Option<NodeId>),
    /// There is no other voter to lead: new writes are refused.
    Alone,
    /// It leads, and goes on trying to hand over.
    StillPrimary(TransferError),
}

impl Drain {
    /// From now on the node doesn't want to lead: a primary hands over to the most caught-up voter
    /// while new commands wait, and writes that are under way end. Reads go on. Has no effect on a
    /// node that starts.
    pub async fn run(&self, limit: Duration) -> Drained {
        if self.supervisor.phase() == Phase::Starting {
            return Drained::Starting;
        }
        self.supervisor.enter(Phase::Draining);
        let deadline = Instant::now() + limit;
        match self.quorum.transfer(None, deadline).await {
            // One that the node began by itself will do.
            Ok(_) | Err(TransferError::Refused(HandoverRefused::UnderWay(_))) => {
                let heard = self.published.other_primary();
                let primary = tokio::time::timeout_at(deadline.into(), heard).await.ok();
                tracing::info!(?primary, "handed leadership over");
                Drained::HandedOver(primary)
            }
            Err(TransferError::Refused(HandoverRefused::NotPrimary)) => Drained::Replica,
            Err(TransferError::Refused(HandoverRefused::NoOther)) => Drained::Alone,
            Err(error) => {
                tracing::warn!(%error, "leadership was not handed over");
                Drained::StillPrimary(error)
            }
        }
    }
}
