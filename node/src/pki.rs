//! Certificates for nodes: an authority for the cluster, and one certificate per node that names
//! `node-<id>.<cluster>`, by which peers recognise it.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _,
};
use serde::Serialize;
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const AUTHORITY_DAYS: i64 = 3650;
const NODE_DAYS: i64 = 365;

/// Names besides its own that a renewed certificate may have.
const HOSTS_MAX: usize = 64;

/// Certificates are valid from a little earlier on, because clocks differ between machines.
const CLOCK_DIFFERENCE: Duration = Duration::hours(1);

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PkiError {
    /// A file could not be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Nothing is overwritten by accident.
    #[error("{} exists; --force overwrites it", .0.display())]
    Exists(PathBuf),
    /// A name that no certificate can hold, or an authority whose files don't belong together.
    #[error("can't make the certificate: {0}")]
    Rcgen(#[from] rcgen::Error),
    /// Not a PEM file with certificates.
    #[error("{}: {reason}", path.display())]
    NotACertificate {
        /// Which file.
        path: PathBuf,
        /// What it is instead.
        reason: String,
    },
    /// An authority whose files don't belong together.
    #[error("{0}")]
    Authority(String),
    /// A host name by which peers would take the node for another one.
    #[error("{0:?} is a node's name, not a host's")]
    HostName(String),
    /// More names than a certificate needs.
    #[error("a certificate names at most {HOSTS_MAX} hosts")]
    Hosts,
    /// Node ids start at 1.
    #[error("a node's id is at least 1")]
    NodeId,
}

/// A certificate and its key, on disk.
#[derive(Debug)]
pub(crate) struct Files {
    /// PEM, readable by all.
    pub(crate) cert: PathBuf,
    /// PEM, readable by the owner alone.
    pub(crate) key: PathBuf,
}

/// What a certificate says.
#[derive(Debug, Serialize)]
pub(crate) struct Description {
    file: PathBuf,
    subject: String,
    issuer: String,
    authority: bool,
    names: Vec<String>,
    not_before: String,
    not_after: String,
    /// Whole days until it ends; negative once it has.
    days_left: i64,
}

/// Makes `ca.crt` and `ca.key`.
pub(crate) fn create_authority(dir: &Path, cluster: &str, force: bool) -> Result<Files, PkiError> {
    let files = authority_files(dir);
    prepare(dir, &files, force)?;
    let (cert, key) = make_authority(cluster)?;
    store(&files, &cert, &key)?;
    Ok(files)
}

/// Makes a new authority. `ca.crt` then holds its certificate and those that were there before, so
/// that certificates of either are accepted; `ca.key` is the new one's, which signs from now on.
pub(crate) fn rotate_authority(dir: &Path, cluster: &str) -> Result<Files, PkiError> {
    let files = authority_files(dir);
    let before = read(&files.cert)?;
    let (cert, key) = make_authority(cluster)?;
    // The key first: with it alone `pki node` fails, while with the bundle alone it would sign by a
    // key that doesn't fit.
    store(&files, &format!("{cert}{before}"), &key)?;
    Ok(files)
}

/// Leaves only the newest authority in `ca.crt`: certificates of the others are refused from then on.
/// Returns how many were removed.
pub(crate) fn retire_authorities(dir: &Path) -> Result<usize, PkiError> {
    let files = authority_files(dir);
    let bundle = read(&files.cert)?;
    let mut certificates = bundle.split_inclusive("-----END CERTIFICATE-----");
    let newest = certificates.next().unwrap_or_default();
    let retired = certificates.filter(|text| text.contains("BEGIN CERTIFICATE")).count();
    if retired > 0 {
        write(&files.cert, &format!("{newest}\n"), 0o644)?;
    }
    Ok(retired)
}

/// Makes a new key and certificate for a node, with the names that its present one has.
pub(crate) fn rotate_node(dir: &Path, id: u64, cluster: &str) -> Result<Files, PkiError> {
    let present = describe(&dir.join(format!("node-{id}.crt")))?;
    let own = format!("node-{id}.{cluster}");
    let names = present.into_iter().next().map(|first| first.names).unwrap_or_default();
    if !names.contains(&own) {
        return Err(PkiError::NotACertificate {
            path: dir.join(format!("node-{id}.crt")),
            reason: format!("it is not for {own}, but for {}", names.join(", ")),
        });
    }
    let hosts: Vec<String> = names.into_iter().filter(|name| *name != own).collect();
    create_node(dir, id, cluster, &hosts, true)
}

fn authority_files(dir: &Path) -> Files {
    Files { cert: dir.join("ca.crt"), key: dir.join("ca.key") }
}

/// Certificate and key, as PEM.
fn make_authority(cluster: &str) -> Result<(String, String), PkiError> {
    let mut params = CertificateParams::new(Vec::new())?;
    // Two authorities of one name would be taken for one another where a chain is built.
    let made = OffsetDateTime::now_utc();
    let name = format!("Quorate CA {cluster} {}", made.unix_timestamp_nanos());
    params.distinguished_name.push(DnType::CommonName, name);
    // It signs nodes, never another authority.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, AUTHORITY_DAYS);
    let key = KeyPair::generate()?;
    let cert = params.self_signed(&key)?;
    Ok((cert.pem(), key.serialize_pem()))
}

/// Makes `node-<id>.crt` and `node-<id>.key`, signed by the authority in the same folder.
pub(crate) fn create_node(
    dir: &Path,
    id: u64,
    cluster: &str,
    hosts: &[String],
    force: bool,
) -> Result<Files, PkiError> {
    if id == 0 {
        return Err(PkiError::NodeId);
    }
    let files =
        Files { cert: dir.join(format!("node-{id}.crt")), key: dir.join(format!("node-{id}.key")) };
    prepare(dir, &files, force)?;
    let authority_key = KeyPair::from_pem(&read(&dir.join("ca.key"))?)?;
    let authority = Issuer::from_ca_cert_pem(&read(&dir.join("ca.crt"))?, authority_key)?;
    let params = node_params(id, cluster, hosts)?;
    let key = KeyPair::generate()?;
    let cert = params.signed_by(&key, &authority)?;
    store(&files, &cert.pem(), &key.serialize_pem())?;
    Ok(files)
}

fn node_params(id: u64, cluster: &str, hosts: &[String]) -> Result<CertificateParams, PkiError> {
    let name = format!("node-{id}.{cluster}");
    let mut names = vec![name.clone()];
    names.extend(hosts.iter().cloned());
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // A node is server to some of its peers and client to the others.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, NODE_DAYS);
    Ok(params)
}

/// A certificate signing request whose signature is right: whoever made it has the key.
pub(crate) struct Request(CertificateSigningRequestParams);

impl Request {
    /// From PEM. What it asks for beside its key is ignored: names are the cluster's to give.
    pub(crate) fn parse(pem: &str) -> Result<Self, PkiError> {
        Ok(Self(CertificateSigningRequestParams::from_pem(pem)?))
    }

    /// BLAKE3 of the public key.
    pub(crate) fn key_hash(&self) -> [u8; 32] {
        blake3::hash(&self.0.public_key.subject_public_key_info()).into()
    }
}

/// Signs nodes' certificates.
pub(crate) struct Signer {
    authority_pem: String,
    key_pem: String,
}

impl Signer {
    /// From an authority's certificate and key in PEM, which must belong together.
    pub(crate) fn new(authority_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key_pem)?;
        let bad = |reason: &str| PkiError::Authority(reason.to_owned());
        let pem = x509_parser::pem::Pem::iter_from_buffer(authority_pem.as_bytes()).next();
        let pem = pem.and_then(Result::ok).ok_or_else(|| bad("no certificate of an authority"))?;
        let (_, certificate) = X509Certificate::from_der(&pem.contents)
            .map_err(|_| bad("the authority's certificate can't be read"))?;
        if certificate.public_key().raw != key.subject_public_key_info() {
            return Err(bad("the key is not that of the first authority"));
        }
        Ok(Self { authority_pem: authority_pem.to_owned(), key_pem: key_pem.to_owned() })
    }

    /// The certificate of a node, in PEM, with these names besides its own.
    pub(crate) fn sign(
        &self,
        request: &Request,
        id: u64,
        cluster: &str,
        hosts: &[String],
    ) -> Result<String, PkiError> {
        // Peers go by such a name alone.
        let is_node = |host: &str| host.starts_with("node-") && host.ends_with(cluster);
        if let Some(host) = hosts.iter().find(|host| is_node(host)) {
            return Err(PkiError::HostName(host.clone()));
        }
        if hosts.len() > HOSTS_MAX {
            return Err(PkiError::Hosts);
        }
        let key = KeyPair::from_pem(&self.key_pem)?;
        let authority = Issuer::from_ca_cert_pem(&self.authority_pem, key)?;
        let params = node_params(id, cluster, hosts)?;
        Ok(params.signed_by(&request.0.public_key, &authority)?.pem())
    }
}

