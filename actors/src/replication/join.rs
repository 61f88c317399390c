//! Joining: a node without a certificate calls a member, over the peers' port and with a protocol
//! name of its own. Nothing else is served there, and nothing but a token's secret proves anything.
//!
//! The caller knows the cluster's authorities by their fingerprints alone, from its token: the
//! member sends them along with its certificate.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, EndpointConfig, TokioRuntime};
use quinn_proto::{ConnectionId, ConnectionIdGenerator, RandomConnectionIdGenerator};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::bulk::Knock;
use super::config;
use super::endpoint::udp_socket;
use super::tls::{certified_node, provider, server_name};

/// The protocol's name in the TLS handshake.
pub(super) const ALPN: &[u8] = b"quorate-join/1";

/// How the id begins that a first packet is addressed to (see `bulk`).
pub(super) const MARK: [u8; 4] = *b"qjoi";

/// Longest request of a node that joins.
pub const JOIN_REQUEST_BYTES_MAX: usize = 16 << 10;

/// Longest answer: a certificate, authorities and addresses.
pub const JOIN_ANSWER_BYTES_MAX: usize = 256 << 10;

/// How long a member works on one request.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// From a first packet to a whole request.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

/// From the first packet to a connection.
const DIAL_DEADLINE: Duration = Duration::from_secs(5);

/// A request of a node that joins, to be answered here. Its body is judged by whoever takes it.
#[derive(Debug)]
pub struct ReceivedJoin {
    /// Where it came from.
    pub remote: SocketAddr,
    /// At most [`JOIN_REQUEST_BYTES_MAX`].
    pub body: Bytes,
    /// Takes the answer: at most [`JOIN_ANSWER_BYTES_MAX`].
    pub reply: oneshot::Sender<Bytes>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// This machine can't send.
    #[error("no UDP socket: {0}")]
    Socket(std::io::Error),
    /// TLS or QUIC is not set up.
    #[error("QUIC: {0}")]
    Setup(String),
    /// Nobody there, or not a member with the right authority.
    #[error("no connection to {address}: {reason}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The connection broke, or took too long.
    #[error("no answer from {address}: {reason}")]
    Answer {
        /// Where.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
}

/// The fingerprint of a certificate, as tokens name authorities: BLAKE3 of its DER.
#[must_use]
pub fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    blake3::hash(certificate.as_ref()).into()
}

/// Calls a member, whose authority must have one of these fingerprints, and returns its answer.
///
/// # Errors
/// [`CallError`]: asking again is harmless.
pub async fn call_member(
    address: SocketAddr,
    cluster: &str,
    authorities: &[[u8; 32]],
    request: &[u8],
) -> Result<Vec<u8>, CallError> {
    let setup = |error: String| CallError::Setup(error);
    let any = match address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = udp_socket(SocketAddr::new(any, 0)).map_err(CallError::Socket)?;
    let quic =
        quinn::Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))
            .map_err(CallError::Socket)?;
    let tls = client(cluster, authorities).map_err(|error| setup(error.to_string()))?;
    let tls = QuicClientConfig::try_from(tls).map_err(|error| setup(error.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(config::bulk_transport(address));
    config.initial_dst_cid_provider(Arc::new(marked_id));
    // Which member it is shows in its certificate; the name here is only sent along.
    let name = server_name(quorate_protocol::types::NodeId(1), cluster);
    let name = name.map_err(|error| setup(error.to_string()))?;
    let connecting = quic.connect_with(config, address, &name);
    let connecting = connecting.map_err(|error| setup(error.to_string()))?;
    let failed = |reason: String| CallError::Connect { address, reason };
    let connection = timeout(DIAL_DEADLINE, connecting)
        .await
        .map_err(|_| failed(format!("nothing within {DIAL_DEADLINE:?}")))?
        .map_err(|error| failed(error.to_string()))?;
    let failed = |reason: String| CallError::Answer { address, reason };
    let limit = ANSWER_LIMIT + REQUEST_DEADLINE;
    let answer = timeout(limit, exchange(&connection, request))
        .await
        .map_err(|_| failed(format!("nothing within {limit:?}")))?
        .map_err(failed)?;
    connection.close(0u32.into(), b"");
    quic.wait_idle().await;
    Ok(answer)
}

async fn exchange(connection: &Connection, request: &[u8]) -> Result<Vec<u8>, String> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(|error| error.to_string())?;
    send.write_all(request).await.map_err(|error| error.to_string())?;
    send.finish().map_err(|error| error.to_string())?;
    recv.read_to_end(JOIN_ANSWER_BYTES_MAX).await.map_err(|error| error.to_string())
}

