//! What the parts of a node share while they are started, and how each is put together with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use quorate_protocol::types::{Branch, DiskId, Incarnation};

use super::config::NodeConfig;
use super::consensus::{ConsensusParts, ConsensusThread, MakePhase};
use super::error::StartError;
use super::open::Opened;
use crate::archive::{Archive, ArchiveParts, RunParts};
use crate::client::{ClientOptions, ClientParts, ClientServer};
use crate::clock;
use crate::divergence::{Doubt, Suspicion};
use crate::gate::GateHandle;
use crate::health::{
    Budget, DiskWatch, DiskWatchParts, Health, HealthMonitor, HealthOptions, HealthParts,
    MemoryWatch, MemoryWatchParts,
};
use crate::metrics::{
    HealthCollector, Metrics, PublishedCollector, SnapshotCollector, StorageCollector,
    StorageSources,
};
use crate::quorum::{CopyTimesBoard, QuorumHandle, QuorumWake};
use crate::replication::{
    Candidates, LogSource, Replication, ReplicationOptions, Roster, TlsMaterial,
};
use crate::snapshot::{DivergenceParts, SnapshotParts, SnapshotService};
use crate::storage::apply::{Apply, ApplyHooks, ApplyOptions, ApplyParts};
use crate::storage::hardstate::{HardStateFile, HardStateHooks, HardStateWriter};
use crate::storage::journal::{Journal, JournalHooks, OpenJournal};
use crate::storage::state::damage::StateLoss;
use crate::storage::state::{StateReader, StateWriter};
use crate::storage::{JournalHold, MemoryRelief, StorageHandle, StorageParts, UpkeepOptions};
use crate::supervisor::{Lifecycle, Supervisor};
use crate::view::Published;

/// How long a node whose journal has failed tries to note that before it ends.
const IO_ERROR_NOTE_DEADLINE: Duration = Duration::from_millis(500);

/// How far a replica's state may lag for reads that ask for no more.
const REPLICA_MAX_LAG: Duration = Duration::from_secs(1);

/// How long a connection may take to authenticate.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// What several parts of a starting node share.
pub(super) struct Wiring {
    pub(super) config: NodeConfig,
    pub(super) supervisor: Supervisor,
    pub(super) published: Arc<Published>,
    pub(super) metrics: Metrics,
    pub(super) health: Arc<Health>,
    pub(super) gate: GateHandle,
    pub(super) wake: QuorumWake,
    pub(super) incarnation: Incarnation,
    pub(super) disk: DiskId,
    pub(super) suspicion: Arc<Suspicion>,
    /// Nodes that call and are not members yet.
    pub(super) candidates: Arc<Candidates>,
}

impl Wiring {
    /// Starts what the others report to and answer through: supervisor and gate.
    pub(super) async fn new(
        config: NodeConfig,
        opened: &Opened,
        (lifecycle, metrics): (Arc<Lifecycle>, Metrics),
    ) -> Result<Self, StartError> {
        let supervisor = Supervisor::spawn(lifecycle).await.map_err(StartError::actor)?;
        metrics.gate.attribution.set(config.client.attribution);
        let gate = GateHandle::spawn(&metrics, Some(supervisor.cell()))
            .await
            .map_err(StartError::actor)?;
        Ok(Self {
            supervisor,
            published: Published::new(),
            health: Health::new(config.health.latch, config.disk),
            metrics,
            gate,
            wake: QuorumWake::new(),
            incarnation: opened.hard.state().incarnation,
            disk: opened.data_dir.identity().disk,
            suspicion: Suspicion::new(&config.data_dir),
            candidates: Arc::default(),
            config,
        })
    }

    pub(super) fn start_journal(
        &self,
        journal: OpenJournal,
        report_in_memory: Arc<AtomicBool>,
        hard: Arc<HardStateWriter>,
    ) -> Result<Journal, StartError> {
        let wake = self.wake.wake.clone();
        let supervisor = self.supervisor.clone();
        let metrics = self.metrics.storage.clone();
        let hooks = JournalHooks {
            wake_in_memory: report_in_memory,
            observe: Arc::new(move |group| metrics.journalled(group)),
            ..JournalHooks::new(
                Arc::new(move || wake.wake()),
                Arc::new(move |fault| {
                    // Nothing is published any more, so nothing is acknowledged meanwhile.
                    if !hard.note_io_error(IO_ERROR_NOTE_DEADLINE) {
                        tracing::warn!("the failure could not be noted for the next start");
                    }
                    supervisor.failed("journal", fault.to_string());
                }),
            )
        };
        Journal::start(journal, self.incarnation, Branch(0), hooks)
            .map_err(|source| StartError::Thread { name: "journal", source })
    }

