//! A live session: four tasks on the consensus thread, one for each direction of each stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use quinn::{Connection, RecvStream, SendStream};
use quorate_protocol::core::message::Message;
use quorate_protocol::entry::Entry;
use quorate_protocol::types::NodeId;
use quorate_protocol::wire::{
    ControlFrame, Hello, LOG_ENTRIES_MAX, LogDecoder, encode_control, encode_log_header,
};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::config::{
    APPEND_BYTES_MAX, BULK_PIECE_BYTES, CONTROL_OUTBOX_BYTES_MAX, RESERVE_BYTES_MAX,
};
use super::entries::{EntrySource, ReadError, SendEntries};
use super::events::{Lane, PeerEvent, Session};
use super::greeting::{CloseCode, ControlReader, Greeted, SessionError, judge, read_more};
use super::shared::Shared;

/// Payloads up to this size are copied behind their record headers: one chunk for many entries
/// costs less than two chunks for each.
const COPIED_PAYLOAD_BYTES_MAX: usize = 4096;

/// Read from a log stream before others on the thread get their turn.
const READ_TURN_BYTES: usize = 256 * 1024;

/// What the rest of the node holds of a session.
#[derive(Debug)]
pub(super) struct LiveSession {
    pub(super) peer: NodeId,
    pub(super) session: Session,
    pub(super) connection: Connection,
    hello: Mutex<Hello>,
    outbox: Mutex<Vec<u8>>,
    outbox_filled: Notify,
    request: Mutex<Option<SendEntries>>,
    requested: Notify,
    dropped: AtomicU64,
}

impl LiveSession {
    pub(super) fn new(peer: NodeId, session: Session, greeted: &Greeted) -> Arc<Self> {
        Arc::new(Self {
            peer,
            session,
            connection: greeted.connection.clone(),
            hello: Mutex::new(greeted.hello.clone()),
            outbox: Mutex::default(),
            outbox_filled: Notify::new(),
            request: Mutex::default(),
            requested: Notify::new(),
            dropped: AtomicU64::new(0),
        })
    }

    /// Queues a control frame, or drops it where too much waits already.
    pub(super) fn send(&self, frame: &ControlFrame) {
        let mut outbox = self.outbox.lock();
        if outbox.len() >= CONTROL_OUTBOX_BYTES_MAX {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if let Err(error) = encode_control(frame, &mut outbox) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            tracing::error!(peer = %self.peer, %error, "a control frame can't be encoded");
            return;
        }
        drop(outbox);
        self.outbox_filled.notify_one();
    }

    /// Replaces an earlier request that wasn't begun.
    pub(super) fn request(&self, request: SendEntries) {
        *self.request.lock() = Some(request);
        self.requested.notify_one();
    }

    /// The peer's last greeting.
    pub(super) fn hello(&self) -> Hello {
        self.hello.lock().clone()
    }

