//! What the snapshots' thread does: it waits for what is asked of it, and has each done beside the
//! others.

use std::io;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_protocol::types::{DiskId, EntryId, NodeId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use super::fetch::{Dialled, Fetch, FetchError};
use super::receiving::{Receiving, remove};
use super::serve::{Pace, Served, blocking, serve};
use super::service::{DivergenceParts, SnapshotHandle, SnapshotParts};
use super::source::{Made, Source};
use crate::divergence::{ChainWatch, Chains};
use crate::metrics::ScrubMetrics;
use crate::orders::{Ask, Reception, carry};
use crate::replication::{BulkDialler, Knock, TlsMaterial, answer_join};
use crate::scrub::{Examiner, ScrubOrder, ScrubReply, ScrubRun};
use crate::storage::JournalHold;
use crate::storage::identity::Current;
use crate::view::{Published, Role};
use crate::wake::Wake;

/// Connections that are served at once: transfers, scrubs and orders.
const CONNECTIONS_MAX: usize = 12;
/// Nodes that join whose requests are served at once. Each has deadlines of seconds.
const JOINS_MAX: usize = 8;
/// Orders that are on their way to other nodes at once.
const ORDERS_MAX: usize = 16;

/// Between two questions which log is right, on a node that takes part in nothing until it knows.
const DOUBT_PERIOD: Duration = Duration::from_secs(1);

/// In the data directory: when this node was last examined by a scrub.
const SCRUB_STAMP: &str = "SCRUBBED";

/// How often it is looked whether a snapshot is still asked for, and a scrub due.
const EXPIRE_PERIOD: Duration = Duration::from_secs(5);

/// Between two attempts to fetch: doubled from the first to the second.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// The core needs a snapshot.
pub(super) struct Wanted {
    pub(super) from: NodeId,
    pub(super) address: SocketAddr,
    pub(super) above: EntryId,
    pub(super) naming: Option<(NodeId, DiskId)>,
}

/// What the core says of the one that was fetched.
pub(super) enum Decision {
    Install,
    Discard,
}

/// What reaches the thread.
pub(super) struct Queues {
    pub(super) asked: mpsc::Receiver<Wanted>,
    pub(super) decided: mpsc::Receiver<Decision>,
    pub(super) scrubs: mpsc::Receiver<ScrubOrder>,
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) successions: mpsc::Receiver<()>,
    pub(super) knocks: mpsc::Receiver<Knock>,
}

/// What the thread owns.
pub(super) struct Worker {
    data_dir: PathBuf,
    receiving_dir: PathBuf,
    listen: SocketAddr,
    cluster_name: String,
    served: Arc<Served>,
    wake: Arc<Wake>,
    handle: SnapshotHandle,
    /// With the certificates that it dials by.
    dialler: Option<(Arc<TlsMaterial>, Arc<BulkDialler>)>,
    fetching: JoinSet<Result<Receiving, FetchError>>,
    received: Option<Receiving>,
    published: Arc<Published>,
    scrub_metrics: ScrubMetrics,
    /// Zero is never.
    scrub_period: Duration,
    scrubbing: JoinSet<()>,
    asking: JoinSet<()>,
    chain_watch: Arc<ChainWatch>,
    /// Zero is never.
    chain_period: Duration,
    comparing: JoinSet<()>,
    succeeding: JoinSet<()>,
    not_before: Instant,
    backoff: Duration,
    /// Of all snapshots, when an attempt last failed.
    received_bytes: u64,
}

