//! From an archive back to a state: the newest snapshot before a point, and the log behind it.

use std::fs;
use std::path::Path;

use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::types::{EntryId, EntryKind};
use quorate_protocol::wire::decode_cluster;

use super::catalogue::{
    Catalogue, ConfigAt, Content, HEAD, SegmentManifest, Sha256, SnapshotManifest, from_hex, hex,
};
use super::error::ArchiveError;
use super::target::Target;
use super::verify::read_checked;
use crate::storage::apply::apply_entry;
use crate::storage::options::RocksOptions;
use crate::storage::state::{Applied, ContentHash, State, StateWriter};

/// The point that a restore goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Everything in the archive.
    Latest,
    /// Entries up to this position.
    Seq(u64),
    /// Entries sealed up to this moment, in milliseconds since 1970.
    Time(u64),
}

/// How far a rebuild is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read from the archive.
    pub bytes: u64,
    /// Bytes to read.
    pub total_bytes: u64,
    /// The state's position.
    pub seq: u64,
}

/// Told from time to time.
pub(super) type OnProgress<'a> = &'a mut dyn FnMut(Progress);

/// What of the archive a point needs.
pub(super) struct Plan<'a> {
    pub(super) snapshot: &'a SnapshotManifest,
    segments: Vec<&'a SegmentManifest>,
    point: Point,
    /// What the state must hold on the way.
    content: Option<&'a Content>,
}

/// A state that was brought to its point, flushed and closed.
pub(super) struct Rebuilt {
    pub(super) applied: Applied,
    /// The newest configuration in snapshot and log.
    pub(super) config: ClusterEntry,
    pub(super) content: ContentHash,
    /// Whether it held, on the way, what was hashed when it was archived.
    pub(super) compared: bool,
}

impl Point {
    fn takes(self, seq: u64, time_ms: u64) -> bool {
        match self {
            Self::Latest => true,
            Self::Seq(last) => seq <= last,
            Self::Time(last) => time_ms <= last,
        }
    }
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Latest => f.write_str("the latest entry"),
            Self::Seq(seq) => write!(f, "entry {seq}"),
            Self::Time(ms) => write!(f, "the moment {ms} ms"),
        }
    }
}

impl<'a> Plan<'a> {
    /// # Errors
    /// No snapshot is as old, or the log behind it doesn't reach the point.
    pub(super) fn make(catalogue: &'a Catalogue, point: Point) -> Result<Self, ArchiveError> {
        let Catalogue { head, snapshots, segments } = catalogue;
        let gaps = catalogue.gaps();
        let out_of_reach = || {
            let oldest = snapshots.first().map_or(0, |oldest| oldest.at.seq);
            let gaps: Vec<String> =
                gaps.iter().map(|gap| format!(", without {} to {}", gap.first, gap.last)).collect();
            let held = format!("entries {oldest} to {}{}", head.archived.seq, gaps.concat());
            ArchiveError::OutOfReach { wanted: point.to_string(), held }
        };
        let fits = |snapshot: &&SnapshotManifest| point.takes(snapshot.at.seq, snapshot.at.time_ms);
        let snapshot = snapshots.iter().rev().find(fits).ok_or_else(out_of_reach)?;
        let behind = |segment: &&SegmentManifest| segment.last.seq > snapshot.at.seq;
        let needed = |segment: &&SegmentManifest| point.takes(segment.first().0, segment.from_ms);
        let segments: Vec<_> = segments.iter().filter(behind).take_while(needed).collect();
        // A gap lies before a snapshot, so it is in the way only of points within it.
        let starts = segments.first().is_none_or(|first| first.preceding.seq <= snapshot.at.seq);
        let gapless = segments.iter().skip(1).all(|segment| segment.gap.is_none());
        let reached = match point {
            Point::Seq(seq) => seq <= segments.last().map_or(snapshot.at.seq, |last| last.last.seq),
            Point::Latest => {
                segments.last().map_or(snapshot.at.seq, |last| last.last.seq) == head.archived.seq
            }
            // The last entry before a moment may be far before it, but not behind what is missing,
            // nor where the archive doesn't know yet.
            Point::Time(moment) => {
                let end = segments.last().map_or(&snapshot.at, |last| &last.last);
                let missing = gaps.iter().any(|gap| gap.first == end.seq + 1);
                moment <= head.written_at_ms && !(missing && moment > end.time_ms)
            }
        };
        if !(starts && gapless && reached) {
            return Err(out_of_reach());
        }
        let content = head.content.as_ref().filter(|content| content.seq >= snapshot.at.seq);
        Ok(Self { snapshot, segments, point, content })
    }

    fn total_bytes(&self) -> u64 {
        let segments: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
        self.snapshot.bytes() + segments
    }

