//! Connections for bulk: snapshots. Each is a QUIC connection of its own, so that heartbeats never
//! wait behind it, and its packets are made and read on the snapshots' thread.
//!
//! The side that fetches dials, from an endpoint of its own. The other side has one UDP port for
//! everything. Which thread a connection belongs to must be known before its handshake begins: the
//! dialler marks the connection id that it addresses its first packet to. The mark is a hint and
//! proves nothing; who is who is settled by certificates as everywhere, and a protocol name of
//! their own keeps the two kinds of connection apart.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, EndpointConfig, Incoming, TokioRuntime};
use quinn_proto::{ConnectionId, ConnectionIdGenerator, RandomConnectionIdGenerator};
use quorate_protocol::types::NodeId;

use super::config;
use super::endpoint::{EndpointError, udp_socket};
use super::greeting::peer_id;
use super::join;
use super::shared::Shared;
use super::tls::{TlsMaterial, server_name};

/// The protocol's name in the TLS handshake.
pub(super) const ALPN: &[u8] = b"quorate-snapshot/1";

/// How the id begins that a first packet is addressed to.
const MARK: [u8; 4] = *b"qsnp";
/// Random bytes behind it: RFC 9000 asks for 8.
const RANDOM_BYTES: usize = 16;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BulkError(String);

/// An attempt to connect from outside, to be answered on the thread that then serves it.
pub struct Knock {
    pub(super) incoming: Incoming,
    pub(super) server: quinn::ServerConfig,
    pub(super) shared: Arc<Shared>,
    /// Whether it comes from a node that joins, which has no certificate.
    pub(super) joins: bool,
}

/// Dials for bulk.
pub struct BulkDialler {
    quic: quinn::Endpoint,
    client: Arc<QuicClientConfig>,
    cluster: String,
}

/// Whether the dialler means something else than replication.
pub(super) fn purpose(incoming: &Incoming) -> Option<Purpose> {
    let id = incoming.orig_dst_cid();
    if id.starts_with(&MARK) {
        Some(Purpose::Bulk)
    } else if id.starts_with(&join::MARK) {
        Some(Purpose::Join)
    } else {
        None
    }
}

/// What a marked connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Snapshots, scrubs and orders, between members.
    Bulk,
    /// A node that has no certificate yet.
    Join,
}

impl Knock {
    /// Whether it comes from a node that joins.
    pub(crate) fn joins(&self) -> bool {
        self.joins
    }

    /// Shakes hands with a node that has no certificate.
    ///
    /// # Errors
    /// The handshake fails.
    pub(super) async fn answer_stranger(self) -> Result<Connection, BulkError> {
        let failed = |error: quinn::ConnectionError| BulkError(error.to_string());
        let connecting = self.incoming.accept_with(Arc::new(self.server)).map_err(failed)?;
        connecting.await.map_err(failed)
    }

    /// Shakes hands, on the current runtime. The peer is who its certificate says, and known.
    ///
    /// # Errors
    /// It isn't, or the handshake fails.
    pub async fn answer(self) -> Result<(NodeId, Connection), BulkError> {
        let failed = |error: quinn::ConnectionError| BulkError(error.to_string());
        let connecting = self.incoming.accept_with(Arc::new(self.server)).map_err(failed)?;
        let connection = connecting.await.map_err(failed)?;
        let peer = peer_id(&connection, &self.shared.hello().cluster_name)
            .map_err(|error| BulkError(error.to_string()))?;
        if self.shared.is_known(peer) {
            Ok((peer, connection))
        } else {
            connection.close(0u32.into(), b"");
            Err(BulkError(format!("node {peer} is not a member")))
        }
    }
}

impl BulkDialler {
    /// Binds a socket with the address of `listen` and any port, on the current runtime.
    ///
    /// # Errors
    /// It can't be bound, or the certificates can't be used.
    pub fn bind(
        listen: SocketAddr,
        cluster: &str,
        tls: &TlsMaterial,
    ) -> Result<Self, EndpointError> {
        let address = SocketAddr::new(listen.ip(), 0);
        let unbound = |source| EndpointError::Bind { address, source };
        let socket = udp_socket(address).map_err(unbound)?;
        let mut endpoint = EndpointConfig::default();
        endpoint
            .max_udp_payload_size(config::UDP_PAYLOAD_BYTES_MAX)
            .map_err(|error| EndpointError::Quic(error.to_string()))?;
        let quic = quinn::Endpoint::new(endpoint, None, socket, Arc::new(TokioRuntime))
            .map_err(unbound)?;
        Ok(Self { quic, client: tls.client(ALPN)?, cluster: cluster.to_owned() })
    }

    /// Connects to `peer`, which must prove to be that node.
    ///
    /// # Errors
    /// It doesn't, or can't be reached.
    pub async fn dial(&self, peer: NodeId, address: SocketAddr) -> Result<Connection, BulkError> {
        let mut config = quinn::ClientConfig::new(self.client.clone());
        config.transport_config(config::bulk_transport(address));
        config.initial_dst_cid_provider(Arc::new(marked_id));
        let failed = |error: String| BulkError(error);
        let name = server_name(peer, &self.cluster).map_err(|error| failed(error.to_string()))?;
        let connecting = self.quic.connect_with(config, address, &name);
        let connecting = connecting.map_err(|error| failed(error.to_string()))?;
        connecting.await.map_err(|error| failed(error.to_string()))
    }
}

fn marked_id() -> ConnectionId {
    let random = RandomConnectionIdGenerator::new(RANDOM_BYTES).generate_cid();
    ConnectionId::new(&[&MARK[..], &random[..]].concat())
}
