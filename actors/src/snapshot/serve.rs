//! The side that has a snapshot: answers requests, within a rate for all of them together.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};
use quorate_protocol::types::{NodeId, Seq};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout};

use super::source::{Checkpoint, Offer, Source};
use super::stats::SnapshotSending;
use super::wire::{REQUEST_BYTES_MAX, Request, Status, encode_chain};
use crate::divergence::Chains;
use crate::health::Health;
use crate::orders::{Order, Reception};
use crate::replication::Knock;
use crate::scrub::{Examiner, NotHere};

/// From a first packet to a connection.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// How long a connection may be without a request, and a stream without progress.
const IDLE_DEADLINE: Duration = Duration::from_secs(30);

/// Read from a file at a time.
const READ_BYTES: usize = 1 << 20;

/// Written at a time, with a yield in between.
const PIECE_BYTES: usize = 64 << 10;

/// Sending may run ahead of its rate by this much, so that timers need not be precise.
const BURST: Duration = Duration::from_millis(20);

/// Numbers connections.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("no progress within {IDLE_DEADLINE:?}")]
    Idle(#[from] tokio::time::error::Elapsed),
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    #[error(transparent)]
    Write(#[from] quinn::WriteError),
    #[error("a request can't be read")]
    Request,
    #[error("a file of the snapshot can't be read: {0}")]
    File(#[from] io::Error),
}

/// Keeps all transfers together below a rate.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: Arc<AtomicU64>,
    due: Mutex<Instant>,
}

impl Pace {
    /// The rate may change while transfers run.
    pub(super) fn new(bytes_per_second: Arc<AtomicU64>) -> Self {
        Self { bytes_per_second, due: Mutex::new(Instant::now()) }
    }

    /// Waits until so many bytes may be sent.
    async fn take(&self, bytes: usize) {
        let mut due = self.due.lock().await;
        let now = Instant::now();
        let rate = self.bytes_per_second.load(Ordering::Relaxed).max(1);
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        *due = (*due).max(now) + cost;
        let ready = *due - cost;
        drop(due);
        if ready > now + BURST {
            sleep_until(ready).await;
        }
    }
}

/// Serves one connection until its end.
pub(super) async fn serve(knock: Knock, served: Arc<Served>) {
    let (peer, connection) = match timeout(HANDSHAKE_DEADLINE, knock.answer()).await {
        Ok(Ok(answered)) => answered,
        Ok(Err(error)) => return tracing::debug!(%error, "a snapshot connection was refused"),
        Err(_) => return,
    };
    let number = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    let error = Transfer { peer, served, number }.run(&connection).await;
    match error {
        // The other side has what it wanted, or is gone.
        ServeError::Connection(error) => tracing::debug!(%peer, %error, "bulk connection ended"),
        error => tracing::warn!(%peer, %error, "bulk connection ended"),
    }
    connection.close(0u32.into(), b"");
}

/// What members may have over such connections.
pub(super) struct Served {
    pub(super) source: Arc<Source>,
    pub(super) pace: Pace,
    pub(super) examiner: Arc<Examiner>,
    pub(super) chains: Arc<Chains>,
    pub(super) health: Arc<Health>,
    pub(super) orders: Reception,
}

struct Transfer {
    peer: NodeId,
    served: Arc<Served>,
    number: u64,
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.served.source.stats.sending.lock().remove(&self.number);
    }
}

impl Transfer {
    /// So many bytes of the snapshot's files have been sent: they are asked for in their order.
    fn sent(&self, checkpoint: &Checkpoint, sent_bytes: u64) {
        let (last, total_bytes) = (checkpoint.manifest.last, checkpoint.manifest.total_bytes());
        let sending = SnapshotSending { to: self.peer, last, total_bytes, sent_bytes };
        self.served.source.stats.sending.lock().insert(self.number, sending);
    }

    async fn run(&self, connection: &Connection) -> ServeError {
        loop {
            if let Err(error) = self.answer_one(connection).await {
                return error;
            }
        }
    }

    async fn answer_one(&self, connection: &Connection) -> Result<(), ServeError> {
        let (send, recv) = timeout(IDLE_DEADLINE, connection.accept_bi()).await??;
        match read_request(recv).await? {
            Request::Manifest { above } => match self.served.source.offer(above) {
                Offer::Ready(checkpoint) => self.send_manifest(send, &checkpoint).await,
                Offer::Preparing => send_status(send, Status::Preparing).await,
                Offer::Failed => send_status(send, Status::Gone).await,
            },
            Request::File { id, index, offset } => match self.served.source.get(&id) {
                Some(checkpoint) => self.send_file(send, &checkpoint, index, offset).await,
                None => send_status(send, Status::Gone).await,
            },
            Request::Examine { seq } => self.send_examined(send, seq).await,
            Request::Chain { seq } => self.send_chain(send, seq).await,
            Request::Lead => {
                let willing = self.served.health.may_lead();
                send_status(send, if willing { Status::Here } else { Status::Gone }).await
            }
            Request::Rebuild { seq, first_slot, last_slot } => {
                self.served.examiner.give_up(seq, first_slot, last_slot);
                send_status(send, Status::Here).await
            }
            Request::Order(order) => self.send_answer(send, *order).await,
        }
    }