impl Worker {
    pub(super) fn new(
        parts: SnapshotParts,
        handle: &SnapshotHandle,
        stopping: &Arc<AtomicBool>,
        orders: Reception,
    ) -> Self {
        let dir = parts.data_dir.join("snapshots");
        let stamp = parts.data_dir.join(SCRUB_STAMP);
        let (state, scratch) = (parts.state.clone(), dir.join("scrub"));
        let examiner = Examiner::new(state, parts.apply, scratch, stamp);
        let published = parts.published.clone();
        let receiving_dir = dir.join("receiving");
        let chains = Arc::new(Chains {
            journal: parts.journal.clone(),
            state: parts.state.clone(),
            published: published.clone(),
        });
        let source = Source {
            dir,
            state: parts.state,
            journal: parts.journal,
            published: parts.published,
            hold: Arc::default(),
            stats: handle.stats.clone(),
            stopping: stopping.clone(),
            made: Mutex::new(Made::Nothing),
        };
        let DivergenceParts { node, period, suspicion, doubt, metrics } = parts.divergence;
        let chain_period = if doubt.is_some() { DOUBT_PERIOD } else { period };
        let chain_watch = ChainWatch {
            node,
            published: published.clone(),
            chains: chains.clone(),
            suspicion,
            metrics,
            doubt,
            told: handle.divergence.clone(),
        };
        Self {
            data_dir: parts.data_dir,
            receiving_dir,
            listen: parts.listen,
            cluster_name: parts.cluster_name,
            served: Arc::new(Served {
                source: Arc::new(source),
                pace: Pace::new(handle.bytes_per_second.clone()),
                examiner,
                chains,
                health: parts.health,
                orders,
            }),
            wake: parts.wake,
            handle: handle.clone(),
            dialler: None,
            fetching: JoinSet::new(),
            received: None,
            published,
            scrub_metrics: parts.scrub_metrics,
            scrub_period: parts.scrub_period,
            scrubbing: JoinSet::new(),
            asking: JoinSet::new(),
            chain_watch: Arc::new(chain_watch),
            chain_period,
            comparing: JoinSet::new(),
            succeeding: JoinSet::new(),
            not_before: Instant::now(),
            backoff: RETRY_MIN,
            received_bytes: 0,
        }
    }

    pub(super) fn hold(&self) -> Arc<JournalHold> {
        self.served.source.hold.clone()
    }

