//! The archive's own files: JSON, so that an operator can read them without this program.
//!
//! ```text
//! HEAD                              what is in force; replaced only by who knows the last one
//! MANIFEST.json                     everything that HEAD leads to, in one list; made from it, and,
//!                                   where it is long, only with snapshots
//! snapshots/<seq>-<epoch>-<run>/…   a checkpoint of the state, and manifest.json
//! journal/<first>-<last>-<run>.qj   a sealed segment of the log, and its manifest, <…>.json
//! ```
//!
//! No two runs write a file of the same name: what one leaves behind can be removed without that
//! another needs it.
//!
//! `HEAD` names the newest segment and the newest snapshot by the hash of their manifests, and each
//! manifest names the one before it: nothing can be left out, swapped or added without that a hash
//! is wrong.

use quorate_protocol::types::{Chain, ClusterTime, EntryId, Epoch, Seq};
use serde::{Deserialize, Serialize};

use super::error::ArchiveError;
use super::target::Target;
use crate::storage::durable::random_u128;

/// The format of everything here.
pub(super) const FORMAT: u32 = 1;

pub(super) const HEAD: &str = "HEAD";
pub(super) const CATALOGUE: &str = "MANIFEST.json";

/// Longest manifest that is read: a snapshot of 65,536 files.
pub(super) const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// Longest list of everything.
pub(super) const CATALOGUE_BYTES_MAX: u64 = 256 << 20;

/// A list that is longer is written with snapshots only: each run would read and write all of it.
pub(super) const CATALOGUE_BYTES_SHORT: u64 = 1 << 20;

/// A file of the archive that another one names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// SHA-256 of its content, in hex.
    pub sha256: String,
}

/// A position in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The entry's epoch.
    pub epoch: u64,
    /// Its position.
    pub seq: u64,
    /// The log's chain there, in hex.
    pub chain: String,
    /// When it was sealed, in milliseconds since 1970.
    pub time_ms: u64,
}

/// Of which cluster something is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The cluster's id.
    pub cluster_id: String,
    /// Its name.
    pub cluster_name: String,
    /// Lossy recoveries that it had gone through.
    pub generation: u64,
}

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// [`FORMAT`].
    pub format: u32,
    /// Whose archive it is.
    pub origin: Origin,
    /// How often it was replaced.
    pub runs: u64,
    /// When it was last, in milliseconds since 1970.
    pub written_at_ms: u64,
    /// By which node.
    pub written_by: u64,
    /// The last entry that the archive holds.
    pub archived: Position,
    /// What the state held when it was last hashed, at or before that entry.
    pub content: Option<Content>,
    /// The newest segment's manifest; none where nothing happened since the first snapshot.
    pub segment: Option<Link>,
    /// The newest snapshot's manifest.
    pub snapshot: Link,
    /// The position of the oldest snapshot that is kept: manifests before it are gone.
    pub oldest_seq: u64,
}

/// What a state held at one position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// The position.
    pub seq: u64,
    /// Live keys.
    pub keys: u64,
    /// BLAKE3 over them, as `content_hash` of the admin port, in hex.
    pub hash: String,
}

/// A part of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentManifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The segment file.
    pub file: Link,
    /// Its bytes.
    pub bytes: u64,
    /// Whose log it is.
    pub origin: Origin,
    /// The entry before its first one.
    pub preceding: Position,
    /// Its last entry.
    pub last: Position,
    /// When its first entry was sealed, in milliseconds since 1970.
    pub from_ms: u64,
    /// Its entries.
    pub entries: u64,
    /// The cluster entry in force at its end.
    pub config: ConfigAt,
    /// Entries between the segment before it and this one that no archiver could read any more;
    /// a snapshot begins behind them.
    pub gap: Option<Gap>,
    /// The manifest of the segment before it.
    pub previous: Option<Link>,
}

/// Entries that the archive doesn't hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// A cluster entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigAt {
    /// Its epoch.
    pub epoch: u64,
    /// Its position.
    pub seq: u64,
    /// Its payload, in hex.
    pub payload: String,
}

/// The state at one position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotManifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Its files.
    pub files: Vec<SnapshotFile>,
    /// Whose state it is.
    pub origin: Origin,
    /// The last entry in it.
    pub at: Position,
    /// An epoch in which that was known to be committed.
    pub epoch: u64,
    /// The cluster entry in force there.
    pub config: ConfigAt,
    /// When it was made, in milliseconds since 1970.
    pub made_at_ms: u64,
    /// By which node.
    pub made_by: u64,
    /// The folder that holds it.
    pub folder: String,
    /// The manifest of the snapshot before it.
    pub previous: Option<Link>,
}

/// One file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotFile {
    /// The file.
    pub file: Link,
    /// Its bytes.
    pub bytes: u64,
}

/// Everything that `HEAD` leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// What is in force.
    pub head: Head,
    /// Oldest first.
    pub snapshots: Vec<SnapshotManifest>,
    /// Oldest first.
    pub segments: Vec<SegmentManifest>,
}

impl Position {
    pub(super) fn new(id: EntryId, chain: Chain, time: ClusterTime) -> Self {
        let chain = format!("{:032x}", chain.0);
        Self { epoch: id.epoch.0, seq: id.seq.0, chain, time_ms: time.0 }
    }

    /// The entry.
    #[must_use]
    pub fn id(&self) -> EntryId {
        EntryId::new(Epoch(self.epoch), Seq(self.seq))
    }

    pub(super) fn chain(&self) -> Result<Chain, String> {
        u128::from_str_radix(&self.chain, 16).map(Chain).map_err(|_| "no chain".to_owned())
    }

