//! What a snapshot is made of: its position, and every file with its size and hash.
//!
//! Little endian:
//!
//! ```text
//! magic (8)  version (4)  epoch (8)
//! last entry: epoch (8) seq (8)  chain (16)  time (8)
//! cluster entry: epoch (8) seq (8)  bytes (4)  payload
//! files (4), for each: bytes of the name (2)  name  size (8)  BLAKE3 (32)
//! BLAKE3 of all of that (32): the snapshot's id
//! ```

use std::sync::Arc;

use bytes::{Buf, Bytes};
use quorate_protocol::core::Snapshot;
use quorate_protocol::types::{Chain, ClusterTime, EntryId, Epoch, Seq};
use quorate_protocol::wire::{CLUSTER_PAYLOAD_BYTES_MAX, WireError, decode_cluster};

const MAGIC: [u8; 8] = *b"QUORSNAP";
const VERSION: u32 = 1;
const HASH_BYTES: usize = blake3::OUT_LEN;

/// Most files of a snapshot: as many tables of 64 MiB hold 4 TiB.
const FILES_MAX: usize = 1 << 16;
/// Longest name of a file. RocksDB's have fewer than 32 bytes.
const NAME_BYTES_MAX: usize = 64;

/// Longest manifest that is accepted.
pub(super) const MANIFEST_BYTES_MAX: usize =
    FILES_MAX * (2 + NAME_BYTES_MAX + 8 + HASH_BYTES) + CLUSTER_PAYLOAD_BYTES_MAX + 256;

/// Names a snapshot: two with the same id have the same files.
pub(super) type SnapshotId = [u8; HASH_BYTES];

/// A snapshot's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// An epoch in which the maker knew `last` to be committed.
    pub(super) epoch: Epoch,
    /// The last entry in it.
    pub(super) last: EntryId,
    /// The log's chain there.
    pub(super) chain: Chain,
    /// That entry's time.
    pub(super) time: ClusterTime,
    /// The cluster entry in force there.
    pub(super) config: (EntryId, Bytes),
    /// Everything to fetch.
    pub(super) files: Vec<FileEntry>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileEntry {
    /// A plain name, without any folder.
    pub(super) name: String,
    /// Its bytes.
    pub(super) size: u64,
    /// BLAKE3 of them.
    pub(super) hash: [u8; HASH_BYTES],
}

/// Why bytes aren't a manifest.
#[derive(Debug, thiserror::Error)]
pub(super) enum ManifestError {
    #[error("the manifest is damaged")]
    Damaged,
    #[error("the manifest has format {0}, newer than this version reads")]
    Newer(u32),
    #[error("the manifest names the file {0:?}")]
    Name(String),
    #[error("the cluster entry in the manifest can't be read: {0}")]
    Cluster(#[from] WireError),
}

impl Manifest {
    /// The bytes, and the id in their end.
    pub(super) fn encode(&self) -> (Bytes, SnapshotId) {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.epoch.0.to_le_bytes());
        write_id(&mut bytes, self.last);
        bytes.extend_from_slice(&self.chain.0.to_le_bytes());
        bytes.extend_from_slice(&self.time.0.to_le_bytes());
        write_id(&mut bytes, self.config.0);
        bytes.extend_from_slice(&(self.config.1.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.config.1);
        bytes.extend_from_slice(&(self.files.len() as u32).to_le_bytes());
        for file in &self.files {
            bytes.extend_from_slice(&(file.name.len() as u16).to_le_bytes());
            bytes.extend_from_slice(file.name.as_bytes());
            bytes.extend_from_slice(&file.size.to_le_bytes());
            bytes.extend_from_slice(&file.hash);
        }
        let id = *blake3::hash(&bytes).as_bytes();
        bytes.extend_from_slice(&id);
        (bytes.into(), id)
    }

    /// Reads a manifest and its id.
    ///
    /// # Errors
    /// Any bytes that [`Manifest::encode`] doesn't make, and names that could lead elsewhere.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, SnapshotId), ManifestError> {
        let length = bytes.len().checked_sub(HASH_BYTES).ok_or(ManifestError::Damaged)?;
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::Damaged);
        }
        let (mut data, id) = bytes.split_at(length);
        let id: SnapshotId = id.try_into().expect("it was split there");
        if blake3::hash(data) != id {
            return Err(ManifestError::Damaged);
        }
        let manifest = read(&mut data)?;
        if data.is_empty() { Ok((manifest, id)) } else { Err(ManifestError::Damaged) }
    }

    /// Bytes of all files.
    pub(super) fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// In the core's words.
    ///
    /// # Errors
    /// The cluster entry can't be read.
    pub(super) fn snapshot(&self) -> Result<Snapshot, ManifestError> {
        let config = Arc::new(decode_cluster(&self.config.1)?);
        let config = (self.config.0, config);
        Ok(Snapshot { last: self.last, epoch: self.epoch, config, time: self.time })
    }
}

fn write_id(bytes: &mut Vec<u8>, id: EntryId) {
    bytes.extend_from_slice(&id.epoch.0.to_le_bytes());
    bytes.extend_from_slice(&id.seq.0.to_le_bytes());
}

