//! What operators ask of the quorum policy actor: changes of the configuration, and transfers of
//! leadership.

use std::collections::HashMap;
use std::time::Instant;

use quorate_protocol::cluster::ClusterChange;
use quorate_protocol::core::{
    ChangeOutcome, ChangeRefused, Event, HandoverOutcome, HandoverRefused, Outlook,
};
use quorate_protocol::types::{EntryId, NodeId};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::handle::{QuorumHandle, QuorumQueues};
use crate::submit::{Outcome, Refusal};

/// Orders that may wait for the actor.
pub(crate) const ORDER_QUEUE: usize = 16;

/// Answers that may be outstanding; older ones are forgotten, and their callers' waits end.
const OUTSTANDING_MAX: usize = 64;

/// One order, with where its outcome goes.
#[derive(Debug)]
pub(crate) enum Order {
    /// Change members, policy or version (S10).
    Change { change: ClusterChange, reply: oneshot::Sender<ChangeOutcome> },
    /// Say what a change would need.
    Question { change: ClusterChange, reply: oneshot::Sender<Result<Outlook, ChangeRefused>> },
    /// Hand leadership over.
    Transfer { to: Option<NodeId>, reply: oneshot::Sender<HandoverOutcome> },
}

impl Order {
    /// For a node that has no core: it certainly isn't primary.
    fn refuse(self) {
        // A dropped receiver is a caller that stopped waiting.
        match self {
            Self::Change { reply, .. } => {
                let _ = reply.send(ChangeOutcome::Refused(ChangeRefused::NotPrimary));
            }
            Self::Question { reply, .. } => {
                let _ = reply.send(Err(ChangeRefused::NotPrimary));
            }
            Self::Transfer { reply, .. } => {
                let _ = reply.send(HandoverOutcome::Refused(HandoverRefused::NotPrimary));
            }
        }
    }
}

impl QuorumQueues {
    /// Answers everything that waits, on a node that has no core yet.
    pub(super) fn refuse_all(&mut self) {
        while let Ok(batch) = self.submitted.try_recv() {
            // A dropped receiver is a connection that is gone.
            let _ = batch.reply.send(Outcome::Refused(Refusal::NoPrimary));
        }
        while let Ok(read) = self.reads.try_recv() {
            let _ = read.reply.send(Err(Refusal::NoPrimary));
        }
        while let Ok(order) = self.orders.try_recv() {
            order.refuse();
        }
    }
}

/// Why a change of the configuration is not known to be in force.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChangeError {
    /// It did not happen.
    #[error(transparent)]
    Refused(#[from] ChangeRefused),
    /// A later primary may have it or not.
    #[error(
        "in doubt: leadership was lost before entry {0} was in force; it may come in force yet"
    )]
    InDoubt(EntryId),
    /// It may come in force later.
    #[error(
        "in doubt: the deadline passed before the change was in force; it may come in force yet"
    )]
    Deadline,
    /// The node is stopping.
    #[error("this node is stopping")]
    Stopping,
}

/// Why leadership was not handed over.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransferError {
    /// It did not begin.
    #[error(transparent)]
    Refused(#[from] HandoverRefused),
    /// The target did not take over; this node leads on.
    #[error("node {0} did not take over in time; this node goes on")]
    TimedOut(NodeId),
    /// It may still happen.
    #[error("in doubt: the deadline passed before leadership was handed over; it may be yet")]
    Deadline,
    /// The node is stopping.
    #[error("this node is stopping")]
    Stopping,
}

impl QuorumHandle {
    /// Changes the configuration; returns once the change is in force, with its entry.
    ///
    /// # Errors
    /// Says whether it certainly did not happen.
    pub async fn change(
        &self,
        change: ClusterChange,
        deadline: Instant,
    ) -> Result<EntryId, ChangeError> {
        let (reply, outcome) = oneshot::channel();
        self.order(Order::Change { change, reply }).map_err(|()| ChangeError::Stopping)?;
        match tokio::time::timeout_at(deadline.into(), outcome).await {
            Ok(Ok(ChangeOutcome::InForce(id))) => Ok(id),
            Ok(Ok(ChangeOutcome::Refused(refused))) => Err(refused.into()),
            Ok(Ok(ChangeOutcome::InDoubt(id))) => Err(ChangeError::InDoubt(id)),
            Ok(Err(_)) => Err(ChangeError::Stopping),
            Err(_) => Err(ChangeError::Deadline),
        }
    }

