//! Starting a node and stopping it, in order.
//!
//! Storage first (nothing is shown before it is proven), then threads, then the peers, and the
//! clients last. A node that starts waits for no other node.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::core::{HandoverRefused, Tuning};
use quorate_protocol::formation::{Addresses, CLUSTER_VERSION, FIRST_ENTRY, Forming, Plan};
use quorate_protocol::types::{Branch, ClusterId, DiskId, Incarnation};
use quorate_protocol::wire::{Hello, WIRE_VERSION, decode_cluster};
use tokio::sync::mpsc;

use super::config::NodeConfig;
use super::consensus::{ConsensusParts, ConsensusThread, MakePhase};
use super::error::StartError;
use super::recovery::{Recovery, RecoveryError, StatePosition, recover};
use crate::client::{ClientOptions, ClientParts, ClientServer};
use crate::gate::GateHandle;
use crate::health::{DiskOptions, Health, HealthMonitor, HealthOptions, HealthParts, LatchOptions};
use crate::metrics::{
    HealthCollector, Metrics, PublishedCollector, StorageCollector, StorageMetrics, StorageSources,
};
use crate::quorum::{
    Driver, DriverParts, FormingDriver, Found, Phase as QuorumPhase, Ports, QuorumHandle,
    QuorumQueues, QuorumWake, Seen, TransferError,
};
use crate::replication::{LogSource, PeerAddress, PeerEvents, ReplicationOptions, TlsMaterial};
use crate::storage::apply::{Apply, ApplyHandle, ApplyHooks, ApplyOptions, ApplyParts};
use crate::storage::cache::LogCache;
use crate::storage::durable::random_u128;
use crate::storage::hardstate::{HardStateFile, HardStateHooks, HardStateWriter};
use crate::storage::identity::{DataDir, DataDirOptions, OpenStorage, StartOptions};
use crate::storage::journal::{
    Journal, JournalHooks, JournalOptions, JournalReader, OpenJournal, ReadError,
};
use crate::storage::state::{State, StateReader, StateWriter};
use crate::storage::{StorageHandle, StorageParts, UpkeepOptions};
use crate::submit::GateInput;
use crate::supervisor::{ExitReason, Phase, Supervisor};
use crate::view::Published;

/// How long a node whose journal has failed tries to note that before it ends.
const IO_ERROR_NOTE_DEADLINE: Duration = Duration::from_millis(500);

/// A folder that outlives the process and not the machine: it tells a kill from a power cut.
const WITNESS_DIR: &str = "/dev/shm";

/// Commands that may wait for the journal: one for each append of a full lane of the transport.
const JOURNAL_COMMANDS_MAX: usize = 1 << 17;

/// How far a replica's state may lag for reads that ask for no more.
const REPLICA_MAX_LAG: Duration = Duration::from_secs(1);

/// How long connections may take to write their last replies.
const CLIENTS_STOP_DEADLINE: Duration = Duration::from_secs(2);

/// How long a primary that stops may take to hand leadership over.
const HANDOVER_DEADLINE: Duration = Duration::from_secs(3);

/// How long the gate may take to answer what waits.
const GATE_STOP_DEADLINE: Duration = Duration::from_secs(1);

/// How long a connection may take to authenticate.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// A node that runs.
pub struct RunningNode {
    published: Arc<Published>,
    supervisor: Supervisor,
    metrics: Metrics,
    state: StateReader,
    health: Arc<Health>,
    quorum: QuorumHandle,
    incarnation: Incarnation,
    started: Instant,
    parts: Parts,
}

/// What is stopped, in this order.
struct Parts {
    clients: ClientServer,
    gate: GateHandle,
    consensus: ConsensusThread,
    storage: StorageHandle,
    monitor: HealthMonitor,
    hard: Arc<HardStateWriter>,
    data_dir: Arc<Mutex<DataDir>>,
}

/// What a stop achieved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Whether everything in the journal is synced.
    pub journal_synced: bool,
    /// Whether the state is flushed.
    pub state_flushed: bool,
    /// Whether the clean mark is written: the next start then knows that nothing is lost.
    pub clean: bool,
    /// How long it took.
    pub duration: Duration,
}

/// A node before its threads run.
struct Opened {
    data_dir: DataDir,
    hard: HardStateFile,
    journal: OpenJournal,
    found: Option<Found>,
    state: State,
    writer: StateWriter,
}

