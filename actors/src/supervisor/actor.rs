//! The supervisor as an actor: it learns of every failure and says once why the node ends.

use std::fmt;
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::sync::watch;

use super::lifecycle::Lifecycle;
use super::phase::Phase;

/// Why the node ends by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitReason(pub String);

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The actor.
#[derive(Debug)]
pub(super) struct LifecycleSupervisor;

/// What reaches its mailbox.
#[derive(Debug)]
pub enum SupervisorMessage {
    /// The node enters this phase.
    Enter(Phase),
}

/// Reports failures to the supervisor, from any thread.
#[derive(Clone, Debug)]
pub struct Supervisor {
    actor: ActorRef<SupervisorMessage>,
    exit: Exit,
    lifecycle: Arc<Lifecycle>,
}

impl Supervisor {
    /// Starts the supervisor, which alone moves the phase from now on.
    ///
    /// # Errors
    /// When the actor can't be started.
    pub async fn spawn(lifecycle: Arc<Lifecycle>) -> Result<Self, SpawnErr> {
        let exit = Exit(watch::Sender::new(None));
        let state = SupervisorState { exit: exit.clone(), lifecycle: lifecycle.clone() };
        let (actor, _) = Actor::spawn(None, LifecycleSupervisor, state).await?;
        Ok(Self { actor, exit, lifecycle })
    }

    /// The node must end because of this. It holds before this returns, so that what fails
    /// because of it can't be taken for the reason.
    pub fn failed(&self, part: &'static str, reason: impl Into<String>) {
        self.exit.set(part, &reason.into());
    }

    /// The node enters this phase; ignored if it lies behind.
    pub fn enter(&self, phase: Phase) {
        // At once for readers; the message keeps the log in order.
        self.lifecycle.enter(phase);
        let _ = self.actor.send_message(SupervisorMessage::Enter(phase));
    }

    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.lifecycle.phase()
    }

    /// Phase, steps of the start, and when.
    #[must_use]
    pub fn lifecycle(&self) -> &Arc<Lifecycle> {
        &self.lifecycle
    }

    /// Completes when the node must end by itself.
    pub async fn failure(&self) -> ExitReason {
        let mut exit = self.exit.0.subscribe();
        loop {
            if let Some(reason) = exit.borrow_and_update().clone() {
                return reason;
            }
            if exit.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The actor to link others to.
    #[must_use]
    pub fn cell(&self) -> ractor::ActorCell {
        self.actor.get_cell()
    }
}

/// Why the node ends, once it must.
#[derive(Clone, Debug)]
struct Exit(watch::Sender<Option<ExitReason>>);

/// Actor state.
#[derive(Debug)]
pub(super) struct SupervisorState {
    exit: Exit,
    lifecycle: Arc<Lifecycle>,
}

impl Exit {
    /// The first reason wins: what fails afterwards is its consequence.
    fn set(&self, part: &str, reason: &str) {
        self.0.send_if_modified(|exit| {
            let first = exit.is_none();
            if first {
                tracing::error!(part, reason, "a part of the node failed");
                *exit = Some(ExitReason(format!("{part}: {reason}")));
            }
            first
        });
    }
}

impl Actor for LifecycleSupervisor {
    type Msg = SupervisorMessage;
    type State = SupervisorState;
    type Arguments = SupervisorState;

    async fn pre_start(
        &self,
        _: ActorRef<SupervisorMessage>,
        state: SupervisorState,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        Ok(state)
    }

    async fn handle(
        &self,
        _: ActorRef<SupervisorMessage>,
        message: SupervisorMessage,
        _: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMessage::Enter(phase) => tracing::info!(%phase, "phase"),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<SupervisorMessage>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(_, error) => state.exit.set("actor", &error.to_string()),
            SupervisionEvent::ActorTerminated(_, _, reason)
                if state.lifecycle.phase() < Phase::ShuttingDown =>
            {
                let reason = reason.unwrap_or_else(|| "ended unasked".to_owned());
                state.exit.set("actor", &reason);
            }
            SupervisionEvent::ActorTerminated(..)
            | SupervisionEvent::ActorStarted(_)
            | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}
