//! The archive as an actor: one run at a time, by order and by schedule.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use quorate_protocol::types::Seq;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::sync::oneshot;

use super::ack::Ack;
use super::catalogue::{Head, Position};
use super::error::ArchiveError;
use super::location::{Location, S3Settings};
use super::prune::{Retention, prune};
use super::report::{BackupFailure, BackupReport};
use super::restore::verify_by_restore;
use super::run::{RunOptions, RunParts, run};
use super::target::{Target, TargetOptions};
use crate::clock;
use crate::metrics::ArchiveMetrics;
use crate::storage::JournalHold;
use crate::storage::options::RocksOptions;
use crate::supervisor::spawn;
use crate::view::Role;

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_secs(1);

/// How often the last backup tries again while another one is under way.
const BUSY_RETRY: Duration = Duration::from_millis(50);

/// What is archived by itself, and where.
#[derive(Clone, Debug)]
pub struct ArchiveSettings {
    /// Where; nothing is archived by itself without.
    pub target: Option<Location>,
    /// How S3 stores are reached.
    pub s3: S3Settings,
    /// How often the primary archives what is new.
    pub interval: Duration,
    /// How often the state is copied too.
    pub snapshot_interval: Duration,
    /// What is kept.
    pub retention: Retention,
    /// How often the primary restores the archive to compare it; never without.
    pub verify_interval: Option<Duration>,
    /// What a backup copies in a second at most, but for the last one of a node that stops.
    pub bytes_per_second: u64,
    /// What a backup waits for at its end.
    pub ack: Ack,
    /// Whether a node that is told to stop archives what is new.
    pub final_backup: bool,
}

/// What is known of the archive. Replaced whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiveStatus {
    /// Where the schedule writes to; `None` where it is off.
    pub target: Option<String>,
    /// Whether this node writes now.
    pub running: bool,
    /// Through here the log is archived, as this node last saw it.
    pub archived: Option<Position>,
    /// When this node last ended a run well, in milliseconds since 1970.
    pub succeeded_at_ms: Option<u64>,
    /// When a restore last held what was archived, in milliseconds since 1970.
    pub verified_at_ms: Option<u64>,
    /// Why the last run of this node failed; `None` once one ended well.
    pub failure: Option<String>,
}

impl std::fmt::Display for ArchiveStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(target) = &self.target else { return f.write_str("off") };
        f.write_str(target)?;
        match (&self.archived, &self.failure) {
            (_, Some(failure)) => write!(f, ": {failure}"),
            (Some(archived), None) => write!(f, " through entry {}", archived.seq),
            (None, None) => f.write_str(": nothing yet"),
        }
    }
}

/// Why an order wasn't carried out.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// One is under way.
    #[error("another backup is under way")]
    Busy,
    /// There is no target.
    #[error("no target is named, and none is configured (archive.target)")]
    NoTarget,
    /// It failed.
    #[error(transparent)]
    Failed(#[from] BackupFailure),
    /// The node is stopping.
    #[error("this node is stopping")]
    Stopping,
    /// It had to be done while the node stops.
    #[error("the backup was not done within {0:?}")]
    Late(Duration),
}

/// Speaks to the archive actor. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Archive {
    actor: ActorRef<ArchiveMessage>,
    status: Arc<ArcSwap<ArchiveStatus>>,
    stopping: Arc<AtomicBool>,
    bytes_per_second: u64,
    ack: Ack,
    final_backup: bool,
}

/// What the actor works with.
pub(crate) struct ArchiveParts {
    pub(crate) run: RunParts,
    pub(crate) settings: ArchiveSettings,
    /// For scratch restores.
    pub(crate) rocksdb: RocksOptions,
    pub(crate) hold: Arc<JournalHold>,
    pub(crate) metrics: ArchiveMetrics,
}

#[derive(Debug)]
struct ArchiveActor;

/// What reaches the mailbox: orders are as many as admin connections, all else is its own.
#[derive(Debug)]
pub(super) enum ArchiveMessage {
    Backup { target: Option<Location>, options: RunOptions, reply: Reply },
    Tick,
    Done(Box<Outcome>),
}

type Reply = oneshot::Sender<Result<BackupReport, BackupError>>;