impl RunningNode {
    /// Starts a node on the current runtime, which serves its clients; consensus, journal, hard
    /// state and apply loop get threads of their own.
    ///
    /// # Errors
    /// [`StartError`]: names what and where.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        let started = Instant::now();
        let tls =
            TlsMaterial::from_pem(&config.tls.cert_pem, &config.tls.key_pem, &config.tls.ca_pem)?;
        tls.check(config.node, &config.cluster.name)?;
        tls.check_acceptance(config.node, &config.cluster.name)?;
        let opened = open(&config)?;
        start_threads(config, tls, opened, started).await
    }

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

    /// Whether writes are refused for the node's own trouble, and why.
    #[must_use]
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Takes batches, reads and orders for the replication core.
    #[must_use]
    pub fn quorum(&self) -> &QuorumHandle {
        &self.quorum
    }

    /// This life of the node.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Where the node is in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.supervisor.phase()
    }

    /// The supervisor: phase and failures, for tasks that outlive a borrow of the node.
    #[must_use]
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// When the start began.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Completes when the node must end by itself; its process should then exit at once.
    pub async fn failure(&self) -> ExitReason {
        self.supervisor.failure().await
    }

    /// Stops in order: no new commands, every waiting reply answered, everything applied that is
    /// committed, journal synced, state flushed, and last the clean mark. What `deadline` cuts off
    /// is reported as not done; the next start then proves what is there.
    pub async fn shutdown(self, deadline: Duration) -> ShutdownReport {
        let began = Instant::now();
        self.supervisor.enter(Phase::Draining);
        hand_over(&self.quorum, &self.published, deadline.min(HANDOVER_DEADLINE)).await;
        let parts = self.parts;
        self.supervisor.enter(Phase::ShuttingDown);
        // The quorum actor first: its last act answers or refuses what clients wait for.
        parts.consensus.stop().await;
        if parts.gate.stop(GATE_STOP_DEADLINE).await.is_err() {
            tracing::warn!("the gate did not answer everything in time");
        }
        if !parts.clients.stop(CLIENTS_STOP_DEADLINE).await {
            tracing::warn!("some connections did not end in time");
        }
        parts.monitor.stop();
        let closed = parts.storage.close(deadline.saturating_sub(began.elapsed())).await;
        let hard = parts.hard;
        // The clean mark is written last: everything before it must be true.
        let clean = closed.journal_synced
            && tokio::task::spawn_blocking(move || hard.stop(true)).await.unwrap_or(false);
        if clean {
            parts.data_dir.lock().forget_witness(Path::new(WITNESS_DIR));
        }
        drop(parts.data_dir);
        self.supervisor.enter(Phase::Stopped);
        ShutdownReport {
            journal_synced: closed.journal_synced,
            state_flushed: closed.state_flushed,
            clean,
            duration: began.elapsed(),
        }
    }
}

/// Opens directory, hard state, journal and state, and fits them together.
fn open(config: &NodeConfig) -> Result<Opened, StartError> {
    let journal_options = JournalOptions {
        segment_bytes: config.journal.segment_bytes,
        group_bytes_max: config.journal.group_bytes_max,
        queue_commands_max: JOURNAL_COMMANDS_MAX,
        ..JournalOptions::in_data_dir(&config.data_dir)
    };
    let storage = OpenStorage::open(StartOptions {
        dir: DataDirOptions {
            path: config.data_dir.clone(),
            node: config.node,
            allow_volatile: config.allow_volatile,
        },
        journal: journal_options,
        witness_dir: Some(WITNESS_DIR.into()),
    })?;
    let (state, writer) =
        State::open(&state_dir(&config.data_dir), &config.rocksdb).map_err(StartError::state)?;
    let position = state_position(&state)?;
    let mut hard = storage.hard;
    let Recovery { journal, found, behind_state } =
        recover(storage.journal, &position, hard.state().core)?;
    let mut found = found;
    if behind_state && !hard.state().core.memory_loss {
        let mut next = hard.state();
        next.core.memory_loss = true;
        hard.write(next).map_err(StartError::HardState)?;
        if let Some(found) = &mut found {
            found.hard.memory_loss = true;
        }
    }
    Ok(Opened { data_dir: storage.dir, hard, journal, found, state, writer })
}

