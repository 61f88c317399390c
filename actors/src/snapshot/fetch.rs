//! The side that needs a snapshot: fetches it file by file, and goes on where it left off.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, RecvStream};
use quorate_protocol::types::{DiskId, EntryId, NodeId, Seq};
use tokio::time::{Instant, sleep, timeout};

use super::manifest::{MANIFEST_BYTES_MAX, Manifest, ManifestError};
use super::receiving::{PartialFile, ReceiveError, Receiving};
use super::serve::blocking;
use super::stats::{SnapshotProgress, SnapshotStats};
use super::wire::{CHAIN_BYTES, Request, Status, decode_chain};
use crate::divergence::ChainPoint;
use crate::replication::{BulkDialler, BulkError};
use crate::scrub::{EXAMINED_BYTES_MAX, Examined, NotHere};

/// From the first packet to a connection.
const DIAL_DEADLINE: Duration = Duration::from_secs(5);

/// How long nothing may arrive while something is expected.
const IDLE_DEADLINE: Duration = Duration::from_secs(30);

/// Between two questions whether the snapshot is made, and how long they are asked.
const PREPARE_PERIOD: Duration = Duration::from_millis(200);
const PREPARE_DEADLINE: Duration = Duration::from_mins(30);

/// Written to disk and hashed at a time.
const WRITE_BYTES: usize = 1 << 20;

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no connection: {0}")]
    Dial(#[from] BulkError),
    #[error("nothing arrived in time")]
    Deadline(#[from] tokio::time::error::Elapsed),
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    #[error(transparent)]
    Write(#[from] quinn::WriteError),
    #[error(transparent)]
    Read(#[from] quinn::ReadError),
    #[error("a stream ended early")]
    Short,
    #[error("the answer can't be read")]
    Answer,
    #[error("the other node has no such snapshot; its log says why")]
    Gone,
    #[error("the snapshot ends at {last}, before {above}")]
    Old { last: EntryId, above: EntryId },
    #[error("the snapshot ends at {last}, where node {node} was no member yet")]
    Unnamed { last: EntryId, node: NodeId },
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl FetchError {
    /// Whether it was the way to the other node that failed, or that node's end, and nothing of what
    /// it sent.
    pub(super) fn is_lost_connection(&self) -> bool {
        matches!(
            self,
            Self::Deadline(_) | Self::Connection(_) | Self::Write(_) | Self::Read(_) | Self::Short
        )
    }
}

/// Connects to another node, on the runtime of the snapshots' thread.
pub(crate) type Dialled = Arc<dyn Fn(NodeId, SocketAddr) -> DialFuture + Send + Sync>;
type DialFuture = Pin<Box<dyn Future<Output = Result<Connection, String>> + Send>>;

/// One attempt.
pub(super) struct Fetch {
    pub(super) from: NodeId,
    pub(super) address: SocketAddr,
    pub(super) above: EntryId,
    /// Set where only a snapshot will do whose configuration names this node, on this disk.
    pub(super) naming: Option<(NodeId, DiskId)>,
    /// `snapshots/receiving/`.
    pub(super) dir: PathBuf,
    pub(super) dialler: Arc<BulkDialler>,
    pub(super) stats: Arc<SnapshotStats>,
}

impl Fetch {
    /// Returns a snapshot that is whole, checked and synced.
    ///
    /// # Errors
    /// [`FetchError`]; what has arrived stays for the next attempt.
    pub(super) async fn run(self) -> Result<Receiving, FetchError> {
        let dialled = timeout(DIAL_DEADLINE, self.dialler.dial(self.from, self.address));
        let connection = dialled.await??;
        let fetched = self.fetch(&connection).await;
        *self.stats.progress.lock() = None;
        connection.close(0u32.into(), b"");
        fetched
    }

    async fn fetch(&self, connection: &Connection) -> Result<Receiving, FetchError> {
        let began = Instant::now();
        let manifest = self.useful_manifest(connection).await?;
        let dir = self.dir.clone();
        let receiving = Arc::new(blocking(move || begin(&dir, &manifest)).await?);
        let (last, total_bytes) = (receiving.manifest().last, receiving.manifest().total_bytes());
        if last.seq < self.above.seq {
            return Err(FetchError::Old { last, above: self.above });
        }
        let progress = SnapshotProgress { from: self.from, last, total_bytes, received_bytes: 0 };
        *self.stats.progress.lock() = Some(progress);
        tracing::info!(from = %self.from, %last, total_bytes, "receiving a snapshot");
        let mut fetched_bytes = 0;
        for index in 0..receiving.manifest().files.len() {
            fetched_bytes += self.file(connection, &receiving, index).await?;
        }
        let done = receiving.clone();
        blocking(move || done.finish().map_err(FetchError::from)).await?;
        self.stats.received.fetch_add(1, Ordering::Relaxed);
        let took = began.elapsed();
        tracing::info!(from = %self.from, %last, total_bytes, fetched_bytes, ?took, "snapshot received");
        Ok(Arc::into_inner(receiving).expect("the blocking work has ended"))
    }

    /// One that was made before this node became a member is passed over: the next is asked for.
    async fn useful_manifest(&self, connection: &Connection) -> Result<Bytes, FetchError> {
        let bytes = self.manifest(connection, self.above).await?;
        let Some((node, disk)) = self.naming else { return Ok(bytes) };
        let (manifest, _) = Manifest::decode(&bytes)?;
        let last = manifest.last;
        if manifest.snapshot()?.config.1.binds(node, disk) {
            return Ok(bytes);
        }
        let bytes = self.manifest(connection, EntryId::new(last.epoch, last.seq.next())).await?;
        let (manifest, _) = Manifest::decode(&bytes)?;
        if manifest.snapshot()?.config.1.binds(node, disk) {
            return Ok(bytes);
        }
        Err(FetchError::Unnamed { last: manifest.last, node })
    }

    async fn manifest(&self, connection: &Connection, above: EntryId) -> Result<Bytes, FetchError> {
        let deadline = Instant::now() + PREPARE_DEADLINE;
        loop {
            let (status, mut recv) = ask(connection, &Request::Manifest { above }).await?;
            match status {
                Status::Here => {
                    let mut length = [0; 4];
                    read_exact(&mut recv, &mut length).await?;
                    let length = u32::from_le_bytes(length) as usize;
                    if length > MANIFEST_BYTES_MAX {
                        return Err(FetchError::Answer);
                    }
                    return read_all(recv, length).await;
                }
                Status::Preparing if Instant::now() < deadline => sleep(PREPARE_PERIOD).await,
                Status::Preparing | Status::Gone => return Err(FetchError::Gone),
            }
        }
    }

    /// Returns how many bytes were still to come.
    async fn file(
        &self,
        connection: &Connection,
        receiving: &Arc<Receiving>,
        index: usize,
    ) -> Result<u64, FetchError> {
        let opened = receiving.clone();
        let opening = blocking(move || opened.file(index).map_err(FetchError::from));
        let Some(mut file) = opening.await? else {
            self.advance(receiving.manifest().files[index].size);
            return Ok(0);
        };
        let (offset, missing) = (file.offset(), file.missing());
        self.advance(offset);
        if missing > 0 {
            let request = Request::File { id: receiving.id(), index: index as u32, offset };
            let (status, recv) = ask(connection, &request).await?;
            if status != Status::Here {
                return Err(FetchError::Gone);
            }
            file = self.receive(recv, file).await?;
        }
        blocking(move || file.finish().map_err(FetchError::from)).await?;
        Ok(missing)
    }

    async fn receive(
        &self,
        mut recv: RecvStream,
        mut file: PartialFile,
    ) -> Result<PartialFile, FetchError> {
        let mut chunks = Vec::new();
        let mut waiting = 0;
        while file.missing() > 0 {
            let chunk = timeout(IDLE_DEADLINE, recv.read_chunk(WRITE_BYTES, true)).await??;
            let ended = chunk.is_none();
            if let Some(chunk) = chunk {
                waiting += chunk.bytes.len();
                self.advance(chunk.bytes.len() as u64);
                self.stats.received_bytes.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
                chunks.push(chunk.bytes);
            }
            if ended || waiting >= WRITE_BYTES || waiting as u64 >= file.missing() {
                let pieces = std::mem::take(&mut chunks);
                waiting = 0;
                file = blocking(move || write(file, &pieces)).await?;
            }
            if ended && file.missing() > 0 {
                return Err(FetchError::Short);
            }
        }
        Ok(file)
    }

    fn advance(&self, bytes: u64) {
        if let Some(progress) = &mut *self.stats.progress.lock() {
            progress.received_bytes += bytes;
        }
    }
}

fn begin(dir: &std::path::Path, manifest: &[u8]) -> Result<Receiving, FetchError> {
    Ok(Receiving::begin(dir, manifest)?)
}

fn write(mut file: PartialFile, pieces: &[Bytes]) -> Result<PartialFile, FetchError> {
    for piece in pieces {
        file.write(piece)?;
    }
    Ok(file)
}

/// What another node holds at `seq`, and whether it can read its files. The caller bounds the wait:
/// the other side reads all that it has first.
pub(crate) async fn examine_remotely(
    connection: &Connection,
    seq: Seq,
) -> Result<Result<Examined, NotHere>, String> {
    let examined = async {
        let (mut send, mut recv) = connection.open_bi().await?;
        send.write_all(&Request::Examine { seq }.encode()).await?;
        send.finish().map_err(|_| FetchError::Short)?;
        let answer = recv.read_to_end(1 + EXAMINED_BYTES_MAX).await;
        let answer = answer.map_err(|_| FetchError::Answer)?;
        let (status, body) = answer.split_first().ok_or(FetchError::Short)?;
        match Status::decode(*status).ok_or(FetchError::Answer)? {
            Status::Here => Examined::decode(body).map(Ok).ok_or(FetchError::Answer),
            Status::Preparing => Ok(Err(NotHere::Elsewhere)),
            Status::Gone => Ok(Err(NotHere::Busy)),
        }
    };
    examined.await.map_err(|error| error.to_string())
}

/// Has another node rebuild its state, as most hold something else than it does in these slots. The
/// caller bounds the wait.
pub(crate) async fn rebuild_remotely(
    connection: &Connection,
    (seq, first_slot, last_slot): (Seq, u16, u16),
) -> Result<(), String> {
    let request = Request::Rebuild { seq, first_slot, last_slot };
    match ask(connection, &request).await {
        Ok((Status::Here, _)) => Ok(()),
        Ok((Status::Preparing | Status::Gone, _)) => Err("it was refused".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether another node would lead. The caller bounds the wait.
pub(crate) async fn would_lead(connection: &Connection) -> Result<bool, String> {
    let answer = ask(connection, &Request::Lead).await;
    answer.map(|(status, _)| status == Status::Here).map_err(|error| error.to_string())
}

/// What another node holds at `seq`, or at its commit position where that is lower; `None` where
/// it can't say. The caller bounds the wait.
pub(crate) async fn chain_remotely(
    connection: &Connection,
    seq: Seq,
) -> Result<Option<ChainPoint>, String> {
    let answer = async {
        let (status, recv) = ask(connection, &Request::Chain { seq }).await?;
        match status {
            Status::Here => {
                let bytes = read_all(recv, CHAIN_BYTES).await?;
                decode_chain(&bytes).map(Some).ok_or(FetchError::Answer)
            }
            Status::Preparing | Status::Gone => Ok(None),
        }
    };
    answer.await.map_err(|error| error.to_string())
}

/// Connects to a member by its address, resolved anew.
pub(crate) async fn connect(
    dial: &Dialled,
    node: NodeId,
    address: &str,
) -> Result<Connection, String> {
    let dialling = async {
        let found = tokio::net::lookup_host(address).await.map_err(|error| error.to_string())?;
        let address = found.into_iter().next().ok_or("its name has no address")?;
        dial(node, address).await
    };
    timeout(DIAL_DEADLINE, dialling).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

async fn ask(
    connection: &Connection,
    request: &Request,
) -> Result<(Status, RecvStream), FetchError> {
    let (mut send, mut recv) = timeout(IDLE_DEADLINE, connection.open_bi()).await??;
    timeout(IDLE_DEADLINE, send.write_all(&request.encode())).await??;
    send.finish().map_err(|_| FetchError::Short)?;
    let mut status = [0];
    read_exact(&mut recv, &mut status).await?;
    Ok((Status::decode(status[0]).ok_or(FetchError::Answer)?, recv))
}

async fn read_exact(recv: &mut RecvStream, bytes: &mut [u8]) -> Result<(), FetchError> {
    match timeout(IDLE_DEADLINE, recv.read_exact(bytes)).await? {
        Ok(()) => Ok(()),
        Err(quinn::ReadExactError::FinishedEarly(_)) => Err(FetchError::Short),
        Err(quinn::ReadExactError::ReadError(error)) => Err(error.into()),
    }
}

/// Takes memory as the bytes arrive, not as they are announced.
async fn read_all(mut recv: RecvStream, length: usize) -> Result<Bytes, FetchError> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let chunk = timeout(IDLE_DEADLINE, recv.read_chunk(length - bytes.len(), true)).await??;
        bytes.extend_from_slice(&chunk.ok_or(FetchError::Short)?.bytes);
    }
    Ok(bytes.into())
}