/// How a job ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A run to the configured target.
    Scheduled(Result<BackupReport, BackupFailure>),
    /// A run that was ordered.
    Ordered { scheduled: bool, result: Result<BackupReport, BackupFailure>, reply: Reply },
    /// Where the archive ends, as a node saw it that doesn't write.
    Seen(Result<Position, ArchiveError>),
    /// A scratch restore: whether there was something to compare with.
    Verified(Result<bool, ArchiveError>),
    /// A mistake in this program.
    Panicked,
}

impl Archive {
    /// Starts the actor, linked to `supervisor` where there is one.
    ///
    /// # Errors
    /// When the actor can't be started.
    pub(crate) async fn spawn(
        parts: ArchiveParts,
        supervisor: Option<ActorCell>,
    ) -> Result<Self, SpawnErr> {
        let status = ArchiveStatus {
            target: parts.settings.target.as_ref().map(Location::to_string),
            ..ArchiveStatus::default()
        };
        let status = Arc::new(ArcSwap::from_pointee(status));
        let stopping = parts.run.stopping.clone();
        let ArchiveSettings { bytes_per_second, ack, final_backup, .. } = parts.settings;
        let actor = spawn(supervisor, ArchiveActor, (parts, status.clone())).await?;
        Ok(Self { actor, status, stopping, bytes_per_second, ack, final_backup })
    }

    /// What is known now.
    #[must_use]
    pub fn status(&self) -> Arc<ArchiveStatus> {
        self.status.load_full()
    }

    /// Makes a backup on this node now. Takes as long as copying does.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub async fn backup(
        &self,
        target: Option<Location>,
        options: RunOptions,
    ) -> Result<BackupReport, BackupError> {
        let bytes_per_second = Some(self.bytes_per_second);
        self.order(target, RunOptions { bytes_per_second, ack: Some(self.ack), ..options }).await
    }

    /// Whether a stop archives what is new without being asked to.
    pub(crate) fn wants_last(&self) -> bool {
        self.final_backup
    }

    /// Archives what is new, while the node stops: its state and journal are still there, and nobody
    /// writes any more. Waits for a backup that is under way, and for another node's, within the limit.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub(crate) async fn last(&self, limit: Duration) -> Result<(), BackupError> {
        // A hash would read the whole state, and cursors don't move any more.
        let options = RunOptions { snapshot: false, hash: false, ..RunOptions::default() };
        let attempts = async {
            loop {
                let Err(failed) = self.order(None, options).await else { return Ok(()) };
                match &failed {
                    // All that this node has is there.
                    BackupError::Failed(BackupFailure {
                        error: ArchiveError::Behind { .. },
                        ..
                    }) => return Ok(()),
                    BackupError::Busy
                    | BackupError::Failed(BackupFailure { error: ArchiveError::Fenced, .. }) => {
                        tokio::time::sleep(BUSY_RETRY).await;
                    }
                    BackupError::Failed(_)
                    | BackupError::NoTarget
                    | BackupError::Stopping
                    | BackupError::Late(_) => return Err(failed),
                }
            }
        };
        tokio::time::timeout(limit, attempts).await.unwrap_or(Err(BackupError::Late(limit)))
    }

    async fn order(
        &self,
        target: Option<Location>,
        options: RunOptions,
    ) -> Result<BackupReport, BackupError> {
        let (reply, report) = oneshot::channel();
        let message = ArchiveMessage::Backup { target, options, reply };
        self.actor.send_message(message).map_err(|_| BackupError::Stopping)?;
        report.await.unwrap_or(Err(BackupError::Stopping))
    }

    /// Ends the actor; a run under way ends early.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.actor.stop(None);
    }
}

/// Owned by the actor.
pub(super) struct ArchiveState {
    parts: ArchiveParts,
    status: Arc<ArcSwap<ArchiveStatus>>,
    busy: bool,
    run_due: Instant,
    snapshot_due: Instant,
    verify_due: Option<Instant>,
}

impl Actor for ArchiveActor {
    type Msg = ArchiveMessage;
    type State = ArchiveState;
    type Arguments = (ArchiveParts, Arc<ArcSwap<ArchiveStatus>>);

