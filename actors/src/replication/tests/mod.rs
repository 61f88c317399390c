//! The transport over real sockets on loopback.

mod handshake;
mod membership;
mod pki;
mod traffic;

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_protocol::core::message::{AppendAck, Message};
use quorate_protocol::entry::Entry;
use quorate_protocol::types::{
    Chain, ClusterTime, DiskId, EntryId, EntryKind, Epoch, Incarnation, NodeId, Seq,
};
use quorate_protocol::wire::{AppendHeader, Hello, WIRE_VERSION};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::{
    Candidates, EntrySource, Knock, PeerAddress, PeerEvent, PeerEvents, ReadError, Refusal,
    Replication, ReplicationOptions, SendEntries, Session, TlsMaterial,
};
use pki::Authority;

const CLUSTER: &str = "test";
const DEADLINE: Duration = Duration::from_secs(10);
const LOCALHOST: SocketAddr =
    SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0));

/// A log in memory; what is `below` its cached part must be read.
#[derive(Default)]
struct TestLog {
    entries: Mutex<Vec<Entry>>,
    /// Entries below this one count as no longer in memory.
    cached_from: Mutex<u64>,
    /// Entries below this one are trimmed.
    start: Mutex<u64>,
}

impl TestLog {
    fn fill(&self, payloads: impl IntoIterator<Item = Bytes>) {
        let mut entries = self.entries.lock();
        for payload in payloads {
            let seq = Seq(entries.len() as u64 + 1);
            let chain = entries.last().map_or(Chain(0), |entry| entry.chain);
            let id = EntryId::new(Epoch(1), seq);
            entries.push(Entry::seal(id, EntryKind::Commands, ClusterTime(1), chain, payload));
        }
    }

    fn take(&self, first: Seq, bytes_max: usize) -> Vec<Entry> {
        let mut bytes = 0;
        let entries = self.entries.lock();
        let from = entries.iter().skip(first.prev().0 as usize);
        from.take_while(|entry| {
            let fits = bytes == 0 || bytes + entry.header().record_bytes() as usize <= bytes_max;
            bytes += entry.header().record_bytes() as usize;
            fits
        })
        .cloned()
        .collect()
    }
}

impl EntrySource for TestLog {
    fn cached(&self, first: Seq, bytes_max: usize) -> Option<Vec<Entry>> {
        (first.0 >= *self.cached_from.lock()).then(|| self.take(first, bytes_max))
    }

    fn read(&self, first: Seq, bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        let start = Seq(*self.start.lock());
        if first < start {
            return Err(ReadError::Trimmed { start });
        }
        Ok(self.take(first, bytes_max))
    }
}

/// One node's transport, and what it has heard.
struct TestNode {
    id: NodeId,
    transport: Replication,
    task: JoinHandle<()>,
    events: Arc<PeerEvents>,
    woken: Arc<Notify>,
    heard: VecDeque<PeerEvent>,
    log: Arc<TestLog>,
    candidates: Arc<Candidates>,
}

impl TestNode {
    async fn start(authority: &Authority, id: u64) -> Self {
        Self::start_with(hello(id, 1), authority.node(id, CLUSTER), LOCALHOST).await
    }

    async fn start_with(hello: Hello, tls: TlsMaterial, bind: SocketAddr) -> Self {
        Self::start_all(hello, tls, bind, None).await
    }

    /// One that passes marked connections on.
    async fn start_serving(
        authority: &Authority,
        id: u64,
        bulk: Option<mpsc::Sender<Knock>>,
    ) -> Self {
        Self::start_all(hello(id, 1), authority.node(id, CLUSTER), LOCALHOST, bulk).await
    }

    async fn start_all(
        hello: Hello,
        tls: TlsMaterial,
        bind: SocketAddr,
        bulk: Option<mpsc::Sender<Knock>>,
    ) -> Self {
        let woken = Arc::new(Notify::new());
        let waker = Arc::clone(&woken);
        let events = PeerEvents::new(move || waker.notify_one());
        let log = Arc::new(TestLog::default());
        let source: Arc<dyn EntrySource> = Arc::clone(&log) as _;
        let id = hello.node;
        let heard = Arc::clone(&events);
        let candidates: Arc<Candidates> = Arc::default();
        let options = ReplicationOptions {
            bind,
            tls,
            hello,
            events: heard,
            source,
            candidates: candidates.clone(),
            bulk,
        };
        let (transport, task) = Replication::start(options, None).await.expect("it starts");
        Self { id, transport, task, events, woken, heard: VecDeque::new(), log, candidates }
    }