    pub(super) async fn run(mut self, queues: Queues, mut stop: oneshot::Receiver<()>) {
        let Queues { mut asked, mut decided, mut scrubs, mut asks, mut successions, mut knocks } =
            queues;
        let mut serving = JoinSet::new();
        let mut joining = JoinSet::new();
        let mut expire = tokio::time::interval(EXPIRE_PERIOD);
        let compares = !self.chain_period.is_zero();
        let mut compare = tokio::time::interval(self.chain_period.max(EXPIRE_PERIOD / 5));
        compare.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = &mut stop => return,
                Some(decision) = decided.recv() => self.carry_out(decision).await,
                Some(wanted) = asked.recv() => self.want(wanted),
                Some(fetched) = self.fetching.join_next() => self.fetched(fetched),
                Some(knock) = knocks.recv(), if joining.len() < JOINS_MAX => {
                    if knock.joins() {
                        joining.spawn(answer_join(knock, self.served.orders.joins()));
                        continue;
                    }
                    // Beyond the limit it is refused by being dropped; the other side comes again.
                    if serving.len() < CONNECTIONS_MAX {
                        serving.spawn(serve(knock, self.served.clone()));
                    }
                }
                Some(ended) = serving.join_next() => pass_panic_on(ended),
                Some(ended) = joining.join_next() => pass_panic_on(ended),
                Some(ScrubOrder { repair, reply }) = scrubs.recv(), if self.scrubbing.is_empty() => {
                    self.scrub(repair, Some(reply));
                }
                Some(ended) = self.scrubbing.join_next() => pass_panic_on(ended),
                Some(ask) = asks.recv(), if self.asking.len() < ORDERS_MAX => {
                    let dialler = self.dialler();
                    self.asking.spawn(carry(ask, dialler));
                }
                Some(ended) = self.asking.join_next() => pass_panic_on(ended),
                Some(()) = successions.recv(), if self.succeeding.is_empty() => self.find_successor(),
                Some(ended) = self.succeeding.join_next() => pass_panic_on(ended),
                _ = expire.tick() => {
                    self.served.source.expire();
                    self.scrub_if_due();
                }
                _ = compare.tick(), if compares && self.comparing.is_empty() => self.compare(),
                Some(ended) = self.comparing.join_next() => pass_panic_on(ended),
            }
        }
    }

    fn want(&mut self, wanted: Wanted) {
        if let Err(error) = self.fetch(wanted) {
            tracing::error!(%error, "snapshots can't be fetched");
            self.retry_later();
        }
    }

    async fn carry_out(&mut self, decision: Decision) {
        match decision {
            Decision::Install => self.install().await,
            Decision::Discard => {
                if self.received.take().is_some()
                    && let Err(error) = remove(&self.receiving_dir)
                {
                    tracing::warn!(%error, "a snapshot of no use stays behind");
                }
                *self.handle.stats.fetching_since.lock() = None;
                self.retry_later();
            }
        }
    }

    fn fetch(&mut self, wanted: Wanted) -> Result<(), String> {
        let Wanted { from, address, above, naming } = wanted;
        let busy = !self.fetching.is_empty() || self.received.is_some();
        if busy || Instant::now() < self.not_before {
            return Ok(());
        }
        let dialler = self.dialler()?;
        let dir = self.receiving_dir.clone();
        let stats = self.handle.stats.clone();
        stats.fetching_since.lock().get_or_insert_with(std::time::Instant::now);
        let fetch = Fetch { from, address, above, naming, dir, dialler, stats };
        self.fetching.spawn(fetch.run());
        Ok(())
    }

    fn dialler(&mut self) -> Result<Arc<BulkDialler>, String> {
        let tls = self.handle.tls.load_full();
        if let Some((used, dialler)) = &self.dialler
            && Arc::ptr_eq(used, &tls)
        {
            return Ok(dialler.clone());
        }
        let bound = BulkDialler::bind(self.listen, &self.cluster_name, &tls);
        let dialler = Arc::new(bound.map_err(|error| error.to_string())?);
        self.dialler = Some((tls, dialler.clone()));
        Ok(dialler)
    }

    fn dial(&mut self) -> Dialled {
        let dialler = self.dialler();
        Arc::new(move |node, address| {
            let dialler = dialler.clone();
            Box::pin(async move {
                dialler?.dial(node, address).await.map_err(|error| error.to_string())
            })
        })
    }

    fn compare(&mut self) {
        let (watch, dial) = (self.chain_watch.clone(), self.dial());
        self.comparing.spawn(async move { watch.look(&dial).await });
    }

    fn find_successor(&mut self) {
        let Some(config) = self.published.view().config.clone() else { return };
        let (successor, node) = (self.handle.successor.clone(), self.chain_watch.node);
        let (dial, wake) = (self.dial(), self.wake.clone());
        self.succeeding.spawn(async move {
            successor.find(node, &config, &dial).await;
            wake.wake();
        });
    }

    /// The primary's part, so that one node at most asks for it. Nodes that were examined lately,
    /// for whomever, are not due.
    fn scrub_if_due(&mut self) {
        let due = !self.scrub_period.is_zero()
            && self.scrubbing.is_empty()
            && self.published.role() == Role::Primary
            && self.served.examiner.last_examined() >= self.scrub_period;
        if due {
            tracing::info!("scrub: due by the schedule");
            self.scrub(true, None);
        }
    }

    /// One at a time.
    fn scrub(&mut self, repair: bool, reply: Option<ScrubReply>) {
        let dial = self.dial();
        let run = ScrubRun {
            published: self.published.clone(),
            examiner: self.served.examiner.clone(),
            dial,
            metrics: self.scrub_metrics.clone(),
        };
        self.scrubbing.spawn(async move {
            let outcome = run.run(repair).await;
            if let Some(reply) = reply {
                // A caller that has gone sees metrics and log.
                let _ = reply.send(outcome);
            }
        });
    }

    fn fetched(&mut self, ended: Result<Result<Receiving, FetchError>, JoinError>) {
        let receiving = match ended {
            Ok(Ok(receiving)) => receiving,
            Ok(Err(error)) => {
                let received = self.handle.stats.received_bytes();
                // It got on: the next attempt may, too.
                if error.is_lost_connection() && received > self.received_bytes {
                    self.backoff = RETRY_MIN;
                }
                self.received_bytes = received;
                tracing::warn!(%error, retry_in = ?self.backoff, "snapshot not received");
                return self.retry_later();
            }
            Err(error) => return pass_panic_on(Err(error)),
        };
        match receiving.manifest().snapshot() {
            Ok(snapshot) => {
                self.backoff = RETRY_MIN;
                self.received = Some(receiving);
                self.handle.fetched.lock().push_back(snapshot);
                self.wake.wake();
            }
            Err(error) => {
                tracing::error!(%error, "the snapshot can't be used");
                self.retry_later();
            }
        }
    }

    async fn install(&mut self) {
        let Some(receiving) = self.received.take() else { return };
        let data_dir = self.data_dir.clone();
        let installed = blocking(move || {
            receiving.install(&data_dir).map_err(|error| io::Error::other(error.to_string()))
        });
        match installed.await {
            Ok(Current { instance, preceding, .. }) => {
                tracing::info!(instance, last = %preceding, "snapshot installed: restarting");
                self.handle.installed.notify_one();
            }
            // The core waits for the switch and takes no entries: only a restart helps.
            Err(error) => {
                tracing::error!(%error, "the snapshot can't be installed: restarting");
                self.handle.installed.notify_one();
            }
        }
    }

    fn retry_later(&mut self) {
        self.not_before = Instant::now() + self.backoff;
        self.backoff = (self.backoff * 2).min(RETRY_MAX);
    }
}

/// A panic in any part ends the node.
fn pass_panic_on(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        resume_unwind(error.into_panic());
    }
}