/// The request for a node's certificate, whose key is made unless it is there.
pub(crate) fn prepare_request(
    key_file: &Path,
    request_file: &Path,
    id: u64,
    cluster: &str,
) -> Result<String, PkiError> {
    if let Some(dir) = key_file.parent() {
        std::fs::create_dir_all(dir)
            .map_err(|error| PkiError::Io { path: dir.to_owned(), error })?;
    }
    let key = if key_file.exists() {
        KeyPair::from_pem(&read(key_file)?)?
    } else {
        let key = KeyPair::generate()?;
        write(key_file, &key.serialize_pem(), 0o600)?;
        key
    };
    let request = request_for(&key, id, cluster)?;
    write(request_file, &request, 0o644)?;
    Ok(request)
}

fn request_for(key: &KeyPair, id: u64, cluster: &str) -> Result<String, PkiError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, format!("node-{id}.{cluster}"));
    Ok(params.serialize_request(key)?.pem()?)
}

/// What a node's certificate says that is to be renewed.
#[derive(Debug)]
pub(crate) struct Present {
    /// Its names besides `node-<id>.<cluster>`.
    pub(crate) hosts: Vec<String>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl Present {
    /// From the first certificate in PEM.
    pub(crate) fn parse(pem: &[u8], id: u64, cluster: &str) -> Option<Self> {
        let pem = x509_parser::pem::Pem::iter_from_buffer(pem).next()?.ok()?;
        let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
        let own = format!("node-{id}.{cluster}");
        let validity = certificate.validity();
        Some(Self {
            hosts: names(&certificate).into_iter().filter(|name| *name != own).collect(),
            not_before: validity.not_before.to_datetime(),
            not_after: validity.not_after.to_datetime(),
        })
    }

    /// From when to when.
    pub(crate) fn life(&self) -> Duration {
        self.not_after - self.not_before
    }

    /// Until then.
    pub(crate) fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Whether two thirds of its life are over.
    pub(crate) fn is_due(&self, now: OffsetDateTime) -> bool {
        now >= self.not_before + self.life() * 2 / 3
    }
}

/// A request for a certificate with a key that is in use.
pub(crate) fn renewal_request(key_pem: &[u8], id: u64, cluster: &str) -> Result<String, PkiError> {
    request_for(&KeyPair::from_pem(&String::from_utf8_lossy(key_pem))?, id, cluster)
}

/// Signs a request with the authority in a folder.
pub(crate) fn sign_request(
    dir: &Path,
    request: &Path,
    id: u64,
    cluster: &str,
    output: &Path,
) -> Result<(), PkiError> {
    if id == 0 {
        return Err(PkiError::NodeId);
    }
    let signer = Signer::new(&read(&dir.join("ca.crt"))?, &read(&dir.join("ca.key"))?)?;
    let request = Request::parse(&read(request)?)?;
    write(output, &signer.sign(&request, id, cluster, &[])?, 0o644)
}

/// Reads every certificate of a PEM file.
pub(crate) fn describe(path: &Path) -> Result<Vec<Description>, PkiError> {
    let refuse = |reason: String| PkiError::NotACertificate { path: path.to_owned(), reason };
    let text = read(path)?;
    let mut found = Vec::new();
    for pem in x509_parser::pem::Pem::iter_from_buffer(text.as_bytes()) {
        let pem = pem.map_err(|error| refuse(format!("not PEM: {error}")))?;
        if pem.label != "CERTIFICATE" {
            continue;
        }
        let (_, certificate) = X509Certificate::from_der(&pem.contents)
            .map_err(|error| refuse(format!("not a certificate: {error}")))?;
        found.push(description(path, &certificate));
    }
    if found.is_empty() {
        return Err(refuse("no certificate in it".to_owned()));
    }
    Ok(found)
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.file.display())?;
        writeln!(f, "  subject  {}", self.subject)?;
        writeln!(f, "  issuer   {}", self.issuer)?;
        if self.authority {
            writeln!(f, "  role     certificate authority")?;
        } else {
            writeln!(f, "  names    {}", self.names.join(", "))?;
        }
        let left = if self.days_left < 0 {
            "expired".to_owned()
        } else {
            format!("{} days left", self.days_left)
        };
        write!(f, "  valid    {} to {} ({left})", self.not_before, self.not_after)
    }
}