    fn address(&self) -> SocketAddr {
        self.transport.local_addr().expect("it is bound")
    }

    fn as_peer(&self) -> PeerAddress {
        PeerAddress { node: self.id, addresses: vec![self.address().to_string()] }
    }

    /// The first event that fits; earlier ones are dropped.
    async fn wait_for<T>(&mut self, what: &str, fits: impl Fn(&PeerEvent) -> Option<T>) -> T {
        let search = async {
            loop {
                while let Some(event) = self.heard.pop_front() {
                    if let Some(found) = fits(&event) {
                        return found;
                    }
                }
                let mut events = Vec::new();
                self.events.drain(&mut events);
                if events.is_empty() {
                    self.woken.notified().await;
                }
                self.heard.extend(events);
            }
        };
        tokio::time::timeout(DEADLINE, search)
            .await
            .unwrap_or_else(|_| panic!("node {} waits for {what}", self.id))
    }

    async fn connected(&mut self, from: u64) -> (Session, Hello) {
        self.wait_for("a session", |event| match event {
            PeerEvent::Connected { peer, session, hello } if *peer == NodeId(from) => {
                Some((*session, hello.as_ref().clone()))
            }
            _ => None,
        })
        .await
    }

    async fn disconnected(&mut self, from: u64) -> Session {
        self.wait_for("the end of a session", |event| match event {
            PeerEvent::Disconnected { peer, session } if *peer == NodeId(from) => Some(*session),
            _ => None,
        })
        .await
    }

    async fn refused(&mut self, from: u64) -> Refusal {
        self.wait_for("a refusal", |event| match event {
            PeerEvent::Refused { peer, reason } if *peer == NodeId(from) => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    async fn message(&mut self) -> (Message, Vec<Entry>) {
        self.wait_for("a message", |event| match event {
            PeerEvent::Message { message, entries, .. } => Some((message.clone(), entries.clone())),
            _ => None,
        })
        .await
    }

    async fn stop(self) {
        self.transport.stop().await;
        tokio::time::timeout(DEADLINE, self.task)
            .await
            .expect("it stops in time")
            .expect("it doesn't panic");
    }
}

fn hello(node: u64, incarnation: u64) -> Hello {
    Hello {
        wire_version: WIRE_VERSION,
        cluster_name: CLUSTER.to_owned(),
        node: NodeId(node),
        disk: DiskId(u128::from(node)),
        incarnation: Incarnation(incarnation),
        ..Hello::default()
    }
}

fn free_address() -> SocketAddr {
    let socket = UdpSocket::bind(LOCALHOST).expect("a free port");
    socket.local_addr().expect("it is bound")
}

/// Two nodes that know each other and are connected, with the session as each sees it.
async fn pair(authority: &Authority) -> ((TestNode, Session), (TestNode, Session)) {
    let mut one = TestNode::start(authority, 1).await;
    let mut two = TestNode::start(authority, 2).await;
    introduce(&[&one, &two]).await;
    let (at_one, _) = one.connected(2).await;
    let (at_two, _) = two.connected(1).await;
    ((one, at_one), (two, at_two))
}

/// Tells every node of all others.
async fn introduce(nodes: &[&TestNode]) {
    let peers: Vec<_> = nodes.iter().map(|node| node.as_peer()).collect();
    for node in nodes {
        let known = node.transport.set_peers(peers.clone()).await;
        known.expect("the transport runs");
    }
}

fn ack(round: u64) -> Message {
    Message::AppendAck(AppendAck {
        epoch: Epoch(1),
        incarnation: Incarnation(1),
        verified: Seq(0),
        in_memory: Seq(0),
        persisted: Seq(0),
        applied: Seq(0),
        round,
        memory_loss: false,
        reach: 1,
        reject: None,
    })
}

fn round_of(message: &Message) -> Option<u64> {
    match message {
        Message::AppendAck(ack) => Some(ack.round),
        _ => None,
    }
}

/// Asks for entries from `first` on, whose predecessor is of epoch 1.
fn entries_from(session: Session, first: u64, bytes_max: usize) -> SendEntries {
    let prev = Seq(first).prev();
    SendEntries {
        session,
        header: AppendHeader {
            epoch: Epoch(1),
            prev: if prev == Seq::ZERO { EntryId::ZERO } else { EntryId::new(Epoch(1), prev) },
            commit: Seq::ZERO,
            round: 0,
            time: ClusterTime(1),
            recover: None,
        },
        first: Seq(first),
        bytes_max,
    }
}
