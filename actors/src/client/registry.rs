//! The connections of a node: who is there, and how to end one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// All connections, by id.
#[derive(Debug, Default)]
pub(super) struct Registry {
    clients: Mutex<BTreeMap<u64, Arc<Client>>>,
    next_id: AtomicU64,
    count: AtomicUsize,
}

/// What is known of one connection, to itself and to others.
#[derive(Debug)]
pub(super) struct Client {
    /// Never used again by this process.
    pub id: u64,
    /// Where it comes from.
    pub address: SocketAddr,
    /// Where it connected to.
    pub local: SocketAddr,
    /// When it connected.
    pub connected: Instant,
    /// Milliseconds after `connected` when it last sent something.
    active_ms: AtomicU64,
    /// Whether it may send commands.
    authenticated: AtomicBool,
    ending: AtomicBool,
    end: Notify,
    /// What changes rarely.
    pub details: Mutex<Details>,
}

/// What a client says of itself, and what it did last.
#[derive(Debug, Default)]
pub(super) struct Details {
    /// `CLIENT SETNAME`
    pub name: String,
    /// `CLIENT SETINFO LIB-NAME`
    pub library: String,
    /// `CLIENT SETINFO LIB-VER`
    pub library_version: String,
    /// 2 or 3.
    pub protocol: u8,
    /// Commands queued by `MULTI`; −1 outside a transaction.
    pub queued: i64,
    /// Watched keys.
    pub watched: usize,
    /// `CLIENT NO-EVICT`
    pub no_evict: bool,
    /// `CLIENT NO-TOUCH`
    pub no_touch: bool,
    /// `READONLY`
    pub read_only: bool,
}

impl Registry {
    /// Enters a connection, unless `limit` are there already.
    pub(super) fn enter(
        &self,
        address: SocketAddr,
        local: SocketAddr,
        limit: usize,
    ) -> Option<Arc<Client>> {
        let mut clients = self.clients.lock();
        if clients.len() >= limit {
            return None;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Arc::new(Client {
            id,
            address,
            local,
            connected: Instant::now(),
            active_ms: AtomicU64::new(0),
            authenticated: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            end: Notify::new(),
            details: Mutex::new(Details { protocol: 2, queued: -1, ..Details::default() }),
        });
        clients.insert(id, client.clone());
        self.count.store(clients.len(), Ordering::Relaxed);
        Some(client)
    }

    /// Forgets a connection.
    pub(super) fn leave(&self, id: u64) {
        let mut clients = self.clients.lock();
        clients.remove(&id);
        self.count.store(clients.len(), Ordering::Relaxed);
    }

    /// Connections now.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// All connections, oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Client>> {
        self.clients.lock().values().cloned().collect()
    }
}

impl Client {
    /// Asks the connection to end after its current round.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::Release);
        self.end.notify_waiters();
    }

    /// Whether it was asked to end.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Completes when it is asked to end.
    pub(super) async fn ended(&self) {
        let ended = self.end.notified();
        if !self.is_ending() {
            ended.await;
        }
    }

    /// It sent something.
    pub(super) fn touch(&self, now: Instant) {
        let ms = now.saturating_duration_since(self.connected).as_millis() as u64;
        self.active_ms.store(ms, Ordering::Relaxed);
    }

    /// It may send commands, or no longer.
    pub(super) fn set_authenticated(&self, yes: bool) {
        self.authenticated.store(yes, Ordering::Relaxed);
    }

    /// Whether it may send commands.
    pub(super) fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Relaxed)
    }

    /// How long it has been connected.
    pub(super) fn age(&self) -> Duration {
        self.connected.elapsed()
    }

    /// How long it has sent nothing.
    pub(super) fn idle(&self) -> Duration {
        self.age().saturating_sub(Duration::from_millis(self.active_ms.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_up_to_the_limit_and_never_reuses_an_id() {
        let registry = Registry::default();
        let address: SocketAddr = ([127, 0, 0, 1], 1).into();
        let first = registry.enter(address, address, 2).expect("room");
        let second = registry.enter(address, address, 2).expect("room");
        assert!(registry.enter(address, address, 2).is_none());
        registry.leave(first.id);
        let third = registry.enter(address, address, 2).expect("room again");
        assert!(third.id > second.id && registry.count() == 2);
    }

    #[tokio::test]
    async fn an_end_asked_for_before_the_wait_is_seen() {
        let registry = Registry::default();
        let address: SocketAddr = ([127, 0, 0, 1], 1).into();
        let client = registry.enter(address, address, 1).expect("room");
        client.end();
        tokio::time::timeout(Duration::from_secs(5), client.ended()).await.expect("seen");
    }
}
