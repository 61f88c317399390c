//! The consensus thread: quorum actor, senders, receiver and their QUIC endpoint on one runtime of
//! their own, so that heartbeats keep their period while clients saturate the node.

use std::thread::JoinHandle;
use std::time::Duration;

use ractor::ActorCell;
use tokio::sync::oneshot;

use super::StartError;
use crate::quorum::{Phase, QuorumWake};
use crate::replication::{Replication, ReplicationOptions, Roster};

/// How long the actors may take to end.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Makes the quorum actor's first phase, on its thread.
pub(super) type MakePhase = Box<dyn FnOnce(Replication) -> Phase + Send>;

/// A running consensus thread.
pub(super) struct ConsensusThread {
    thread: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

/// What the thread needs.
pub(super) struct ConsensusParts {
    /// Who to talk to at first.
    pub roster: Roster,
    /// The transport's settings.
    pub replication: ReplicationOptions,
    /// Wakes the quorum actor.
    pub wake: QuorumWake,
    /// Makes the actor's first phase, once the transport is up.
    pub phase: MakePhase,
    /// Learns of failures.
    pub supervisor: ActorCell,
}

impl ConsensusThread {
    /// Starts the thread; returns once the endpoint is bound and the actors run.
    ///
    /// # Errors
    /// The endpoint can't be bound, or an actor doesn't start.
    pub(super) async fn start(parts: ConsensusParts) -> Result<(Self, Replication), StartError> {
        let (started, outcome) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("consensus".to_owned())
            .spawn(move || run(parts, started, stopped))
            .map_err(|source| StartError::Thread { name: "consensus", source })?;
        match outcome.await {
            Ok(Ok(replication)) => Ok((Self { thread, stop }, replication)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StartError::Ended("consensus")),
        }
    }

    /// Stops the actors, the quorum actor first, and ends the thread.
    pub(super) async fn stop(self) {
        // Fails only when the thread has ended.
        let _ = self.stop.send(());
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the consensus thread ended by a panic");
        }
    }
}

fn run(
    parts: ConsensusParts,
    started: oneshot::Sender<Result<Replication, StartError>>,
    stop: oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(source) => {
            // Nobody waits for the answer only if the starter is gone.
            let _ = started.send(Err(StartError::Thread { name: "consensus", source }));
            return;
        }
    };
    runtime.block_on(async move {
        match start_actors(parts).await {
            Ok((replication, quorum)) => {
                let _ = started.send(Ok(replication.clone()));
                // An error means that the node is gone, which is a reason to stop, too.
                let _ = stop.await;
                let deadline = Some(STOP_DEADLINE);
                if let Err(error) = quorum.stop_and_wait(None, deadline).await {
                    tracing::warn!(%error, "the quorum actor did not stop in time");
                }
                replication.stop().await;
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        }
    });
}

async fn start_actors(parts: ConsensusParts) -> Result<(Replication, ActorCell), StartError> {
    let supervisor = parts.supervisor;
    let (replication, _) = Replication::start(parts.replication, Some(supervisor.clone())).await?;
    // Before the quorum actor, which then says who the peers are.
    replication.set_roster(parts.roster).await.map_err(|_| StartError::Ended("transport"))?;
    let phase = (parts.phase)(replication.clone());
    let quorum = parts
        .wake
        .spawn(phase, supervisor)
        .await
        .map_err(|error| StartError::Actor(error.to_string()))?;
    Ok((replication, quorum.get_cell()))
}