    /// Makes the state in `dir`, which must not exist. Every byte is checked on the way.
    pub(super) fn rebuild(
        &self,
        target: &Target,
        dir: &Path,
        rocksdb: &RocksOptions,
        on_progress: OnProgress<'_>,
    ) -> Result<Rebuilt, ArchiveError> {
        let mut progress = Progress { total_bytes: self.total_bytes(), ..Progress::default() };
        self.fetch_snapshot(target, dir, &mut progress, on_progress)?;
        let (state, mut writer) = State::open(dir, rocksdb)?;
        let found = state.applied_at_open();
        let name = self.snapshot.manifest_name();
        if found.id != self.snapshot.at.id() || Ok(found.chain) != self.snapshot.at.chain() {
            return Err(ArchiveError::foreign(&name, format!("its state is as of {}", found.id)));
        }
        let mut newest = self.snapshot.config.clone();
        let mut compared = self.compare(&state, found.id)?;
        for segment in &self.segments {
            compared |= self.apply(target, segment, (&state, &mut writer), &mut newest)?;
            progress.bytes += segment.bytes;
            progress.seq = writer.applied().id.seq.0;
            on_progress(progress);
        }
        let (applied, content) = (writer.applied(), state.reader().content_hash()?);
        state.reader().flush()?;
        Ok(Rebuilt { applied, config: decode_config(&name, &newest)?, content, compared })
    }

    /// The state against what the archived one held, where that was at this position.
    fn compare(&self, state: &State, at: EntryId) -> Result<bool, ArchiveError> {
        let Some(expected) = self.content.filter(|content| content.seq == at.seq.0) else {
            return Ok(false);
        };
        let found = state.reader().content_hash()?;
        let found = Content { seq: at.seq.0, keys: found.keys, hash: hex(&found.hash) };
        if found == *expected {
            return Ok(true);
        }
        let what = format!(
            "{} keys ({}), and {HEAD} says {} ({})",
            found.keys, found.hash, expected.keys, expected.hash
        );
        Err(ArchiveError::Content { at, what })
    }

    fn fetch_snapshot(
        &self,
        target: &Target,
        dir: &Path,
        progress: &mut Progress,
        on_progress: OnProgress<'_>,
    ) -> Result<(), ArchiveError> {
        let failed = |source| ArchiveError::Local { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        for file in &self.snapshot.files {
            let name = self.snapshot.plain_name(file)?;
            let mut hasher = Sha256::new();
            target.download(&file.file.name, &dir.join(name), &mut |piece| {
                hasher.update(piece);
                Ok(())
            })?;
            if hasher.bytes() != file.bytes || hasher.finish() != file.file.sha256 {
                return Err(ArchiveError::damaged(&file.file.name, "its hash is wrong"));
            }
            progress.bytes += file.bytes;
            on_progress(*progress);
        }
        progress.seq = self.snapshot.at.seq;
        Ok(())
    }

    fn apply(
        &self,
        target: &Target,
        segment: &SegmentManifest,
        (state, writer): (&State, &mut StateWriter),
        newest: &mut ConfigAt,
    ) -> Result<bool, ArchiveError> {
        const ROUND_BYTES_MAX: usize = 4 << 20;
        let mut compared = false;
        read_checked(target, segment, |entry| {
            let (id, name) = (entry.id, &segment.file.name);
            let wanted = self.point.takes(id.seq.0, entry.time.0);
            if id.seq <= writer.applied().id.seq || !wanted {
                return Ok(());
            }
            if id.seq != writer.applied().id.seq.next() {
                // Times may go back a little: the point is at the first entry beyond it.
                return Ok(());
            }
            apply_entry(writer, &entry, None)
                .map_err(|error| ArchiveError::foreign(name, error))?;
            if entry.kind == EntryKind::Cluster {
                *newest = config_at(id, &entry.payload);
            }
            let is_compared = self.content.is_some_and(|content| content.seq == id.seq.0);
            if is_compared || writer.round_bytes() >= ROUND_BYTES_MAX {
                writer.write()?;
            }
            if is_compared {
                compared = self.compare(state, id)?;
            }
            Ok(())
        })?;
        writer.write()?;
        Ok(compared)
    }
}

fn config_at(id: EntryId, payload: &[u8]) -> ConfigAt {
    ConfigAt { epoch: id.epoch.0, seq: id.seq.0, payload: hex(payload) }
}

fn decode_config(name: &str, config: &ConfigAt) -> Result<ClusterEntry, ArchiveError> {
    let payload = from_hex(&config.payload);
    let payload = payload.ok_or_else(|| ArchiveError::damaged(name, "its configuration"))?;
    Ok(decode_cluster(&payload)?)
}
