//! Offline views of a journal's folder or of one segment file. They change nothing.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use quorate_protocol::record::{SEGMENT_HEADER_BYTES, SegmentHeader};
use quorate_protocol::types::{
    Chain, ClusterId, ClusterTime, EntryId, EntryKind, Epoch, Generation, Seq,
};

use super::recovery::{Damage, Recovered};
use super::scan::{Item, Remainder, Scanner, Stop, remainder, walk};
use super::survey::{Depth, Survey, survey};

/// A journal as it is on disk.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The log's segments, in order.
    pub segments: Vec<SegmentSummary>,
    /// What recovery would find.
    pub log: Recovered,
    /// Files of a log that was restarted since; recovery would move them away.
    pub stale: Vec<PathBuf>,
    /// Files behind damage; recovery would move them away.
    pub severed: Vec<PathBuf>,
    /// Files that never became segments; recovery would remove them.
    pub unfinished: Vec<PathBuf>,
}

/// One segment.
#[derive(Clone, Debug)]
pub struct SegmentSummary {
    /// The file.
    pub path: PathBuf,
    /// The file's size in bytes, reserved space included.
    pub bytes: u64,
    /// Bytes up to and with its last good frame.
    pub bytes_used: u64,
    /// The cluster; 0 where it wasn't formed yet.
    pub cluster: ClusterId,
    /// Lossy recoveries that the cluster had gone through.
    pub generation: Generation,
    /// The position of its first entry.
    pub first: Seq,
    /// Its last entry that belongs to the log.
    pub last: EntryId,
    /// The log's chain there.
    pub chain: Chain,
    /// Entries that belong to the log.
    pub entries: u64,
    /// Sync marks among them.
    pub marks: u64,
    /// The highest entry that they prove to be synced.
    pub proven: EntryId,
    /// Whether it has a trailer, or the next segment takes over.
    pub closed: bool,
    /// First position of each epoch in it.
    pub epochs: Vec<(Seq, Epoch)>,
}

/// The result of checking every checksum and the chain.
#[derive(Clone, Debug)]
pub struct Verification {
    /// Segments that were read.
    pub segments: usize,
    /// Good entries.
    pub entries: u64,
    /// The last good one.
    pub last: EntryId,
    /// The chain there.
    pub chain: Chain,
    /// Everything that is wrong; a torn tail is listed too, with `synced` false.
    pub faults: Vec<Fault>,
}

/// Something wrong with a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where and what.
    pub what: String,
    /// Whether it touches entries that were known to be synced (S6). If not, it is a torn write
    /// that recovery cuts off.
    pub synced: bool,
}

/// One entry without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntrySummary {
    /// Which entry.
    pub id: EntryId,
    /// What it holds.
    pub kind: EntryKind,
    /// When it was sealed.
    pub time: ClusterTime,
    /// Payload bytes.
    pub payload_bytes: u32,
    /// The log's chain there.
    pub chain: Chain,
    /// The file that holds it.
    pub path: PathBuf,
    /// Where its record starts.
    pub offset: u64,
}

/// Describes a journal's folder.
///
/// # Errors
/// As the system reports them.
pub fn inspect(dir: &Path) -> io::Result<Inspection> {
    let survey = survey(dir, Depth::Whole, Seq::ZERO)?;
    let mut segments = Vec::new();
    for segment in &survey.segments {
        let report = &segment.report;
        segments.push(SegmentSummary {
            path: segment.path.clone(),
            bytes: segment.file.metadata()?.len(),
            bytes_used: report.end,
            cluster: segment.header.cluster,
            generation: segment.header.generation,
            first: segment.header.first(),
            last: report.last,
            chain: report.chain,
            entries: report.count,
            marks: report.marks,
            proven: report.proven.0,
            closed: matches!(report.stop, Stop::Sealed | Stop::Limit),
            epochs: report.index.epochs.clone(),
        });
    }
    let log = survey.recovered(is_torn(&survey));
    let Survey { stale, severed, unfinished, .. } = survey;
    Ok(Inspection { segments, log, stale, severed, unfinished })
}

/// Checks every checksum and the chain of a journal's folder, or of one segment file such as
/// those in the divergent folder.
///
/// # Errors
/// As the system reports them. What is wrong with the data is in the result.
pub fn verify(path: &Path) -> io::Result<Verification> {
    if path.is_dir() { verify_folder(path) } else { verify_file(path) }
}

