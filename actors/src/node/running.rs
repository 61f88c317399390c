//! A running node: what it shows, and its stop.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use quorate_protocol::types::Incarnation;

use super::consensus::ConsensusThread;
use super::draining::Drain;
use super::reload::{Certificates, Reload};
use crate::archive::Archive;
use crate::client::ClientServer;
use crate::divergence::{Divergence, Suspicion};
use crate::gate::GateHandle;
use crate::health::{DiskWatch, Health, HealthMonitor, MemoryWatch};
use crate::metrics::Metrics;
use crate::orders::{OrderDesk, OrderInbox};
use crate::quorum::QuorumHandle;
use crate::replication::Candidates;
use crate::scrub::Scrubber;
use crate::snapshot::{SnapshotService, SnapshotStats};
use crate::storage::hardstate::HardStateWriter;
use crate::storage::identity::DataDir;
use crate::storage::state::StateReader;
use crate::storage::state::damage::StateLoss;
use crate::storage::{MemoryRelief, StorageHandle};
use crate::supervisor::{ExitReason, Phase, Supervisor};
use crate::view::Published;

/// A folder that outlives the process and not the machine: it tells a kill from a power cut.
pub(super) const WITNESS_DIR: &str = "/dev/shm";

/// Removes what a killed node left outside its data directory, which is about to be deleted. No
/// process may be using the directory.
pub fn forget(data_dir: &Path) {
    DataDir::forget_witness_of(data_dir, Path::new(WITNESS_DIR));
}

/// How long connections may take to write their last replies.
const CLIENTS_STOP_DEADLINE: Duration = Duration::from_secs(2);

/// How long a primary that stops may take to hand leadership over.
const HANDOVER_DEADLINE: Duration = Duration::from_secs(3);

/// How long the gate may take to answer what waits.
const GATE_STOP_DEADLINE: Duration = Duration::from_secs(1);

/// A node that runs.
pub struct RunningNode {
    pub(super) published: Arc<Published>,
    pub(super) supervisor: Supervisor,
    pub(super) metrics: Metrics,
    pub(super) state: StateReader,
    pub(super) relief: MemoryRelief,
    pub(super) loss: Arc<StateLoss>,
    pub(super) suspicion: Arc<Suspicion>,
    pub(super) health: Arc<Health>,
    pub(super) candidates: Arc<Candidates>,
    pub(super) quorum: QuorumHandle,
    pub(super) incarnation: Incarnation,
    pub(super) reload: Reload,
    pub(super) parts: Parts,
}

/// What is stopped, in this order.
pub(super) struct Parts {
    pub(super) clients: ClientServer,
    pub(super) gate: GateHandle,
    pub(super) consensus: ConsensusThread,
    pub(super) snapshots: SnapshotService,
    pub(super) storage: StorageHandle,
    pub(super) monitor: HealthMonitor,
    pub(super) memory: MemoryWatch,
    pub(super) disk_watch: DiskWatch,
    pub(super) archive: Archive,
    pub(super) hard: Arc<HardStateWriter>,
    pub(super) data_dir: Arc<Mutex<DataDir>>,
}

/// Whether a node that stops archives what is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinalBackup {
    /// It was asked for.
    Asked,
    /// Where the configuration says so.
    AsConfigured,
    /// The node starts again at once.
    Never,
}

/// Nobody writes any more, and state and journal are still open.
async fn last_backup(
    archive: &Archive,
    published: &Published,
    limit: Duration,
) -> Result<(), String> {
    let until = Instant::now() + limit;
    // What it can't wait for is in the journal, and archived by the next one.
    let all = published.applied_through(published.committed());
    let _ = tokio::time::timeout_at(until.into(), all).await;
    let made = archive.last(until.saturating_duration_since(Instant::now())).await;
    made.map_err(|error| {
        tracing::error!(%error, "the last backup failed");
        error.to_string()
    })
}

/// What a stop achieved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Whether everything in the journal is synced.
    pub journal_synced: bool,
    /// Whether the state is flushed.
    pub state_flushed: bool,
    /// What became of the last backup; `None` where none was wanted.
    pub backup: Option<Result<(), String>>,
    /// Whether the clean mark is written: the next start then knows that nothing is lost.
    pub clean: bool,
    /// How long it took.
    pub duration: Duration,
    /// When it began.
    pub started_at: SystemTime,
    /// When it was done.
    pub completed_at: SystemTime,
}

impl RunningNode {
    /// Role, positions and view.
    #[must_use]
    pub fn published(&self) -> &Arc<Published> {
        &self.published
    }

    /// The node's metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The node's state, for reading.
    #[must_use]
    pub fn state(&self) -> &StateReader {
        &self.state
    }

    /// Gives memory back on demand.
    #[must_use]
    pub fn relief(&self) -> &MemoryRelief {
        &self.relief
    }

    /// Whether writes are refused for the node's own trouble, and why.
    #[must_use]
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Nodes that call this one and are not members yet.
    #[must_use]
    pub fn candidates(&self) -> &Arc<Candidates> {
        &self.candidates
    }

