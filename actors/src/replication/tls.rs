//! Who is who: certificates, and the node ids in them.
//!
//! Every node has a certificate of the cluster's own authority whose only node name is
//! `node-<id>.<cluster>`. The side that dials demands the name of the node that it dials; the
//! side that accepts takes the id from the certificate and from nowhere else. So a node's key
//! speaks for that node alone, and for one cluster.

use std::fmt;
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quorate_protocol::types::NodeId;
use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

/// The protocol's name in the TLS handshake: a peer that speaks another one is refused there.
pub const ALPN: &[u8] = b"quorate/1";

/// A node's certificate, its key, and the authorities that it trusts.
#[derive(Clone)]
pub struct TlsMaterial {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
}

/// Why certificates can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file holds no usable PEM of the expected kind.
    #[error("the {what} can't be read: {reason}")]
    Pem {
        /// Certificate, key or authorities.
        what: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// The key doesn't belong to the certificate, or either can't be used.
    #[error("the certificate can't be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// The authorities can't be used.
    #[error("the authorities' certificates can't be used: {0}")]
    Roots(String),
    /// The certificate is another node's, or none's.
    #[error("the certificate is not for node {node} of {cluster:?}: {source}")]
    Identity {
        /// The node that it should be for.
        node: NodeId,
        /// The cluster that it should be for.
        cluster: String,
        /// What is wrong.
        source: IdentityError,
    },
    /// Peers that trust the same authorities would refuse it: signed by another one, expired, or
    /// not for both directions.
    #[error("peers would refuse the certificate: {0}")]
    Refused(rustls::Error),
    /// The cluster's name can't be part of a DNS name.
    #[error("{0:?} can't be part of a DNS name")]
    Name(String),
}

/// Why a certificate names no node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// There is none, or it isn't X.509.
    #[error("no certificate that can be parsed")]
    Unreadable,
    /// None of its names is a node of this cluster.
    #[error("it names no node of the cluster")]
    NoNode,
    /// Several of its names are.
    #[error("it names more than one node")]
    Ambiguous,
    /// It is another node's.
    #[error("it is for node {0}")]
    Other(NodeId),
}

impl TlsMaterial {
    /// From PEM: a certificate chain with the node's own first, a private key, and at least one
    /// authority.
    ///
    /// # Errors
    /// Anything of it is missing or malformed.
    pub fn from_pem(chain: &[u8], key: &[u8], authorities: &[u8]) -> Result<Self, TlsError> {
        let unreadable = |what| {
            move |error: rustls::pki_types::pem::Error| TlsError::Pem {
                what,
                reason: error.to_string(),
            }
        };
        let certificates = |what, pem| {
            CertificateDer::pem_slice_iter(pem)
                .collect::<Result<Vec<_>, _>>()
                .map_err(unreadable(what))
        };
        let key = PrivateKeyDer::from_pem_slice(key).map_err(unreadable("private key"))?;
        Ok(Self {
            chain: certificates("certificate", chain)?,
            key: Arc::new(key),
            roots: certificates("authorities' certificate", authorities)?,
        })
    }

