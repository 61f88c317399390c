//! The gate as an actor: it owns the task that drains the input queue, and fails when it fails.

use std::time::{Duration, Instant};

use quorate_protocol::gate::{Held, QueueError, Queues, Release};
use quorate_protocol::resp::Reply;
use ractor::concurrency::Timeout;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::waits::split;
use crate::metrics::{GateMetrics, GateWaits, Metrics, Stage};
use crate::submit::{DoubtReason, GateInput, Outcome, Sealed, Waiting};
use crate::supervisor::spawn;

/// Room of the input queue, in messages. A round of a sender is one message, and what waits is
/// bounded by admission, so a full queue means that the gate's task gets no processor at all.
pub const GATE_INPUT_COUNT_MAX: usize = 65_536;

/// How many messages one round of the task takes.
const ROUND_COUNT_MAX: usize = 1_024;

/// The actor: spawn it on the client runtime.
#[derive(Debug)]
pub struct DurabilityGate;

/// Control messages. Bulk arrives through the input queue.
#[derive(Debug)]
pub enum GateMessage {
    /// Answer everything that waits as in doubt, then stop.
    Stop,
    /// The task ended; an error is a broken contract, and the node must stop.
    TaskEnded(Result<(), QueueError>),
    /// The task panicked.
    TaskPanicked(String),
}

/// Gives senders their end of the input queue.
#[derive(Clone, Debug)]
pub struct GateHandle {
    input: mpsc::Sender<GateInput>,
    actor: ActorRef<GateMessage>,
}

/// What the actor needs to start.
#[derive(Debug)]
pub struct GateArguments {
    input: mpsc::Receiver<GateInput>,
    metrics: GateMetrics,
    stage: Stage,
}

/// Owns the task.
#[derive(Debug)]
pub struct GateState {
    task: JoinHandle<()>,
    /// Tells the task to take what its queue holds and to end.
    stop: Option<oneshot::Sender<()>>,
}

impl GateHandle {
    /// Starts the gate, linked to `supervisor` where there is one.
    ///
    /// # Errors
    /// When the actor can't be started.
    pub async fn spawn(metrics: &Metrics, supervisor: Option<ActorCell>) -> Result<Self, SpawnErr> {
        let (input, receiver) = mpsc::channel(GATE_INPUT_COUNT_MAX);
        let (metrics, stage) = (metrics.gate.clone(), metrics.stages.gate.clone());
        let arguments = GateArguments { input: receiver, metrics, stage };
        let actor = spawn(supervisor, DurabilityGate, arguments).await?;
        Ok(Self { input, actor })
    }

    /// An end of the input queue. Sealed entries must be sent before their journal write is
    /// started, so that they are known here before they can be applied.
    #[must_use]
    pub fn input(&self) -> mpsc::Sender<GateInput> {
        self.input.clone()
    }

    /// The actor, for its supervisor.
    #[must_use]
    pub fn cell(&self) -> ActorCell {
        self.actor.get_cell()
    }

    /// Answers everything that waits as in doubt and stops the gate. Waits at most `timeout`.
    ///
    /// # Errors
    /// When the gate is still running after `timeout`.
    pub async fn stop(&self, timeout: Duration) -> Result<(), Timeout> {
        // Fails only when the gate is gone, and then its waiters are answered already.
        let _ = self.actor.send_message(GateMessage::Stop);
        self.actor.get_cell().wait(Some(timeout)).await
    }
}

impl Actor for DurabilityGate {
    type Msg = GateMessage;
    type State = GateState;
    type Arguments = GateArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<GateMessage>,
        arguments: GateArguments,
    ) -> Result<GateState, ActorProcessingErr> {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(watch(myself, arguments, stopped));
        Ok(GateState { task, stop: Some(stop) })
    }

    async fn handle(
        &self,
        myself: ActorRef<GateMessage>,
        message: GateMessage,
        state: &mut GateState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            GateMessage::Stop => {
                // Dropping the sender is the signal.
                state.stop = None;
                Ok(())
            }
            GateMessage::TaskEnded(Ok(())) => {
                myself.stop(None);
                Ok(())
            }
            GateMessage::TaskEnded(Err(error)) => Err(error.into()),
            GateMessage::TaskPanicked(panic) => Err(panic.into()),
        }
    }

    async fn post_stop(
        &self,
        _: ActorRef<GateMessage>,
        state: &mut GateState,
    ) -> Result<(), ActorProcessingErr> {
        state.task.abort();
        Ok(())
    }
}