    /// The thread, and the number of the latest state that it has synced.
    pub(super) fn start_hard_state(
        &self,
        file: HardStateFile,
    ) -> Result<(Arc<HardStateWriter>, Arc<AtomicU64>), StartError> {
        let saved = Arc::new(AtomicU64::new(0));
        let published = saved.clone();
        let wake = self.wake.wake.clone();
        let supervisor = self.supervisor.clone();
        let hooks = HardStateHooks {
            saved: Arc::new(move |id| {
                published.fetch_max(id, Ordering::AcqRel);
                wake.wake();
            }),
            fatal: Arc::new(move |fault| supervisor.failed("hard state", fault.to_string())),
        };
        let writer = HardStateWriter::start(file, hooks)
            .map_err(|source| StartError::Thread { name: "hardstate", source })?;
        Ok((Arc::new(writer), saved))
    }

    pub(super) fn start_apply(
        &self,
        writer: StateWriter,
        log: Arc<LogSource>,
        copy_times: Arc<CopyTimesBoard>,
        loss: Arc<StateLoss>,
    ) -> Result<Apply, StartError> {
        let (supervisor, health) = (self.supervisor.clone(), self.health.clone());
        let metrics = self.metrics.storage.clone();
        let hooks = ApplyHooks {
            observe: Arc::new(move |round| metrics.applied(round)),
            ..ApplyHooks::new(
                Arc::new(move |applied| copy_times.applied(applied, clock::now)),
                Arc::new(move |fault| {
                    let Some(error) = fault.loss() else {
                        return supervisor.failed("apply loop", fault.to_string());
                    };
                    // A primary hands over while it stops for the rebuild.
                    health.report(error);
                    if let Err(error) = loss.give_up(&fault.to_string()) {
                        supervisor.failed("apply loop", format!("{fault}; not marked: {error}"));
                    }
                }),
            )
        };
        let parts = ApplyParts {
            writer,
            log,
            published: self.published.clone(),
            gate: self.gate.input(),
            hooks,
        };
        Apply::spawn(parts, ApplyOptions::default())
            .map_err(|source| StartError::Thread { name: "apply", source })
    }

    /// Samples health, and exports what is read at scrape time.
    pub(super) async fn watch(&self, sources: StorageSources) -> Result<HealthMonitor, StartError> {
        let (metrics, health) = (&self.metrics, &self.health);
        PublishedCollector::register(metrics, self.published.clone())?;
        HealthCollector::register(metrics, health.clone())?;
        StorageCollector::register(metrics, sources.clone())?;
        let observer = health.clone();
        let StorageSources { state, journal, apply } = sources;
        state.on_error(move |error| observer.report(error));
        let parts = HealthParts {
            health: health.clone(),
            state,
            journal,
            apply,
            data_dir: self.config.data_dir.clone(),
        };
        let options = HealthOptions {
            sample_every: self.config.health.sample_period,
            ..HealthOptions::default()
        };
        HealthMonitor::spawn(parts, options, Some(self.supervisor.cell()))
            .await
            .map_err(StartError::actor)
    }

    /// Looks at the disk, and keeps the reserve.
    pub(super) async fn watch_disk(&self, state: &StateReader) -> Result<DiskWatch, StartError> {
        let parts = DiskWatchParts {
            health: self.health.clone(),
            state: state.clone(),
            disk: self.config.disk(),
        };
        let supervisor = self.supervisor.cell();
        DiskWatch::spawn(parts, Some(supervisor)).await.map_err(StartError::actor)
    }

    /// Looks at what the process takes, and shrinks it.
    pub(super) async fn watch_memory(
        &self,
        relief: MemoryRelief,
    ) -> Result<MemoryWatch, StartError> {
        let budget = Budget::find(self.config.health.memory_limit);
        let parts = MemoryWatchParts { health: self.health.clone(), budget, relief };
        MemoryWatch::spawn(parts, Some(self.supervisor.cell())).await.map_err(StartError::actor)
    }