fn state_dir(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("state").join("1")
}

fn state_position(state: &State) -> Result<StatePosition, StartError> {
    let applied = state.applied_at_open();
    let stored = state.reader().cluster().map_err(StartError::state)?;
    let cluster = stored
        .map(|stored| decode_cluster(&stored.payload).map(|entry| (stored.id, Arc::new(entry))))
        .transpose()
        .map_err(StartError::state)?;
    Ok(StatePosition { applied: applied.id, chain: applied.chain, time: applied.time, cluster })
}

/// What several parts of a starting node share.
struct Wiring {
    config: NodeConfig,
    supervisor: Supervisor,
    published: Arc<Published>,
    wake: QuorumWake,
    incarnation: Incarnation,
    disk: DiskId,
}

/// Everything after storage is open.
#[expect(clippy::too_many_lines, reason = "one list of what is started, in its order")]
async fn start_threads(
    config: NodeConfig,
    tls: TlsMaterial,
    opened: Opened,
    started: Instant,
) -> Result<RunningNode, StartError> {
    let wiring = Wiring {
        supervisor: Supervisor::spawn().await.map_err(StartError::actor)?,
        published: Published::new(),
        wake: QuorumWake::new(),
        incarnation: opened.hard.state().incarnation,
        disk: opened.data_dir.identity().disk,
        config,
    };
    let metrics = Metrics::new()?;
    let health = Health::new(LatchOptions::default(), DiskOptions::default());
    let supervisor = wiring.supervisor.clone();
    let gate = GateHandle::spawn(metrics.gate.clone(), Some(supervisor.cell()))
        .await
        .map_err(StartError::actor)?;
    let (quorum, asked) = QuorumHandle::new(wiring.wake.wake.clone());
    // Bound before anything is shown to peers: a port in use is found out first.
    let state = opened.state.reader().clone();
    let clients = wiring.start_clients(quorum.clone(), &state, &metrics, &health)?;

    let reservation = opened.data_dir.load_reservation()?;
    let report_in_memory = Arc::new(AtomicBool::new(true));
    let hard_saved = Arc::new(AtomicU64::new(0));
    let hard = Arc::new(wiring.start_hard_state(opened.hard, hard_saved.clone())?);
    let journal = wiring.start_journal(
        opened.journal,
        report_in_memory.clone(),
        metrics.storage.clone(),
        hard.clone(),
    )?;
    let cache = Arc::new(LogCache::new(wiring.config.journal.cache_bytes));
    let source = Arc::new(LogSource { cache: cache.clone(), journal: journal.reader() });
    let apply =
        wiring.start_apply(opened.writer, source.clone(), &gate, metrics.storage.clone())?;
    let data_dir = Arc::new(Mutex::new(opened.data_dir));
    let events = PeerEvents::new({
        let wake = wiring.wake.wake.clone();
        move || wake.wake()
    });
    let first = first_entry(&journal)?;
    let hello = wiring.hello(first.as_ref().map(|(_, config)| config.as_ref()), reservation);
    let replication = ReplicationOptions {
        bind: wiring.config.peer.listen,
        tls,
        hello: hello.clone(),
        events: events.clone(),
        source,
    };
    let storage_parts = StorageParts {
        state: state.clone(),
        journal: journal.clone(),
        options: UpkeepOptions {
            retain_bytes: wiring.config.journal.retain_bytes,
            ..UpkeepOptions::default()
        },
        apply,
    };
    let sources = StorageSources {
        state: state.clone(),
        journal: journal.clone(),
        apply: storage_parts.apply.handle().clone(),
    };
    let local = LocalPorts {
        events,
        hello,
        reader: journal.reader(),
        journal,
        cache,
        hard: hard.clone(),
        hard_saved,
        apply: storage_parts.apply.handle().clone(),
        gate: gate.input(),
        data_dir: data_dir.clone(),
        health: health.clone(),
        first,
    };
    let queues = Queues { asked, report_in_memory };
    let phase = wiring.phase(local, queues, opened.found, reservation)?;
    let parts = ConsensusParts {
        peers: wiring.peers(),
        replication,
        wake: wiring.wake.clone(),
        phase,
        supervisor: supervisor.cell(),
    };
    let (consensus, _) = ConsensusThread::start(parts).await?;
    let storage = StorageHandle::spawn(storage_parts, Some(supervisor.cell()))
        .await
        .map_err(StartError::actor)?;
    let monitor = wiring.watch(&metrics, &health, sources).await?;
    supervisor.enter(Phase::Ready);
    let parts = Parts { clients, gate, consensus, storage, monitor, hard, data_dir };
    let Wiring { published, incarnation, .. } = wiring;
    Ok(RunningNode {
        published,
        supervisor,
        metrics,
        state,
        health,
        quorum,
        incarnation,
        started,
        parts,
    })
}

