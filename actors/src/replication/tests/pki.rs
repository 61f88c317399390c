//! Certificates for tests, as a cluster has them: one authority, a certificate for each node.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use crate::replication::{TlsMaterial, node_name};
use quorate_protocol::types::NodeId;

pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("a certificate") }
    }

    /// Its own certificate.
    pub(super) fn certificate(&self) -> rustls::pki_types::CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// A node's certificate, as production ones are.
    pub(super) fn node(&self, id: u64, cluster: &str) -> TlsMaterial {
        self.names(vec![node_name(NodeId(id), cluster)])
    }

    /// A certificate with these names.
    pub(super) fn names(&self, names: Vec<String>) -> TlsMaterial {
        self.trusting(names, self)
    }

    /// A certificate of this authority, held by a node that trusts another one.
    pub(super) fn trusting(&self, names: Vec<String>, trusted: &Self) -> TlsMaterial {
        let mut params = CertificateParams::new(names).expect("valid names");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        TlsMaterial::from_pem(
            certificate.pem().as_bytes(),
            key.serialize_pem().as_bytes(),
            trusted.issuer.pem().as_bytes(),
        )
        .expect("valid PEM")
    }
}
