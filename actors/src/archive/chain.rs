//! From `HEAD` back: what an archive holds, and that it hangs together.

use std::collections::HashMap;

use bytes::Bytes;

use super::catalogue::{
    CATALOGUE, CATALOGUE_BYTES_MAX, Catalogue, Gap, HEAD, Head, Link, MANIFEST_BYTES_MAX, Origin,
    SegmentManifest, SnapshotManifest, decode, encode, read, sha256,
};
use super::error::ArchiveError;
use super::target::Target;

/// What a run goes on from: three small files, however long the archive is.
pub(super) struct Tip {
    pub(super) head: Head,
    /// `HEAD` as it stands there, by which it can be replaced.
    pub(super) head_bytes: Bytes,
    /// The newest.
    pub(super) snapshot: SnapshotManifest,
    /// The newest; none where nothing happened since the first snapshot.
    pub(super) segment: Option<SegmentManifest>,
}

/// Manifests that are known already, by their hash: what `HEAD` leads to is never taken from anywhere
/// else than from what has the hash that names it.
#[derive(Default)]
struct Known {
    snapshots: HashMap<String, SnapshotManifest>,
    segments: HashMap<String, SegmentManifest>,
}

struct Chain<'a> {
    target: &'a Target,
    head: &'a Head,
    known: Known,
}

impl Head {
    /// Reads it alone.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn load(target: &Target) -> Result<Self, ArchiveError> {
        read_head(target).map(|(head, _)| head)
    }
}

impl Tip {
    /// Reads the archive's end.
    ///
    /// # Errors
    /// There is no archive, or one of the three files is missing, damaged or foreign.
    pub(super) fn load(target: &Target) -> Result<Self, ArchiveError> {
        let (head, head_bytes) = read_head(target)?;
        let mut chain = Chain { target, head: &head, known: Known::default() };
        let snapshot = chain.snapshot(&head.snapshot)?;
        let segment = head.segment.as_ref().map(|link| chain.segment(link, &snapshot, None));
        let segment = segment.transpose()?;
        Ok(Self { head, head_bytes, snapshot, segment })
    }
}

impl Catalogue {
    /// Entries since the oldest snapshot of which the archive holds only what they led to, in order.
    #[must_use]
    pub fn gaps(&self) -> Vec<Gap> {
        let mut held = self.head.oldest_seq;
        let mut gaps = Vec::new();
        let mut pass = |held: &mut u64, preceding: u64, last: u64| {
            if preceding > *held {
                gaps.push(Gap { first: *held + 1, last: preceding });
            }
            *held = last.max(*held);
        };
        for segment in &self.segments {
            pass(&mut held, segment.preceding.seq, segment.last.seq);
        }
        pass(&mut held, self.head.archived.seq, self.head.archived.seq);
        gaps
    }

    /// Reads the archive's manifests from `HEAD` back, and checks that they form chains.
    ///
    /// # Errors
    /// Names the first file that is missing, damaged or foreign.
    pub fn load(target: &Target) -> Result<Self, ArchiveError> {
        Self::load_at(target).map(|(catalogue, _)| catalogue)
    }

    /// The same, with the bytes of `HEAD`, by which it can be replaced.
    pub(super) fn load_at(target: &Target) -> Result<(Self, Bytes), ArchiveError> {
        Self::load_from(target, Known::default())
    }

    /// The same, where the list says what older files hold: those are not read.
    pub(super) fn load_listed(target: &Target) -> Result<Self, ArchiveError> {
        let listed = target.read(CATALOGUE, CATALOGUE_BYTES_MAX).ok().flatten();
        let listed = listed.and_then(|bytes| decode::<Self>(CATALOGUE, &bytes).ok());
        let known = listed.map(Known::of).unwrap_or_default();
        Self::load_from(target, known).map(|(catalogue, _)| catalogue)
    }

    /// What `HEAD` leads to now, after this was read.
    pub(super) fn reload(self, target: &Target) -> Result<Self, ArchiveError> {
        Self::load_from(target, Known::of(self)).map(|(catalogue, _)| catalogue)
    }