    /// Takes batches, reads and orders for the replication core.
    #[must_use]
    pub fn quorum(&self) -> &QuorumHandle {
        &self.quorum
    }

    /// The archive's handle.
    #[must_use]
    pub fn archive(&self) -> &Archive {
        &self.parts.archive
    }

    /// This life of the node.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Takes new settings over.
    #[must_use]
    pub fn reload(&self) -> &Reload {
        &self.reload
    }

    /// Until when the certificates in use are valid.
    #[must_use]
    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.reload.certificates
    }

    /// Takes the node out of service.
    #[must_use]
    pub fn draining(&self) -> Drain {
        Drain {
            supervisor: self.supervisor.clone(),
            quorum: self.quorum.clone(),
            published: self.published.clone(),
        }
    }

    /// The supervisor: phase and failures, for tasks that outlive a borrow of the node.
    #[must_use]
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// All listeners are bound, those outside the node too: it has started.
    pub fn ready(&self) {
        self.supervisor.enter(Phase::Ready);
    }

    /// Completes when the node must end by itself; its process should then exit at once.
    pub async fn failure(&self) -> ExitReason {
        self.supervisor.failure().await
    }

    /// Snapshots sent and received.
    #[must_use]
    pub fn snapshots(&self) -> &Arc<SnapshotStats> {
        self.parts.snapshots.handle().stats()
    }

    /// Asks other members to do something.
    #[must_use]
    pub fn orders(&self) -> &OrderDesk {
        self.parts.snapshots.handle().orders()
    }

    /// What other members want done here, to whom this is asked first.
    #[must_use]
    pub fn take_order_inbox(&self) -> Option<OrderInbox> {
        self.parts.snapshots.take_inbox()
    }

    /// Who holds a different log, as of the last comparison.
    #[must_use]
    pub fn divergence(&self) -> &Arc<Divergence> {
        self.parts.snapshots.handle().divergence()
    }

    /// Takes orders to scrub.
    #[must_use]
    pub fn scrubber(&self) -> &Scrubber {
        self.parts.snapshots.handle().scrubber()
    }

    /// Completes when the node must be stopped and started again, with why: a snapshot was put in
    /// force, the state was given up, or the log is in doubt.
    pub async fn superseded(&self) -> &'static str {
        let installed = self.parts.snapshots.handle().installed();
        tokio::select! {
            () = installed.notified() => "a snapshot was installed",
            () = self.loss.given_up() => "the state is damaged and is rebuilt",
            () = self.suspicion.raised() => "this node's log may not be the others'",
        }
    }

    /// Stops in order: no new commands, every waiting reply answered, everything applied that is
    /// committed, journal synced, state flushed, and last the clean mark. What `deadline` cuts off
    /// is reported as not done; the next start then proves what is there. What is new is archived before
    /// the clean mark where `backup` says so.
    pub async fn shutdown(self, deadline: Duration, backup: FinalBackup) -> ShutdownReport {
        let (began, started_at) = (Instant::now(), SystemTime::now());
        self.draining().run(deadline.min(HANDOVER_DEADLINE)).await;
        let parts = self.parts;
        self.supervisor.enter(Phase::ShuttingDown);
        // The quorum actor first: its last act answers or refuses what clients wait for.
        parts.consensus.stop().await;
        parts.snapshots.stop().await;
        if parts.gate.stop(GATE_STOP_DEADLINE).await.is_err() {
            tracing::warn!("the gate did not answer everything in time");
        }
        if !parts.clients.stop(CLIENTS_STOP_DEADLINE).await {
            tracing::warn!("some connections did not end in time");
        }
        parts.monitor.stop();
        parts.memory.stop();
        parts.disk_watch.stop();
        let limit = (deadline * 3 / 4).saturating_sub(began.elapsed());
        let wanted = match backup {
            FinalBackup::Asked => true,
            FinalBackup::AsConfigured => parts.archive.wants_last(),
            FinalBackup::Never => false,
        };
        let backup = if wanted {
            Some(last_backup(&parts.archive, &self.published, limit).await)
        } else {
            None
        };
        parts.archive.stop();
        let closed = parts.storage.close(deadline.saturating_sub(began.elapsed())).await;
        let hard = parts.hard;
        // The clean mark is written last: everything before it must be true.
        let clean = closed.journal_synced
            && tokio::task::spawn_blocking(move || hard.stop(true)).await.unwrap_or(false);
        if clean {
            parts.data_dir.lock().forget_witness(Path::new(WITNESS_DIR));
        }
        drop(parts.data_dir);
        tracing::info!(busy = %self.metrics.stages, "the stages' share of the node's life");
        self.supervisor.enter(Phase::Stopped);
        ShutdownReport {
            journal_synced: closed.journal_synced,
            state_flushed: closed.state_flushed,
            backup,
            clean,
            duration: began.elapsed(),
            started_at,
            completed_at: SystemTime::now(),
        }
    }
}
