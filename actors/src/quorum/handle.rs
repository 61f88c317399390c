//! What the rest of the node may ask of the quorum policy actor.

use std::sync::Arc;
use std::time::Instant;

use quorate_protocol::types::Seq;
use tokio::sync::{mpsc, oneshot};

use super::copies::CopyTimesBoard;
use super::orders::{ORDER_QUEUE, Order};
use crate::submit::{Batch, Refusal};
use crate::wake::Wake;

/// Hands batches and read requests to the quorum policy actor. Cheap to clone.
#[derive(Clone, Debug)]
pub struct QuorumHandle {
    submit: mpsc::Sender<Batch>,
    reads: mpsc::Sender<ConfirmedRead>,
    orders: mpsc::Sender<Order>,
    copy_times: Arc<CopyTimesBoard>,
    wake: Arc<Wake>,
}

/// The receiving ends of the handle's queues: the actor drains them each time that it wakes.
#[derive(Debug)]
pub struct QuorumQueues {
    /// Batches of client connections.
    pub submitted: mpsc::Receiver<Batch>,
    /// Reads of client connections.
    pub reads: mpsc::Receiver<ConfirmedRead>,
    /// What operators ask.
    pub(crate) orders: mpsc::Receiver<Order>,
    /// Where the actor leaves what it sees of copies.
    pub(crate) copy_times: Arc<CopyTimesBoard>,
}

/// Batches that may wait for the quorum actor to look: each holds its bytes of the admission
/// budget besides.
const SUBMIT_QUEUE: usize = 16 << 10;

/// Reads that may wait for a heartbeat round.
const READ_QUEUE: usize = 16 << 10;

/// A read that no lease covers: it is answered by a heartbeat round sent after it arrived (S11).
#[derive(Debug)]
pub struct ConfirmedRead {
    /// After this moment the answer is a refusal.
    pub deadline: Instant,
    /// The commit position as of the arrival, once the round is confirmed: the read is served
    /// from state that is applied at least to it.
    pub reply: oneshot::Sender<Result<Seq, Refusal>>,
}

impl QuorumHandle {
    /// `wake` tells the owner of the queues that something is in them.
    #[must_use]
    pub fn new(wake: Arc<Wake>) -> (Self, QuorumQueues) {
        let (submit, submitted) = mpsc::channel(SUBMIT_QUEUE);
        let (read, reads) = mpsc::channel(READ_QUEUE);
        let (order, orders) = mpsc::channel(ORDER_QUEUE);
        let copy_times: Arc<CopyTimesBoard> = Arc::default();
        let handle =
            Self { submit, reads: read, orders: order, copy_times: copy_times.clone(), wake };
        (handle, QuorumQueues { submitted, reads, orders, copy_times })
    }

    /// When copies of the last minute's entries were there, while this node leads.
    #[must_use]
    pub fn copy_times(&self) -> &Arc<CopyTimesBoard> {
        &self.copy_times
    }

    /// Hands over an order, if the queue has room and the actor is there.
    pub(super) fn order(&self, order: Order) -> Result<(), ()> {
        self.orders.try_send(order).map_err(|_| ())?;
        self.wake.wake();
        Ok(())
    }

    /// Hands over a batch; its outcome arrives on `batch.reply`. Waits for room in the queue
    /// until the batch's deadline.
    ///
    /// # Errors
    /// Returns why the batch was refused; it was not and will not be sealed.
    pub async fn submit(&self, batch: Batch) -> Result<(), Refusal> {
        match self.submit.try_send(batch) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(batch)) => {
                let deadline = batch.deadline.into();
                match tokio::time::timeout_at(deadline, self.submit.reserve()).await {
                    Ok(Ok(room)) => room.send(batch),
                    Ok(Err(_)) => return Err(Refusal::NoPrimary),
                    Err(_) => return Err(Refusal::Timeout { caller: false }),
                }
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Refusal::NoPrimary),
        }
        self.wake.wake();
        Ok(())
    }

    /// Lets the actor look around, so that it publishes what has changed.
    pub fn look(&self) {
        self.wake.wake();
    }

    /// The position that state must hold before a read that arrived now may be served, confirmed
    /// by a heartbeat round that was sent after this call (S11).
    ///
    /// # Errors
    /// Returns why no such position is known; a read must then not be served here.
    pub async fn confirmed_read(&self, deadline: Instant) -> Result<Seq, Refusal> {
        let (reply, answer) = oneshot::channel();
        let round = async {
            let read = ConfirmedRead { deadline, reply };
            self.reads.send(read).await.map_err(|_| Refusal::NoPrimary)?;
            self.wake.wake();
            answer.await.unwrap_or(Err(Refusal::NoPrimary))
        };
        tokio::time::timeout_at(deadline.into(), round)
            .await
            .unwrap_or(Err(Refusal::Timeout { caller: false }))
    }
}
