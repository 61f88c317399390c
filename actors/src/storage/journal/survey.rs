//! Reading all files of a journal and judging what they are. Changes nothing.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_protocol::record::{SEGMENT_HEADER_BYTES, SegmentFault, SegmentHeader};
use quorate_protocol::types::{Chain, ClusterId, EntryId, Seq};

use super::recovery::{Damage, Recovered, TornTail};
use super::scan::{Remainder, Report, Stop, read_sealed, remainder, walk};
use super::segment::parse_file_name;
use super::table::Segment;
use crate::storage::durable::read_bounded;

/// Its presence says that this journal lost synced entries: it is written before the damaged
/// part is cut off, because afterwards the log looks whole.
pub(super) const DAMAGE_FILE: &str = "DAMAGED";

/// All files of a journal as they are.
#[derive(Debug)]
pub(super) struct Survey {
    /// The log, in order.
    pub(super) segments: Vec<Surveyed>,
    /// Segments from before the log was restarted.
    pub(super) stale: Vec<PathBuf>,
    /// Segments of which the state holds everything.
    pub(super) covered: Vec<PathBuf>,
    /// Files behind the damage that can't belong to the log.
    pub(super) severed: Vec<PathBuf>,
    /// Files that never got their final name.
    pub(super) unfinished: Vec<PathBuf>,
    /// What stands behind the last segment's last good frame.
    pub(super) remainder: Remainder,
    /// Damage in segments that were left out, as the state holds what was in them.
    pub(super) repaired: Option<Damage>,
    /// Damage found now.
    pub(super) damage: Option<Damage>,
    /// Damage recorded at an earlier start.
    pub(super) recorded: Option<Damage>,
    pub(super) newer: Option<(PathBuf, u32)>,
}

/// One segment of the log.
#[derive(Debug)]
pub(super) struct Surveyed {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) header: SegmentHeader,
    pub(super) report: Report,
}

/// How much of a log is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// The newest segments; of older ones, header, trailer and index. Damage inside older ones is
    /// found when they are read.
    Newest,
    /// Every byte.
    Whole,
}

/// Segments at the end that are always read whole.
const NEWEST: usize = 2;

/// Reads a journal and changes nothing.
///
/// What stands in segments that end at or before `covered` is left out, as if it had been trimmed.
pub(super) fn survey(dir: &Path, depth: Depth, covered: Seq) -> io::Result<Survey> {
    let mut survey = Survey {
        segments: Vec::new(),
        stale: Vec::new(),
        covered: Vec::new(),
        severed: Vec::new(),
        unfinished: Vec::new(),
        remainder: Remainder::default(),
        repaired: None,
        damage: None,
        recorded: read_damage(dir)?,
        newer: None,
    };
    let mut headers = survey.read_headers(dir)?;
    // A log starts at its last base segment; lower ones are from before it.
    let base = headers.iter().rposition(|(_, _, header)| header.base).unwrap_or(0);
    survey.stale.extend(headers.drain(..base).map(|(path, _, _)| path));
    let ends_covered =
        |(_, _, next): &(PathBuf, File, SegmentHeader)| next.preceding.seq <= covered;
    let covered = headers.iter().skip(1).take_while(|next| ends_covered(next)).count();
    survey.covered.extend(headers.drain(..covered).map(|(path, _, _)| path));
    let followers: Vec<_> = headers.iter().skip(1).map(|(_, _, header)| *header).collect();
    let mut followers = followers.into_iter();
    let newest_from = headers.len().saturating_sub(NEWEST);
    for (n, (path, file, header)) in headers.into_iter().enumerate() {
        if survey.damage.as_ref().is_some_and(|_| survey.is_severed_by(&header)) {
            survey.severed.push(path);
            continue;
        }
        let next = followers.next();
        let limit = next.map(|next| next.preceding.seq);
        let indexed = if depth == Depth::Newest && n < newest_from {
            read_sealed(&file, &header)?.filter(|report| Some(report.last.seq) == limit)
        } else {
            None
        };
        let report = match indexed {
            Some(report) => report,
            None => walk(&file, &header, limit)?,
        };
        let segment = Surveyed { path, file, header, report };
        survey.judge(&segment, next)?;
        survey.segments.push(segment);
    }
    Ok(survey)
}

