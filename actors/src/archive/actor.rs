//! The archive as an actor: one run at a time, by order and by schedule.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use quorate_protocol::types::Seq;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::sync::oneshot;

use super::catalogue::{Head, Position, read};
use super::error::ArchiveError;
use super::location::Location;
use super::options::{RunOptions, WithState};
use super::prune::{Retention, prune};
use super::report::{BackupFailure, BackupReport};
use super::restore::verify_by_restore;
use super::run::{RunParts, run};
use super::settings::{ArchiveSettings, InForce};
use super::status::{ArchiveStatus, Counted, DueMs, SnapshotSeen, Written};
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
    settings: InForce,
    stopping: Arc<AtomicBool>,
}

/// What the actor works with.
pub(crate) struct ArchiveParts {
    pub(crate) run: RunParts,
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
    /// A run to the configured target, and by what it was pruned then.
    Scheduled { result: Result<BackupReport, BackupFailure>, pruned: Option<Retention> },
    /// A run that was ordered.
    Ordered { scheduled: bool, result: Result<BackupReport, BackupFailure>, reply: Reply },
    /// Where the archive is, as a node saw it that doesn't write.
    Seen(Result<Seen, ArchiveError>),
    /// A scratch restore: whether there was something to compare with.
    Verified(Result<bool, ArchiveError>),
    /// A mistake in this program.
    Panicked,
}

/// What a node that doesn't write looks for.
#[derive(Debug)]
pub(super) struct Seen {
    archived: Position,
    written: Written,
    snapshot: SnapshotSeen,
}

