//! Removing what is older than an archive must be kept, never the newest chain that can be restored.

use std::time::Duration;

use super::catalogue::{
    CATALOGUE, Catalogue, HEAD, Head, SegmentManifest, SnapshotManifest, encode,
};
use super::error::ArchiveError;
use super::target::Target;
use super::verify::unlisted;
use crate::clock;

/// What is kept. Everything, where no limit is set; each limit holds by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Snapshots, with the log behind the oldest of them.
    pub snapshots: Option<usize>,
    /// Older moments need not be restored.
    pub age: Option<Duration>,
    /// Bytes.
    pub bytes: Option<u64>,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Snapshots.
    pub snapshots: usize,
    /// Segments.
    pub segments: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// Files of backups that ended early.
    pub leftovers: usize,
    /// From this position on the archive can be restored.
    pub oldest_seq: u64,
}

/// Removes what `retention` doesn't keep, and what backups left that ended early. First nothing leads
/// there any more, then it goes. A backup that another node is making meanwhile fails.
///
/// # Errors
/// The archive can't be read, or another node has written to it meanwhile.
pub fn prune(target: &Target, retention: Retention) -> Result<Pruned, ArchiveError> {
    let (catalogue, bytes) = Catalogue::load_at(target)?;
    // Listed before `HEAD` is replaced: whoever is writing them has read the old one, and can't put
    // them in force any more.
    let leftovers = unlisted(target, Some(&catalogue))?;
    let oldest = oldest_kept(&catalogue, retention, clock::wall().0);
    let oldest_seq = catalogue.snapshots[oldest].at.seq;
    let mut pruned = Pruned { oldest_seq, ..Pruned::default() };
    if oldest == 0 && leftovers.is_empty() {
        return Ok(pruned);
    }
    let head = Head { oldest_seq, runs: catalogue.head.runs + 1, ..catalogue.head.clone() };
    target.swap(HEAD, Some(&bytes), encode(&head))?;
    target.write(CATALOGUE, encode(&catalogue.clone().reload(target)?))?;
    // The newest stays in any case: `HEAD` names it.
    let (_, older) = catalogue.segments.split_last().unzip();
    let older: &[SegmentManifest] = older.unwrap_or_default();
    for segment in older.iter().filter(|segment| segment.last.seq <= oldest_seq) {
        target.remove(&segment.file.name)?;
        target.remove(&segment.manifest_name())?;
        pruned.segments += 1;
        pruned.bytes += segment.bytes;
    }
    for snapshot in &catalogue.snapshots[..oldest] {
        for file in &snapshot.files {
            target.remove(&file.file.name)?;
        }
        target.remove(&snapshot.manifest_name())?;
        pruned.snapshots += 1;
        pruned.bytes += snapshot.bytes();
    }
    for name in &leftovers {
        target.remove(name)?;
        pruned.leftovers += 1;
    }
    Ok(pruned)
}

/// The oldest snapshot that must stay.
fn oldest_kept(catalogue: &Catalogue, retention: Retention, now_ms: u64) -> usize {
    let Catalogue { snapshots, segments, .. } = catalogue;
    let newest = snapshots.len() - 1;
    let by_count = retention.snapshots.map_or(0, |kept| (newest + 1).saturating_sub(kept.max(1)));
    let by_age = retention.age.map_or(0, |age| {
        let moment = now_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        // The one from which the oldest wanted moment is restored.
        snapshots.partition_point(|snapshot| snapshot.at.time_ms <= moment).saturating_sub(1)
    });
    let bytes_from = |oldest: usize| {
        let kept = segments.iter().filter(|segment| segment.last.seq > snapshots[oldest].at.seq);
        let log: u64 = kept.map(|segment| segment.bytes).sum();
        log + snapshots[oldest..].iter().map(SnapshotManifest::bytes).sum::<u64>()
    };
    let by_bytes = retention
        .bytes
        .map_or(0, |limit| (0..newest).find(|from| bytes_from(*from) <= limit).unwrap_or(newest));
    by_count.max(by_age).max(by_bytes)
}