/// A primary that stops lets another one lead first, so that no one waits for an election. What
/// waits here is then sent to the new primary.
async fn hand_over(quorum: &QuorumHandle, published: &Published, limit: Duration) {
    let deadline = Instant::now() + limit;
    match quorum.transfer(None, deadline).await {
        Ok(_) => {
            let primary = tokio::time::timeout_at(deadline.into(), published.other_primary()).await;
            tracing::info!(primary = ?primary.ok(), "handed leadership over");
        }
        // A replica, or alone.
        Err(TransferError::Refused(HandoverRefused::NotPrimary | HandoverRefused::NoOther)) => {}
        Err(error) => tracing::warn!(%error, "leadership was not handed over"),
    }
}

/// Everything that the quorum actor acts upon, but the transport, which starts on its thread.
struct LocalPorts {
    events: Arc<PeerEvents>,
    hello: Hello,
    reader: JournalReader,
    journal: Journal,
    cache: Arc<LogCache>,
    hard: Arc<HardStateWriter>,
    hard_saved: Arc<AtomicU64>,
    apply: ApplyHandle,
    gate: mpsc::Sender<GateInput>,
    data_dir: Arc<Mutex<DataDir>>,
    health: Arc<Health>,
    first: Option<(Bytes, Arc<ClusterEntry>)>,
}

/// The receiving ends of what clients ask of the quorum actor.
struct Queues {
    asked: QuorumQueues,
    report_in_memory: Arc<AtomicBool>,
}

impl Wiring {
    /// Makes the quorum actor's first phase once the transport is up.
    fn phase(
        &self,
        local: LocalPorts,
        queues: Queues,
        found: Option<Found>,
        reservation: Option<DiskId>,
    ) -> Result<MakePhase, StartError> {
        let seed = random_u128()
            .map_err(|source| StartError::Thread { name: "random numbers", source })?;
        let (node, incarnation, disk) = (self.config.node, self.incarnation, self.disk);
        let (plan, tuning, published) = (self.plan(), self.tuning(), self.published.clone());
        Ok(Box::new(move |replication| {
            let ports = Ports {
                node,
                incarnation,
                peers: local.events,
                replication,
                hello: local.hello,
                journal: local.journal,
                reader: local.reader,
                cache: local.cache,
                hard: local.hard,
                hard_saved: local.hard_saved,
                apply: local.apply,
                gate: local.gate,
                data_dir: local.data_dir,
                health: local.health,
                first: local.first,
                seen: Seen::default(),
            };
            let parts = DriverParts {
                disk,
                tuning,
                ports,
                published,
                queues: queues.asked,
                early: Vec::new(),
                report_in_memory: queues.report_in_memory,
                seed: seed as u64,
            };
            if let Some(found) = found {
                return QuorumPhase::Running(Box::new(Driver::new(parts, found)));
            }
            let logic = Forming::new(plan, reservation);
            let cluster = ClusterId(seed);
            QuorumPhase::Forming(Box::new(FormingDriver::new(logic, parts, cluster)))
        }))
    }

