//! Starting a node, in order.
//!
//! Storage first (nothing is shown before it is proven), then threads, then the peers, and the
//! clients last. A node that starts waits for no other node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::formation::Forming;
use quorate_protocol::types::{ClusterId, DiskId, EntryId, Generation};
use quorate_protocol::wire::Hello;
use tokio::sync::mpsc;

use super::config::NodeConfig;
use super::consensus::MakePhase;
use super::describe::first_entry;
use super::error::StartError;
use super::open::{Opened, open};
use super::reload::Reload;
use super::running::{Parts, RunningNode};
use super::wiring::Wiring;
use crate::health::Health;
use crate::metrics::{Metrics, StorageSources};
use crate::quorum::{
    Driver, DriverParts, FormingDriver, Found, Phase as QuorumPhase, Ports, QuorumHandle,
    QuorumQueues, RebuildingDriver, Seen, VerifyingDriver,
};
use crate::replication::{Knock, LogSource, PeerEvents, ReplicationOptions, TlsMaterial};
use crate::snapshot::SnapshotHandle;
use crate::storage::MemoryRelief;
use crate::storage::apply::ApplyHandle;
use crate::storage::cache::LogCache;
use crate::storage::durable::random_u128;
use crate::storage::hardstate::HardStateWriter;
use crate::storage::identity::DataDir;
use crate::storage::journal::{Journal, JournalReader};
use crate::storage::state::StateReader;
use crate::storage::state::damage::StateLoss;
use crate::submit::GateInput;
use crate::supervisor::{Lifecycle, Phase};

impl RunningNode {
    /// Starts a node on the current runtime, which serves its clients; consensus, journal, hard
    /// state and apply loop get threads of their own. `lifecycle` tells how far it is.
    ///
    /// # Errors
    /// [`StartError`]: names what and where.
    pub async fn start(
        config: NodeConfig,
        lifecycle: Arc<Lifecycle>,
        metrics: Metrics,
    ) -> Result<Self, StartError> {
        let tls = config.check_tls()?;
        let life = lifecycle.clone();
        // Reads disks for as long as it takes: whoever asks meanwhile is answered.
        let opening = tokio::task::spawn_blocking(move || {
            let opened = open(&config, &life);
            opened.map(|opened| (config, opened))
        });
        let (config, opened) = opening.await.map_err(|_| StartError::Ended("recovery"))??;
        let wiring = Wiring::new(config, &opened, (lifecycle, metrics)).await?;
        wiring.start(tls, opened).await.inspect_err(|_| {
            // The error says it all: what ends now ends because of it.
            wiring.supervisor.enter(Phase::ShuttingDown);
        })
    }
}

impl Wiring {
    /// Everything after storage is open.
    async fn start(&self, tls: TlsMaterial, mut opened: Opened) -> Result<RunningNode, StartError> {
        let (quorum, asked) = QuorumHandle::new(self.wake.wake.clone());
        let state = opened.state.reader().clone();
        // Bound before anything is shown to peers: a port in use is found out first.
        let clients = self.start_clients(quorum.clone(), &state)?;
        let reservation = opened.data_dir.load_reservation()?;
        let hello = self.hello(&opened, reservation);
        let beginning = Beginning::of(&mut opened, reservation);
        let (hard, hard_saved) = self.start_hard_state(opened.hard)?;
        let report_in_memory = Arc::new(AtomicBool::new(true));
        let journal = self.start_journal(opened.journal, report_in_memory.clone(), hard.clone())?;
        identify(&journal, opened.joined)?;
        let cache = Arc::new(LogCache::new(self.config.journal.cache_bytes));
        let source = Arc::new(LogSource { cache: cache.clone(), journal: journal.reader() });
        let relief = MemoryRelief::new(state.clone(), cache.clone());
        let loss = StateLoss::new(state.path());
        let times = quorum.copy_times().clone();
        let apply = self.start_apply(opened.writer, source.clone(), times, loss.clone())?;
        let sources = StorageSources {
            state: state.clone(),
            journal: journal.clone(),
            apply: apply.handle().clone(),
        };
        let snapshots = self.start_snapshots(tls.clone(), &sources, opened.doubt.clone())?;
        let data_dir = Arc::new(Mutex::new(opened.data_dir));
        let events = self.peer_events();
        let replication =
            self.transport(tls.clone(), (hello.clone(), events.clone()), source, snapshots.door());
        let local = LocalPorts {
            events,
            hello,
            reader: journal.reader(),
            journal: journal.clone(),
            cache,
            state: state.clone(),
            hard: hard.clone(),
            hard_saved,
            apply: apply.handle().clone(),
            gate: self.gate.input(),
            data_dir: data_dir.clone(),
            health: self.health.clone(),
            lifecycle: self.supervisor.lifecycle().clone(),
            loss: loss.clone(),
            snapshots: snapshots.handle().clone(),
            first: first_entry(&journal)?,
        };
        let phase = self.phase(local, Queues { asked, report_in_memory }, beginning)?;
        let (consensus, transport) = self.start_consensus(replication, phase).await?;
        let hold = snapshots.hold().clone();
        let storage = self.start_storage(state.clone(), journal, apply, hold.clone()).await?;
        let archive = self.start_archive(&sources, hold).await?;
        let told = (snapshots.handle().clone(), archive.clone());
        let reload = self.reload(&tls, transport, clients.control(), told)?;
        let parts = Parts {
            clients,
            gate: self.gate.clone(),
            consensus,
            snapshots,
            storage,
            archive,
            monitor: self.watch(sources).await?,
            memory: self.watch_memory(relief.clone()).await?,
            disk_watch: self.watch_disk(&state).await?,
            hard,
            data_dir,
        };
        Ok(self.running((state, relief, loss), quorum, reload, parts))
    }

