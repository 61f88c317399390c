//! The memory watch: an actor that looks at what the process takes, and shrinks it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};

use super::budget::{Budget, resident_bytes};
use super::gate::MemoryLook;
use crate::health::Health;
use crate::storage::MemoryRelief;
use crate::supervisor::spawn;

/// Between two looks: a node can take some hundred MiB in a second.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The same while memory runs short: what comes in between two looks is on top of the limit.
const LOOK_CLOSELY_EVERY: Duration = Duration::from_millis(25);

/// Between two attempts to shrink, when the first did not get below the mark: caches that are
/// dropped again and again are of no use.
const SHRINK_EVERY: Duration = Duration::from_secs(10);

/// The watch's handle.
#[derive(Clone, Debug)]
pub struct MemoryWatch {
    actor: ActorRef<Message>,
}

/// What is watched.
#[derive(Clone, Debug)]
pub struct MemoryWatchParts {
    /// Where it is judged and published.
    pub health: Arc<Health>,
    /// How much there may be.
    pub budget: Budget,
    /// What gives memory back.
    pub relief: MemoryRelief,
}

#[derive(Debug)]
enum Message {
    /// Time for a look.
    Due,
    /// Memory was given back, as far as that went.
    Shrunk,
}

#[derive(Debug)]
struct Watch;

#[derive(Debug)]
struct State {
    parts: MemoryWatchParts,
    /// `None` while it is being shrunk.
    shrink_due: Option<Instant>,
}

impl MemoryWatch {
    /// Starts the watch, linked to `supervisor` where there is one.
    ///
    /// # Errors
    /// When the actor can't be started.
    pub async fn spawn(
        parts: MemoryWatchParts,
        supervisor: Option<ActorCell>,
    ) -> Result<Self, SpawnErr> {
        tracing::info!(bytes = parts.budget.bytes, source = %parts.budget.source, "memory budget");
        let state = State { parts, shrink_due: Some(Instant::now()) };
        let actor = spawn(supervisor, Watch, state).await?;
        Ok(Self { actor })
    }

    /// Ends the watch; a flush under way is not waited for.
    pub fn stop(&self) {
        self.actor.stop(None);
    }
}

impl Actor for Watch {
    type Msg = Message;
    type State = State;
    type Arguments = State;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        state: State,
    ) -> Result<State, ActorProcessingErr> {
        myself.send_message(Message::Due)?;
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Due => {
                let next = state.look(&myself);
                myself.send_after(next, || Message::Due);
            }
            Message::Shrunk => state.shrink_due = Some(Instant::now() + SHRINK_EVERY),
        }
        Ok(())
    }
}

impl State {
    /// What it reads are the kernel's own counts, so nothing here waits for a disk. Returns how soon to
    /// look again.
    fn look(&mut self, myself: &ActorRef<Message>) -> Duration {
        let used_bytes = match resident_bytes() {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(%error, "the memory in use can't be read");
                return LOOK_EVERY;
            }
        };
        let look = MemoryLook { used_bytes, budget_bytes: self.parts.budget.bytes };
        self.parts.health.looked_at_memory(look);
        if look.wants_shrink() && self.shrink_due.is_some_and(|due| due <= Instant::now()) {
            self.shrink_due = None;
            let (parts, myself) = (self.parts.clone(), myself.clone());
            tokio::task::spawn_blocking(move || {
                parts.shrink(look);
                // Nobody is there to learn of it during a stop.
                let _ = myself.send_message(Message::Shrunk);
            });
        }
        if look.wants_shrink() { LOOK_CLOSELY_EVERY } else { LOOK_EVERY }
    }
}

impl MemoryWatchParts {
    fn shrink(&self, look: MemoryLook) {
        let freed = self.relief.relieve();
        let used_bytes = resident_bytes().unwrap_or(look.used_bytes);
        let freed_bytes = look.used_bytes.saturating_sub(used_bytes);
        self.health.shrunk(freed_bytes);
        tracing::warn!(
            before = look.used_bytes,
            after = used_bytes,
            budget = look.budget_bytes,
            %freed,
            "memory runs short: memtables were flushed and caches dropped"
        );
    }
}
