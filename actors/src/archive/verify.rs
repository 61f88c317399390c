//! Whether an archive is whole: every hash, every checksum, every place in the chain.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_protocol::entry::Entry;
use quorate_protocol::types::ClusterTime;

use super::catalogue::{
    CATALOGUE, CATALOGUE_BYTES_MAX, CATALOGUE_BYTES_SHORT, Catalogue, HEAD, Position,
    SegmentManifest, Sha256, SnapshotManifest, decode, sha256,
};
use super::error::ArchiveError;
use super::rebuild::{OnProgress, Progress};
use super::segment::read_segment;
use super::target::Target;

/// A segment holds at least one entry, whatever its size.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// What was looked at and found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// Snapshots that were read.
    pub snapshots: usize,
    /// Segments that were read.
    pub segments: usize,
    /// Entries in them.
    pub entries: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Where the archive ends.
    pub archived: Position,
    /// Everything that is wrong, each with the file's name. Nothing, in a good archive.
    pub faults: Vec<String>,
    /// Files that nothing names: of a run that ended early, or of one that is under way.
    pub unlisted: Vec<String>,
    /// What is not as it should be, and costs nothing.
    pub notes: Vec<String>,
}

/// Reads everything.
///
/// # Errors
/// The chain of manifests itself is broken, or the target can't be read.
pub fn verify(target: &Target, on_progress: OnProgress<'_>) -> Result<Verification, ArchiveError> {
    let (catalogue, head_bytes) = Catalogue::load_at(target)?;
    let Catalogue { head, snapshots, segments } = &catalogue;
    let mut progress = Progress {
        total_bytes: snapshots.iter().map(SnapshotManifest::bytes).sum::<u64>()
            + segments.iter().map(|segment| segment.bytes).sum::<u64>(),
        ..Progress::default()
    };
    let mut verification = Verification {
        snapshots: snapshots.len(),
        segments: segments.len(),
        entries: 0,
        bytes: progress.total_bytes,
        archived: head.archived.clone(),
        faults: Vec::new(),
        unlisted: Vec::new(),
        notes: Vec::new(),
    };
    for snapshot in snapshots {
        verify_snapshot(target, snapshot, &mut verification.faults)?;
        progress.bytes += snapshot.bytes();
        on_progress(progress);
    }
    for segment in segments {
        let read = read_checked(target, segment, |entry| {
            // A snapshot must be of the log that the segments hold.
            let at = Position::new(entry.id, entry.chain, entry.time);
            for snapshot in snapshots.iter().filter(|snapshot| snapshot.at.seq == at.seq) {
                if !snapshot.at.is_at(&at) {
                    let name = snapshot.manifest_name();
                    return Err(ArchiveError::foreign(&name, "it is of another log"));
                }
            }
            verification.entries += 1;
            Ok(())
        });
        note(read, &mut verification.faults)?;
        progress.bytes += segment.bytes;
        progress.seq = segment.last.seq;
        on_progress(progress);
    }
    let unlisted = unlisted(target, Some(&catalogue))?;
    let listed = check_catalogue(target, &catalogue, &mut verification.notes);
    if target.read(HEAD, u64::MAX - 1)?.as_ref() == Some(&head_bytes) {
        verification.unlisted = unlisted;
        note(listed, &mut verification.faults)?;
    } else {
        verification.notes.push("a backup was made meanwhile; it was not looked at".to_owned());
    }
    Ok(verification)
}

/// A fault of the archive is part of the result; that it can't be read isn't.
fn note(outcome: Result<(), ArchiveError>, faults: &mut Vec<String>) -> Result<(), ArchiveError> {
    match outcome {
        Err(
            error @ (ArchiveError::Missing { .. }
            | ArchiveError::Damaged { .. }
            | ArchiveError::Foreign { .. }),
        ) => faults.push(error.to_string()),
        other => other?,
    }
    Ok(())
}