/// Answers one node that joins: one request on one stream, within deadlines.
pub(crate) async fn answer(knock: Knock, joins: mpsc::Sender<ReceivedJoin>) {
    if let Err(error) = answer_one(knock, &joins).await {
        tracing::debug!(error, "a request to join was not answered");
    }
}

async fn answer_one(knock: Knock, joins: &mpsc::Sender<ReceivedJoin>) -> Result<(), String> {
    let late = |_| format!("nothing within {REQUEST_DEADLINE:?}");
    let asked = timeout(REQUEST_DEADLINE, async {
        let connection = knock.answer_stranger().await.map_err(|error| error.to_string())?;
        let streams = connection.accept_bi().await;
        let (send, mut recv) = streams.map_err(|error| error.to_string())?;
        let body = recv.read_to_end(JOIN_REQUEST_BYTES_MAX).await;
        let body = body.map_err(|error| error.to_string())?;
        Ok::<_, String>((connection, send, body))
    });
    let (connection, mut send, body) = asked.await.map_err(late)??;
    let (reply, answered) = oneshot::channel();
    let remote = connection.remote_address();
    let join = ReceivedJoin { remote, body: body.into(), reply };
    joins.try_send(join).map_err(|_| "too many requests wait".to_owned())?;
    let answer = timeout(ANSWER_LIMIT, answered)
        .await
        .map_err(|_| "it took too long".to_owned())?
        .map_err(|_| "it was given up".to_owned())?;
    let written = async {
        send.write_all(&answer).await.map_err(|error| error.to_string())?;
        send.finish().map_err(|error| error.to_string())?;
        // The caller closes once it has all of it.
        connection.closed().await;
        Ok(())
    };
    timeout(REQUEST_DEADLINE, written).await.unwrap_or(Ok(()))
}

fn marked_id() -> ConnectionId {
    let random = RandomConnectionIdGenerator::new(16).generate_cid();
    ConnectionId::new(&[&MARK[..], &random[..]].concat())
}

fn client(cluster: &str, authorities: &[[u8; 32]]) -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = provider();
    let verifier = ByFingerprint {
        cluster: cluster.to_owned(),
        authorities: authorities.to_vec(),
        provider: provider.clone(),
    };
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_early_data = false;
    Ok(config)
}

/// Takes a member for what it is if its certificate is signed by an authority with one of these
/// fingerprints, and names a node of the cluster.
#[derive(Debug)]
struct ByFingerprint {
    cluster: String,
    authorities: Vec<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let general = |error: &dyn std::fmt::Display| rustls::Error::General(error.to_string());
        let mut roots = RootCertStore::empty();
        for certificate in intermediates {
            if self.authorities.contains(&fingerprint(certificate)) {
                roots.add(certificate.clone().into_owned())?;
            }
        }
        if roots.is_empty() {
            return Err(general(&"its authority is not the one that the token names"));
        }
        let node = certified_node(Some(end_entity), &self.cluster).map_err(|e| general(&e))?;
        let name = server_name(node, &self.cluster).map_err(|e| general(&e))?;
        let name = ServerName::try_from(name).map_err(|e| general(&e))?;
        let provider = self.provider.clone();
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|e| general(&e))?
            .verify_server_cert(end_entity, intermediates, &name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
