//! What a configuration comes to.

use std::path::PathBuf;

use quorate_actors::node::config::NodeConfig;
use quorate_actors::replication::fingerprint;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::admin::Identity;
use crate::hex;
use crate::pki::{PkiError, Signer};

/// What the process runs with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The node.
    pub(crate) node: NodeConfig,
    /// Its log.
    pub(crate) log: LogSettings,
    /// Holds the process id while the node runs.
    pub(crate) pid_file: PathBuf,
    /// Where the node's certificate is.
    pub(crate) cert_file: PathBuf,
    /// The authority's key in PEM, where this node signs certificates.
    pub(crate) ca_key: Option<Secret>,
    /// Whether other machines may read `/metrics`.
    pub(crate) public_metrics: bool,
}

/// What is logged, how and where.
#[derive(Clone, Debug)]
pub(crate) struct LogSettings {
    /// Levels by module, in tracing's syntax.
    pub(crate) filter: String,
    /// One event per line, as text or JSON.
    pub(crate) format: LogFormat,
    /// Standard error where there is none.
    pub(crate) file: Option<PathBuf>,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Text that must not reach a log.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(super) String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Settings {
    /// What nodes that join are told of the cluster's authorities.
    ///
    /// # Errors
    /// The authority's key is not that of the first authority.
    pub(crate) fn identity(&self) -> Result<Identity, PkiError> {
        let authorities_pem = String::from_utf8_lossy(&self.node.tls.ca_pem).into_owned();
        let authorities = CertificateDer::pem_slice_iter(&self.node.tls.ca_pem)
            .flatten()
            .map(|certificate| hex::encode(&fingerprint(&certificate)))
            .collect();
        let key = self.ca_key.as_ref();
        let signer = key.map(|key| Signer::new(&authorities_pem, &key.0)).transpose()?;
        Ok(Identity { authorities_pem, authorities, signer })
    }
}
