//! What all connections of a node share.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use quorate_protocol::command::execute::{execute_read, execute_walk, watch};
use quorate_protocol::command::{Lookup, Read, TokenRecord, Walk, Watched};
use quorate_protocol::resp::Reply;
use quorate_protocol::types::{Epoch, Incarnation, NodeId, Seq};
use thiserror::Error;
use tokio::sync::{Notify, Semaphore};

use super::limits::Limits;
use super::registry::Registry;
use super::slowlog::SlowLog;
use crate::health::Health;
use crate::metrics::ClientMetrics;
use crate::node::config::ClientSettings;
use crate::quorum::QuorumHandle;
use crate::storage::state::{StateError, StateReader};
use crate::view::Published;

/// The applied state, as connections read it. `now_ms` is cluster time in milliseconds: keys that
/// expired before it are absent.
pub trait State: Send + Sync + 'static {
    /// Answers a read of single keys.
    ///
    /// # Errors
    /// When the store can't be read.
    fn read(&self, read: &Read, now_ms: u64) -> Result<Reply, StateFault>;

    /// Answers a read that visits many keys.
    ///
    /// # Errors
    /// When the store can't be read.
    fn walk(&self, walk: &Walk, now_ms: u64) -> Result<Reply, StateFault>;

    /// What `WATCH` remembers of a key; `applied` was read before this call.
    ///
    /// # Errors
    /// When the store can't be read.
    fn watch(&self, key: Bytes, applied: Seq, now_ms: u64) -> Result<Watched, StateFault>;

    /// The epoch of the entry at a position that is applied, where that is known.
    ///
    /// # Errors
    /// When the store can't be read.
    fn epoch_of(&self, seq: Seq) -> Result<Option<Epoch>, StateFault>;

    /// What is remembered of a write token.
    ///
    /// # Errors
    /// When the store can't be read.
    fn token(&self, token: &[u8]) -> Result<Option<TokenRecord>, StateFault>;

    /// Number of stored keys.
    ///
    /// # Errors
    /// When the store can't be read.
    fn count(&self) -> Result<u64, StateFault>;
}

impl State for StateReader {
    fn read(&self, read: &Read, now_ms: u64) -> Result<Reply, StateFault> {
        let reply = if touches_one_key(read) {
            execute_read(read, now_ms, self)
        } else {
            // An entry that wrote several keys is seen as a whole.
            execute_read(read, now_ms, &self.snapshot())
        };
        reply.map_err(|error| fault(self, &error))
    }

    fn walk(&self, walk: &Walk, now_ms: u64) -> Result<Reply, StateFault> {
        let random = RandomState::new().build_hasher().finish();
        execute_walk(walk, now_ms, random, &self.snapshot()).map_err(|error| fault(self, &error))
    }

    fn watch(&self, key: Bytes, applied: Seq, now_ms: u64) -> Result<Watched, StateFault> {
        watch(key, now_ms, applied, self).map_err(|error| fault(self, &error))
    }

    fn epoch_of(&self, seq: Seq) -> Result<Option<Epoch>, StateFault> {
        StateReader::epoch_of(self, seq).map_err(|error| fault(self, &error))
    }

    fn token(&self, token: &[u8]) -> Result<Option<TokenRecord>, StateFault> {
        Lookup::token(self, token).map_err(|error| fault(self, &error))
    }

    fn count(&self) -> Result<u64, StateFault> {
        Lookup::count(self).map_err(|error| fault(self, &error))
    }
}

/// What the connection is told; the node's health learns of it, too.
fn fault(state: &StateReader, error: &StateError) -> StateFault {
    state.report(error);
    StateFault::new(error)
}

/// The state couldn't be read.
#[derive(Clone, Debug, Error)]
#[error("the state can't be read: {0}")]
pub struct StateFault(pub String);