impl Seen {
    /// Reads `HEAD`, and the newest snapshot's manifest where it isn't the one that is known.
    fn look(target: &Target, known: Option<SnapshotSeen>) -> Result<Self, ArchiveError> {
        let head = Head::load(target)?;
        let snapshot = match known.filter(|known| known.name == head.snapshot.name) {
            Some(known) => known,
            None => {
                let link = &head.snapshot;
                SnapshotSeen::of(&read(target, &link.name, Some(&link.sha256))?)
            }
        };
        Ok(Self { written: Written::of(&head), archived: head.archived, snapshot })
    }
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
        let settings = parts.run.settings.clone();
        let status = ArchiveStatus {
            target: settings.load().target.as_ref().map(Location::to_string),
            counted: Counted::from_start(Instant::now()),
            ..ArchiveStatus::default()
        };
        let status = Arc::new(ArcSwap::from_pointee(status));
        let stopping = parts.run.stopping.clone();
        let actor = spawn(supervisor, ArchiveActor, (parts, status.clone())).await?;
        Ok(Self { actor, status, settings, stopping })
    }

    /// These hold from now on; the target is what it was.
    pub(crate) fn configure(&self, settings: ArchiveSettings) {
        self.settings.store(Arc::new(settings));
    }

    /// What is known now.
    #[must_use]
    pub fn status(&self) -> Arc<ArchiveStatus> {
        self.status.load_full()
    }

    /// What holds, what is known, and what is due when if this node leads.
    #[must_use]
    pub fn schedule(&self) -> (Arc<ArchiveSettings>, Arc<ArchiveStatus>, DueMs) {
        let (settings, status) = (self.settings.load_full(), self.status());
        let due = status.due_ms(&settings, Instant::now(), clock::wall().0);
        (settings, status, due)
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
        self.order(target, options).await
    }

    /// Whether a stop archives what is new without being asked to.
    pub(crate) fn wants_last(&self) -> bool {
        self.settings.load().final_backup
    }

    /// Archives what is new, while the node stops: its state and journal are still there, and nobody
    /// writes any more. Waits for a backup that is under way, and for another node's, within the limit.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub(crate) async fn last(&self, limit: Duration) -> Result<(), BackupError> {
        // A hash would read the whole state, and cursors don't move any more.
        let options =
            RunOptions { state: WithState::No, hash: false, paced: false, ..RunOptions::default() };
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
    /// By these the archive was last pruned, or the node started with them.
    pruned_by: Retention,
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
        parts.metrics.set(&status.load());
        let settings = parts.run.settings.load();
        if settings.target.is_some() {
            myself.send_interval(TICK, || ArchiveMessage::Tick);
        }
        let pruned_by = settings.retention;
        Ok(ArchiveState { busy: false, pruned_by, parts, status })
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
        let configured = self.parts.run.settings.load().target.clone();
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
        let settings = self.parts.run.settings.load_full();
        let Some(target) = settings.target.clone().filter(|_| !self.busy) else { return };
        let now = Instant::now();
        let leads = self.parts.run.published.view().role == Role::Primary;
        let status = self.status.load_full();
        let due = status.counted.due(&settings, now);
        let reached = self.reached();
        let existing = move || Target::open_existing(&target, &reached);
        // First, where there is something to compare: runs that take as long as their interval would
        // leave no room for it.
        let compares = leads && status.archived.is_some();
        if compares && due.verification.is_some_and(|due| now >= due) {
            self.publish(|status| status.counted.verification = Some(now));
            let (scratch, rocksdb) = (self.parts.run.scratch.clone(), self.parts.rocksdb.clone());
            self.begin(myself, move || {
                let verified = existing()
                    .and_then(|target| verify_by_restore(&target, &scratch, &rocksdb, &mut |_| ()));
                Outcome::Verified(verified.map(|(_, _, compared)| compared))
            });
        } else if now >= due.run {
            self.publish(|status| status.counted.run = Some(now));
            if leads {
                self.begin_run(myself, existing, now >= due.snapshot);
            } else {
                self.begin(myself, move || {
                    let known = status.snapshot.clone();
                    Outcome::Seen(existing().and_then(|target| Seen::look(&target, known)))
                });
            }
        }
    }

    /// A scheduled run, and what retention then asks for.
    fn begin_run(
        &mut self,
        myself: &ActorRef<ArchiveMessage>,
        existing: impl Fn() -> Result<Target, ArchiveError> + Send + 'static,
        look_for_snapshot: bool,
    ) {
        let parts = self.parts.run.clone();
        let state = if look_for_snapshot { WithState::IfDue } else { WithState::No };
        let options = RunOptions { state, ..RunOptions::default() };
        let known = self.status.load().archived.clone();
        let (retention, pruned_by) = (parts.settings.load().retention, self.pruned_by);
        self.begin(myself, move || {
            let result = run_scheduled(&parts, &existing, options, known);
            let prunes =
                |report: &BackupReport| report.snapshot.is_some() || retention != pruned_by;
            let mut pruned = None;
            if result.as_ref().is_ok_and(prunes) {
                match existing().and_then(|target| prune(&target, retention)) {
                    Ok(_) => pruned = Some(retention),
                    Err(error) => tracing::warn!(%error, "the archive can't be pruned"),
                }
            }
            Outcome::Scheduled { result, pruned }
        });
    }

    fn reached(&self) -> TargetOptions {
        TargetOptions {
            s3: self.parts.run.settings.load().s3.clone(),
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
            Outcome::Scheduled { result, pruned } => {
                self.pruned_by = pruned.unwrap_or(self.pruned_by);
                self.ran(&result);
            }
            Outcome::Ordered { scheduled, result, reply } => {
                if scheduled {
                    self.ran(&result);
                }
                let _ = reply.send(result.map_err(BackupError::from));
            }
            Outcome::Seen(Ok(seen)) => {
                self.archived(seen.archived);
                self.publish(|status| {
                    status.written = Some(seen.written);
                    status.snapshot = Some(seen.snapshot);
                });
            }
            // There may be none yet, or it can't be reached: the primary says so.
            Outcome::Seen(Err(error)) => tracing::debug!(%error, "the archive can't be seen"),
            Outcome::Verified(result) => self.verified(&result),
            Outcome::Panicked => {
                tracing::error!("the archiver panicked");
                let failure = Some("the archiver panicked".to_owned());
                self.publish(|status| status.runs.ended(clock::wall().0, failure));
            }
        }
    }

    fn verified(&mut self, result: &Result<bool, ArchiveError>) {
        let failure = match result {
            Ok(true) => {
                tracing::info!("the archive was restored, and holds what was archived");
                None
            }
            Ok(false) => {
                let failure =
                    "the archive was restored, but nothing in it was hashed to compare with";
                tracing::warn!("{failure}");
                Some(failure.to_owned())
            }
            Err(error) => {
                tracing::error!(%error, "the archive can't be restored");
                self.parts.metrics.verify_failed();
                Some(error.to_string())
            }
        };
        self.publish(|status| status.verifications.ended(clock::wall().0, failure));
    }

    fn ran(&mut self, result: &Result<BackupReport, BackupFailure>) {
        self.parts.metrics.ran(result.as_ref().ok());
        let now_ms = clock::wall().0;
        let report = match result {
            Ok(report) => report,
            Err(failure) => {
                tracing::error!(%failure, "backup failed");
                let failure = Some(failure.to_string());
                return self.publish(|status| status.runs.ended(now_ms, failure));
            }
        };
        let (seq, bytes, took) = (report.archived.seq, report.bytes, report.took);
        if report.snapshot.is_some() {
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
            status.runs.ended(now_ms, None);
            status.written = Some(report.written);
            status.snapshot = Some(report.newest.clone());
            if report.snapshot.is_some() {
                status.counted.snapshot = Some(Instant::now());
            }
        });
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
