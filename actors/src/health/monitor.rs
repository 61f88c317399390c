//! The health monitor: an actor that samples the storage and feeds the latch.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};

use super::shared::{Health, Sample};
use crate::storage::apply::{ApplyHandle, Busy};
use crate::storage::journal::Journal;
use crate::storage::state::StateReader;
use crate::supervisor::spawn;

/// An apply loop that publishes nothing for this long is worth a line in the log.
const STANDSTILL_WARN: Duration = Duration::from_secs(5);

/// The same for a system call of the journal that doesn't return.
const JOURNAL_WARN: Duration = Duration::from_secs(1);

/// And from here on it is an error of the storage: as long as a write may take by default.
const STANDSTILL_ERROR: Duration = Duration::from_secs(30);

/// How often RocksDB's count of background errors is looked at: the bindings have no listener that
/// would tell of them, and reading one number costs microseconds.
const GLANCE_EVERY: Duration = Duration::from_millis(200);

/// Between two tries whether RocksDB goes on: while a compaction fails again and again, each flush
/// adds a file that isn't compacted, and each look at the whole state reads all of it.
const PROBE_EVERY: Duration = Duration::from_mins(10);

/// The monitor's handle.
#[derive(Clone, Debug)]
pub struct HealthMonitor {
    actor: ActorRef<Message>,
}

/// What is watched.
#[derive(Clone, Debug)]
pub struct HealthParts {
    /// Where it is judged and published.
    pub health: Arc<Health>,
    /// The state.
    pub state: StateReader,
    /// The journal.
    pub journal: Journal,
    /// The apply loop.
    pub apply: ApplyHandle,
    /// The data directory.
    pub data_dir: PathBuf,
}

/// How often it is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthOptions {
    /// From the end of a sample to the next.
    pub sample_every: Duration,
    /// From one look at the background errors to the next; new ones are sampled at once.
    pub glance_every: Duration,
}

impl Default for HealthOptions {
    /// 5 s, 200 ms.
    fn default() -> Self {
        Self { sample_every: Duration::from_secs(5), glance_every: GLANCE_EVERY }
    }
}

#[derive(Debug)]
enum Message {
    /// Time for a sample.
    Due,
    /// A sample is done.
    Sampled(Sample),
    /// Time for a look at the background errors.
    Glance,
    /// It is done; with a sample where there were new ones, and whether that included a probe.
    Glanced { sample: Option<Sample>, probed: bool },
}

#[derive(Debug)]
struct Monitor;

#[derive(Debug)]
struct State {
    parts: HealthParts,
    options: HealthOptions,
    /// From when on new background errors are a reason to flush.
    probe_due: Instant,
}

impl HealthMonitor {
    /// Starts the monitor, linked to `supervisor` where there is one. The first sample is taken
    /// at once.
    ///
    /// # Errors
    /// When the actor can't be started.
    pub async fn spawn(
        parts: HealthParts,
        options: HealthOptions,
        supervisor: Option<ActorCell>,
    ) -> Result<Self, SpawnErr> {
        let state = State { parts, options, probe_due: Instant::now() };
        let actor = spawn(supervisor, Monitor, state).await?;
        Ok(Self { actor })
    }

    /// Ends the monitor; a sample under way is not waited for.
    pub fn stop(&self) {
        self.actor.stop(None);
    }

    /// The actor, for its supervisor.
    #[must_use]
    pub fn cell(&self) -> ActorCell {
        self.actor.get_cell()
    }
}

impl Actor for Monitor {
    type Msg = Message;
    type State = State;
    type Arguments = State;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        state: State,
    ) -> Result<State, ActorProcessingErr> {
        myself.send_message(Message::Due)?;
        myself.send_after(state.options.glance_every, || Message::Glance);
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
                    let _ = myself.send_message(Message::Sampled(parts.sample()));
                });
            }
            Message::Sampled(sample) => {
                state.parts.health.sampled(sample);
                myself.send_after(state.options.sample_every, || Message::Due);
            }
            Message::Glance => {
                let parts = state.parts.clone();
                let probe = Instant::now() >= state.probe_due;
                tokio::task::spawn_blocking(move || {
                    let sample = parts.glance(probe);
                    let probed = probe && sample.is_some();
                    let _ = myself.send_message(Message::Glanced { sample, probed });
                });
            }
            Message::Glanced { sample, probed } => {
                if let Some(sample) = sample {
                    state.parts.health.sampled(sample);
                }
                if probed {
                    state.probe_due = Instant::now() + PROBE_EVERY;
                }
                myself.send_after(state.options.glance_every, || Message::Glance);
            }
        }
        Ok(())
    }
}

impl HealthParts {
    fn sample(&self) -> Sample {
        if let Some(busy) = self.apply.busy() {
            self.judge_apply(&busy);
        }
        Self::judge_journal(self.journal.busy_for());
        Sample {
            background_errors: self.background_errors(),
            divergent_files: self.divergent_files(),
            journal_stall: self.journal.busy_for(),
        }
    }

    /// Looks for background errors that the last sample didn't have. RocksDB counts them without
    /// saying what they are: a flush then shows whether it goes on in spite of them, and reading
    /// everything whether the state is damaged.
    fn glance(&self, probe: bool) -> Option<Sample> {
        let known = self.health.view().background_errors;
        if self.background_errors() <= known {
            return None;
        }
        if probe {
            self.health.sampled(self.sample());
            let found = self.state.flush().and_then(|()| self.state.content_hash());
            if let Err(error) = found {
                self.health.report(&error);
            }
        }
        Some(self.sample())
    }

    fn background_errors(&self) -> u64 {
        self.state.property(c"rocksdb.background-errors").unwrap_or(0)
    }

    /// What can't be listed counts as nothing: it is a figure for people.
    fn divergent_files(&self) -> u64 {
        std::fs::read_dir(self.data_dir.join("divergent")).map_or(0, |files| files.count() as u64)
    }

    /// A primary whose journal hangs hands over by itself; here only people are told.
    fn judge_journal(stall: Duration) {
        if stall >= JOURNAL_WARN {
            tracing::warn!(?stall, "a write or sync of the journal doesn't return");
        }
    }

    /// Writes go on to be acknowledged while the state doesn't get on, until admission sees the
    /// lag; so it is told early, and what the loop waits for.
    pub(crate) fn judge_apply(&self, busy: &Busy) {
        let Busy { activity, seq, since } = *busy;
        if since < STANDSTILL_WARN {
            return;
        }
        let causes = self.state.stall_causes();
        tracing::warn!(%seq, %activity, ?since, %causes, "the apply loop doesn't get on");
        if since >= STANDSTILL_ERROR {
            let what = format!("the apply loop has been {activity} at entry {seq} for {since:?}");
            self.health.report_soft(what);
        }
    }
}