impl StateFault {
    fn new(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// What a node hands to its client server.
pub struct ClientParts {
    /// Role, positions, view.
    pub published: Arc<Published>,
    /// Takes batches and confirms reads.
    pub quorum: QuorumHandle,
    /// The applied state.
    pub state: Arc<dyn State>,
    /// Whether writes may be taken.
    pub health: Arc<Health>,
    /// Counters of this listener.
    pub metrics: ClientMetrics,
}

/// Settings that don't come from the `[client]` section alone.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The `[client]` section.
    pub settings: ClientSettings,
    /// This node.
    pub node: NodeId,
    /// This life of the node.
    pub incarnation: Incarnation,
    /// Name of the cluster.
    pub cluster_name: String,
    /// How far a replica's state may lag behind for `READONLY` reads.
    pub replica_max_lag: Duration,
    /// A connection that must authenticate is closed when it hasn't after this time.
    pub handshake_deadline: Duration,
}

/// What all connections of a node share.
pub(super) struct Shared {
    pub options: ClientOptions,
    pub published: Arc<Published>,
    pub quorum: QuorumHandle,
    pub state: Arc<dyn State>,
    pub health: Arc<Health>,
    pub metrics: ClientMetrics,
    pub registry: Registry,
    live: ArcSwap<Live>,
    pub slowlog: SlowLog,
    pub started: Instant,
    /// Seconds without a command after which a connection is closed; 0 is never.
    pub idle_timeout_s: AtomicU64,
    pause: Pause,
}

impl Shared {
    pub(super) fn new(options: ClientOptions, parts: ClientParts) -> Arc<Self> {
        let live = ArcSwap::from_pointee(Live::new(options.settings.clone(), None));
        Arc::new(Self {
            published: parts.published,
            quorum: parts.quorum,
            state: parts.state,
            health: parts.health,
            metrics: parts.metrics,
            registry: Registry::default(),
            live,
            slowlog: SlowLog::default(),
            started: Instant::now(),
            idle_timeout_s: AtomicU64::new(0),
            pause: Pause::default(),
            options,
        })
    }

    /// The settings now. A command keeps those that it began with.
    pub(super) fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// These from now on, but for the listeners' addresses.
    pub(super) fn set_settings(&self, settings: ClientSettings) {
        self.live.store(Arc::new(Live::new(settings, Some(&self.live()))));
    }

    /// Cluster time for reads, in milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        self.published.cluster_time_ms()
    }

    /// Holds commands back until `until`: all of them or only what may write.
    pub(super) fn pause(&self, until: Instant, writes_only: bool) {
        let ms = until.saturating_duration_since(self.started).as_millis() as u64;
        // The lowest bit tells which commands.
        let value = (ms.max(1) << 1) | u64::from(writes_only);
        self.pause.until.store(value, Ordering::Release);
    }

    /// Ends a pause early.
    pub(super) fn unpause(&self) {
        self.pause.until.store(0, Ordering::Release);
        self.pause.over.notify_waiters();
    }

    /// Waits while a pause is on that concerns this command.
    pub(super) async fn paused(&self, write: bool) {
        loop {
            let over = self.pause.over.notified();
            let value = self.pause.until.load(Ordering::Acquire);
            let until = self.started + Duration::from_millis(value >> 1);
            let concerned = value != 0 && (write || value & 1 == 0);
            if !concerned || Instant::now() >= until {
                return;
            }
            tokio::select! {
                () = over => {}
                () = tokio::time::sleep_until(until.into()) => {}
            }
        }
    }

    /// Whether any pause is set: the common case is one load.
    pub(super) fn is_paused(&self) -> bool {
        self.pause.until.load(Ordering::Relaxed) != 0
    }
}

fn touches_one_key(read: &Read) -> bool {
    match read {
        Read::MGet { keys } | Read::Exists { keys } => keys.len() <= 1,
        Read::Lcs(_) | Read::Walk(_) => false,
        Read::Get { .. }
        | Read::StrLen { .. }
        | Read::GetRange { .. }
        | Read::Type { .. }
        | Read::Ttl { .. }
        | Read::Object { .. }
        | Read::MemoryUsage { .. }
        | Read::DbSize
        | Read::GetBit { .. }
        | Read::BitCount { .. }
        | Read::BitPos { .. } => true,
    }
}

/// What may change while connections are served.
#[derive(Debug)]
pub(super) struct Live {
    pub settings: ClientSettings,
    /// Bytes of batches that may wait to be sealed.
    pub admission: Arc<Semaphore>,
    /// Turns of stores, loads and removes.
    pub limits: Arc<Limits>,
}

impl Live {
    /// What is under way under another limit than before goes on beside the new one.
    fn new(settings: ClientSettings, before: Option<&Self>) -> Self {
        let budget = settings.admission_bytes_max;
        let same = before.filter(|before| before.settings.admission_bytes_max == budget);
        let admission = same.map_or_else(
            || Arc::new(Semaphore::new(budget.min(Semaphore::MAX_PERMITS))),
            |before| before.admission.clone(),
        );
        let same = before.filter(|before| before.settings.concurrency == settings.concurrency);
        let limits = same.map_or_else(
            || Arc::new(Limits::new(&settings.concurrency)),
            |before| before.limits.clone(),
        );
        Self { settings, admission, limits }
    }
}

/// `CLIENT PAUSE`
#[derive(Debug, Default)]
struct Pause {
    /// Milliseconds after the server's start, shifted by one; the lowest bit is set where only
    /// writes wait. 0 is no pause.
    until: AtomicU64,
    over: Notify,
}