    fn start_journal(
        &self,
        journal: OpenJournal,
        report_in_memory: Arc<AtomicBool>,
        metrics: StorageMetrics,
        hard: Arc<HardStateWriter>,
    ) -> Result<Journal, StartError> {
        let wake = self.wake.wake.clone();
        let supervisor = self.supervisor.clone();
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

    fn start_hard_state(
        &self,
        file: HardStateFile,
        saved: Arc<AtomicU64>,
    ) -> Result<HardStateWriter, StartError> {
        let wake = self.wake.wake.clone();
        let supervisor = self.supervisor.clone();
        let hooks = HardStateHooks {
            saved: Arc::new(move |id| {
                saved.fetch_max(id, Ordering::AcqRel);
                wake.wake();
            }),
            fatal: Arc::new(move |fault| supervisor.failed("hard state", fault.to_string())),
        };
        HardStateWriter::start(file, hooks)
            .map_err(|source| StartError::Thread { name: "hardstate", source })
    }

    fn start_apply(
        &self,
        writer: StateWriter,
        log: Arc<LogSource>,
        gate: &GateHandle,
        metrics: StorageMetrics,
    ) -> Result<Apply, StartError> {
        let supervisor = self.supervisor.clone();
        let hooks = ApplyHooks {
            observe: Arc::new(move |round| metrics.applied(round)),
            ..ApplyHooks::new(
                Arc::new(|_| ()),
                Arc::new(move |fault| supervisor.failed("apply loop", fault.to_string())),
            )
        };
        let parts = ApplyParts {
            writer,
            log,
            published: self.published.clone(),
            gate: gate.input(),
            hooks,
        };
        Apply::spawn(parts, ApplyOptions::default())
            .map_err(|source| StartError::Thread { name: "apply", source })
    }

    /// Samples health, and exports what is read at scrape time.
    async fn watch(
        &self,
        metrics: &Metrics,
        health: &Arc<Health>,
        sources: StorageSources,
    ) -> Result<HealthMonitor, StartError> {
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
        HealthMonitor::spawn(parts, HealthOptions::default(), Some(self.supervisor.cell()))
            .await
            .map_err(StartError::actor)
    }

    fn start_clients(
        &self,
        quorum: QuorumHandle,
        state: &StateReader,
        metrics: &Metrics,
        health: &Arc<Health>,
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
            health: health.clone(),
            metrics: metrics.client.clone(),
        };
        Ok(ClientServer::start(options, parts)?)
    }

    fn hello(&self, config: Option<&ClusterEntry>, reservation: Option<DiskId>) -> Hello {
        Hello {
            wire_version: WIRE_VERSION,
            cluster_name: self.config.cluster.name.clone(),
            cluster: config.map(|config| config.cluster),
            generation: config.map(|config| config.generation).unwrap_or_default(),
            node: self.config.node,
            disk: self.disk,
            incarnation: self.incarnation,
            binary_version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_version_max: CLUSTER_VERSION,
            formed: config.is_some(),
            reservation,
            peer_addr: self.config.peer.advertise.clone(),
            client_addr: self.config.client.advertise.clone(),
            plain_addr: self.config.client.advertise_plain.clone(),
        }
    }

    fn plan(&self) -> Plan {
        let cluster = &self.config.cluster;
        Plan {
            node: self.config.node,
            disk: self.disk,
            cluster_name: cluster.name.clone(),
            initial: cluster.initial_members.iter().map(|member| member.node).collect(),
            addresses: Addresses {
                peer: self.config.peer.advertise.clone(),
                client: self.config.client.advertise.clone(),
                plain: self.config.client.advertise_plain.clone(),
            },
            policy: cluster.policy,
            timers: cluster.safety_timers,
        }
    }

    fn peers(&self) -> Vec<PeerAddress> {
        let members = self.config.cluster.initial_members.iter();
        members
            .filter(|member| member.node != self.config.node)
            .map(|member| PeerAddress {
                node: member.node,
                addresses: vec![member.peer_addr.clone()],
            })
            .collect()
    }

    fn tuning(&self) -> Tuning {
        let timers = &self.config.timers;
        Tuning {
            heartbeat_us: timers.heartbeat.as_micros() as u64,
            election_timeout_max_us: timers.election_timeout_max.as_micros() as u64,
            ..Tuning::default()
        }
    }
}

/// The record of the log's first entry, where the journal still has it.
fn first_entry(journal: &Journal) -> Result<Option<(Bytes, Arc<ClusterEntry>)>, StartError> {
    let entries = match journal.reader().read(FIRST_ENTRY.seq, 1) {
        Ok(entries) => entries,
        Err(ReadError::Compacted { .. } | ReadError::Ahead { .. }) => return Ok(None),
        Err(error) => return Err(StartError::Journal(error)),
    };
    let Some(entry) = entries.into_iter().next() else { return Ok(None) };
    let id = entry.id;
    let config = decode_cluster(&entry.payload)
        .map_err(|source| StartError::Recovery(RecoveryError::Cluster { id, source }))?;
    Ok(Some((entry.record(), Arc::new(config))))
}