/// Turns the end of the task, however it comes, into a message to the actor.
async fn watch(
    actor: ActorRef<GateMessage>,
    arguments: GateArguments,
    stopped: oneshot::Receiver<()>,
) {
    let message = match tokio::spawn(run(arguments, stopped)).await {
        Ok(result) => GateMessage::TaskEnded(result),
        Err(error) => GateMessage::TaskPanicked(error.to_string()),
    };
    // Fails only when the actor is stopping, which is what the message would ask for.
    let _ = actor.send_message(message);
}

/// Drains the input queue until all of its senders are gone or the gate is stopped.
async fn run(
    arguments: GateArguments,
    mut stopped: oneshot::Receiver<()>,
) -> Result<(), QueueError> {
    let GateArguments { mut input, metrics, stage } = arguments;
    let mut gate = Gate::new(metrics);
    let mut round = Vec::with_capacity(ROUND_COUNT_MAX);
    let mut stopping = false;
    loop {
        let deadline = gate.queue.next_deadline();
        if input.is_empty() {
            stage.idle();
        }
        let count = tokio::select! {
            biased;
            count = input.recv_many(&mut round, ROUND_COUNT_MAX) => count,
            _ = &mut stopped, if !stopping => {
                stopping = true;
                input.close();
                continue;
            }
            () = sleep_until(deadline) => {
                gate.expire(Instant::now());
                continue;
            }
        };
        if count == 0 {
            gate.handle(GateInput::Deposed { reason: DoubtReason::Shutdown })?;
            gate.answer();
            return Ok(());
        }
        let began = Instant::now();
        for message in round.drain(..) {
            gate.handle(message)?;
        }
        gate.queue.release(&mut gate.out)?;
        // A queue that never runs empty must not hold deadlines up.
        gate.expire(Instant::now());
        stage.busy(began.elapsed());
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

type Waiter = (Instant, oneshot::Sender<Outcome>);

struct Gate {
    queue: Queues<Waiter, Reply, Instant>,
    out: Vec<Release<Waiter, Reply, Instant>>,
    waits: GateWaits,
    metrics: GateMetrics,
}

impl Gate {
    fn new(metrics: GateMetrics) -> Self {
        let waits = metrics.waits();
        Self { queue: Queues::new(), out: Vec::new(), waits, metrics }
    }

    fn handle(&mut self, message: GateInput) -> Result<(), QueueError> {
        match message {
            GateInput::Sealed(Sealed { id, at, waiting }) => {
                let held = waiting.into_iter().map(|batch| {
                    let waiter = (batch.accepted, batch.reply);
                    let Waiting { index, count, deadline, .. } = batch;
                    (batch.durability, Held { index, count, deadline, waiter })
                });
                self.queue.sealed(id, at, held.collect(), &mut self.out)
            }
            GateInput::Applied(entries) => {
                for entry in entries {
                    self.queue.applied(entry.id, entry.replies);
                }
                Ok(())
            }
            GateInput::Acknowledgeable { epoch, through, met } => {
                self.queue.acknowledge(epoch, through, &met, &mut self.out);
                Ok(())
            }
            GateInput::Durable { policy, epoch, through, met } => {
                self.queue.acknowledge_further(policy, epoch, through, &met, &mut self.out);
                Ok(())
            }
            GateInput::Deposed { reason } => {
                // What was releasable before the tenure ended is done, and says so.
                self.queue.release(&mut self.out)?;
                self.queue.depose(reason, &mut self.out);
                Ok(())
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        self.queue.expire(now, &mut self.out);
        self.answer();
    }

    fn answer(&mut self) {
        if self.out.is_empty() {
            self.metrics.waiting(self.queue.len(), self.queue.oldest());
            return;
        }
        let (now, attributes) = (Instant::now(), self.metrics.attribution.is_on());
        for release in self.out.drain(..) {
            // A failed send means that the connection is gone: nobody is left to be told.
            let _ = match release {
                Release::Done { waiter: (accepted, reply), id, index, replies, wait } => {
                    let waits = attributes.then(|| split(accepted, &wait, now));
                    self.waits.released(waits.as_ref());
                    reply.send(Outcome::Done { id, index, replies, waits })
                }
                Release::InDoubt { waiter: (_, reply), id, index, reason } => {
                    self.metrics.in_doubt(reason);
                    reply.send(Outcome::InDoubt { id: Some(id), index, reason })
                }
            };
        }
        self.waits.flush();
        self.metrics.waiting(self.queue.len(), self.queue.oldest());
    }
}

#[cfg(test)]
mod tests {
    use quorate_protocol::gate::{Crossings, Met, WaitedFor};
    use quorate_protocol::types::{EntryId, Epoch, NodeId, Seq};

    use super::*;
    use crate::submit::Applied;

    fn sealed(seq: u64, deadline: Duration) -> (GateInput, oneshot::Receiver<Outcome>) {
        let (reply, outcome) = oneshot::channel();
        let now = Instant::now();
        let batch = Waiting {
            index: 0,
            count: 1,
            accepted: now,
            deadline: now + deadline,
            durability: None,
            reply,
        };
        let id = EntryId::new(Epoch(1), Seq(seq));
        (GateInput::Sealed(Sealed { id, at: now, waiting: vec![batch] }), outcome)
    }

    async fn gate() -> GateHandle {
        let metrics = Metrics::new().expect("names are unique");
        GateHandle::spawn(&metrics, None).await.expect("the gate starts")
    }

    async fn within<T>(wait: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("an answer in time")
    }

    #[tokio::test]
    async fn releases_what_is_applied_and_acknowledgeable() {
        let gate = gate().await;
        let input = gate.input();
        let (message, outcome) = sealed(1, Duration::from_mins(1));
        let id = EntryId::new(Epoch(1), Seq(1));
        input.send(message).await.expect("the gate runs");
        let applied = Applied { id, replies: vec![Reply::Integer(7)] };
        input.send(GateInput::Applied(vec![applied])).await.expect("the gate runs");
        let by = Some(WaitedFor::ReplicaDisk(NodeId(3)));
        let met = Met { at: Instant::now(), by, own: Crossings::default() };
        let ack = GateInput::Acknowledgeable { epoch: Epoch(1), through: Seq(1), met };
        input.send(ack).await.expect("the gate runs");
        let Ok(Outcome::Done { replies, waits, .. }) = within(outcome).await else {
            panic!("it is done");
        };
        let by_then = waits.expect("it is noted").by;
        assert_eq!((replies, by_then), (vec![Reply::Integer(7)], by));
    }

    #[tokio::test]
    async fn a_passed_deadline_is_in_doubt_without_any_input() {
        let gate = gate().await;
        let (message, outcome) = sealed(1, Duration::from_millis(5));
        gate.input().send(message).await.expect("the gate runs");
        let outcome = within(outcome).await.expect("an answer");
        assert!(matches!(outcome, Outcome::InDoubt { reason: DoubtReason::Deadline, .. }));
    }

    #[tokio::test]
    async fn a_stopped_gate_answers_what_its_queue_still_holds() {
        let gate = gate().await;
        let (message, outcome) = sealed(1, Duration::from_mins(1));
        gate.input().send(message).await.expect("the gate runs");
        gate.stop(Duration::from_secs(10)).await.expect("it stops");
        let outcome = within(outcome).await.expect("an answer");
        assert!(matches!(outcome, Outcome::InDoubt { reason: DoubtReason::Shutdown, .. }));
    }
}