impl Survey {
    /// Opens every segment in order. A segment whose header can't be read ends the log.
    fn read_headers(&mut self, dir: &Path) -> io::Result<Vec<(PathBuf, File, SegmentHeader)>> {
        let mut named = Vec::new();
        for file in fs::read_dir(dir)? {
            let path = file?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                self.unfinished.push(path);
            } else if let Some(first) = parse_file_name(name) {
                named.push((first, path));
            }
        }
        named.sort();
        let mut headers = Vec::new();
        for (first, path) in named {
            let file = File::open(&path)?;
            match read_header(&file)? {
                Ok(header) if header.first() == first => headers.push((path, file, header)),
                Ok(_) => self.lose(first, &path, "it has the name of another segment"),
                Err(SegmentFault::Version(version)) => self.newer = Some((path, version)),
                Err(fault) => self.lose(first, &path, &fault.to_string()),
            }
        }
        Ok(headers)
    }

    /// Decides what the end of a walk means.
    fn judge(&mut self, segment: &Surveyed, next: Option<SegmentHeader>) -> io::Result<()> {
        let report = &segment.report;
        if let Some(next) = next {
            let continued = report.last == next.preceding && report.chain == next.preceding_chain;
            if !continued {
                // The next segment was made only after everything before it was synced.
                let what = match report.stop {
                    Stop::Bad(fault) => format!("byte {}: {fault}", report.end),
                    Stop::End | Stop::Sealed => {
                        format!("it ends before entry {}", next.preceding)
                    }
                    Stop::Limit => format!("the next segment doesn't follow {}", report.last),
                };
                self.lose(report.last.seq.next(), &segment.path, &what);
            }
            return Ok(());
        }
        if report.stop == Stop::Sealed {
            return Ok(());
        }
        let rest = remainder(&segment.file, report.end, segment.header.nonce)?;
        if let Some(marked) = rest.marked.filter(|marked| marked.seq > report.last.seq) {
            let fault = match report.stop {
                Stop::Bad(fault) => fault.to_string(),
                Stop::End | Stop::Limit | Stop::Sealed => "zero bytes".to_owned(),
            };
            let what =
                format!("byte {}: {fault}, though {marked} was known to be synced", report.end);
            self.lose(report.last.seq.next(), &segment.path, &what);
        }
        self.remainder = rest;
        Ok(())
    }

    /// Notes damage; the first place counts.
    pub(super) fn lose(&mut self, at: Seq, path: &Path, what: &str) {
        let what = format!("{}: {what}", path.display());
        if self.damage.as_ref().is_none_or(|known| at < known.at) {
            self.damage = Some(Damage { at, what });
        }
    }

    fn is_severed_by(&self, header: &SegmentHeader) -> bool {
        self.damage.as_ref().is_some_and(|damage| header.first() >= damage.at)
    }

    /// The segments as readers need them.
    pub(super) fn table(&self) -> io::Result<Vec<Segment>> {
        self.segments
            .iter()
            .map(|segment| {
                Ok(Segment {
                    file: Arc::new(segment.file.try_clone()?),
                    path: segment.path.clone(),
                    header: segment.header,
                    end: segment.report.end,
                    index: segment.report.index.places.clone(),
                })
            })
            .collect()
    }

    /// Puts the segments' findings together.
    pub(super) fn recovered(&self, torn: bool) -> Recovered {
        let mut recovered = Recovered {
            first: Seq(1),
            preceding: EntryId::ZERO,
            preceding_chain: Chain::default(),
            last: EntryId::ZERO,
            last_chain: Chain::default(),
            proven: EntryId::ZERO,
            witnessed: None,
            cluster: None,
            epochs: Vec::new(),
            clusters: Vec::new(),
            torn: None,
            repaired: self.repaired.clone(),
            damage: self.recorded.clone().or_else(|| self.damage.clone()),
        };
        if let Some(segment) = self.segments.first() {
            recovered.first = segment.header.first();
            recovered.preceding = segment.header.preceding;
            recovered.preceding_chain = segment.header.preceding_chain;
        }
        for Surveyed { report, header, .. } in &self.segments {
            if header.cluster != ClusterId(0) {
                recovered.cluster = Some(header.cluster);
            }
            for (seq, epoch) in &report.index.epochs {
                if recovered.epochs.last().is_none_or(|(_, known)| known != epoch) {
                    recovered.epochs.push((*seq, *epoch));
                }
            }
            recovered.clusters.extend(report.clusters.iter().cloned());
        }
        if let Some(segment) = self.segments.last() {
            let report = &segment.report;
            recovered.last = report.last;
            recovered.last_chain = report.chain;
            recovered.proven = report.proven.0;
            recovered.torn = torn.then(|| TornTail {
                path: segment.path.clone(),
                offset: report.end,
                what: match report.stop {
                    Stop::Bad(fault) => fault.to_string(),
                    Stop::End | Stop::Limit | Stop::Sealed => "bytes behind zeros".to_owned(),
                },
            });
        }
        recovered
    }
}

pub(super) fn read_header(file: &File) -> io::Result<Result<SegmentHeader, SegmentFault>> {
    let len = file.metadata()?.len().min(SEGMENT_HEADER_BYTES as u64) as usize;
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes[..len], 0)?;
    Ok(SegmentHeader::decode(&bytes[..len]))
}

fn read_damage(dir: &Path) -> io::Result<Option<Damage>> {
    let path = dir.join(DAMAGE_FILE);
    if !path.try_exists()? {
        return Ok(None);
    }
    let bytes = read_bounded(&path, 64 << 10)?;
    let text = String::from_utf8_lossy(&bytes);
    let (at, what) = text.split_once('\n').unwrap_or(("", &text));
    let at = Seq(at.trim().parse().unwrap_or_default());
    Ok(Some(Damage { at, what: what.trim().to_owned() }))
}
