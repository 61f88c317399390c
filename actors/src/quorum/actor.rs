//! The actor: one message for all that waits, and a timer for when nothing does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quorate_protocol::types::MonoTime;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::driver::Driver;
use super::forming::FormingDriver;
use super::ports::Fatal;
use super::rebuilding::RebuildingDriver;
use super::verifying::VerifyingDriver;
use crate::clock;
use crate::wake::Wake;

/// Drives the replication core on the consensus thread.
#[derive(Debug)]
pub(crate) struct QuorumPolicy;

/// What reaches the mailbox.
#[derive(Debug)]
pub(crate) enum QuorumMessage {
    /// Something waits in one of the queues, or the timer is due. At most one is under way.
    Wake,
}

/// A node without a log waits for its cluster; one with a log takes part in it.
pub(crate) enum Phase {
    /// First boot.
    Forming(Box<FormingDriver>),
    /// The state is lost.
    Rebuilding(Box<RebuildingDriver>),
    /// Journal or state are in doubt.
    Verifying(Box<VerifyingDriver>),
    /// Replication.
    Running(Box<Driver>),
}

/// Wakes an actor that may not have started yet.
#[derive(Clone, Debug)]
pub(crate) struct QuorumWake {
    actor: Arc<OnceLock<ActorRef<QuorumMessage>>>,
    /// What producers hold.
    pub wake: Arc<Wake>,
}

impl QuorumWake {
    pub(crate) fn new() -> Self {
        let actor: Arc<OnceLock<ActorRef<QuorumMessage>>> = Arc::default();
        let target = actor.clone();
        let wake = Wake::new(move || {
            if let Some(actor) = target.get() {
                // Fails only when the actor is gone, and then the node is stopping.
                let _ = actor.send_message(QuorumMessage::Wake);
            }
        });
        Self { actor, wake: Arc::new(wake) }
    }

    /// Starts the actor on the current runtime, which must be the consensus thread's.
    ///
    /// # Errors
    /// When it can't be started.
    pub(crate) async fn spawn(
        self,
        phase: Phase,
        supervisor: ActorCell,
    ) -> Result<ActorRef<QuorumMessage>, SpawnErr> {
        let (actor, _) = Actor::spawn_linked(None, QuorumPolicy, (self, phase), supervisor).await?;
        Ok(actor)
    }
}

/// Actor state.
pub(crate) struct QuorumState {
    phase: Option<Phase>,
    wake: Arc<Wake>,
    timer: Timer,
}

impl Actor for QuorumPolicy {
    type Msg = QuorumMessage;
    type State = QuorumState;
    type Arguments = (QuorumWake, Phase);

    async fn pre_start(
        &self,
        myself: ActorRef<QuorumMessage>,
        (wake, phase): Self::Arguments,
    ) -> Result<QuorumState, ActorProcessingErr> {
        // What was put into the queues before now woke nobody.
        myself.send_message(QuorumMessage::Wake)?;
        if wake.actor.set(myself).is_err() {
            return Err("the wake belongs to another actor".into());
        }
        let timer = Timer::start(wake.wake.clone());
        Ok(QuorumState { phase: Some(phase), wake: wake.wake, timer })
    }

    async fn handle(
        &self,
        _: ActorRef<QuorumMessage>,
        message: QuorumMessage,
        state: &mut QuorumState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            QuorumMessage::Wake => state.round().map_err(Into::into),
        }
    }

    async fn post_stop(
        &self,
        _: ActorRef<QuorumMessage>,
        state: &mut QuorumState,
    ) -> Result<(), ActorProcessingErr> {
        state.timer.task.abort();
        match &mut state.phase {
            Some(Phase::Running(driver)) => driver.stop(),
            Some(Phase::Forming(_) | Phase::Rebuilding(_) | Phase::Verifying(_)) | None => {}
        }
        Ok(())
    }
}

impl QuorumState {
    fn round(&mut self) -> Result<(), Fatal> {
        self.wake.clear();
        let due = match self.phase.take() {
            Some(Phase::Forming(forming)) => {
                self.phase = Some(forming.round()?);
                clock::now().plus(FORMING_PERIOD_US)
            }
            Some(Phase::Rebuilding(rebuilding)) => {
                self.phase = Some(rebuilding.round()?);
                clock::now().plus(FORMING_PERIOD_US)
            }
            Some(Phase::Verifying(mut verifying)) => {
                verifying.round();
                self.phase = Some(Phase::Verifying(verifying));
                clock::now().plus(FORMING_PERIOD_US)
            }
            Some(Phase::Running(mut driver)) => match driver.round() {
                Ok(due) => {
                    self.phase = Some(Phase::Running(driver));
                    due
                }
                // One of the two logs lies, and which one isn't known here: this node does nothing
                // more before it has asked the voters, after a restart.
                Err(Fatal::Chain { id, last, chain }) => {
                    driver.doubt(id, last, chain)?;
                    driver.stop();
                    return Ok(());
                }
                Err(fatal) => return Err(fatal),
            },
            // A round failed before; the node is about to end.
            None => return Ok(()),
        };
        self.timer.set(due);
        Ok(())
    }
}

/// How often a node without a log looks after what it waits for.
const FORMING_PERIOD_US: u64 = 100_000;

/// Sleeps until the deadline last set, then wakes the actor.
struct Timer {
    due: Arc<AtomicU64>,
    armed: Arc<AtomicU64>,
    earlier: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Timer {
    fn start(wake: Arc<Wake>) -> Self {
        let due = Arc::new(AtomicU64::new(u64::MAX));
        let armed = Arc::new(AtomicU64::new(u64::MAX));
        let earlier = Arc::new(Notify::new());
        let task = tokio::spawn(run_timer(due.clone(), armed.clone(), earlier.clone(), wake));
        Self { due, armed, earlier, task }
    }

    /// Moving a deadline back costs two stores: the task finds out when it wakes.
    fn set(&self, due: MonoTime) {
        self.due.store(due.0, Ordering::Relaxed);
        if due.0 < self.armed.load(Ordering::Relaxed) {
            self.earlier.notify_one();
        }
    }
}

async fn run_timer(
    due: Arc<AtomicU64>,
    armed: Arc<AtomicU64>,
    earlier: Arc<Notify>,
    wake: Arc<Wake>,
) {
    /// Between two wakes for the same deadline: the actor may be busy.
    const RETRY: Duration = Duration::from_millis(2);
    const LONGEST: u64 = 10_000_000;
    loop {
        let now = clock::now();
        let target = due.load(Ordering::Relaxed).min(now.0.saturating_add(LONGEST));
        if target <= now.0 {
            wake.wake();
            tokio::time::sleep(RETRY).await;
            continue;
        }
        armed.store(target, Ordering::Relaxed);
        let sleep = tokio::time::sleep(Duration::from_micros(target - now.0));
        tokio::select! {
            () = sleep => {}
            () = earlier.notified() => {}
        }
    }
}