fn read(data: &mut &[u8]) -> Result<Manifest, ManifestError> {
    if take::<8>(data)? != MAGIC {
        return Err(ManifestError::Damaged);
    }
    let version = u32::from_le_bytes(take(data)?);
    if version != VERSION {
        return Err(ManifestError::Newer(version));
    }
    let epoch = Epoch(number(data)?);
    let last = read_id(data)?;
    let chain = Chain(u128::from_le_bytes(take(data)?));
    let time = ClusterTime(number(data)?);
    let config_id = read_id(data)?;
    let payload = read_bytes(data, CLUSTER_PAYLOAD_BYTES_MAX)?;
    let count = u32::from_le_bytes(take(data)?) as usize;
    if count > FILES_MAX {
        return Err(ManifestError::Damaged);
    }
    let mut files: Vec<FileEntry> = Vec::new();
    let mut total = 0u64;
    for _ in 0..count {
        let file = read_file(data)?;
        total = total.checked_add(file.size).ok_or(ManifestError::Damaged)?;
        // In order, so that none comes twice.
        if files.last().is_some_and(|before| before.name >= file.name) {
            return Err(ManifestError::Damaged);
        }
        files.push(file);
    }
    let config = (config_id, Bytes::copy_from_slice(payload));
    Ok(Manifest { epoch, last, chain, time, config, files })
}

fn read_file(data: &mut &[u8]) -> Result<FileEntry, ManifestError> {
    let length = u16::from_le_bytes(take(data)?) as usize;
    if length > NAME_BYTES_MAX || length > data.len() {
        return Err(ManifestError::Damaged);
    }
    let (name, rest) = data.split_at(length);
    *data = rest;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    if name.is_empty() || name[0] == b'.' || !name.iter().all(plain) {
        return Err(ManifestError::Name(String::from_utf8_lossy(name).into_owned()));
    }
    let name = String::from_utf8_lossy(name).into_owned();
    Ok(FileEntry { name, size: number(data)?, hash: take(data)? })
}

fn read_bytes<'a>(data: &mut &'a [u8], limit: usize) -> Result<&'a [u8], ManifestError> {
    let length = u32::from_le_bytes(take(data)?) as usize;
    if length > limit || length > data.len() {
        return Err(ManifestError::Damaged);
    }
    let (bytes, rest) = data.split_at(length);
    *data = rest;
    Ok(bytes)
}

fn read_id(data: &mut &[u8]) -> Result<EntryId, ManifestError> {
    Ok(EntryId::new(Epoch(number(data)?), Seq(number(data)?)))
}

fn number(data: &mut &[u8]) -> Result<u64, ManifestError> {
    Ok(u64::from_le_bytes(take(data)?))
}

fn take<const N: usize>(data: &mut &[u8]) -> Result<[u8; N], ManifestError> {
    let bytes = *data.first_chunk::<N>().ok_or(ManifestError::Damaged)?;
    data.advance(N);
    Ok(bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::scratch::hex;

    /// A manifest of these files.
    pub(in crate::snapshot) fn of(files: &[(&str, &[u8])]) -> Manifest {
        let entry = |(name, bytes): &(&str, &[u8])| FileEntry {
            name: (*name).to_owned(),
            size: bytes.len() as u64,
            hash: *blake3::hash(bytes).as_bytes(),
        };
        Manifest {
            epoch: Epoch(7),
            last: EntryId::new(Epoch(5), Seq(900)),
            chain: Chain(0x77),
            time: ClusterTime(1_800_000_000_000),
            config: (EntryId::new(Epoch(1), Seq(1)), Bytes::from_static(b"payload")),
            files: files.iter().map(entry).collect(),
        }
    }

    #[test]
    fn bytes_are_fixed() {
        let (bytes, id) = of(&[("000001.sst", b"table")]).encode();
        let expected = [
            "51554f52534e4150010000000700000000000000050000000000000084030000",
            "000000007700000000000000000000000000000000505c18a301000001000000",
            "000000000100000000000000070000007061796c6f6164010000000a00303030",
            "3030312e73737405000000000000007e52255d2706f83a47c10890e62431bca8",
            "055cfe990fa8648555bc3a6004a896",
            "36ce8db59f3671d4e27c53c2f8251bad1bf1fa8bbce89b0f8cbc9777d09204ab",
        ];
        assert_eq!(hex(&bytes), expected.concat());
        assert_eq!(hex(&id), expected[expected.len() - 1]);
    }

    #[test]
    fn it_reads_what_it_wrote_and_nothing_else() {
        let manifest = of(&[("000001.sst", b"table"), ("CURRENT", b"")]);
        let (bytes, id) = manifest.encode();
        assert_eq!(Manifest::decode(&bytes).unwrap(), (manifest, id));
        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_and_lengths_that_lie_are_refused() {
        for name in ["", ".", "..", "../x", "a/b", "/etc/passwd", ".hidden", "a\0b", "ü"] {
            let (bytes, _) = of(&[(name, b"")]).encode();
            let error = Manifest::decode(&bytes).unwrap_err();
            assert!(matches!(error, ManifestError::Name(_)), "{name}: {error}");
        }
        let long = "n".repeat(NAME_BYTES_MAX + 1);
        for files in
            [&[("b", &b""[..]), ("a", b"")][..], &[("a", b""), ("a", b"")], &[(&long, b"")]]
        {
            let (bytes, _) = of(files).encode();
            assert!(matches!(Manifest::decode(&bytes), Err(ManifestError::Damaged)));
        }
        let mut endless = of(&[("a", b""), ("b", b"")]);
        endless.files[0].size = u64::MAX;
        endless.files[1].size = 1;
        assert!(matches!(Manifest::decode(&endless.encode().0), Err(ManifestError::Damaged)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(mut bytes: Vec<u8>, honest: bool) {
            if honest {
                let id = blake3::hash(&bytes);
                bytes.extend_from_slice(id.as_bytes());
            }
            let _ = Manifest::decode(&bytes);
        }
    }
}
