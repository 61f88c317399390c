//! Taking entries out of the log: truncation, restarting it, trimming.
//!
//! Nothing is ever written into a file that holds entries of another branch. Every step leaves a
//! log that recovery reads as a whole: either the old one, a shorter prefix of it, or the new one.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use quorate_protocol::record::{SEGMENT_HEADER_BYTES, SegmentHeader};
use quorate_protocol::types::{Chain, ClusterId, EntryId, Generation, Seq};

use super::options::JournalOptions;
use super::scan::{Item, Scanner};
use super::segment::{ActiveSegment, NewSegment, Start, file_name};
use super::table::Segment;
use crate::storage::durable::{move_file, sync_dir};

/// Why a file is in the divergent folder; part of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A newer primary's log differs from there on.
    Truncated,
    /// Bytes behind the last mark that never became whole records.
    Torn,
    /// Damage at or before a mark.
    Corrupt,
    /// The state holds more than the journal did.
    Superseded,
}

impl Reason {
    const ALL: [Self; 4] = [Self::Truncated, Self::Torn, Self::Corrupt, Self::Superseded];

    fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Torn => "torn",
            Self::Corrupt => "corrupt",
            Self::Superseded => "superseded",
        }
    }

    /// The reason of this name.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The folders that cuts work on.
#[derive(Clone, Debug)]
pub(super) struct Folders {
    pub(super) dir: PathBuf,
    pub(super) divergent: PathBuf,
    pub(super) divergent_bytes_max: u64,
    pub(super) segment_bytes: u64,
}

impl Folders {
    pub(super) fn of(options: &JournalOptions) -> Self {
        Self {
            dir: options.dir.clone(),
            divergent: options.divergent.clone(),
            divergent_bytes_max: options.divergent_bytes_max,
            segment_bytes: options.segment_bytes,
        }
    }

    /// Removes everything from `from` on. `segments` is the whole log; it holds `from`. Returns
    /// the segments that stay, and the one to append to, which is new.
    ///
    /// Later files move away first and from the end, so that a crash leaves a prefix. The file
    /// with the cut is replaced by one that holds its kept prefix, in one rename, after it was
    /// linked into the divergent folder.
    pub(super) fn truncate(
        &self,
        segments: &[Segment],
        from: Seq,
        reason: Reason,
    ) -> io::Result<(Vec<Segment>, ActiveSegment)> {
        let at = segments.partition_point(|s| s.header.first() <= from).saturating_sub(1);
        for later in segments[at + 1..].iter().rev() {
            let archived = self.archive(&later.path, from, reason)?;
            give_back(&archived, later.end, reason)?;
        }
        let old = &segments[at];
        let capacity = self.segment_bytes.max(old.end);
        let mut new = NewSegment::begin(&self.dir, Start { header: old.header, capacity })?;
        copy_entries(old, Seq::ZERO, from.prev(), &mut new)?;
        if new.last().0.seq != from.prev() {
            return Err(io::Error::other(format!(
                "{} doesn't hold the entries before {from}",
                old.path.display()
            )));
        }
        let archived = self.archive_copy(&old.path, from, reason)?;
        let active = new.publish()?;
        give_back(&archived, old.end, reason)?;
        let mut kept = segments[..at].to_vec();
        kept.push(Segment::of(&active));
        self.shrink_divergent()?;
        Ok((kept, active))
    }

    /// Writes the entries after `proven` once more, to a new segment, and syncs it: what is in
    /// the page cache may be nowhere else. The old segment ends where the new one begins.
    pub(super) fn rewrite_tail(
        &self,
        old: &Segment,
        proven: (EntryId, Chain),
        last: Seq,
        torn: bool,
    ) -> io::Result<(Segment, ActiveSegment)> {
        let header = SegmentHeader {
            base: old.header.base && proven.0 == old.header.preceding,
            preceding: proven.0,
            preceding_chain: proven.1,
            ..old.header
        };
        let capacity = self.segment_bytes.max(old.end);
        let mut new = NewSegment::begin(&self.dir, Start { header, capacity })?;
        copy_entries(old, header.first(), last, &mut new)?;
        if torn {
            self.archive_copy(&old.path, last.next(), Reason::Torn)?;
        }
        let active = new.publish()?;
        let replaced = header.first() == old.header.first();
        if !torn && !replaced {
            give_back(&old.path, old.end, Reason::Superseded)?;
        }
        self.shrink_divergent()?;
        Ok((Segment::of(&active), active))
    }