fn description(path: &Path, certificate: &X509Certificate<'_>) -> Description {
    let validity = certificate.validity();
    let end = validity.not_after.to_datetime();
    Description {
        file: path.to_owned(),
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        authority: certificate.is_ca(),
        names: names(certificate),
        not_before: validity.not_before.to_datetime().date().to_string(),
        not_after: end.date().to_string(),
        days_left: (end - OffsetDateTime::now_utc()).whole_seconds().div_euclid(86_400),
    }
}

/// Its alternative names.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    names
        .map(|extension| extension.value.general_names.iter().map(render_name).collect())
        .unwrap_or_default()
}

fn render_name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress([a, b, c, d]) => format!("{a}.{b}.{c}.{d}"),
        GeneralName::IPAddress(bytes) => <[u8; 16]>::try_from(*bytes)
            .map_or_else(|_| format!("{bytes:02x?}"), |b| std::net::Ipv6Addr::from(b).to_string()),
        other => other.to_string(),
    }
}

fn set_validity(params: &mut CertificateParams, days: i64) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - CLOCK_DIFFERENCE;
    params.not_after = now + Duration::days(days);
}

fn prepare(dir: &Path, files: &Files, force: bool) -> Result<(), PkiError> {
    std::fs::create_dir_all(dir).map_err(|error| PkiError::Io { path: dir.to_owned(), error })?;
    match [&files.cert, &files.key].into_iter().find(|path| path.exists()) {
        Some(path) if !force => Err(PkiError::Exists(path.clone())),
        Some(_) | None => Ok(()),
    }
}

