//! An archive in an S3 store. An object is there as a whole or not at all.
//!
//! Every request has a limit, is tried again a few times, and is given up at once when the node
//! stops.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, Certificate, ClientConfigKey, ClientOptions, GetOptions, GetRange, ObjectStore,
    ObjectStoreExt as _, PutMode, PutOptions, PutPayload, RetryConfig, UpdateVersion,
    WriteMultipart,
};
use tokio::runtime::{Builder, Runtime};

use super::{OnPiece, PIECE_BYTES, TargetOptions};
use crate::archive::catalogue::MANIFEST_BYTES_MAX;
use crate::archive::error::ArchiveError;
use crate::archive::location::{Authorities, S3Settings};

/// What one request moves at most, except of files that would need too many parts.
const PART_BYTES: u64 = 8 << 20;

/// Parts that an object may have.
const PARTS_MAX: u64 = 10_000;

/// Parts on their way at one time.
const PARTS_AT_ONCE: usize = 4;

/// How often a request is tried again that the store or the network has failed.
const RETRIES: usize = 4;

/// How many times the limit of one request a caller waits at most: for parts that are on their way,
/// and for one more, each tried again once.
const WAIT_FACTOR: u32 = 4;

/// How often it is looked whether the node stops.
const STOP_POLL: Duration = Duration::from_millis(50);

const CONNECT_LIMIT: Duration = Duration::from_secs(5);

type StoreResult<T> = object_store::Result<T>;

/// A part of a bucket.
#[derive(Debug)]
pub(super) struct S3 {
    store: AmazonS3,
    /// Drives requests while a caller waits for them; taken when this is dropped.
    runtime: Option<Runtime>,
    bucket: String,
    prefix: String,
    name: String,
    endpoint: String,
    /// Who may have signed the store's certificate.
    authorities: String,
    /// For one wait.
    limit: Duration,
    stopping: Arc<AtomicBool>,
}