    /// The node's own certificate.
    #[must_use]
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.chain.first()
    }

    /// When the node's own certificate expires, in seconds since 1970.
    #[must_use]
    pub fn expires_at(&self) -> Option<i64> {
        expiry(self.certificate()?)
    }

    /// When the first of the authorities' certificates expires, in seconds since 1970.
    #[must_use]
    pub fn authorities_expire_at(&self) -> Option<i64> {
        self.roots.iter().filter_map(expiry).min()
    }

    /// Checks that the certificate is `node`'s and fits its key.
    ///
    /// # Errors
    /// It isn't, or doesn't, or the cluster's name can't be part of a certificate's name.
    pub fn check(&self, node: NodeId, cluster: &str) -> Result<(), TlsError> {
        server_name(node, cluster)?;
        let identity = |source| TlsError::Identity { node, cluster: cluster.to_owned(), source };
        match certified_node(self.certificate(), cluster).map_err(identity)? {
            found if found == node => {}
            other => return Err(identity(IdentityError::Other(other))),
        }
        let provider = provider();
        CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), &provider)?
            .keys_match()?;
        Ok(())
    }

    /// Checks that peers with the same authorities accept the certificate now, in either direction
    /// of a handshake: found out here, a mistake is named; found out by the peers, the node is
    /// merely alone.
    ///
    /// # Errors
    /// It is signed by another authority, expired, or not for both directions.
    pub fn check_acceptance(&self, node: NodeId, cluster: &str) -> Result<(), TlsError> {
        let name = server_name(node, cluster)?;
        let name = ServerName::try_from(name).map_err(|_| TlsError::Name(cluster.to_owned()))?;
        self.verify_as_peer(&name).map_err(TlsError::Refused)
    }

    fn verify_as_peer(&self, name: &ServerName<'_>) -> Result<(), rustls::Error> {
        let provider = provider();
        let roots = Arc::new(self.root_store().map_err(|e| rustls::Error::General(e.to_string()))?);
        let general = |error: VerifierBuilderError| rustls::Error::General(error.to_string());
        let Some((own, others)) = self.chain.split_first() else {
            return Err(rustls::Error::NoCertificatesPresented);
        };
        let now = UnixTime::now();
        WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(general)?
            .verify_server_cert(own, others, name, &[], now)?;
        WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(general)?
            .verify_client_cert(own, others, now)?;
        Ok(())
    }

    /// TLS 1.3 only, client certificates demanded, no resumption (it would restore an identity
    /// without verifying it), no early data (it can be replayed).
    pub(super) fn server(&self, alpn: &[u8]) -> Result<Arc<QuicServerConfig>, TlsError> {
        let provider = provider();
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::new(self.root_store()?),
            Arc::clone(&provider),
        )
        .build()
        .map_err(|error| TlsError::Roots(error.to_string()))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![alpn.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        QuicServerConfig::try_from(config)
            .map(Arc::new)
            .map_err(|error| TlsError::Roots(error.to_string()))
    }

    /// For nodes that have no certificate yet. The authorities are sent along: such a node knows only
    /// their fingerprints.
    pub(super) fn server_for_strangers(
        &self,
        alpn: &[u8],
    ) -> Result<Arc<QuicServerConfig>, TlsError> {
        let mut chain = self.chain.clone();
        chain.extend(self.roots.iter().cloned());
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain, self.key.clone_key())?;
        config.alpn_protocols = vec![alpn.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        QuicServerConfig::try_from(config)
            .map(Arc::new)
            .map_err(|error| TlsError::Roots(error.to_string()))
    }

    /// As [`TlsMaterial::server`], for the dialling side.
    pub(super) fn client(&self, alpn: &[u8]) -> Result<Arc<QuicClientConfig>, TlsError> {
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(self.root_store()?)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        QuicClientConfig::try_from(config)
            .map(Arc::new)
            .map_err(|error| TlsError::Roots(error.to_string()))
    }

    /// A secret that is the same after a restart with the same key, for `purpose` alone.
    pub(super) fn derive_secret(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, self.key.secret_der())
    }

    fn root_store(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for root in &self.roots {
            roots.add(root.clone()).map_err(|error| TlsError::Roots(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(TlsError::Roots("there are none".to_owned()));
        }
        Ok(roots)
    }
}

impl fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key must not reach a log.
        f.debug_struct("TlsMaterial").finish_non_exhaustive()
    }
}

fn expiry(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// The DNS name that `node`'s certificate carries.
#[must_use]
pub fn node_name(node: NodeId, cluster: &str) -> String {
    format!("node-{node}.{cluster}")
}

/// The node that a certificate is for; its signature is verified elsewhere.
///
/// # Errors
/// It names no node of `cluster`, or more than one.
pub fn certified_node(
    certificate: Option<&CertificateDer<'_>>,
    cluster: &str,
) -> Result<NodeId, IdentityError> {
    let der = certificate.ok_or(IdentityError::Unreadable)?;
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| IdentityError::Unreadable)?;
    let names = certificate
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten();
    let mut found = None;
    for name in names {
        let GeneralName::DNSName(name) = name else {
            continue;
        };
        let Some(node) = parse_node_name(name, cluster) else {
            continue;
        };
        if found.replace(node).is_some() {
            return Err(IdentityError::Ambiguous);
        }
    }
    found.ok_or(IdentityError::NoNode)
}

/// The name to demand of `node` when dialling it.
pub(super) fn server_name(node: NodeId, cluster: &str) -> Result<String, TlsError> {
    let name = node_name(node, cluster);
    // A trailing dot is legal in DNS, but certificates don't carry it.
    match ServerName::try_from(name.as_str()) {
        Ok(ServerName::DnsName(_)) if !name.ends_with('.') => Ok(name),
        Ok(_) | Err(_) => Err(TlsError::Name(cluster.to_owned())),
    }
}

fn parse_node_name(name: &str, cluster: &str) -> Option<NodeId> {
    let (host, domain) = name.split_once('.')?;
    if !domain.eq_ignore_ascii_case(cluster) {
        return None;
    }
    let id = host.strip_prefix("node-")?.parse().ok()?;
    // One spelling for each id: `node-01` and `node-+1` are nobody.
    (host == format!("node-{id}") && id > 0).then_some(NodeId(id))
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_name_has_one_spelling() {
        assert_eq!(parse_node_name("node-12.prod", "prod"), Some(NodeId(12)));
        assert_eq!(parse_node_name("node-12.prod.eu", "prod.eu"), Some(NodeId(12)));
        for name in [
            "node-12.other",
            "node-12",
            "node-0.prod",
            "node-012.prod",
            "node-+1.prod",
            "node-.prod",
            "node-1x.prod",
            "xnode-1.prod",
            "node-99999999999999999999.prod",
            "node-1.prod.eu",
        ] {
            assert_eq!(parse_node_name(name, "prod"), None, "{name}");
        }
    }

    #[test]
    fn a_cluster_name_must_fit_into_a_dns_name() {
        assert!(server_name(NodeId(1), "prod-1.example").is_ok());
        for cluster in ["", "a b", "x/y", "a..b", "a."] {
            assert!(server_name(NodeId(1), cluster).is_err(), "{cluster:?}");
        }
    }
}