fn store(files: &Files, cert: &str, key: &str) -> Result<(), PkiError> {
    write(&files.key, key, 0o600)?;
    write(&files.cert, cert, 0o644)
}

/// Writes beside the file and renames over it: a reader sees the old file or the new one, and a
/// secret never has a moment with the wrong mode.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let failed = |error| PkiError::Io { path: path.to_owned(), error };
    let beside = path.with_extension("new");
    let _ = std::fs::remove_file(&beside);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)
}

fn read(path: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(path).map_err(|error| PkiError::Io { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_request_is_signed_for_the_node_that_the_signer_names() {
        let dir = std::env::temp_dir().join(format!("quorate-csr-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        create_authority(&dir, "shop", true).expect("an authority");
        let (key, csr, crt) = (dir.join("n.key"), dir.join("n.csr"), dir.join("n.crt"));
        let text = prepare_request(&key, &csr, 4, "shop").expect("a request");
        let again = prepare_request(&key, &csr, 4, "shop").expect("the same key");
        let hash = |pem: &str| Request::parse(pem).expect("valid").key_hash();
        assert_eq!(hash(&text), hash(&again), "a key that is there is kept");
        sign_request(&dir, &csr, 7, "shop", &crt).expect("signed");
        let shown = &describe(&crt).expect("readable")[0];
        assert_eq!(shown.names, ["node-7.shop"], "whatever the request says");
        let mut broken = text.clone().into_bytes();
        let at = broken.len() / 2;
        broken[at] = if broken[at] == b'A' { b'B' } else { b'A' };
        assert!(Request::parse(&String::from_utf8_lossy(&broken)).is_err());
        let other = KeyPair::generate().expect("a key").serialize_pem();
        let ca = std::fs::read_to_string(dir.join("ca.crt")).expect("made");
        assert!(Signer::new(&ca, &other).is_err(), "another authority's key");
        let _ = std::fs::remove_dir_all(&dir);
    }

    #[test]
    fn a_node_certificate_names_the_node_and_lasts_a_year() {
        let dir = std::env::temp_dir().join(format!("quorate-pki-{}", std::process::id()));
        let authority = create_authority(&dir, "shop", true).expect("an authority");
        let hosts = ["10.0.0.2".to_owned(), "db-2.example.com".to_owned()];
        let node = create_node(&dir, 2, "shop", &hosts, true).expect("a certificate");
        for key in [&authority.key, &node.key] {
            let mode = std::fs::metadata(key).expect("written").mode();
            assert_eq!(mode & 0o777, 0o600, "{}", key.display());
        }
        let shown = &describe(&node.cert).expect("readable")[0];
        assert_eq!(shown.names, ["node-2.shop", "10.0.0.2", "db-2.example.com"]);
        assert_eq!(shown.days_left, 364);
        assert!(!shown.authority);
        let shown = &describe(&authority.cert).expect("readable")[0];
        assert!(shown.authority);
        assert_eq!(shown.days_left, 3649);
        rotate_authority(&dir, "shop").expect("a second one");
        let authorities = describe(&authority.cert).expect("readable");
        assert_eq!(authorities.len(), 2, "the old one is trusted still");
        rotate_node(&dir, 2, "shop").expect("renewed");
        let renewed = &describe(&node.cert).expect("readable")[0];
        assert_eq!(renewed.names, ["node-2.shop", "10.0.0.2", "db-2.example.com"]);
        assert_eq!(renewed.issuer, authorities[0].subject, "the new one signs");
        assert!(rotate_node(&dir, 2, "other").is_err(), "it is for another cluster");
        assert_eq!(retire_authorities(&dir).expect("retired"), 1);
        let left = describe(&authority.cert).expect("readable");
        assert_eq!((left.len(), &left[0].subject), (1, &authorities[0].subject));
        assert_eq!(retire_authorities(&dir).expect("nothing to do"), 0);
        let again = create_node(&dir, 2, "shop", &[], false).expect_err("it exists");
        assert!(matches!(again, PkiError::Exists(_)));
        assert!(describe(&node.key).is_err(), "a key is no certificate");
        let _ = std::fs::remove_dir_all(&dir);
    }

    #[test]
    fn a_renewed_certificate_keeps_key_and_names_but_never_another_node_s() {
        let dir = std::env::temp_dir().join(format!("quorate-renew-{}", std::process::id()));
        let authority = create_authority(&dir, "shop", true).expect("an authority");
        let hosts = ["10.0.0.2".to_owned(), "db-2.example.com".to_owned()];
        let node = create_node(&dir, 2, "shop", &hosts, true).expect("a certificate");
        let pem = |path: &Path| std::fs::read_to_string(path).expect("readable");
        let present = Present::parse(pem(&node.cert).as_bytes(), 2, "shop").expect("it is read");
        assert_eq!(present.hosts, hosts);
        let now = OffsetDateTime::now_utc();
        assert!(!present.is_due(now + Duration::days(243)), "{present:?}");
        assert!(present.is_due(now + Duration::days(244)), "{present:?}");
        let request = renewal_request(pem(&node.key).as_bytes(), 2, "shop").expect("a request");
        let request = Request::parse(&request).expect("valid");
        let signer = Signer::new(&pem(&authority.cert), &pem(&authority.key)).expect("a signer");
        let renewed = signer.sign(&request, 2, "shop", &present.hosts).expect("signed");
        let renewed = Present::parse(renewed.as_bytes(), 2, "shop").expect("it is read");
        assert_eq!(renewed.hosts, hosts);
        let stolen = signer.sign(&request, 2, "shop", &["node-1.shop".to_owned()]);
        assert!(matches!(stolen, Err(PkiError::HostName(_))), "{stolen:?}");
        let many = vec!["a.example".to_owned(); HOSTS_MAX + 1];
        assert!(matches!(signer.sign(&request, 2, "shop", &many), Err(PkiError::Hosts)));
        let _ = std::fs::remove_dir_all(&dir);
    }
}