impl S3 {
    pub(super) fn open(
        (bucket, prefix): (&str, &str),
        name: String,
        options: &TargetOptions,
    ) -> Result<Self, ArchiveError> {
        let failed = |source| ArchiveError::Target { name: name.clone(), source };
        let settings = &options.s3;
        let builder = builder(settings).map(|builder| builder.with_bucket_name(bucket));
        let store = builder
            .and_then(AmazonS3Builder::build)
            .map_err(|error| failed(io::Error::other(innermost(&error))))?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let endpoint = settings.endpoint.clone();
        let authorities = settings.ca.as_ref().map_or_else(
            || "this machine's authorities; archive.s3_ca names others".to_owned(),
            |ca| format!("the authorities in {ca}"),
        );
        Ok(Self {
            store,
            runtime: Some(runtime),
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: endpoint.unwrap_or_else(|| "the store".to_owned()),
            authorities,
            limit: settings.timeout.saturating_mul(WAIT_FACTOR),
            stopping: options.stopping.clone(),
            name,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn read(&self, name: &str, bytes_max: u64) -> Result<Option<Bytes>, ArchiveError> {
        let mut bytes = Vec::new();
        let too_long =
            || ArchiveError::damaged(name, format!("it is longer than {bytes_max} bytes"));
        let mut each = |piece: &[u8]| {
            if bytes.len() as u64 + piece.len() as u64 > bytes_max {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            bytes.extend_from_slice(piece);
            Ok(())
        };
        match self.pieces(name, &mut each) {
            Ok(()) => Ok(Some(bytes.into())),
            Err(Fault::Missing) => Ok(None),
            Err(Fault::Told(_)) => Err(too_long()),
            Err(Fault::Failed(error)) => Err(error),
        }
    }

    pub(super) fn write(&self, name: &str, bytes: Vec<u8>) -> Result<(), ArchiveError> {
        let key = self.key(name)?;
        self.wait(name, self.store.put(&key, PutPayload::from(bytes))).map(|_| ())
    }

    pub(super) fn upload(
        &self,
        name: &str,
        from: &Path,
        each: OnPiece<'_>,
    ) -> Result<(), ArchiveError> {
        let local = |source| ArchiveError::Local { path: from.to_owned(), source };
        let mut file = File::open(from).map_err(local)?;
        let len = file.metadata().map_err(local)?.len();
        if len <= PART_BYTES {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(local)?;
            bytes.chunks(PIECE_BYTES).try_for_each(each).map_err(local)?;
            return self.write(name, bytes);
        }
        let key = self.key(name)?;
        let part = PART_BYTES.max(len.div_ceil(PARTS_MAX));
        let upload = self.wait(name, self.store.put_multipart(&key))?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, part as usize);
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let sent = file.read(&mut piece).and_then(|read| each(&piece[..read]).map(|()| read));
            let sent = sent.map_err(local).and_then(|read| {
                self.wait(name, async {
                    writer.wait_for_capacity(PARTS_AT_ONCE).await?;
                    // Begins to send where a part is full, on the runtime that this waits in.
                    writer.write(&piece[..read]);
                    Ok(read)
                })
            });
            match sent {
                Ok(0) => return self.wait(name, writer.finish()).map(|_| ()),
                Ok(_) => {}
                Err(error) => {
                    // Parts cost money until they are given up. The store may not hear it: its own
                    // rules remove what is left of uploads.
                    let _ = self.wait(name, writer.abort());
                    return Err(error);
                }
            }
        }
    }

    pub(super) fn download(
        &self,
        name: &str,
        to: &Path,
        each: OnPiece<'_>,
    ) -> Result<(), ArchiveError> {
        let local = |source| ArchiveError::Local { path: to.to_owned(), source };
        let mut out = File::create(to).map_err(local)?;
        let copied = self.pieces(name, &mut |piece| {
            each(piece)?;
            out.write_all(piece)
        });
        copied.map_err(|fault| fault.or_missing(name, local))?;
        out.sync_all().map_err(local)
    }

    pub(super) fn each_piece(&self, name: &str, each: OnPiece<'_>) -> Result<(), ArchiveError> {
        let told = |source| self.failed(name, source);
        self.pieces(name, each).map_err(|fault| fault.or_missing(name, told))
    }

    pub(super) fn swap(
        &self,
        name: &str,
        expected: Option<&Bytes>,
        bytes: &Bytes,
    ) -> Result<(), ArchiveError> {
        let key = self.key(name)?;
        let (found, e_tag) = self.read_tagged(name, &key)?.unzip();
        if found.as_ref() != expected {
            return Err(ArchiveError::Fenced);
        }
        let mode = match e_tag {
            Some(e_tag) => PutMode::Update(UpdateVersion { e_tag, version: None }),
            None => PutMode::Create,
        };
        let payload = PutPayload::from(bytes.clone());
        let put = self.store.put_opts(&key, payload, PutOptions::from(mode));
        let Err(error) = self.wait(name, put) else { return Ok(()) };
        // A request whose answer was lost is tried again, and then refused because it has succeeded.
        match self.read_tagged(name, &key) {
            Ok(Some((found, _))) if found == *bytes => Ok(()),
            Ok(found) if found.as_ref().map(|(found, _)| found) != expected => {
                Err(ArchiveError::Fenced)
            }
            Ok(_) | Err(_) => Err(error),
        }
    }

    pub(super) fn list(&self, folder: &str) -> Result<Vec<String>, ArchiveError> {
        let mut names = Vec::new();
        let mut folders = vec![self.key(folder)?];
        while let Some(key) = folders.pop() {
            let listed = self.wait(folder, self.store.list_with_delimiter(Some(&key)))?;
            folders.extend(listed.common_prefixes);
            let own = self.prefix.len() + usize::from(!self.prefix.is_empty());
            let found = listed.objects.iter().map(|object| object.location.as_ref());
            names.extend(found.filter_map(|key| Some(key.get(own..)?.to_owned())));
        }
        names.sort();
        Ok(names)
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), ArchiveError> {
        let key = self.key(name)?;
        self.wait(name, async {
            match self.store.delete(&key).await {
                Err(error) if is_missing(&error) => Ok(()),
                removed => removed,
            }
        })
    }

    /// A small object and the tag by which it can be replaced.
    fn read_tagged(
        &self,
        name: &str,
        key: &Key,
    ) -> Result<Option<(Bytes, Option<String>)>, ArchiveError> {
        self.wait(name, async {
            match self.store.get(key).await {
                Err(error) if is_missing(&error) => Ok(None),
                Err(error) => Err(error),
                // Something else than anyone expects there, and not worth reading.
                Ok(found) if found.meta.size > MANIFEST_BYTES_MAX => Ok(Some((Bytes::new(), None))),
                Ok(found) => {
                    let e_tag = found.meta.e_tag.clone();
                    Ok(Some((found.bytes().await?, e_tag)))
                }
            }
        })
    }

    /// Hands out an object in pieces, each asked for by itself: what a request moves has a limit, so
    /// that its time can have one.
    fn pieces(&self, name: &str, each: OnPiece<'_>) -> Result<(), Fault> {
        let key = self.key(name)?;
        let (mut at, mut e_tag) = (0, None);
        loop {
            let options = GetOptions {
                range: Some(GetRange::Bounded(at..at + PART_BYTES)),
                if_match: e_tag.clone(),
                ..GetOptions::default()
            };
            let got = self.wait(name, async {
                match self.store.get_opts(&key, options).await {
                    Err(error) if is_missing(&error) => Ok(None),
                    // There is no byte to begin with.
                    Err(error) if at == 0 && is_empty(&error) => Ok(Some((Bytes::new(), None, 0))),
                    Err(error) => Err(error),
                    Ok(found) => {
                        let (size, e_tag) = (found.meta.size, found.meta.e_tag.clone());
                        Ok(Some((found.bytes().await?, e_tag, size)))
                    }
                }
            })?;
            let (bytes, tag, size) = got.ok_or(Fault::Missing)?;
            for piece in bytes.chunks(PIECE_BYTES) {
                each(piece).map_err(Fault::Told)?;
            }
            at += bytes.len() as u64;
            e_tag = tag;
            if at >= size || bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// Waits for the store, within its limit, unless the node stops.
    fn wait<T>(
        &self,
        name: &str,
        work: impl Future<Output = StoreResult<T>>,
    ) -> Result<T, ArchiveError> {
        let runtime = self.runtime.as_ref().expect("taken when this is dropped");
        runtime.block_on(async {
            let stopped = async {
                let mut looks = tokio::time::interval(STOP_POLL);
                while !self.stopping.load(Ordering::Relaxed) {
                    looks.tick().await;
                }
            };
            tokio::select! {
                biased;
                () = stopped => Err(ArchiveError::Stopped),
                done = tokio::time::timeout(self.limit, work) => match done {
                    Ok(done) => done.map_err(|error| self.failed(name, self.explain(&error))),
                    Err(_) => Err(self.failed(name, io::ErrorKind::TimedOut.into())),
                },
            }
        })
    }

    fn key(&self, name: &str) -> Result<Key, ArchiveError> {
        let full = if self.prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.prefix)
        };
        Key::parse(full).map_err(|error| ArchiveError::foreign(name, error))
    }

    /// In words, and without what the store repeats of the request.
    fn explain(&self, error: &object_store::Error) -> io::Error {
        let text = error.to_string();
        let Some(code) = code(&text) else {
            let what = innermost(error);
            let unknown = what.contains("UnknownIssuer");
            let unknown = unknown.then(|| format!("; it is of none of {}", self.authorities));
            let unknown = unknown.unwrap_or_default();
            return io::Error::other(format!("{}: {what}{unknown}", self.endpoint));
        };
        let message = between(&text, "<Message>", "</Message>").unwrap_or(code);
        io::Error::other(match code {
            "NoSuchBucket" => format!("there is no bucket {}", self.bucket),
            "AccessDenied"
            | "ExpiredToken"
            | "InvalidAccessKeyId"
            | "InvalidToken"
            | "SignatureDoesNotMatch" => {
                format!("the store refuses the credentials: {message} ({code})")
            }
            _ => format!("{message} ({code})"),
        })
    }

    fn failed(&self, name: &str, source: io::Error) -> ArchiveError {
        ArchiveError::Target { name: format!("{}/{name}", self.name), source }
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // A name that is being looked up can't be interrupted, and nobody waits for it any more.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Why an object was not handed out.
enum Fault {
    Missing,
    /// Whoever was told of a piece refused it.
    Told(io::Error),
    Failed(ArchiveError),
}

impl From<ArchiveError> for Fault {
    fn from(error: ArchiveError) -> Self {
        Self::Failed(error)
    }
}

impl Fault {
    fn or_missing(self, name: &str, told: impl Fn(io::Error) -> ArchiveError) -> ArchiveError {
        match self {
            Self::Missing => ArchiveError::Missing { name: name.to_owned() },
            Self::Told(error) => told(error),
            Self::Failed(error) => error,
        }
    }
}

fn builder(settings: &S3Settings) -> StoreResult<AmazonS3Builder> {
    let S3Settings { endpoint, region, keys, ca, allow_http, timeout } = settings;
    let mut builder = match keys {
        // Not with another account's session token, say, from the environment.
        Some((access, secret)) => {
            AmazonS3Builder::new().with_access_key_id(access).with_secret_access_key(secret)
        }
        None => AmazonS3Builder::from_env(),
    };
    if let Some(ca) = ca {
        builder = trusting(builder, ca)?;
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = region {
        builder = builder.with_region(region);
    }
    if *allow_http {
        builder = builder.with_allow_http(true);
    }
    let client = |builder: AmazonS3Builder, key, limit: Duration| {
        builder.with_config(AmazonS3ConfigKey::Client(key), format!("{}ms", limit.as_millis()))
    };
    builder = client(builder, ClientConfigKey::Timeout, *timeout);
    builder = client(builder, ClientConfigKey::ConnectTimeout, CONNECT_LIMIT.min(*timeout));
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(2),
        base: 2.0,
    };
    // No attempt begins later than that.
    let retry = RetryConfig { backoff, max_retries: RETRIES, retry_timeout: *timeout };
    Ok(builder
        .with_retry(retry)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // One by one: not every store that speaks the protocol has the other.
        .with_disable_bulk_delete(true))
}

/// Only what these have signed is the store.
fn trusting(builder: AmazonS3Builder, ca: &Authorities) -> StoreResult<AmazonS3Builder> {
    let mut options = ClientOptions::new().with_no_system_certificates(true);
    for certificate in Certificate::from_pem_bundle(&ca.pem)? {
        options = options.with_root_certificate(certificate);
    }
    // The environment may have said more, and these options take the place of those.
    for key in
        [ClientConfigKey::AllowHttp, ClientConfigKey::ProxyUrl, ClientConfigKey::ProxyExcludes]
    {
        if let Some(value) = builder.get_config_value(&AmazonS3ConfigKey::Client(key)) {
            options = options.with_config(key, value);
        }
    }
    Ok(builder.with_client_options(options))
}

/// A bucket that isn't there is something else than an object that isn't.
fn is_missing(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. })
        && code(&error.to_string()) != Some("NoSuchBucket")
}

/// The store's own word for what is wrong.
fn code(text: &str) -> Option<&str> {
    between(text, "<Code>", "</Code>")
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    text.split_once(from)?.1.split_once(to).map(|(found, _)| found)
}

/// A range that begins where an object ends.
fn is_empty(error: &object_store::Error) -> bool {
    error.to_string().contains("416 Range Not Satisfiable")
}

/// The error that all others wrap.
fn innermost(error: &object_store::Error) -> String {
    let mut source: &dyn std::error::Error = error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    source.to_string()
}