fn verify_snapshot(
    target: &Target,
    snapshot: &SnapshotManifest,
    faults: &mut Vec<String>,
) -> Result<(), ArchiveError> {
    for file in &snapshot.files {
        let mut hasher = Sha256::new();
        let read = target.each_piece(&file.file.name, &mut |piece| {
            hasher.update(piece);
            Ok(())
        });
        let read = read.and_then(|()| {
            if hasher.bytes() == file.bytes && hasher.finish() == file.file.sha256 {
                return Ok(());
            }
            Err(ArchiveError::damaged(&file.file.name, "its hash is wrong"))
        });
        note(read, faults)?;
    }
    Ok(())
}

/// Reads a segment and hands out its entries. That it is what its manifest says is known only when
/// this returns.
pub(super) fn read_checked(
    target: &Target,
    segment: &SegmentManifest,
    mut each: impl FnMut(Entry) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    enum Stop {
        Wrong(String),
        Other(ArchiveError),
    }
    impl From<String> for Stop {
        fn from(what: String) -> Self {
            Self::Wrong(what)
        }
    }
    let name = &segment.file.name;
    let bytes = target.read(name, segment.bytes.min(SEGMENT_BYTES_MAX))?;
    let bytes: Bytes = bytes.ok_or_else(|| ArchiveError::Missing { name: name.clone() })?;
    if bytes.len() as u64 != segment.bytes || sha256(&bytes) != segment.file.sha256 {
        return Err(ArchiveError::damaged(name, "its hash is wrong"));
    }
    let (mut entries, mut last) = (0, segment.preceding.clone());
    let header = read_segment(&bytes, |entry| {
        entries += 1;
        last = Position::new(entry.id, entry.chain, entry.time);
        each(entry).map_err(Stop::Other)
    });
    let header = match header {
        Ok(header) => header,
        Err(Stop::Wrong(what)) => return Err(ArchiveError::damaged(name, what)),
        Err(Stop::Other(error)) => return Err(error),
    };
    let begins = Position::new(header.preceding, header.preceding_chain, ClusterTime::default());
    if !begins.is_at(&segment.preceding) || last != segment.last || entries != segment.entries {
        return Err(ArchiveError::foreign(name, "it holds other entries than its manifest says"));
    }
    if header.cluster.to_string() != segment.origin.cluster_id {
        return Err(ArchiveError::foreign(name, format!("cluster {}", header.cluster)));
    }
    Ok(())
}

/// Files below the archive's folders that no manifest names.
pub(super) fn unlisted(
    target: &Target,
    catalogue: Option<&Catalogue>,
) -> Result<Vec<String>, ArchiveError> {
    let mut listed = BTreeSet::new();
    for snapshot in catalogue.iter().flat_map(|catalogue| &catalogue.snapshots) {
        listed.insert(snapshot.manifest_name());
        listed.extend(snapshot.files.iter().map(|file| file.file.name.clone()));
    }
    for segment in catalogue.iter().flat_map(|catalogue| &catalogue.segments) {
        listed.insert(segment.manifest_name());
        listed.insert(segment.file.name.clone());
    }
    let mut found = target.list("snapshots")?;
    found.extend(target.list("journal")?);
    found.retain(|name| !listed.contains(name));
    Ok(found)
}

/// `MANIFEST.json` is made from `HEAD` after it, and a run may end between the two. A long one is only
/// written with snapshots.
fn check_catalogue(
    target: &Target,
    catalogue: &Catalogue,
    notes: &mut Vec<String>,
) -> Result<(), ArchiveError> {
    let Some(bytes) = target.read(CATALOGUE, CATALOGUE_BYTES_MAX)? else {
        notes.push(format!("{CATALOGUE} is missing; the next backup writes it"));
        return Ok(());
    };
    let listed: Catalogue = decode(CATALOGUE, &bytes)?;
    if listed.head.runs < catalogue.head.runs {
        let is_due = listed.head.snapshot != catalogue.head.snapshot;
        if is_due || bytes.len() as u64 <= CATALOGUE_BYTES_SHORT {
            notes.push(format!("{CATALOGUE} is older than {HEAD}; the next backup writes it"));
        }
    } else if listed != *catalogue {
        return Err(ArchiveError::damaged(CATALOGUE, format!("it is not what {HEAD} leads to")));
    }
    Ok(())
}