    /// Answers when the order is carried out, or its asker's patience has ended.
    async fn send_answer(&self, mut send: SendStream, order: Order) -> Result<(), ServeError> {
        let answer = self.served.orders.take(self.peer, order).await;
        timeout(IDLE_DEADLINE, send.write_all(&answer)).await??;
        finish(send)
    }

    async fn send_chain(&self, mut send: SendStream, seq: Seq) -> Result<(), ServeError> {
        let chains = self.served.chains.clone();
        let point = blocking(move || Ok::<_, io::Error>(chains.committed(seq))).await?;
        let Some(point) = point else { return send_status(send, Status::Gone).await };
        let answer = [&[Status::Here as u8][..], &encode_chain(&point)].concat();
        timeout(IDLE_DEADLINE, send.write_all(&answer)).await??;
        finish(send)
    }

    /// Reads the whole state before it answers.
    async fn send_examined(&self, mut send: SendStream, seq: Seq) -> Result<(), ServeError> {
        tracing::info!(peer = %self.peer, %seq, "a node asks for a scrub");
        let examiner = self.served.examiner.clone();
        let examined = blocking(move || Ok::<_, io::Error>(examiner.examine(seq))).await?;
        let body = match examined {
            Ok(examined) => examined.encode(),
            Err(NotHere::Elsewhere) => return send_status(send, Status::Preparing).await,
            Err(NotHere::Busy) => return send_status(send, Status::Gone).await,
        };
        timeout(IDLE_DEADLINE, send.write_all(&[Status::Here as u8])).await??;
        timeout(IDLE_DEADLINE, send.write_all(&body)).await??;
        finish(send)
    }

    async fn send_manifest(
        &self,
        mut send: SendStream,
        checkpoint: &Checkpoint,
    ) -> Result<(), ServeError> {
        let (last, bytes) = (checkpoint.manifest.last, checkpoint.manifest.total_bytes());
        tracing::info!(peer = %self.peer, %last, bytes, "sending a snapshot");
        let length = checkpoint.bytes.len() as u32;
        let head = [&[Status::Here as u8][..], &length.to_le_bytes()].concat();
        timeout(IDLE_DEADLINE, send.write_all(&head)).await??;
        self.sent(checkpoint, 0);
        self.send_pieces(&mut send, checkpoint, checkpoint.bytes.clone()).await?;
        finish(send)
    }

    async fn send_file(
        &self,
        mut send: SendStream,
        checkpoint: &Arc<Checkpoint>,
        index: u32,
        offset: u64,
    ) -> Result<(), ServeError> {
        let opened = checkpoint.clone();
        let (mut file, size) = blocking(move || {
            let (mut file, size) = opened.open(index)?;
            file.seek(SeekFrom::Start(offset))?;
            Ok::<_, io::Error>((file, size))
        })
        .await?;
        timeout(IDLE_DEADLINE, send.write_all(&[Status::Here as u8])).await??;
        let files = &checkpoint.manifest.files;
        let before: u64 = files.iter().take(index as usize).map(|file| file.size).sum();
        let mut missing = size.saturating_sub(offset);
        self.sent(checkpoint, before + size - missing);
        while missing > 0 {
            let length = missing.min(READ_BYTES as u64) as usize;
            let bytes;
            (file, bytes) = blocking(move || read(file, length)).await?;
            missing -= bytes.len() as u64;
            self.send_pieces(&mut send, checkpoint, bytes).await?;
            self.sent(checkpoint, before + size - missing);
        }
        finish(send)
    }

    async fn send_pieces(
        &self,
        send: &mut SendStream,
        checkpoint: &Checkpoint,
        mut bytes: Bytes,
    ) -> Result<(), ServeError> {
        while !bytes.is_empty() {
            let length = bytes.len().min(PIECE_BYTES);
            self.served.pace.take(length).await;
            timeout(IDLE_DEADLINE, send.write_chunk(bytes.split_to(length))).await??;
            self.served.source.stats.sent_bytes.fetch_add(length as u64, Ordering::Relaxed);
            checkpoint.touch();
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

async fn read_request(mut recv: RecvStream) -> Result<Request, ServeError> {
    let read = timeout(IDLE_DEADLINE, recv.read_to_end(REQUEST_BYTES_MAX)).await?;
    let bytes = read.map_err(|_| ServeError::Request)?;
    Request::decode(&bytes).ok_or(ServeError::Request)
}

async fn send_status(mut send: SendStream, status: Status) -> Result<(), ServeError> {
    timeout(IDLE_DEADLINE, send.write_all(&[status as u8])).await??;
    finish(send)
}

fn finish(mut send: SendStream) -> Result<(), ServeError> {
    // It fails only where it was finished or reset before.
    send.finish().map_err(|_| ServeError::Request)
}

fn read(mut file: File, length: usize) -> io::Result<(File, Bytes)> {
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes)?;
    Ok((file, bytes.into()))
}

/// Work with a disk, on a thread for it.
pub(super) async fn blocking<T: Send + 'static, E: From<io::Error> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(join) if join.is_panic() => std::panic::resume_unwind(join.into_panic()),
        Err(_) => Err(io::Error::other("the node is stopping").into()),
    }
}