    pub(super) fn start_clients(
        &self,
        quorum: QuorumHandle,
        state: &StateReader,
    ) -> Result<ClientServer, StartError> {
        let options = ClientOptions {
            settings: self.config.client.clone(),
            node: self.config.node,
            incarnation: self.incarnation,
            cluster_name: self.config.cluster.name.clone(),
            replica_max_lag: REPLICA_MAX_LAG,
            handshake_deadline: HANDSHAKE_DEADLINE,
        };
        let parts = ClientParts {
            published: self.published.clone(),
            quorum,
            state: Arc::new(state.clone()),
            health: self.health.clone(),
            metrics: self.metrics.client.clone(),
        };
        Ok(ClientServer::start(options, parts)?)
    }

    /// The thread for snapshots.
    pub(super) fn start_snapshots(
        &self,
        tls: TlsMaterial,
        sources: &StorageSources,
        doubt: Option<Doubt>,
    ) -> Result<SnapshotService, StartError> {
        let supervisor = self.supervisor.clone();
        let fatal = move || supervisor.failed("snapshots", "the thread panicked");
        let parts = SnapshotParts {
            data_dir: self.config.data_dir.clone(),
            listen: self.config.peer.listen,
            cluster_name: self.config.cluster.name.clone(),
            tls,
            state: sources.state.clone(),
            journal: sources.journal.reader(),
            published: self.published.clone(),
            bytes_per_second: self.config.peer.snapshot_bytes_per_second,
            wake: self.wake.wake.clone(),
            apply: sources.apply.clone(),
            scrub_metrics: self.metrics.scrub.clone(),
            disk: self.disk,
            health: self.health.clone(),
            scrub_period: self.config.health.scrub_period,
            divergence: DivergenceParts {
                node: self.config.node,
                period: self.config.health.chain_check_period,
                suspicion: self.suspicion.clone(),
                doubt,
                metrics: self.metrics.chain.clone(),
            },
        };
        let service = SnapshotService::start(parts, fatal)
            .map_err(|source| StartError::Thread { name: "snapshots", source })?;
        SnapshotCollector::register(&self.metrics, service.handle().stats().clone())?;
        Ok(service)
    }

    pub(super) async fn start_consensus(
        &self,
        replication: ReplicationOptions,
        phase: MakePhase,
    ) -> Result<(ConsensusThread, Replication), StartError> {
        let parts = ConsensusParts {
            roster: Roster {
                peers: self.peers(),
                open: self.config.cluster.initial_members.is_empty(),
                ..Roster::default()
            },
            replication,
            wake: self.wake.clone(),
            phase,
            supervisor: self.supervisor.cell(),
        };
        ConsensusThread::start(parts).await
    }

    pub(super) async fn start_archive(
        &self,
        sources: &StorageSources,
        hold: Arc<JournalHold>,
    ) -> Result<Archive, StartError> {
        let parts = ArchiveParts {
            run: RunParts {
                state: sources.state.clone(),
                journal: sources.journal.reader(),
                published: self.published.clone(),
                data_dir: self.config.data_dir.clone(),
                hold: hold.clone(),
                scratch: self.config.data_dir.join("snapshots").join("backup"),
                node: self.config.node,
                cluster_name: self.config.cluster.name.clone(),
                settings: Arc::new(ArcSwap::from_pointee(self.config.archive.clone())),
                listed_bytes: Arc::default(),
                stopping: Arc::default(),
            },
            rocksdb: self.config.rocksdb.clone(),
            hold,
            metrics: self.metrics.archive.clone(),
        };
        Archive::spawn(parts, Some(self.supervisor.cell())).await.map_err(StartError::actor)
    }

    pub(super) async fn start_storage(
        &self,
        state: StateReader,
        journal: Journal,
        apply: Apply,
        hold: Arc<JournalHold>,
    ) -> Result<StorageHandle, StartError> {
        let options = UpkeepOptions {
            retain_bytes: self.config.journal.retain_bytes,
            ..UpkeepOptions::default()
        };
        let health = self.health.clone();
        let parts = StorageParts { state, journal, apply, hold, health, options };
        StorageHandle::spawn(parts, Some(self.supervisor.cell())).await.map_err(StartError::actor)
    }
}