    async fn pre_start(
        &self,
        myself: ActorRef<ArchiveMessage>,
        (parts, status): Self::Arguments,
    ) -> Result<ArchiveState, ActorProcessingErr> {
        let now = Instant::now();
        parts.metrics.set(&status.load());
        if parts.settings.target.is_some() {
            myself.send_interval(TICK, || ArchiveMessage::Tick);
        }
        let verify_due = parts.settings.verify_interval.map(|interval| now + interval);
        Ok(ArchiveState {
            run_due: now + parts.settings.interval,
            // An archive may be young: the first run looks at it.
            snapshot_due: now,
            verify_due,
            busy: false,
            parts,
            status,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<ArchiveMessage>,
        message: ArchiveMessage,
        state: &mut ArchiveState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ArchiveMessage::Backup { target, options, reply } => {
                state.order(&myself, target, options, reply);
            }
            ArchiveMessage::Tick => state.tick(&myself),
            ArchiveMessage::Done(outcome) => state.done(*outcome),
        }
        Ok(())
    }
}

impl ArchiveState {
    fn order(
        &mut self,
        myself: &ActorRef<ArchiveMessage>,
        target: Option<Location>,
        options: RunOptions,
        reply: Reply,
    ) {
        let configured = self.parts.settings.target.clone();
        let scheduled = target.is_none() || target == configured;
        // A dropped receiver is a caller that stopped waiting.
        let refuse = |reply: Reply, error| {
            let _ = reply.send(Err(error));
        };
        if self.busy {
            return refuse(reply, BackupError::Busy);
        }
        // One that is named now may be begun; the one that is configured should be there.
        let open = if target.is_some() { Target::open } else { Target::open_existing };
        let Some(target) = target.or(configured) else {
            return refuse(reply, BackupError::NoTarget);
        };
        let (parts, reached) = (self.parts.run.clone(), self.reached());
        self.begin(myself, move || {
            let opened = open(&target, &reached);
            let opened = opened.map_err(|error| BackupFailure { step: "target", error });
            let result = opened.and_then(|target| run(&parts, &target, options));
            Outcome::Ordered { scheduled, result, reply }
        });
    }

    /// The primary writes; the others only look how far the archive is, so that they still have
    /// what it needs when they lead.
    fn tick(&mut self, myself: &ActorRef<ArchiveMessage>) {
        let Some(target) = self.parts.settings.target.clone().filter(|_| !self.busy) else {
            return;
        };
        let now = Instant::now();
        let leads = self.parts.run.published.view().role == Role::Primary;
        let (parts, reached) = (self.parts.run.clone(), self.reached());
        let existing = move || Target::open_existing(&target, &reached);
        if now >= self.run_due {
            self.run_due = now + self.parts.settings.interval;
            if !leads {
                return self.begin(myself, move || {
                    let loaded = existing().and_then(|target| Head::load(&target));
                    Outcome::Seen(loaded.map(|head| head.archived))
                });
            }
            let whole = now >= self.snapshot_due;
            let options = RunOptions {
                snapshot: whole,
                hash: whole,
                bytes_per_second: Some(self.parts.settings.bytes_per_second),
                ack: Some(self.parts.settings.ack),
                ..RunOptions::default()
            };
            let retention = self.parts.settings.retention;
            let known = self.status.load().archived.clone();
            self.begin(myself, move || {
                let result = run_scheduled(&parts, &existing, options, known);
                if result.is_ok() && options.snapshot {
                    let pruned = existing().and_then(|target| prune(&target, retention));
                    if let Err(error) = pruned {
                        tracing::warn!(%error, "the archive can't be pruned");
                    }
                }
                Outcome::Scheduled(result)
            });
        } else if leads
            && let Some(interval) = self.parts.settings.verify_interval
            && self.verify_due.is_some_and(|due| now >= due)
        {
            self.verify_due = Some(now + interval);
            let (scratch, rocksdb) = (parts.scratch.clone(), self.parts.rocksdb.clone());
            self.begin(myself, move || {
                let verified = existing()
                    .and_then(|target| verify_by_restore(&target, &scratch, &rocksdb, &mut |_| ()));
                Outcome::Verified(verified.map(|(_, _, compared)| compared))
            });
        }
    }

    fn reached(&self) -> TargetOptions {
        TargetOptions {
            s3: self.parts.settings.s3.clone(),
            stopping: self.parts.run.stopping.clone(),
        }
    }

