//! The node's one UDP socket and QUIC endpoint.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    Connecting, ConnectionError, ConnectionIdGenerator, EndpointConfig, Incoming, TokioRuntime,
    crypto,
};
use quinn_proto::HashedConnectionIdGenerator;
use quorate_protocol::types::NodeId;
use socket2::{Domain, Protocol, Socket, Type};

use super::bulk::Purpose;
use super::tls::{ALPN, TlsError, TlsMaterial, server_name};
use super::{bulk, config, join};

/// Why the transport can't start, or can't dial.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The UDP socket can't be had: the port is taken, or the address isn't this machine's.
    #[error("can't listen for peers on UDP {address}: {source}")]
    Bind {
        /// The configured address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// quinn refused its configuration or a dial.
    #[error("QUIC: {0}")]
    Quic(String),
}

/// A bound endpoint with its current certificates.
pub(super) struct Endpoint {
    quic: quinn::Endpoint,
    cluster: String,
    client: ArcSwap<QuicClientConfig>,
    server: ArcSwap<QuicServerConfig>,
    bulk_server: ArcSwap<QuicServerConfig>,
    join_server: ArcSwap<QuicServerConfig>,
}

impl Endpoint {
    /// Binds the socket. Must be called on the runtime that will drive it.
    pub(super) fn bind(
        address: SocketAddr,
        node: NodeId,
        cluster: &str,
        tls: &TlsMaterial,
    ) -> Result<Self, EndpointError> {
        tls.check(node, cluster)?;
        let socket =
            udp_socket(address).map_err(|source| EndpointError::Bind { address, source })?;
        let server = tls.server(ALPN)?;
        let quic = quinn::Endpoint::new(
            endpoint_config(tls)?,
            Some(server_config(Arc::clone(&server))),
            socket,
            Arc::new(TokioRuntime),
        )
        .map_err(|source| EndpointError::Bind { address, source })?;
        Ok(Self {
            quic,
            cluster: cluster.to_owned(),
            client: ArcSwap::new(tls.client(ALPN)?),
            server: ArcSwap::new(server),
            bulk_server: ArcSwap::new(tls.server(bulk::ALPN)?),
            join_server: ArcSwap::new(tls.server_for_strangers(join::ALPN)?),
        })
    }

    /// Certificates for connections from now on; existing ones keep theirs.
    pub(super) fn reload(&self, node: NodeId, tls: &TlsMaterial) -> Result<(), TlsError> {
        tls.check(node, &self.cluster)?;
        let (client, server) = (tls.client(ALPN)?, tls.server(ALPN)?);
        self.bulk_server.store(tls.server(bulk::ALPN)?);
        self.join_server.store(tls.server_for_strangers(join::ALPN)?);
        self.quic.set_server_config(Some(server_config(Arc::clone(&server))));
        self.client.store(client);
        self.server.store(server);
        Ok(())
    }

    /// Begins to dial; the other side must prove to be `peer`.
    pub(super) fn dial(
        &self,
        peer: NodeId,
        address: SocketAddr,
    ) -> Result<Connecting, EndpointError> {
        let mut config = quinn::ClientConfig::new(self.client.load_full());
        config.transport_config(config::transport(address));
        let name = server_name(peer, &self.cluster)?;
        self.quic
            .connect_with(config, address, &name)
            .map_err(|error| EndpointError::Quic(error.to_string()))
    }

    /// The next connection attempt from outside; `None` once the endpoint is closed.
    pub(super) async fn incoming(&self) -> Option<Incoming> {
        self.quic.accept().await
    }

    /// Begins the handshake, with the limits that fit the path.
    pub(super) fn accept(&self, incoming: Incoming) -> Result<Connecting, ConnectionError> {
        let mut config = server_config(self.server.load_full());
        config.transport_config(config::transport(incoming.remote_address()));
        incoming.accept_with(Arc::new(config))
    }

    /// What a marked connection from `remote` is accepted with.
    pub(super) fn config_for(&self, purpose: Purpose, remote: SocketAddr) -> quinn::ServerConfig {
        let tls = match purpose {
            Purpose::Bulk => self.bulk_server.load_full(),
            Purpose::Join => self.join_server.load_full(),
        };
        let mut config = server_config(tls);
        config.transport_config(config::bulk_transport(remote));
        config
    }

    /// Whether the socket can't reach IPv6 addresses.
    pub(super) fn is_v4(&self) -> bool {
        self.quic.local_addr().is_ok_and(|address| address.is_ipv4())
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    /// Ends all connections and accepts no more.
    pub(super) fn close(&self, code: quinn::VarInt, reason: &[u8]) {
        self.quic.close(code, reason);
    }

    /// Returns once every peer was told (or can't be).
    pub(super) async fn wait_idle(&self) {
        self.quic.wait_idle().await;
    }
}

pub(super) fn udp_socket(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // The kernel may grant less without an error; the burst it can take then shrinks.
    socket.set_recv_buffer_size(config::SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(config::SOCKET_BUFFER_BYTES)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Keys of stateless resets and connection ids follow from the node's private key: after a
/// restart the node can tell peers at once that their connections are gone. Otherwise a peer
/// would go on sending into the void until its idle timeout.
fn endpoint_config(tls: &TlsMaterial) -> Result<EndpointConfig, EndpointError> {
    let reset_key = ResetKey(tls.derive_secret("quorate 2026 QUIC stateless reset key"));
    let id_secret = tls.derive_secret("quorate 2026 QUIC connection id key");
    let id_key = u64::from_le_bytes(*id_secret.first_chunk().expect("32 bytes hold 8"));
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(move || -> Box<dyn ConnectionIdGenerator> {
        Box::new(HashedConnectionIdGenerator::from_key(id_key))
    });
    config
        .max_udp_payload_size(config::UDP_PAYLOAD_BYTES_MAX)
        .map_err(|error| EndpointError::Quic(error.to_string()))?;
    Ok(config)
}

fn server_config(tls: Arc<QuicServerConfig>) -> quinn::ServerConfig {
    let mut config = quinn::ServerConfig::with_crypto(tls);
    // Nodes don't move; a path that changes under a connection is an attack or an accident.
    config.migration(false);
    config.max_incoming(config::INCOMING_MAX);
    config.incoming_buffer_size(config::INCOMING_BYTES);
    config.incoming_buffer_size_total(config::INCOMING_BYTES_TOTAL);
    config
}

struct ResetKey([u8; 32]);

impl crypto::HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        blake3::Hasher::new_keyed(&self.0).update(data).finalize_xof().fill(signature_out);
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), crypto::CryptoError> {
        let expected = blake3::keyed_hash(&self.0, data);
        // `blake3::Hash` compares in constant time.
        match <[u8; blake3::OUT_LEN]>::try_from(signature) {
            Ok(signature) if expected == blake3::Hash::from_bytes(signature) => Ok(()),
            Ok(_) | Err(_) => Err(crypto::CryptoError),
        }
    }
}
