//! Connections against a fake quorum: real sockets, a state in memory, and a log that a test
//! tells what to do.

mod pipelines;
mod refusals;
mod sessions;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_protocol::cluster::{ClusterEntry, Member, MemberKind, SafetyTimers};
use quorate_protocol::command::execute::{
    Moment, apply_payload, execute_read, execute_walk, watch,
};
use quorate_protocol::command::{Lookup, MemoryKeyspace, Read, TokenRecord, Walk, Watched};
use quorate_protocol::policy::{Policy, Threshold};
use quorate_protocol::resp::Reply;
use quorate_protocol::types::{
    ClusterId, DiskId, EntryId, Epoch, Generation, Incarnation, MonoTime, NodeId, Seq,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::ClientServer;
use super::shared::{ClientOptions, ClientParts, State, StateFault};
use crate::health::{DiskOptions, Health, LatchOptions};
use crate::metrics::Metrics;
use crate::node::config::{ClientSettings, ConcurrencyLimits};
use crate::quorum::{ConfirmedRead, QuorumHandle, QuorumQueues};
use crate::submit::{Batch, DoubtReason, Outcome, Refusal, Waits};
use crate::view::{Published, Role, View};
use crate::wake::Wake;

/// What the fake log does with the next batches.
#[derive(Clone, Debug)]
enum Log {
    Commit,
    Refuse(Refusal),
    /// Commits so many batches; then another node is primary.
    StepDownAfter(u32),
    Doubt(DoubtReason),
    /// Takes batches and never answers.
    Hold,
}

struct Fake {
    keyspace: Mutex<MemoryKeyspace>,
    log: Mutex<Log>,
    published: Arc<Published>,
    /// Batches that were handed over.
    batches: Mutex<Vec<u32>>,
    /// What their sessions asked for, each.
    durability: Mutex<Vec<Option<Policy>>>,
    /// Rounds that confirmed a read.
    rounds: Mutex<u32>,
}

struct Node {
    fake: Arc<Fake>,
    health: Arc<Health>,
    server: ClientServer,
}

impl State for Fake {
    fn read(&self, read: &Read, now_ms: u64) -> Result<Reply, StateFault> {
        let Ok(reply) = execute_read(read, now_ms, &*self.keyspace.lock());
        Ok(reply)
    }

    fn walk(&self, walk: &Walk, now_ms: u64) -> Result<Reply, StateFault> {
        let Ok(reply) = execute_walk(walk, now_ms, 0, &*self.keyspace.lock());
        Ok(reply)
    }

    fn watch(&self, key: Bytes, applied: Seq, now_ms: u64) -> Result<Watched, StateFault> {
        let Ok(watched) = watch(key, now_ms, applied, &*self.keyspace.lock());
        Ok(watched)
    }

    /// Epoch 6 through entry 2, and nothing is known below entry 2.
    fn epoch_of(&self, seq: Seq) -> Result<Option<Epoch>, StateFault> {
        Ok(match seq.0 {
            0 | 1 => None,
            2 => Some(Epoch(6)),
            _ => Some(Epoch(7)),
        })
    }

    fn token(&self, token: &[u8]) -> Result<Option<TokenRecord>, StateFault> {
        let Ok(record) = self.keyspace.lock().token(token);
        Ok(record)
    }

    fn count(&self) -> Result<u64, StateFault> {
        let Ok(count) = self.keyspace.lock().count();
        Ok(count)
    }
}

impl Fake {
    /// Takes the place of the quorum actor, the journal, the apply loop and the gate.
    async fn run(
        self: Arc<Self>,
        mut batches: mpsc::Receiver<Batch>,
        mut reads: mpsc::Receiver<ConfirmedRead>,
    ) {
        let mut held = Vec::new();
        let mut seq = Seq(1);
        loop {
            tokio::select! {
                Some(batch) = batches.recv() => {
                    self.batches.lock().push(batch.count);
                    self.durability.lock().push(batch.durability);
                    let log = self.log.lock().clone();
                    seq = seq.next();
                    let id = EntryId::new(Epoch(7), seq);
                    let outcome = match log {
                        Log::Commit => self.done(id, &batch),
                        Log::Refuse(refusal) => Outcome::Refused(refusal),
                        Log::StepDownAfter(0) => {
                            self.set_primary(Some(2));
                            Outcome::Refused(Refusal::NotPrimary { primary: Some(NodeId(2)) })
                        }
                        Log::StepDownAfter(left) => {
                            self.set_log(Log::StepDownAfter(left - 1));
                            self.done(id, &batch)
                        }
                        Log::Doubt(reason) => Outcome::InDoubt { id: Some(id), index: 3, reason },
                        Log::Hold => {
                            held.push(batch);
                            continue;
                        }
                    };
                    let _ = batch.reply.send(outcome);
                }
                Some(read) = reads.recv() => {
                    *self.rounds.lock() += 1;
                    let _ = read.reply.send(Ok(self.published.committed()));
                }
                else => return,
            }
        }
    }

    fn done(&self, id: EntryId, batch: &Batch) -> Outcome {
        let replies = self.apply(batch, id.seq);
        Outcome::Done { id, index: 0, replies, waits: Some(Waits::default()) }
    }

    fn apply(&self, batch: &Batch, seq: Seq) -> Vec<Reply> {
        assert_eq!(batch.crc, crc32c::crc32c(&batch.body));
        let mut replies = Vec::new();
        let at = Moment { now_ms: 1_000, seq };
        apply_payload(&batch.body, at, &mut *self.keyspace.lock(), Some(&mut replies))
            .expect("connections encode what can be decoded");
        assert_eq!(replies.len(), batch.count as usize);
        self.published.set_positions(seq, seq);
        self.published.set_applied(seq);
        replies
    }

    fn set_log(&self, log: Log) {
        *self.log.lock() = log;
    }

    /// Publishes who leads; this is node 1 of 3.
    fn set_primary(&self, primary: Option<u64>) {
        let role = if primary == Some(1) { Role::Primary } else { Role::Replica };
        self.published.set_view(View {
            node: NodeId(1),
            role,
            epoch: Epoch(7),
            primary: primary.map(NodeId),
            cluster: Some(ClusterId(9)),
            config: Some(Arc::new(config())),
            ..View::default()
        });
        let until = if role == Role::Primary { MonoTime(u64::MAX) } else { MonoTime(0) };
        let hears = role == Role::Replica && primary.is_some();
        self.published.set_heard(if hears { MonoTime(u64::MAX) } else { MonoTime(0) });
        self.published.set_lease(role == Role::Primary, until);
    }
}

fn config() -> ClusterEntry {
    let member = |node: u64| Member {
        node: NodeId(node),
        disk: DiskId(u128::from(node)),
        kind: MemberKind::Voter,
        peer_addr: format!("127.0.0.1:741{node}"),
        client_addr: format!("127.0.0.1:740{node}"),
        plain_addr: format!("127.0.0.1:743{node}"),
    };
    ClusterEntry {
        cluster: ClusterId(9),
        generation: Generation(0),
        version: 1,
        members: (1..=3).map(member).collect(),
        policy: Policy { persisted: Some(Threshold::Majority), in_memory: None },
        timers: SafetyTimers::LAN,
        removed: Vec::new(),
        tokens: Vec::new(),
    }
}

fn options() -> ClientOptions {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    ClientOptions {
        settings: ClientSettings {
            listen: any,
            listen_plain: Some(any),
            advertise: String::new(),
            advertise_plain: String::new(),
            requirepass: None,
            maxclients: 100,
            max_value_bytes: 16 << 20,
            request_bytes_max: 64 << 20,
            output_bytes_max: 1 << 20,
            admission_bytes_max: 64 << 20,
            primary_wait: Duration::from_millis(100),
            store_deadline: Duration::from_secs(5),
            concurrency: ConcurrencyLimits::default(),
            attribution: true,
        },
        node: NodeId(1),
        incarnation: Incarnation(1),
        cluster_name: "test".to_owned(),
        replica_max_lag: Duration::from_millis(100),
        handshake_deadline: Duration::from_secs(10),
    }
}

impl Node {
    /// A primary whose log commits.
    fn start() -> Self {
        Self::start_with(options())
    }

    fn start_with(options: ClientOptions) -> Self {
        let (quorum, QuorumQueues { submitted, reads, .. }) =
            QuorumHandle::new(Arc::new(Wake::new(|| {})));
        let published = Published::new();
        let fake = Arc::new(Fake {
            keyspace: Mutex::default(),
            log: Mutex::new(Log::Commit),
            published: published.clone(),
            batches: Mutex::default(),
            durability: Mutex::default(),
            rounds: Mutex::default(),
        });
        fake.set_primary(Some(1));
        tokio::spawn(fake.clone().run(submitted, reads));
        let metrics = Metrics::new().expect("names are unique").client;
        let health = Health::new(LatchOptions::default(), DiskOptions::default());
        let state = fake.clone();
        let parts = ClientParts { published, quorum, state, health: health.clone(), metrics };
        let server = ClientServer::start(options, parts).expect("a free port");
        Self { fake, health, server }
    }

    async fn connect(&self) -> Client {
        Client::to(self.server.listen_address()).await
    }

    async fn connect_plain(&self) -> Client {
        Client::to(self.server.listen_plain_address().expect("configured")).await
    }
}

/// A client that sees bytes.
struct Client {
    stream: TcpStream,
}

impl Client {
    async fn to(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.expect("it listens") }
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("it reads");
    }

    /// Reads exactly as much as is expected.
    async fn expect(&mut self, expected: &str) {
        let mut got = vec![0; expected.len()];
        let read = tokio::time::timeout(Duration::from_secs(10), async {
            let mut at = 0;
            while at < got.len() {
                match self.stream.read(&mut got[at..]).await.expect("open") {
                    0 => break,
                    count => at += count,
                }
                // A wrong answer may be shorter than the expected one.
                if got[..at] != expected.as_bytes()[..at] {
                    break;
                }
            }
            at
        });
        let at = read.await.unwrap_or(0);
        assert_eq!(String::from_utf8_lossy(&got[..at]), expected);
    }

    async fn ask(&mut self, command: &str, expected: &str) {
        self.send(&format!("{command}\r\n")).await;
        self.expect(expected).await;
    }

    async fn expect_end(&mut self) {
        let mut rest = Vec::new();
        let end = self.stream.read_to_end(&mut rest);
        let end = tokio::time::timeout(Duration::from_secs(20), end).await.expect("an end");
        // A reset is an end, too.
        let _ = end;
    }

    /// One line, or one bulk string.
    async fn reply(&mut self) -> String {
        let line = self.line().await;
        let Some(length) = line.strip_prefix(['$', '=']).and_then(|l| l.parse::<usize>().ok())
        else {
            return line;
        };
        let mut body = vec![0; length + 2];
        self.stream.read_exact(&mut body).await.expect("a whole reply");
        String::from_utf8_lossy(&body[..length]).into_owned()
    }

    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let byte = tokio::time::timeout(Duration::from_secs(10), self.stream.read_u8());
            line.push(byte.await.expect("a reply in time").expect("open"));
        }
        String::from_utf8_lossy(&line[..line.len() - 2]).into_owned()
    }
}