    fn transport(
        &self,
        tls: TlsMaterial,
        (hello, events): (Hello, Arc<PeerEvents>),
        source: Arc<LogSource>,
        bulk: mpsc::Sender<Knock>,
    ) -> ReplicationOptions {
        ReplicationOptions {
            bind: self.config.peer.listen,
            tls,
            hello,
            events,
            source,
            candidates: self.candidates.clone(),
            bulk: Some(bulk),
        }
    }

    fn peer_events(&self) -> Arc<PeerEvents> {
        let wake = self.wake.wake.clone();
        PeerEvents::new(move || wake.wake())
    }

    /// Everything runs.
    fn running(
        &self,
        (state, relief, loss): (StateReader, MemoryRelief, Arc<StateLoss>),
        quorum: QuorumHandle,
        reload: Reload,
        parts: Parts,
    ) -> RunningNode {
        RunningNode {
            published: self.published.clone(),
            supervisor: self.supervisor.clone(),
            metrics: self.metrics.clone(),
            state,
            relief,
            loss,
            suspicion: self.suspicion.clone(),
            health: self.health.clone(),
            candidates: self.candidates.clone(),
            quorum,
            incarnation: self.incarnation,
            reload,
            parts,
        }
    }
}

/// The journal of a node that has just joined a cluster says so from now on.
fn identify(journal: &Journal, joined: Option<(ClusterId, Generation)>) -> Result<(), StartError> {
    let Some((cluster, generation)) = joined else { return Ok(()) };
    journal.identify(cluster, generation).map_err(|_| StartError::Ended("journal"))
}

/// Everything that the quorum actor acts upon, but the transport, which starts on its thread.
struct LocalPorts {
    events: Arc<PeerEvents>,
    hello: Hello,
    reader: JournalReader,
    journal: Journal,
    cache: Arc<LogCache>,
    state: StateReader,
    hard: Arc<HardStateWriter>,
    hard_saved: Arc<AtomicU64>,
    apply: ApplyHandle,
    gate: mpsc::Sender<GateInput>,
    data_dir: Arc<Mutex<DataDir>>,
    health: Arc<Health>,
    lifecycle: Arc<Lifecycle>,
    loss: Arc<StateLoss>,
    snapshots: SnapshotHandle,
    first: Option<(Bytes, Arc<ClusterEntry>)>,
}

/// The receiving ends of what clients ask of the quorum actor.
struct Queues {
    asked: QuorumQueues,
    report_in_memory: Arc<AtomicBool>,
}

/// What a node starts from.
enum Beginning {
    /// Log and state.
    Found(Found),
    /// A log whose beginning was only in the state, which is lost.
    Lost { above: EntryId, generation: Generation },
    /// Journal or state may not be what the others hold.
    Doubted { reason: String },
    /// Nothing yet.
    Empty { reservation: Option<DiskId> },
}

impl Beginning {
    fn of(opened: &mut Opened, reservation: Option<DiskId>) -> Self {
        let generation = opened.generation;
        match (opened.found.take(), opened.lacking, &opened.doubt) {
            (_, _, Some(doubt)) => Self::Doubted { reason: doubt.suspect.reason.clone() },
            (Some(found), _, None) => Self::Found(found),
            (None, Some(above), None) => Self::Lost { above, generation },
            (None, None, None) => Self::Empty { reservation },
        }
    }
}

impl Wiring {
    /// Makes the quorum actor's first phase once the transport is up.
    fn phase(
        &self,
        local: LocalPorts,
        queues: Queues,
        beginning: Beginning,
    ) -> Result<MakePhase, StartError> {
        let seed = random_u128()
            .map_err(|source| StartError::Thread { name: "random numbers", source })?;
        let (node, incarnation, disk) = (self.config.node, self.incarnation, self.disk);
        let stage = self.metrics.stages.sequencing.clone();
        let attribution = self.metrics.gate.attribution.clone();
        let suspicion = self.suspicion.clone();
        let (plan, tuning, published) = (self.plan(), self.tuning(), self.published.clone());
        let (file_peers, candidates) = (self.peers(), self.candidates.clone());
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
                state: local.state,
                hard: local.hard,
                hard_saved: local.hard_saved,
                apply: local.apply,
                gate: local.gate,
                data_dir: local.data_dir,
                health: local.health,
                lifecycle: local.lifecycle,
                loss: local.loss,
                suspicion,
                snapshots: local.snapshots,
                file_peers,
                candidates,
                published: published.clone(),
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
                stage,
                attribution,
            };
            match beginning {
                Beginning::Found(found) => {
                    QuorumPhase::Running(Box::new(Driver::new(parts, found)))
                }
                Beginning::Lost { above, generation } => QuorumPhase::Rebuilding(Box::new(
                    RebuildingDriver::new(parts, above, generation),
                )),
                Beginning::Doubted { reason } => {
                    QuorumPhase::Verifying(Box::new(VerifyingDriver::new(parts, reason)))
                }
                Beginning::Empty { reservation } => {
                    let logic = Forming::new(plan, reservation);
                    let cluster = ClusterId(seed);
                    QuorumPhase::Forming(Box::new(FormingDriver::new(logic, parts, cluster)))
                }
            }
        }))
    }
}