    /// What a change would need, without making it: whether it would be proposed now, and who would
    /// have to hold it.
    ///
    /// # Errors
    /// It would be refused.
    pub async fn outlook(
        &self,
        change: ClusterChange,
        deadline: Instant,
    ) -> Result<Outlook, ChangeError> {
        let (reply, outlook) = oneshot::channel();
        self.order(Order::Question { change, reply }).map_err(|()| ChangeError::Stopping)?;
        match tokio::time::timeout_at(deadline.into(), outlook).await {
            Ok(Ok(outlook)) => Ok(outlook?),
            Ok(Err(_)) => Err(ChangeError::Stopping),
            Err(_) => Err(ChangeError::Deadline),
        }
    }

    /// Hands leadership to `to`, or to the most caught-up voter. Returns the target once this
    /// node leads no more.
    ///
    /// # Errors
    /// This node leads on, unless the deadline passed first.
    pub async fn transfer(
        &self,
        to: Option<NodeId>,
        deadline: Instant,
    ) -> Result<NodeId, TransferError> {
        let (reply, outcome) = oneshot::channel();
        self.order(Order::Transfer { to, reply }).map_err(|()| TransferError::Stopping)?;
        match tokio::time::timeout_at(deadline.into(), outcome).await {
            Ok(Ok(HandoverOutcome::SteppedDown(to))) => Ok(to),
            Ok(Ok(HandoverOutcome::Refused(refused))) => Err(refused.into()),
            Ok(Ok(HandoverOutcome::TimedOut(to))) => Err(TransferError::TimedOut(to)),
            Ok(Err(_)) => Err(TransferError::Stopping),
            Err(_) => Err(TransferError::Deadline),
        }
    }
}

/// What the driver has to do for an order.
#[derive(Debug)]
pub(super) enum Taken {
    /// Give the core this event.
    Event(Event),
    /// Answer without changing anything.
    Question { change: ClusterChange, reply: oneshot::Sender<Result<Outlook, ChangeRefused>> },
}

/// Orders under way, by the token that the core knows them by.
#[derive(Debug)]
pub(super) struct Orders {
    queue: mpsc::Receiver<Order>,
    next_token: u64,
    changes: HashMap<u64, oneshot::Sender<ChangeOutcome>>,
    transfers: HashMap<u64, oneshot::Sender<HandoverOutcome>>,
}

impl Orders {
    pub(super) fn new(queue: mpsc::Receiver<Order>) -> Self {
        Self { queue, next_token: 0, changes: HashMap::new(), transfers: HashMap::new() }
    }

    /// The next order.
    pub(super) fn take(&mut self) -> Option<Taken> {
        let order = self.queue.try_recv().ok()?;
        self.next_token += 1;
        let token = self.next_token;
        let forgotten = token.saturating_sub(OUTSTANDING_MAX as u64);
        self.changes.remove(&forgotten);
        self.transfers.remove(&forgotten);
        Some(Taken::Event(match order {
            Order::Question { change, reply } => return Some(Taken::Question { change, reply }),
            Order::Change { change, reply } => {
                self.changes.insert(token, reply);
                Event::Reconfigure { token, change }
            }
            Order::Transfer { to, reply } => {
                self.transfers.insert(token, reply);
                Event::Transfer { token, to }
            }
        }))
    }

    // A dropped receiver is a caller that stopped waiting.

    pub(super) fn changed(&mut self, token: u64, outcome: ChangeOutcome) {
        if let Some(reply) = self.changes.remove(&token) {
            let _ = reply.send(outcome);
        }
    }

    pub(super) fn transferred(&mut self, token: u64, outcome: HandoverOutcome) {
        if let Some(reply) = self.transfers.remove(&token) {
            let _ = reply.send(outcome);
        }
    }
}