    fn load_from(target: &Target, known: Known) -> Result<(Self, Bytes), ArchiveError> {
        let (head, bytes) = read_head(target)?;
        let mut chain = Chain { target, head: &head, known };
        let mut snapshots: Vec<SnapshotManifest> = Vec::new();
        let mut link = Some(head.snapshot.clone());
        while let Some(at) = link.take() {
            let manifest = chain.snapshot(&at)?;
            let oldest = manifest.at.seq <= head.oldest_seq;
            link = manifest.previous.clone().filter(|_| !oldest);
            snapshots.push(manifest);
        }
        let mut segments: Vec<SegmentManifest> = Vec::new();
        let mut link = head.segment.clone();
        while let Some(at) = link.take() {
            let manifest = chain.segment(&at, &snapshots[0], segments.last())?;
            let oldest = manifest.preceding.seq <= head.oldest_seq;
            link = manifest.previous.clone().filter(|_| !oldest);
            segments.push(manifest);
        }
        snapshots.reverse();
        segments.reverse();
        Ok((Self { head, snapshots, segments }, bytes))
    }
}

impl Known {
    fn of(catalogue: Catalogue) -> Self {
        let Catalogue { snapshots, segments, .. } = catalogue;
        let snapshots =
            snapshots.into_iter().map(|manifest| (sha256(&encode(&manifest)), manifest));
        let segments = segments.into_iter().map(|manifest| (sha256(&encode(&manifest)), manifest));
        Self { snapshots: snapshots.collect(), segments: segments.collect() }
    }
}

impl Chain<'_> {
    fn snapshot(&mut self, at: &Link) -> Result<SnapshotManifest, ArchiveError> {
        let manifest = match self.known.snapshots.remove(&at.sha256) {
            Some(known) => known,
            None => read(self.target, &at.name, Some(&at.sha256))?,
        };
        check_origin(&at.name, self.head, &manifest.origin)?;
        manifest.check_place(&at.name)?;
        Ok(manifest)
    }

    /// The one before `behind`; the last one without.
    fn segment(
        &mut self,
        at: &Link,
        newest: &SnapshotManifest,
        behind: Option<&SegmentManifest>,
    ) -> Result<SegmentManifest, ArchiveError> {
        let manifest = match self.known.segments.remove(&at.sha256) {
            Some(known) => known,
            None => read(self.target, &at.name, Some(&at.sha256))?,
        };
        let archived = &self.head.archived;
        check_origin(&at.name, self.head, &manifest.origin)?;
        manifest.check_place(&at.name)?;
        match behind {
            Some(behind) => check_follows(&at.name, &manifest, behind)?,
            // Behind a gap there may be only a snapshot yet.
            None if manifest.last.is_at(archived) || newest.at.is_at(archived) => {}
            None => {
                let (ends, archived) = (manifest.last.id(), archived.id());
                let what = format!("it ends at {ends}, the archive at {archived}");
                return Err(ArchiveError::foreign(&at.name, what));
            }
        }
        Ok(manifest)
    }
}

fn read_head(target: &Target) -> Result<(Head, Bytes), ArchiveError> {
    let bytes = target.read(HEAD, MANIFEST_BYTES_MAX)?;
    let bytes = bytes.ok_or_else(|| ArchiveError::Nothing { target: target.name() })?;
    Ok((decode(HEAD, &bytes)?, bytes))
}

fn check_origin(name: &str, head: &Head, origin: &Origin) -> Result<(), ArchiveError> {
    if origin.cluster_id != head.origin.cluster_id || origin.generation > head.origin.generation {
        let Origin { cluster_id, generation, .. } = origin;
        let what = format!("cluster {cluster_id}, generation {generation}");
        return Err(ArchiveError::foreign(name, what));
    }
    Ok(())
}