    /// On a thread of its own: disks and networks must not hold up the runtime.
    fn begin(
        &mut self,
        myself: &ActorRef<ArchiveMessage>,
        work: impl FnOnce() -> Outcome + Send + 'static,
    ) {
        self.busy = true;
        self.publish(|status| status.running = true);
        let myself = myself.clone();
        tokio::spawn(async move {
            let outcome = tokio::task::spawn_blocking(work).await.unwrap_or(Outcome::Panicked);
            // Fails only when the node is stopping.
            let _ = myself.send_message(ArchiveMessage::Done(Box::new(outcome)));
        });
    }

    fn done(&mut self, outcome: Outcome) {
        self.busy = false;
        self.publish(|status| status.running = false);
        match outcome {
            Outcome::Scheduled(result) => self.ran(&result),
            Outcome::Ordered { scheduled, result, reply } => {
                if scheduled {
                    self.ran(&result);
                }
                let _ = reply.send(result.map_err(BackupError::from));
            }
            Outcome::Seen(Ok(archived)) => self.archived(archived),
            // There may be none yet, or it can't be reached: the primary says so.
            Outcome::Seen(Err(error)) => tracing::debug!(%error, "the archive can't be seen"),
            Outcome::Verified(Ok(true)) => {
                tracing::info!("the archive was restored, and holds what was archived");
                self.publish(|status| status.verified_at_ms = Some(clock::wall().0));
            }
            Outcome::Verified(Ok(false)) => {
                tracing::warn!(
                    "the archive was restored, but nothing in it was hashed to compare with"
                );
            }
            Outcome::Panicked => {
                tracing::error!("the archiver panicked");
                self.publish(|status| status.failure = Some("the archiver panicked".to_owned()));
            }
            Outcome::Verified(Err(error)) => {
                tracing::error!(%error, "the archive can't be restored");
                self.parts.metrics.verify_failed();
                self.publish(|status| status.failure = Some(error.to_string()));
            }
        }
    }

    fn ran(&mut self, result: &Result<BackupReport, BackupFailure>) {
        self.parts.metrics.ran(result.as_ref().ok());
        match result {
            Ok(report) => {
                let (seq, bytes, took) = (report.archived.seq, report.bytes, report.took);
                if report.snapshot.is_some() {
                    self.snapshot_due = Instant::now() + self.parts.settings.snapshot_interval;
                    tracing::info!(seq, bytes, ?took, "backup made");
                } else {
                    tracing::debug!(seq, bytes, ?took, "backup made");
                }
                if let Some(gap) = &report.gap {
                    let (first, last) = (gap.first, gap.last);
                    tracing::error!(first, last, "the archive lacks entries that are gone");
                }
                self.archived(report.archived.clone());
                self.publish(|status| {
                    status.succeeded_at_ms = Some(clock::wall().0);
                    status.failure = None;
                });
            }
            Err(failure) => {
                tracing::error!(%failure, "backup failed");
                self.publish(|status| status.failure = Some(failure.to_string()));
            }
        }
    }

    /// The journal is kept from there on.
    fn archived(&mut self, archived: Position) {
        self.parts.hold.keep_for_archive(Seq(archived.seq));
        self.publish(|status| status.archived = Some(archived));
    }

    fn publish(&self, change: impl FnOnce(&mut ArchiveStatus)) {
        let mut status = ArchiveStatus::clone(&self.status.load());
        change(&mut status);
        self.parts.metrics.set(&status);
        self.status.store(Arc::new(status));
    }
}

/// Begins an archive only in a directory that is there, and never where one was.
fn run_scheduled(
    parts: &RunParts,
    existing: &dyn Fn() -> Result<Target, ArchiveError>,
    options: RunOptions,
    known: Option<Position>,
) -> Result<BackupReport, BackupFailure> {
    let failed = |error| BackupFailure { step: "target", error };
    let opened = existing().map_err(failed)?;
    if let (Some(known), Err(error @ ArchiveError::Nothing { .. })) = (known, Head::load(&opened)) {
        tracing::error!(seq = known.seq, "the archive is gone that ended there");
        return Err(failed(error));
    }
    run(parts, &opened, options)
}
