//! The archive as an actor.

use std::convert::Infallible;
use std::fmt;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::sync::watch;

use crate::metrics::ArchiveMetrics;
use crate::supervisor::spawn;

/// Whether anything is archived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArchiveStatus {
    /// Nothing is: there is no target.
    #[default]
    Off,
}

impl fmt::Display for ArchiveStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
        }
    }
}

/// Speaks to the archive actor. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Archive {
    actor: ActorRef<Infallible>,
    status: watch::Receiver<ArchiveStatus>,
}

/// The actor. While the archive is off there is nothing to ask of it.
#[derive(Debug)]
struct ArchiveActor;

impl Archive {
    /// Starts the actor, linked to `supervisor` where there is one.
    ///
    /// # Errors
    /// When the actor can't be started.
    pub async fn spawn(
        metrics: ArchiveMetrics,
        supervisor: Option<ActorCell>,
    ) -> Result<Self, SpawnErr> {
        let (published, status) = watch::channel(ArchiveStatus::default());
        let state = ArchiveState { published, metrics };
        let actor = spawn(supervisor, ArchiveActor, state).await?;
        Ok(Self { actor, status })
    }

    /// What the actor said last.
    #[must_use]
    pub fn status(&self) -> ArchiveStatus {
        *self.status.borrow()
    }

    /// Ends the actor.
    pub fn stop(&self) {
        self.actor.stop(None);
    }
}

/// Owned by the actor.
#[derive(Debug)]
struct ArchiveState {
    published: watch::Sender<ArchiveStatus>,
    metrics: ArchiveMetrics,
}

impl ArchiveState {
    fn publish(&self, status: ArchiveStatus) {
        self.metrics.set(status);
        self.published.send_replace(status);
    }
}

impl Actor for ArchiveActor {
    type Msg = Infallible;
    type State = ArchiveState;
    type Arguments = ArchiveState;

    async fn pre_start(
        &self,
        _: ActorRef<Infallible>,
        state: ArchiveState,
    ) -> Result<ArchiveState, ActorProcessingErr> {
        state.publish(ArchiveStatus::Off);
        Ok(state)
    }

    async fn handle(
        &self,
        _: ActorRef<Infallible>,
        message: Infallible,
        _: &mut ArchiveState,
    ) -> Result<(), ActorProcessingErr> {
        match message {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::Metrics;
    use crate::supervisor::Supervisor;

    #[tokio::test]
    async fn an_archive_without_a_target_says_that_it_is_off() {
        let metrics = Metrics::new().expect("names are unique");
        let archive = Archive::spawn(metrics.archive.clone(), None).await.expect("it starts");
        assert_eq!(archive.status().to_string(), "off");
        let text = metrics.render().expect("it is rendered");
        assert!(text.contains("quorate_archive_enabled 0"), "{text}");
    }

    #[tokio::test]
    async fn its_unasked_end_is_a_failure_of_the_node() {
        let metrics = Metrics::new().expect("names are unique");
        let supervisor = Supervisor::spawn().await.expect("it starts");
        let archive = Archive::spawn(metrics.archive.clone(), Some(supervisor.cell()))
            .await
            .expect("it starts");
        archive.stop();
        let failure = tokio::time::timeout(Duration::from_secs(10), supervisor.failure()).await;
        assert_eq!(failure.expect("it is noticed").to_string(), "actor: ended unasked");
    }
}