/// `manifest` ends where the one behind it begins.
fn check_follows(
    name: &str,
    manifest: &SegmentManifest,
    behind: &SegmentManifest,
) -> Result<(), ArchiveError> {
    let fits = match &behind.gap {
        Some(gap) => {
            gap.first == manifest.last.seq + 1
                && gap.last == behind.preceding.seq
                && gap.first <= gap.last
        }
        None => manifest.last.is_at(&behind.preceding),
    };
    if fits {
        return Ok(());
    }
    let (ends, begins) = (manifest.last.id(), behind.preceding.id());
    let what = format!("it ends at {ends}, and the next one begins behind {begins}");
    Err(ArchiveError::foreign(name, what))
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::{ConfigAt, FORMAT, Position};
    use super::super::{Location, TargetOptions};
    use super::*;
    use crate::storage::scratch::Scratch;

    fn at(seq: u64) -> Position {
        Position { epoch: 2, seq, chain: format!("{seq:032x}"), time_ms: seq }
    }

    fn written(target: &Target, name: String, bytes: Vec<u8>) -> Link {
        let link = Link { name, sha256: sha256(&bytes) };
        target.write(&link.name, bytes).expect("written");
        link
    }

    fn put_head(target: &Target, segment: Option<Link>, snapshot: Link, archived: u64) {
        let origin = origin();
        let head = Head {
            format: FORMAT,
            origin,
            runs: archived,
            written_at_ms: archived,
            written_by: 1,
            archived: at(archived),
            content: None,
            segment,
            snapshot,
            oldest_seq: 7,
        };
        target.write(HEAD, encode(&head)).expect("written");
    }

    fn origin() -> Origin {
        Origin { cluster_id: "c".to_owned(), cluster_name: "shop".to_owned(), generation: 0 }
    }

    /// A snapshot at 7 and segments of one entry behind it through `last`.
    fn archive(target: &Target, last: u64) {
        let config = ConfigAt { epoch: 1, seq: 1, payload: String::new() };
        let snapshot = SnapshotManifest {
            format: FORMAT,
            files: Vec::new(),
            origin: origin(),
            at: at(7),
            epoch: 2,
            config: config.clone(),
            made_at_ms: 7,
            made_by: 1,
            folder: SnapshotManifest::new_folder(at(7).id(), "0123456789abcdef"),
            previous: None,
        };
        let snapshot = written(target, snapshot.manifest_name(), encode(&snapshot));
        let mut previous = None;
        for seq in 8..=last {
            let (first, run) = (at(seq).id().seq, format!("{seq:016x}"));
            let name = SegmentManifest::new_name(first, first, &run);
            let manifest = SegmentManifest {
                format: FORMAT,
                file: Link { name, sha256: String::new() },
                bytes: 1,
                origin: origin(),
                preceding: at(seq - 1),
                last: at(seq),
                from_ms: seq,
                entries: 1,
                config: config.clone(),
                gap: None,
                previous: previous.take(),
            };
            previous = Some(written(target, manifest.manifest_name(), encode(&manifest)));
        }
        put_head(target, previous, snapshot, last);
    }

    fn target(dir: &Scratch) -> Target {
        let location = Location::Directory(dir.path().join("a"));
        Target::open(&location, &TargetOptions::default()).expect("made")
    }

    #[test]
    fn a_run_reads_the_end_alone_and_a_list_stands_for_what_is_older() {
        let dir = Scratch::new();
        let target = target(&dir);
        archive(&target, 9);
        let listed = Catalogue::load(&target).expect("whole");
        target.write(CATALOGUE, encode(&listed)).expect("written");
        archive(&target, 12);
        let whole = Catalogue::load(&target).expect("whole");
        assert_eq!((whole.snapshots.len(), whole.segments.len()), (1, 5));
        assert_eq!(Catalogue::load_listed(&target).expect("whole"), whole);
        assert_eq!(listed.clone().reload(&target).expect("whole"), whole);
        let tip = Tip::load(&target).expect("an end");
        assert_eq!(tip.segment.as_ref(), whole.segments.last());
        assert_eq!((&tip.snapshot, tip.head), (&whole.snapshots[0], whole.head.clone()));

        // Nobody reads what is listed, and nobody but those who check an archive what is older.
        for old in &listed.segments {
            target.remove(&old.manifest_name()).expect("removed");
        }
        assert_eq!(Catalogue::load_listed(&target).expect("listed"), whole);
        Tip::load(&target).expect("its end is there");
        assert!(matches!(Catalogue::load(&target), Err(ArchiveError::Missing { .. })));

        // What the list says counts only where it has the hash that names it.
        let mut forged = listed;
        forged.segments[0].bytes += 1;
        target.write(CATALOGUE, encode(&forged)).expect("written");
        assert!(matches!(Catalogue::load_listed(&target), Err(ArchiveError::Missing { .. })));
        archive(&target, 12);
        assert_eq!(Catalogue::load_listed(&target).expect("whole"), whole);
        target.write(CATALOGUE, b"no list".to_vec()).expect("written");
        assert_eq!(Catalogue::load_listed(&target).expect("whole"), whole);
    }
}
