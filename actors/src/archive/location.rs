//! Where an archive is, as operators name it, and how an S3 store is reached.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const S3: &str = "s3://";

/// A directory, or a part of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A directory.
    Directory(PathBuf),
    /// Everything below a prefix.
    S3 {
        /// The bucket.
        bucket: String,
        /// Names begin with it; empty, or without `/` at its ends.
        prefix: String,
    },
}

impl Location {
    /// A relative directory counts from `base`.
    #[must_use]
    pub fn within(self, base: &std::path::Path) -> Self {
        match self {
            Self::Directory(path) => Self::Directory(base.join(path)),
            other @ Self::S3 { .. } => other,
        }
    }
}

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix(S3) else {
            return match text.split_once("://") {
                Some((scheme, _)) => {
                    Err(format!("{scheme}:// is no kind of target: a path, or {S3}bucket/prefix"))
                }
                None if text.is_empty() => Err("an empty path".to_owned()),
                None => Ok(Self::Directory(text.into())),
            };
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let plain = |part: &str| !part.is_empty() && part.chars().all(good);
        let is_folder = |part: &str| plain(part) && part != "." && part != "..";
        if !plain(bucket) || !(prefix.is_empty() || prefix.split('/').all(is_folder)) {
            let what = "buckets and prefixes are of letters, digits, '-', '_' and '.'";
            return Err(format!("{text:?} is not {S3}bucket/prefix: {what}"));
        }
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "{S3}{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "{S3}{bucket}/{prefix}"),
        }
    }
}

/// How an S3 store is reached. What is `None` comes from the environment's standard variables
/// (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT_URL` and so on), else from the machine's role.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// URL of a store that isn't Amazon's.
    pub endpoint: Option<String>,
    /// The store's region.
    pub region: Option<String>,
    /// Access key and secret key. With them, the environment's credentials aren't looked at.
    pub keys: Option<(String, String)>,
    /// Who signs the store's certificate; the machine's authorities without.
    pub ca: Option<Authorities>,
    /// Whether the endpoint may be `http://`: what is archived then crosses the network in clear.
    pub allow_http: bool,
    /// How long one request may take, which moves at most 8 MiB.
    pub timeout: Duration,
}

impl Default for S3Settings {
    /// Everything from the environment; 30 s for a request.
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            keys: None,
            ca: None,
            allow_http: false,
            timeout: Duration::from_secs(30),
        }
    }
}

impl fmt::Debug for S3Settings {
    /// Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, region, keys, ca, allow_http, timeout } = self;
        f.debug_struct("S3Settings")
            .field("endpoint", endpoint)
            .field("region", region)
            .field("keys", &keys.as_ref().map(|_| "…"))
            .field("ca", &ca.as_ref().map(ToString::to_string))
            .field("allow_http", allow_http)
            .field("timeout", timeout)
            .finish()
    }
}

/// Authorities of a store that isn't known to every machine.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorities {
    /// Their certificates, in PEM.
    pub(super) pem: Vec<u8>,
    /// Where they are from.
    path: PathBuf,
    names: Vec<String>,
}

impl Authorities {
    /// As this file holds them.
    ///
    /// # Errors
    /// It holds none, or something else.
    pub fn new(path: PathBuf, pem: Vec<u8>) -> Result<Self, String> {
        let mut names = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| format!("no PEM: {error}"))?;
            let parsed = X509Certificate::from_der(&certificate);
            let (_, parsed) = parsed.map_err(|error| format!("no certificate: {error}"))?;
            names.push(parsed.subject().to_string());
        }
        if names.is_empty() {
            return Err("it holds no certificate in PEM".to_owned());
        }
        Ok(Self { pem, path, names })
    }
}

impl fmt::Display for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path.display(), self.names.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_read_and_shown() {
        let s3 = |bucket: &str, prefix: &str| {
            Ok(Location::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
        };
        assert_eq!("s3://b".parse(), s3("b", ""));
        assert_eq!("s3://b/".parse(), s3("b", ""));
        assert_eq!("s3://b.c-d/e/f/".parse(), s3("b.c-d", "e/f"));
        assert_eq!("/a/b".parse(), Ok(Location::Directory("/a/b".into())));
        for wrong in ["", "s3://", "s3:///a", "s3://b//a", "s3://b/../a", "s3://b/a?c", "gs://b"] {
            assert!(wrong.parse::<Location>().is_err(), "{wrong}");
        }
        for text in ["s3://b", "s3://b/e/f", "/a/b"] {
            assert_eq!(text.parse::<Location>().map(|read| read.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn authorities_are_named_and_anything_else_is_refused() {
        let authority = rcgen::generate_simple_self_signed(["store.example".to_owned()]);
        let pem = authority.expect("made").cert.pem();
        let read = |text: &str| Authorities::new("/a/ca.crt".into(), text.as_bytes().to_vec());
        let shown = read(&format!("{pem}{pem}")).map(|two| two.to_string());
        let shown = shown.expect("two certificates");
        assert!(shown.starts_with("/a/ca.crt (CN=") && shown.contains("; CN="), "{shown}");
        let half = &pem[..pem.len() / 2];
        let other = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for wrong in ["", "pem", half, other] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_are_not_shown() {
        let keys = Some(("AKIA-access".to_owned(), "very secret".to_owned()));
        let shown = format!("{:?}", S3Settings { keys, ..S3Settings::default() });
        assert!(!shown.contains("access") && !shown.contains("secret"), "{shown}");
    }
}