/// The last `count` entries of a journal's folder or of one segment file.
///
/// # Errors
/// As the system reports them; `InvalidData` for a file that isn't a segment.
pub fn tail(path: &Path, count: usize) -> io::Result<Vec<EntrySummary>> {
    let mut entries = VecDeque::new();
    if path.is_dir() {
        let survey = survey(path, Depth::Newest, Seq::ZERO)?;
        for segment in &survey.segments {
            let through = segment.report.last.seq;
            keep_last(&segment.path, &segment.file, through, count, &mut entries)?;
        }
    } else {
        let file = File::open(path)?;
        read_header(&file)?;
        keep_last(path, &file, Seq(u64::MAX), count, &mut entries)?;
    }
    Ok(entries.into())
}

fn verify_folder(dir: &Path) -> io::Result<Verification> {
    let survey = survey(dir, Depth::Whole, Seq::ZERO)?;
    let log = survey.recovered(is_torn(&survey));
    let mut faults = Vec::new();
    let damages: [Option<&Damage>; 2] = [survey.recorded.as_ref(), survey.damage.as_ref()];
    for damage in damages.into_iter().flatten() {
        let what = format!("entries from {} on are lost: {}", damage.at, damage.what);
        faults.push(Fault { what, synced: true });
    }
    if let Some((path, version)) = &survey.newer {
        let what = format!("{}: segment format {version} is newer", path.display());
        faults.push(Fault { what, synced: true });
    }
    if let Some(torn) = log.torn.as_ref().filter(|_| survey.damage.is_none()) {
        let what = format!("{}: byte {}: {}", torn.path.display(), torn.offset, torn.what);
        faults.push(Fault { what, synced: false });
    }
    Ok(Verification {
        segments: survey.segments.len(),
        entries: survey.segments.iter().map(|s| s.report.count).sum(),
        last: log.last,
        chain: log.last_chain,
        faults,
    })
}

fn verify_file(path: &Path) -> io::Result<Verification> {
    let file = File::open(path)?;
    let header = read_header(&file)?;
    let report = walk(&file, &header, None)?;
    // Behind a trailer stands the index.
    let rest = match report.stop {
        Stop::Sealed | Stop::Limit => Remainder::default(),
        Stop::End | Stop::Bad(_) => remainder(&file, report.end, header.nonce)?,
    };
    let mut faults = Vec::new();
    if rest.used {
        let what = match report.stop {
            Stop::Bad(fault) => fault.to_string(),
            Stop::End | Stop::Sealed | Stop::Limit => "bytes behind zeros".to_owned(),
        };
        let what = format!("{}: byte {}: {what}", path.display(), report.end);
        let synced = rest.marked.is_some_and(|marked| marked.seq > report.last.seq);
        faults.push(Fault { what, synced });
    }
    Ok(Verification {
        segments: 1,
        entries: report.count,
        last: report.last,
        chain: report.chain,
        faults,
    })
}

fn is_torn(survey: &Survey) -> bool {
    let open = survey.segments.last().is_some_and(|s| s.report.stop != Stop::Sealed);
    open && survey.damage.is_none() && survey.remainder.used
}

fn keep_last(
    path: &Path,
    file: &File,
    through: Seq,
    count: usize,
    entries: &mut VecDeque<EntrySummary>,
) -> io::Result<()> {
    let mut scanner = Scanner::new(file, SEGMENT_HEADER_BYTES as u64)?;
    loop {
        let offset = scanner.offset();
        let header = match scanner.next()? {
            Item::Entry(header, _) => header,
            Item::Mark(_) => continue,
            Item::Trailer(_) | Item::End | Item::Bad(_) => return Ok(()),
        };
        if header.id.seq > through {
            return Ok(());
        }
        entries.push_back(EntrySummary {
            id: header.id,
            kind: header.kind,
            time: header.time,
            payload_bytes: header.payload_len,
            chain: header.chain,
            path: path.to_owned(),
            offset,
        });
        if entries.len() > count {
            entries.pop_front();
        }
    }
}

fn read_header(file: &File) -> io::Result<SegmentHeader> {
    super::survey::read_header(file)?
        .map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault.to_string()))
}