    /// Starts a log of its own after an entry that only the state holds. Publishing its first
    /// segment is the point of no return: from then on recovery ignores lower segments.
    pub(super) fn start_after(
        &self,
        segments: &[Segment],
        preceding: (EntryId, Chain),
        identity: (ClusterId, Generation),
    ) -> io::Result<ActiveSegment> {
        let header = base_header(preceding, identity);
        let first = header.first();
        let reason = Reason::Superseded;
        for later in segments.iter().rev().filter(|s| s.header.first() > first) {
            self.archive(&later.path, first, reason)?;
        }
        let start = Start { header, capacity: self.segment_bytes };
        let new = NewSegment::begin(&self.dir, start)?;
        if segments.iter().any(|s| s.header.first() == first) {
            self.archive_copy(&self.dir.join(file_name(first)), first, reason)?;
        }
        let active = new.publish()?;
        for earlier in segments.iter().filter(|s| s.header.first() < first) {
            self.archive(&earlier.path, earlier.header.first(), reason)?;
        }
        self.shrink_divergent()?;
        Ok(active)
    }

    /// Moves a whole file into the divergent folder. Its name says from which position on it was
    /// cut from the log.
    pub(super) fn archive(&self, path: &Path, cut: Seq, reason: Reason) -> io::Result<PathBuf> {
        let to = self.archive_path(path, cut, reason)?;
        move_file(path, &to)?;
        Ok(to)
    }

    /// Gives the file a second name in the divergent folder. The first one is about to be given
    /// to another file, or the file is never written again.
    pub(super) fn archive_copy(
        &self,
        path: &Path,
        cut: Seq,
        reason: Reason,
    ) -> io::Result<PathBuf> {
        let to = self.archive_path(path, cut, reason)?;
        fs::hard_link(path, &to)?;
        sync_dir(&self.divergent)?;
        Ok(to)
    }

    fn archive_path(&self, path: &Path, cut: Seq, reason: Reason) -> io::Result<PathBuf> {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("unknown");
        for n in 0..100_000 {
            let name = format!("{stem}-cut{}-{}-{n}.qj", cut.0, reason.name());
            let to = self.divergent.join(name);
            if !to.try_exists()? {
                return Ok(to);
            }
        }
        Err(io::Error::other("too many files of one name in the divergent folder"))
    }

    /// Removes the oldest files in the divergent folder until the rest is within the cap. The
    /// newest stays whatever its size.
    fn shrink_divergent(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for file in fs::read_dir(&self.divergent)? {
            let file = file?;
            let meta = file.metadata()?;
            let bytes = std::os::unix::fs::MetadataExt::blocks(&meta) * 512;
            files.push((meta.modified()?, file.path(), bytes));
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, _, bytes)| bytes).sum();
        let newest = files.len().saturating_sub(1);
        for (_, path, bytes) in &files[..newest] {
            if total <= self.divergent_bytes_max {
                break;
            }
            tracing::warn!(path = %path.display(), "divergent folder is full: oldest file removed");
            fs::remove_file(path)?;
            total -= bytes;
        }
        sync_dir(&self.divergent)
    }
}

/// Returns the reserved space of a file that is never written again. Everything behind `end` is
/// zero, unless the file is evidence of damage: that one stays as it is.
fn give_back(path: &Path, end: u64, reason: Reason) -> io::Result<()> {
    match reason {
        Reason::Truncated | Reason::Superseded => {
            OpenOptions::new().write(true).open(path)?.set_len(end)
        }
        Reason::Torn | Reason::Corrupt => Ok(()),
    }
}

/// The header of a segment that a log starts with.
pub(super) fn base_header(
    preceding: (EntryId, Chain),
    (cluster, generation): (ClusterId, Generation),
) -> SegmentHeader {
    SegmentHeader {
        cluster,
        generation,
        nonce: 0,
        base: true,
        preceding: preceding.0,
        preceding_chain: preceding.1,
    }
}

/// Copies entries `first..=last` of a segment.
fn copy_entries(from: &Segment, first: Seq, last: Seq, to: &mut NewSegment) -> io::Result<()> {
    let mut scanner = Scanner::new(&from.file, SEGMENT_HEADER_BYTES as u64)?;
    while to.last().0.seq < last {
        match scanner.next()? {
            Item::Entry(header, _) if header.id.seq < first => {}
            Item::Entry(header, payload) => to.push(&header, payload)?,
            Item::Mark(_) => {}
            Item::Trailer(_) | Item::End => break,
            Item::Bad(fault) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, fault.to_string()));
            }
        }
    }
    Ok(())
}
