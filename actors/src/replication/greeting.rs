//! The start of a session: two streams, a greeting each way, and who is refused.
//!
//! The side that dialled opens both streams: control, then log. It greets first.
//! The other side judges the greeting before it answers, so a refused peer learns nothing.

use bytes::BytesMut;
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use quorate_protocol::types::NodeId;
use quorate_protocol::wire::{
    ControlFrame, Hello, WIRE_VERSION, WireError, decode_control, encode_control,
};
use rustls::pki_types::CertificateDer;

use super::events::{Refusal, SessionOver};
use super::shared::Shared;
use super::tls::{IdentityError, certified_node};

/// First byte of the control stream.
const CONTROL_STREAM: u8 = b'C';
/// First byte of the log stream; without it the other side couldn't see that the stream exists.
const LOG_STREAM: u8 = b'L';

/// quinn's priority of the control stream; the log stream has 0.
const CONTROL_PRIORITY: i32 = 1;

/// Chunks taken from a stream at a time.
const READ_CHUNKS: usize = 32;

/// Why a session ended or never began.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// The connection is gone.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// Sending failed.
    #[error("sending failed: {0}")]
    Write(#[from] WriteError),
    /// Receiving failed.
    #[error("receiving failed: {0}")]
    Read(#[from] ReadError),
    /// The peer sent something malformed.
    #[error("malformed: {0}")]
    Wire(#[from] WireError),
    /// The peer broke the order of things.
    #[error("protocol violation: {0}")]
    Protocol(&'static str),
    /// The certificate names no peer.
    #[error("the certificate is refused: {0}")]
    Identity(#[from] IdentityError),
    /// The greeting was refused.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// Another session took its place, or this node ended it.
    #[error("ended here: {0}")]
    Ended(&'static str),
    /// It took too long.
    #[error("no success within {0:?}")]
    Deadline(std::time::Duration),
    /// The address can't be resolved.
    #[error("the address {address:?} can't be resolved: {reason}")]
    Resolve {
        /// As configured.
        address: String,
        /// The resolver's reason.
        reason: String,
    },
    /// This node can't dial at all.
    #[error(transparent)]
    Endpoint(#[from] super::endpoint::EndpointError),
}

impl From<SessionOver> for SessionError {
    fn from(_: SessionOver) -> Self {
        Self::Ended("another session took its place")
    }
}

impl SessionError {
    /// Whether it is about who the other side is, and not about reaching it.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let connection = match self {
            Self::Refused(refusal) => return Some(refusal.clone()),
            Self::Identity(error) => return Some(Refusal::Tls(error.to_string())),
            Self::Connection(error)
            | Self::Write(WriteError::ConnectionLost(error))
            | Self::Read(ReadError::ConnectionLost(error)) => error,
            Self::Write(_) | Self::Read(_) | Self::Wire(_) | Self::Protocol(_) => return None,
            Self::Ended(_) | Self::Deadline(_) | Self::Resolve { .. } | Self::Endpoint(_) => {
                return None;
            }
        };
        match connection {
            ConnectionError::TransportError(error) if is_tls(error.code) => {
                Some(Refusal::Tls(error.to_string()))
            }
            ConnectionError::ConnectionClosed(close) if is_tls(close.error_code) => {
                Some(Refusal::ByPeer(format!("TLS: {close}")))
            }
            ConnectionError::ApplicationClosed(close) => CloseCode::refusal(close.error_code),
            _ => None,
        }
    }

    /// What the peer is told.
    fn close_code(&self) -> CloseCode {
        match self {
            Self::Refused(refusal) => CloseCode::of(refusal),
            Self::Identity(_) => CloseCode::Claim,
            Self::Wire(_) | Self::Protocol(_) => CloseCode::Protocol,
            Self::Ended(_) => CloseCode::Replaced,
            Self::Connection(_)
            | Self::Write(_)
            | Self::Read(_)
            | Self::Deadline(_)
            | Self::Resolve { .. }
            | Self::Endpoint(_) => CloseCode::Goodbye,
        }
    }

    /// Closes the connection with the code that fits.
    pub(super) fn close(&self, connection: &Connection) {
        self.close_code().close(connection);
    }
}

/// Why a connection is closed, as the peer is told. The numbers are part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseCode {
    Goodbye = 0,
    Replaced = 1,
    Protocol = 2,
    WireVersion = 16,
    ClusterName = 17,
    Cluster = 18,
    Generation = 19,
    Claim = 20,
    Incarnation = 21,
    Unknown = 22,
    Removed = 23,
    OtherDisk = 24,
    Candidate = 25,
}

impl CloseCode {
    pub(super) fn close(self, connection: &Connection) {
        connection.close(self.number(), b"");
    }

    pub(super) fn number(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    fn of(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::WireVersion { .. } => Self::WireVersion,
            Refusal::ClusterName { .. } => Self::ClusterName,
            Refusal::Cluster { .. } => Self::Cluster,
            Refusal::Generation { .. } => Self::Generation,
            Refusal::Claim { .. } | Refusal::Tls(_) => Self::Claim,
            Refusal::Incarnation { .. } => Self::Incarnation,
            Refusal::Unknown => Self::Unknown,
            Refusal::Removed => Self::Removed,
            Refusal::OtherDisk => Self::OtherDisk,
            Refusal::Candidate => Self::Candidate,
            Refusal::ByPeer(_)
            | Refusal::RemovedByPeer
            | Refusal::OtherDiskByPeer
            | Refusal::CandidateByPeer => Self::Goodbye,
        }
    }

    /// Where the peer says that it refuses this node.
    fn refusal(number: VarInt) -> Option<Refusal> {
        let reason = match number.into_inner() {
            16 => "wire version",
            17 => "cluster name",
            18 => "cluster id",
            19 => "generation",
            20 => "certificate",
            21 => "it saw a later incarnation",
            22 => "it doesn't know this node",
            23 => return Some(Refusal::RemovedByPeer),
            24 => return Some(Refusal::OtherDiskByPeer),
            25 => return Some(Refusal::CandidateByPeer),
            _ => return None,
        };
        Some(Refusal::ByPeer(reason.to_owned()))
    }
}

/// A connection whose other side is known and accepted.
#[derive(Debug)]
pub(super) struct Greeted {
    pub(super) connection: Connection,
    pub(super) hello: Hello,
    pub(super) control: (SendStream, ControlReader),
    pub(super) log: (SendStream, RecvStream),
}

/// Greets as the side that dialled `peer`.
pub(super) async fn greet_dialled(
    connection: Connection,
    peer: NodeId,
    shared: &Shared,
) -> Result<Greeted, SessionError> {
    let result = exchange_dialled(&connection, peer, shared).await;
    settle(connection, result)
}

/// Greets as the side that accepted.
pub(super) async fn greet_accepted(
    connection: Connection,
    shared: &Shared,
) -> Result<Greeted, SessionError> {
    let result = exchange_accepted(&connection, shared).await;
    settle(connection, result)
}

/// Whether a session with the sender of `theirs` may be.
pub(super) fn judge(ours: &Hello, theirs: &Hello, certified: NodeId) -> Result<(), Refusal> {
    if theirs.wire_version < WIRE_VERSION {
        return Err(Refusal::WireVersion { theirs: theirs.wire_version, ours: WIRE_VERSION });
    }
    if theirs.node != certified {
        return Err(Refusal::Claim { claimed: theirs.node });
    }
    if theirs.cluster_name != ours.cluster_name {
        return Err(Refusal::ClusterName { theirs: theirs.cluster_name.clone() });
    }
    // A node without a log has neither; it is what cluster and generation come to.
    let (Some(our_cluster), Some(their_cluster)) = (ours.cluster, theirs.cluster) else {
        return Ok(());
    };
    if our_cluster != their_cluster {
        return Err(Refusal::Cluster { theirs: their_cluster, ours: our_cluster });
    }
    if ours.generation != theirs.generation {
        return Err(Refusal::Generation { theirs: theirs.generation, ours: ours.generation });
    }
    Ok(())
}

type Streams = (Hello, (SendStream, ControlReader), (SendStream, RecvStream));

fn settle(
    connection: Connection,
    result: Result<Streams, SessionError>,
) -> Result<Greeted, SessionError> {
    match result {
        Ok((hello, control, log)) => Ok(Greeted { connection, hello, control, log }),
        Err(error) => {
            error.close(&connection);
            Err(error)
        }
    }
}

async fn exchange_dialled(
    connection: &Connection,
    peer: NodeId,
    shared: &Shared,
) -> Result<Streams, SessionError> {
    let ours = &shared.hello();
    // The name was demanded in the handshake; this holds even if that check had a gap.
    let certified = peer_id(connection, &ours.cluster_name)?;
    if certified != peer {
        return Err(IdentityError::Other(certified).into());
    }
    let (mut control, control_recv) = connection.open_bi().await?;
    let (mut log, log_recv) = connection.open_bi().await?;
    prioritise(&control)?;
    let mut out = vec![CONTROL_STREAM];
    encode_control(&ControlFrame::Hello(Box::new(Hello::clone(ours))), &mut out)?;
    control.write_all(&out).await?;
    log.write_all(&[LOG_STREAM]).await?;
    let mut reader = ControlReader::new(control_recv);
    let hello = reader.hello().await?;
    judge(ours, &hello, certified)
        .and_then(|()| shared.judge(&hello))
        .map_err(SessionError::Refused)?;
    Ok((hello, (control, reader), (log, log_recv)))
}

async fn exchange_accepted(
    connection: &Connection,
    shared: &Shared,
) -> Result<Streams, SessionError> {
    let ours = &shared.hello();
    let certified = peer_id(connection, &ours.cluster_name)?;
    shared.admits(certified).map_err(SessionError::Refused)?;
    if certified == ours.node {
        return Err(SessionError::Protocol("a node doesn't dial itself"));
    }
    let (mut control, control_recv) = connection.accept_bi().await?;
    let (log, mut log_recv) = connection.accept_bi().await?;
    prioritise(&control)?;
    let mut reader = ControlReader::new(control_recv);
    reader.first_byte(CONTROL_STREAM).await?;
    let mut first = [0];
    let read = log_recv.read(&mut first).await?;
    if read != Some(1) || first != [LOG_STREAM] {
        return Err(SessionError::Protocol("the second stream isn't the log"));
    }
    let hello = reader.hello().await?;
    judge(ours, &hello, certified)
        .and_then(|()| shared.judge(&hello))
        .map_err(SessionError::Refused)?;
    let mut out = Vec::new();
    encode_control(&ControlFrame::Hello(Box::new(Hello::clone(ours))), &mut out)?;
    control.write_all(&out).await?;
    Ok((hello, (control, reader), (log, log_recv)))
}

fn prioritise(control: &SendStream) -> Result<(), SessionError> {
    control
        .set_priority(CONTROL_PRIORITY)
        .map_err(|_| SessionError::Protocol("the control stream was closed"))
}

/// The id in the certificate that the handshake verified.
pub(super) fn peer_id(connection: &Connection, cluster: &str) -> Result<NodeId, IdentityError> {
    let identity = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or(IdentityError::Unreadable)?;
    certified_node(identity.first(), cluster)
}

fn is_tls(code: quinn::TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}

/// Reads control frames: whatever has arrived in one go.
#[derive(Debug)]
pub(super) struct ControlReader {
    stream: RecvStream,
    buffer: BytesMut,
}

impl ControlReader {
    fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next frame. Frames that arrived together need no further read. The buffer never holds
    /// more than one frame and what one read brings.
    pub(super) async fn next(&mut self) -> Result<ControlFrame, SessionError> {
        loop {
            if let Some(frame) = decode_control(&mut self.buffer)? {
                return Ok(frame);
            }
            read_more(&mut self.stream, &mut self.buffer).await?;
        }
    }

    async fn first_byte(&mut self, expected: u8) -> Result<(), SessionError> {
        while self.buffer.is_empty() {
            read_more(&mut self.stream, &mut self.buffer).await?;
        }
        if self.buffer.split_to(1)[..] == [expected] {
            Ok(())
        } else {
            Err(SessionError::Protocol("the first stream isn't control"))
        }
    }

    async fn hello(&mut self) -> Result<Hello, SessionError> {
        match self.next().await? {
            ControlFrame::Hello(hello) => Ok(*hello),
            ControlFrame::Core(_) | ControlFrame::Formation(_) => {
                Err(SessionError::Protocol("the first frame isn't a greeting"))
            }
        }
    }
}

/// Appends what has arrived, waiting for at least one byte; says how much.
pub(super) async fn read_more(
    stream: &mut RecvStream,
    buffer: &mut BytesMut,
) -> Result<usize, SessionError> {
    let mut chunks = [const { bytes::Bytes::new() }; READ_CHUNKS];
    let Some(count) = stream.read_chunks(&mut chunks).await? else {
        return Err(SessionError::Protocol("a stream was ended"));
    };
    let mut total = 0;
    for chunk in &chunks[..count] {
        buffer.extend_from_slice(chunk);
        total += chunk.len();
    }
    Ok(total)
}
