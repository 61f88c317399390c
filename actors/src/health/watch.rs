//! The disk watch: an actor that looks at free space, sooner the less there is, and ends the node
//! where RocksDB doesn't get over a full disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};

use super::disk::LOOK_EVERY_MAX;
use super::reserve::Disk;
use super::shared::Health;
use crate::storage::state::StateReader;
use crate::supervisor::spawn;

/// How long RocksDB must be found not to flush, though there is space: it waits a second by itself
/// before it tries again.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(3);

/// RocksDB doesn't go on by itself: the state must be opened anew.
#[derive(Debug, thiserror::Error)]
#[error("state: RocksDB had no space to flush, and doesn't go on now that there is some")]
struct GivenUp;

/// The watch's handle.
#[derive(Clone, Debug)]
pub struct DiskWatch {
    actor: ActorRef<Message>,
}

/// What is watched.
#[derive(Clone, Debug)]
pub struct DiskWatchParts {
    /// Where it is judged and published.
    pub health: Arc<Health>,
    /// The state, whose memtables have yet to be written.
    pub state: StateReader,
    /// The file system.
    pub disk: Disk,
}

#[derive(Debug)]
enum Message {
    /// Time for a look.
    Due,
    /// A look was taken.
    Looked(Looked),
}

/// What a look found.
#[derive(Clone, Copy, Debug)]
struct Looked {
    /// The next one is due after this.
    next: Duration,
    /// Whether RocksDB doesn't flush, though there is space.
    given_up: bool,
}

#[derive(Debug)]
struct Watch;

#[derive(Debug)]
struct State {
    parts: DiskWatchParts,
    given_up_since: Option<Instant>,
}

impl DiskWatch {
    /// Starts the watch, linked to `supervisor` where there is one. The first look is taken at
    /// once.
    ///
    /// # Errors
    /// When the actor can't be started.
    pub async fn spawn(
        parts: DiskWatchParts,
        supervisor: Option<ActorCell>,
    ) -> Result<Self, SpawnErr> {
        let state = State { parts, given_up_since: None };
        let actor = spawn(supervisor, Watch, state).await?;
        Ok(Self { actor })
    }

    /// Ends the watch; a look under way is not waited for.
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
                // A hanging disk hangs this thread, never the runtime; there is at most one.
                let parts = state.parts.clone();
                tokio::task::spawn_blocking(move || {
                    // Nobody is there to learn of it during a stop.
                    let _ = myself.send_message(Message::Looked(parts.look()));
                });
            }
            Message::Looked(Looked { next, given_up }) => {
                if !given_up {
                    state.given_up_since = None;
                } else if state.given_up_since.get_or_insert_with(Instant::now).elapsed()
                    >= GIVEN_UP_AFTER
                {
                    return Err(GivenUp.into());
                }
                myself.send_after(next, || Message::Due);
            }
        }
        Ok(())
    }
}

impl DiskWatchParts {
    /// Judges and publishes first: making the reserve may take a moment.
    fn look(&self) -> Looked {
        let unflushed = self.state.property(c"rocksdb.cur-size-all-mem-tables").unwrap_or(0);
        let look = match self.disk.look(unflushed) {
            Ok(look) => look,
            Err(error) => {
                tracing::warn!(%error, "the file system can't be asked for its space");
                return Looked { next: LOOK_EVERY_MAX, given_up: false };
            }
        };
        let errors = self.state.property(c"rocksdb.background-errors").unwrap_or(0);
        let gate = self.health.looked_at_disk(&look, errors);
        if let Err(error) = self.disk.keep_reserve(gate, &look) {
            tracing::warn!(%error, "the reserve for a full disk can't be kept");
        }
        // On a full disk another start would get no further.
        let given_up = !gate.is_full() && self.state.has_given_up_flushing();
        let next = self.disk.options().next_look(gate, &look);
        Looked { next: if given_up { next.min(GIVEN_UP_AFTER / 4) } else { next }, given_up }
    }
}