    /// Control frames dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Serves the session until it ends, and says why it did. The connection is closed then.
    pub(super) async fn run(
        self: Arc<Self>,
        shared: Arc<Shared>,
        greeted: Greeted,
    ) -> SessionError {
        let Greeted { control: (control_send, control_recv), log: (log_send, log_recv), .. } =
            greeted;
        // Separate tasks: each is polled only when there is something for it.
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&self).write_control(control_send));
        tasks.spawn(Arc::clone(&self).read_control(control_recv, Arc::clone(&shared)));
        tasks.spawn(Arc::clone(&self).write_log(log_send, Arc::clone(&shared)));
        tasks.spawn(Arc::clone(&self).read_log(log_recv, shared));
        let ended = tasks.join_next().await;
        let error = match ended {
            Some(Ok(Err(error))) => error,
            Some(Ok(Ok(never))) => match never {},
            // Reported by whoever runs the session.
            Some(Err(join)) if join.is_panic() => std::panic::resume_unwind(join.into_panic()),
            Some(Err(_)) | None => SessionError::Ended("its tasks were stopped"),
        };
        // A dropped send stream looks like a clean end of it: close the connection first.
        error.close(&self.connection);
        tasks.shutdown().await;
        error
    }

    async fn write_control(
        self: Arc<Self>,
        mut stream: SendStream,
    ) -> Result<std::convert::Infallible, SessionError> {
        loop {
            let bytes = std::mem::take(&mut *self.outbox.lock());
            if bytes.is_empty() {
                self.outbox_filled.notified().await;
            } else {
                stream.write_chunk(Bytes::from(bytes)).await?;
            }
        }
    }

    async fn read_control(
        self: Arc<Self>,
        mut reader: ControlReader,
        shared: Arc<Shared>,
    ) -> Result<std::convert::Infallible, SessionError> {
        let (peer, session) = (self.peer, self.session);
        loop {
            let event = match reader.next().await? {
                ControlFrame::Core(message) => {
                    PeerEvent::Message { peer, session, message, entries: Vec::new() }
                }
                ControlFrame::Formation(message) => PeerEvent::Formation { peer, session, message },
                ControlFrame::Hello(hello) => {
                    self.greet_again(&hello, &shared)?;
                    PeerEvent::Greeted { peer, session, hello }
                }
            };
            let bytes = event_bytes(&event);
            shared.events.received(peer, session, Lane::Control, event, bytes).await?;
        }
    }

    fn greet_again(&self, hello: &Hello, shared: &Shared) -> Result<(), SessionError> {
        let mut known = self.hello.lock();
        if (hello.disk, hello.incarnation) != (known.disk, known.incarnation) {
            return Err(SessionError::Protocol("another life within one session"));
        }
        judge(&shared.hello(), hello, self.peer).map_err(SessionError::Refused)?;
        known.clone_from(hello);
        Ok(())
    }

    async fn write_log(
        self: Arc<Self>,
        mut stream: SendStream,
        shared: Arc<Shared>,
    ) -> Result<std::convert::Infallible, SessionError> {
        loop {
            let Some(request) = self.request.lock().take() else {
                self.requested.notified().await;
                continue;
            };
            let (peer, session) = (self.peer, self.session);
            let answer = match find_entries(&shared.source, &request).await {
                Ok(entries) => {
                    let bytes = send_entries(&mut stream, &request, &entries).await?;
                    PeerEvent::Sent {
                        peer,
                        session,
                        through: entries.last().map_or(request.first.prev(), |last| last.id.seq),
                        bytes,
                    }
                }
                Err(error) => {
                    tracing::info!(%peer, first = %request.first, %error, "entries unavailable");
                    PeerEvent::Unavailable { peer, session, first: request.first }
                }
            };
            shared.events.answer(peer, session, answer);
        }
    }

    async fn read_log(
        self: Arc<Self>,
        mut stream: RecvStream,
        shared: Arc<Shared>,
    ) -> Result<std::convert::Infallible, SessionError> {
        let (peer, session) = (self.peer, self.session);
        let mut decoder = LogDecoder::default();
        let mut buffer = BytesMut::new();
        let mut turn = 0;
        loop {
            while let Some((append, entries)) = decoder.decode(&mut buffer)? {
                let bytes = append.entries.iter().map(|meta| meta.bytes as usize).sum();
                if bytes > READ_TURN_BYTES {
                    // Payloads share the buffer's memory: what follows a large one must not keep
                    // all of it alive.
                    buffer = BytesMut::from(&buffer[..]);
                }
                let event =
                    PeerEvent::Message { peer, session, message: Message::Append(append), entries };
                shared.events.received(peer, session, Lane::Log, event, bytes).await?;
            }
            let missing = decoder.missing(&buffer);
            if missing > READ_TURN_BYTES && buffer.capacity() < missing {
                // With room for what the last read brings beyond the entry.
                buffer.reserve(missing.min(RESERVE_BYTES_MAX) + READ_TURN_BYTES);
            }
            turn += read_more(&mut stream, &mut buffer).await?;
            if turn >= READ_TURN_BYTES {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Ends the session from this side.
    pub(super) fn close(&self, code: CloseCode) {
        code.close(&self.connection);
    }
}

/// What a control event holds beside its own fixed size.
fn event_bytes(event: &PeerEvent) -> usize {
    match event {
        PeerEvent::Formation {
            message: quorate_protocol::wire::Formation::Formed { record },
            ..
        } => record.len(),
        PeerEvent::Greeted { hello, .. } => {
            size_of::<Hello>()
                + hello.cluster_name.len()
                + hello.binary_version.len()
                + hello.peer_addr.len()
                + hello.client_addr.len()
                + hello.plain_addr.len()
        }
        PeerEvent::Formation { .. }
        | PeerEvent::Message { .. }
        | PeerEvent::Connected { .. }
        | PeerEvent::Disconnected { .. }
        | PeerEvent::Refused { .. }
        | PeerEvent::Sent { .. }
        | PeerEvent::Unavailable { .. } => 0,
    }
}

async fn find_entries(
    source: &Arc<dyn EntrySource>,
    request: &SendEntries,
) -> Result<Vec<Entry>, ReadError> {
    let (first, bytes_max) = (request.first, request.bytes_max.min(APPEND_BYTES_MAX));
    let mut entries = if let Some(entries) = source.cached(first, bytes_max) {
        entries
    } else {
        let source = Arc::clone(source);
        match tokio::task::spawn_blocking(move || source.read(first, bytes_max)).await {
            Ok(read) => read?,
            Err(join) if join.is_panic() => std::panic::resume_unwind(join.into_panic()),
            Err(_) => return Err(ReadError::Failed("the runtime is stopping".to_owned())),
        }
    };
    entries.truncate(LOG_ENTRIES_MAX);
    Ok(entries)
}

/// Writes one append; returns its record bytes. Nothing is written where there are no entries.
async fn send_entries(
    stream: &mut SendStream,
    request: &SendEntries,
    entries: &[Entry],
) -> Result<u64, SessionError> {
    if entries.is_empty() {
        return Ok(0);
    }
    let mut head = Vec::with_capacity(64);
    // Fails where the log was cut between the request and now: then nothing that was agreed
    // about this peer's position holds, and a new session starts from a probe.
    encode_log_header(&request.header, entries, &mut head)
        .map_err(|_| SessionError::Ended("the log changed under a request"))?;
    let mut pieces = Pieces::new(head);
    let mut bytes = 0;
    for entry in entries {
        let header = entry.header();
        bytes += header.record_bytes();
        pieces.copy(&header.encode());
        if entry.payload.len() <= COPIED_PAYLOAD_BYTES_MAX {
            pieces.copy(&entry.payload);
        } else {
            let mut payload = entry.payload.clone();
            while !payload.is_empty() {
                let length = payload.len().min(BULK_PIECE_BYTES);
                pieces.share(payload.split_to(length));
                pieces.write_if_full(stream).await?;
            }
        }
        pieces.write_if_full(stream).await?;
    }
    pieces.write(stream).await?;
    Ok(bytes)
}

/// Chunks on their way into a stream: small things copied together, large ones shared.
struct Pieces {
    chunks: Vec<Bytes>,
    bytes: usize,
    copied: Vec<u8>,
}

impl Pieces {
    fn new(head: Vec<u8>) -> Self {
        Self { chunks: Vec::new(), bytes: head.len(), copied: head }
    }

    fn copy(&mut self, bytes: &[u8]) {
        self.copied.extend_from_slice(bytes);
        self.bytes += bytes.len();
    }

    fn share(&mut self, bytes: Bytes) {
        self.seal_copied();
        self.bytes += bytes.len();
        self.chunks.push(bytes);
    }

    async fn write_if_full(&mut self, stream: &mut SendStream) -> Result<(), SessionError> {
        if self.bytes < BULK_PIECE_BYTES {
            return Ok(());
        }
        self.write(stream).await?;
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn write(&mut self, stream: &mut SendStream) -> Result<(), SessionError> {
        self.seal_copied();
        stream.write_all_chunks(&mut self.chunks).await?;
        self.chunks.clear();
        self.bytes = 0;
        Ok(())
    }

    fn seal_copied(&mut self) {
        if !self.copied.is_empty() {
            self.chunks.push(Bytes::from(std::mem::take(&mut self.copied)));
        }
    }
}