    /// Whether both are the same place of the same log. Times are left out: a segment doesn't know
    /// that of the entry before it.
    pub(super) fn is_at(&self, other: &Self) -> bool {
        (self.epoch, self.seq, &self.chain) == (other.epoch, other.seq, &other.chain)
    }
}

impl SnapshotManifest {
    /// The folder for a new one.
    pub(super) fn new_folder(at: EntryId, run: &str) -> String {
        format!("{}{run}", Self::folder_of(at))
    }

    /// What a folder's name begins with.
    fn folder_of(at: EntryId) -> String {
        format!("snapshots/{:020}-{}-", at.seq.0, at.epoch.0)
    }

    /// Where its manifest is.
    pub(super) fn manifest_name(&self) -> String {
        format!("{}/manifest.json", self.folder)
    }

    /// The name of one of its files within the folder; none leads anywhere else.
    pub(super) fn plain_name<'f>(&self, file: &'f SnapshotFile) -> Result<&'f str, ArchiveError> {
        let name = &file.file.name;
        let plain = name.strip_prefix(&self.folder).and_then(|rest| rest.strip_prefix('/'));
        let plain = plain
            .filter(|plain| !plain.is_empty() && !plain.starts_with('.') && !plain.contains('/'));
        plain.ok_or_else(|| {
            let what = format!("it names the file {name:?}");
            ArchiveError::foreign(&self.manifest_name(), what)
        })
    }

    /// Whether it was read from where it says that it is, and its files are there, too.
    pub(super) fn check_place(&self, name: &str) -> Result<(), ArchiveError> {
        let run = self.folder.strip_prefix(&Self::folder_of(self.at.id()));
        if name != self.manifest_name() || !run.is_some_and(is_run) {
            return Err(ArchiveError::foreign(name, self.at.id()));
        }
        self.files.iter().try_for_each(|file| self.plain_name(file).map(|_| ()))
    }

    /// Bytes of its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

impl SegmentManifest {
    /// Where a new segment is put.
    pub(super) fn new_name(first: Seq, last: Seq, run: &str) -> String {
        format!("journal/{:020}-{:020}-{run}.qj", first.0, last.0)
    }

    /// Where its manifest is.
    pub(super) fn manifest_name(&self) -> String {
        let name = &self.file.name;
        format!("{}.json", name.strip_suffix(".qj").unwrap_or(name))
    }

    /// Whether it was read from where it says that it is, and its segment is there, too.
    pub(super) fn check_place(&self, name: &str) -> Result<(), ArchiveError> {
        let (first, last) = (self.first(), Seq(self.last.seq));
        let begins = Self::new_name(first, last, "");
        let run = self.file.name.strip_prefix(begins.trim_end_matches(".qj"));
        let run = run.and_then(|rest| rest.strip_suffix(".qj"));
        if name != self.manifest_name() || !run.is_some_and(is_run) {
            return Err(ArchiveError::foreign(name, format!("entries {first} to {last}")));
        }
        Ok(())
    }

    /// The position of its first entry.
    #[must_use]
    pub fn first(&self) -> Seq {
        Seq(self.preceding.seq).next()
    }
}

/// What makes the names of one run's files its own.
pub(super) fn new_run() -> std::io::Result<String> {
    random_u128().map(|random| format!("{:016x}", random as u64))
}

fn is_run(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// SHA-256, in hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(bytes);
    hasher.finish()
}

/// SHA-256 of what comes in pieces.
pub(super) struct Sha256 {
    context: ring::digest::Context,
    bytes: u64,
}

impl Sha256 {
    pub(super) fn new() -> Self {
        Self { context: ring::digest::Context::new(&ring::digest::SHA256), bytes: 0 }
    }

    pub(super) fn update(&mut self, piece: &[u8]) {
        self.context.update(piece);
        self.bytes += piece.len() as u64;
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn finish(self) -> String {
        hex(self.context.finish().as_ref())
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            let text = std::str::from_utf8(pair).ok().filter(|text| text.len() == 2)?;
            u8::from_str_radix(text, 16).ok()
        })
        .collect()
}

/// As it is written.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("plain data");
    bytes.push(b'\n');
    bytes
}

/// Reads a file of the archive and checks its hash, where one is known.
pub(super) fn read<T: for<'a> Deserialize<'a>>(
    target: &Target,
    name: &str,
    expected: Option<&str>,
) -> Result<T, ArchiveError> {
    let bytes = target.read(name, MANIFEST_BYTES_MAX)?;
    let bytes = bytes.ok_or_else(|| ArchiveError::Missing { name: name.to_owned() })?;
    if expected.is_some_and(|expected| expected != sha256(&bytes)) {
        return Err(ArchiveError::damaged(name, "its hash is not the one that names it"));
    }
    decode(name, &bytes)
}

/// Reads bytes that were read from this file.
pub(super) fn decode<T: for<'a> Deserialize<'a>>(
    name: &str,
    bytes: &[u8],
) -> Result<T, ArchiveError> {
    #[derive(Deserialize)]
    struct Versioned {
        format: u32,
    }
    if let Ok(Versioned { format }) = serde_json::from_slice(bytes)
        && format > FORMAT
    {
        let what = format!("format {format} is newer than this version reads");
        return Err(ArchiveError::damaged(name, what));
    }
    serde_json::from_slice(bytes).map_err(|error| ArchiveError::damaged(name, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_and_hex() {
        assert_eq!(
            sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(from_hex(&hex(&[0, 15, 255])), Some(vec![0, 15, 255]));
        for bad in ["0", "zz", "00f"] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let error = decode::<Head>("HEAD", b"{\"format\": 2, \"new\": true}").expect_err("newer");
        assert!(error.to_string().contains("HEAD") && error.to_string().contains("format 2"));
    }
}
