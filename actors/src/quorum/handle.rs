//! What the rest of the node may ask of the quorum policy actor.

use std::sync::Arc;
use std::time::Instant;

use quorate_protocol::types::Seq;
use tokio::sync::{mpsc, oneshot};

use crate::submit::{Batch, Refusal};
use crate::wake::Wake;

/// Hands batches and read requests to the quorum policy actor. Cheap to clone.
#[derive(Clone, Debug)]
pub struct QuorumHandle {
    submit: mpsc::Sender<Batch>,
    reads: mpsc::Sender<ConfirmedRead>,
    wake: Arc<Wake>,
}

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
    /// The actor drains both queues each time that `wake` reaches its mailbox.
    #[must_use]
    pub fn new(
        submit: mpsc::Sender<Batch>,
        reads: mpsc::Sender<ConfirmedRead>,
        wake: Arc<Wake>,
    ) -> Self {
        Self { submit, reads, wake }
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
