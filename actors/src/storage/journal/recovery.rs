//! Opening a journal: a survey that only reads, then the repairs that it asks for.
//!
//! Every repair leaves files that a second survey accepts as they are, so a crash during
//! recovery, or a second recovery, changes nothing.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use quorate_protocol::record::{SEGMENT_HEADER_BYTES, SegmentFault, SegmentHeader};
use quorate_protocol::types::{Chain, ClusterId, EntryId, Epoch, Incarnation, Seq};

use super::cut::{Folders, Reason, base_header};
use super::options::JournalOptions;
use super::reader::JournalReader;
use super::scan::{Remainder, Report, Stop, remainder, walk};
use super::segment::{ActiveSegment, NewSegment, Resume, Start, parse_file_name};
use super::table::{Segment, Table};
use super::witness::Witness;
use crate::storage::durable::{replace_file, sync_dir};

/// Its presence says that this journal lost synced entries: it is written before the damaged
/// part is cut off, because afterwards the log looks whole.
const DAMAGE_FILE: &str = "DAMAGED";

/// A journal that was opened and repaired; start it to write.
#[derive(Debug)]
pub struct OpenJournal {
    pub(super) options: JournalOptions,
    pub(super) folders: Folders,
    pub(super) segments: Vec<Segment>,
    pub(super) active: ActiveSegment,
    recovered: Recovered,
}

/// What the log holds after opening. All of it is synced: `persisted` starts at `last`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The first position that the log can hold; one behind `last` where it holds nothing.
    pub first: Seq,
    /// The entry before `first`.
    pub preceding: EntryId,
    /// The log's chain there.
    pub preceding_chain: Chain,
    /// The last entry; `preceding` where the log holds nothing.
    pub last: EntryId,
    /// The log's chain there.
    pub last_chain: Chain,
    /// The highest entry that a mark proved to be synced before opening synced the rest.
    pub proven: EntryId,
    /// The life of the node that recorded, outside the disk, how far it wrote the log, if the log
    /// still goes that far. `None` proves nothing.
    pub witnessed: Option<Incarnation>,
    /// The cluster that the newest segments name; `None` where it wasn't formed yet.
    pub cluster: Option<ClusterId>,
    /// The first position of each epoch's entries, in order.
    pub epochs: Vec<(Seq, Epoch)>,
    /// All `Cluster` entries with their payloads, in order.
    pub clusters: Vec<(EntryId, Bytes)>,
    /// Bytes behind the last mark that weren't whole records: a torn write. They were cut off
    /// and kept in the divergent folder.
    pub torn: Option<TornTail>,
    /// Synced entries are damaged or gone, now or at an earlier start: the node must neither
    /// vote nor count (S6).
    pub damage: Option<Damage>,
}

/// Bytes that were cut off because no mark covers them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub path: PathBuf,
    /// Where the first bad record starts.
    pub offset: u64,
    /// What is wrong with it.
    pub what: String,
}

/// Loss of synced entries (S6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The first position that is lost.
    pub at: Seq,
    /// Which file, where, and what is wrong.
    pub what: String,
}

/// Why a journal can't be opened at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refused.
    #[error("journal {path}: {source}", path = path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// As the system reports it.
        source: io::Error,
    },
    /// Written by a newer version.
    #[error(
        "{path} has segment format {version}, newer than this version reads",
        path = path.display()
    )]
    Newer {
        /// The segment.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
}

impl OpenJournal {
    /// Opens the journal, creating it where none may exist yet, and brings it to a state in which
    /// everything in it is synced: leftovers are removed, a torn tail is cut off, the entries
    /// above the highest mark are written again to a new segment. Damage is cut off too, recorded
    /// durably first.
    ///
    /// # Errors
    /// See [`OpenError`]. Damage is not an error but part of the result.
    pub fn open(options: JournalOptions) -> Result<Self, OpenError> {
        let folders = Folders::of(&options);
        let dir = options.dir.clone();
        let opened = prepare(&folders)
            .and_then(|()| survey(&dir))
            .and_then(|survey| refuse_newer(survey).map_err(io::Error::other));
        match opened {
            Ok(survey) => repair(options, folders, survey)
                .map(Self::with_witness)
                .map_err(|source| OpenError::Io { path: dir, source }),
            Err(source) => match source.downcast::<OpenError>() {
                Ok(error) => Err(error),
                Err(source) => Err(OpenError::Io { path: dir, source }),
            },
        }
    }

    /// What was found.
    #[must_use]
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// Restarts the log behind `preceding`, which the state holds and has flushed, while the
    /// journal ends before it (S5; legal when copies elsewhere met the policy). Old segments are
    /// kept in the divergent folder. The new log is synced when this returns.
    ///
    /// # Errors
    /// As the system reports them. The journal must then be opened anew.
    pub fn start_after(mut self, preceding: EntryId, chain: Chain) -> Result<Self, OpenError> {
        let identity = (self.options.cluster, self.options.generation);
        let active = self
            .folders
            .start_after(&self.segments, (preceding, chain), identity)
            .map_err(|source| OpenError::Io { path: self.options.dir.clone(), source })?;
        self.segments = vec![Segment::of(&active, Vec::new())];
        self.active = active;
        self.recovered = Recovered {
            first: preceding.seq.next(),
            preceding,
            preceding_chain: chain,
            last: preceding,
            last_chain: chain,
            proven: preceding,
            witnessed: self.recovered.witnessed,
            cluster: self.recovered.cluster,
            epochs: Vec::new(),
            clusters: Vec::new(),
            ..self.recovered
        };
        Ok(self)
    }

    /// Compares the log with what was recorded of it outside the disk.
    fn with_witness(mut self) -> Self {
        let found = self.options.witness.as_deref().and_then(Witness::read);
        self.recovered.witnessed = found
            .filter(|found| self.chain_at(found.id) == Some(found.chain))
            .map(|found| found.incarnation);
        self
    }

    /// The log's chain at an entry, if the log holds exactly that entry.
    fn chain_at(&self, id: EntryId) -> Option<Chain> {
        let recovered = &self.recovered;
        if id == recovered.last {
            return Some(recovered.last_chain);
        }
        if id == recovered.preceding {
            return Some(recovered.preceding_chain);
        }
        let table = Arc::new(Table::new(self.segments.clone(), recovered.last));
        let entries = JournalReader::new(table).read(id.seq, 0).ok()?;
        entries.first().filter(|entry| entry.id == id).map(|entry| entry.chain)
    }

    /// Forgets recorded damage, once the node's data has been rebuilt from healthy nodes.
    ///
    /// # Errors
    /// As the system reports them.
    pub fn clear_damage(&mut self) -> Result<(), OpenError> {
        let path = self.options.dir.join(DAMAGE_FILE);
        let removed = fs::remove_file(&path).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        });
        removed
            .and_then(|()| sync_dir(&self.options.dir))
            .map_err(|source| OpenError::Io { path, source })?;
        self.recovered.damage = None;
        Ok(())
    }
}

/// All files of a journal as they are.
#[derive(Debug)]
pub(super) struct Survey {
    /// The log, in order.
    pub(super) segments: Vec<Surveyed>,
    /// Segments from before the log was restarted.
    pub(super) stale: Vec<PathBuf>,
    /// Files behind the damage that can't belong to the log.
    pub(super) severed: Vec<PathBuf>,
    /// Files that never got their final name.
    pub(super) unfinished: Vec<PathBuf>,
    /// What stands behind the last segment's last good frame.
    pub(super) remainder: Remainder,
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

/// Reads everything and changes nothing.
pub(super) fn survey(dir: &Path) -> io::Result<Survey> {
    let mut survey = Survey {
        segments: Vec::new(),
        stale: Vec::new(),
        severed: Vec::new(),
        unfinished: Vec::new(),
        remainder: Remainder::default(),
        damage: None,
        recorded: read_damage(dir)?,
        newer: None,
    };
    let mut headers = survey.read_headers(dir)?;
    // A log starts at its last base segment; lower ones are from before it.
    let base = headers.iter().rposition(|(_, _, header)| header.base).unwrap_or(0);
    survey.stale.extend(headers.drain(..base).map(|(path, _, _)| path));
    let followers: Vec<_> = headers.iter().skip(1).map(|(_, _, header)| *header).collect();
    let mut followers = followers.into_iter();
    for (path, file, header) in headers {
        if survey.damage.as_ref().is_some_and(|_| survey.is_severed_by(&header)) {
            survey.severed.push(path);
            continue;
        }
        let next = followers.next();
        let report = walk(&file, &header, next.map(|next| next.preceding.seq))?;
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
    fn lose(&mut self, at: Seq, path: &Path, what: &str) {
        let what = format!("{}: {what}", path.display());
        if self.damage.as_ref().is_none_or(|known| at < known.at) {
            self.damage = Some(Damage { at, what });
        }
    }

    fn is_severed_by(&self, header: &SegmentHeader) -> bool {
        self.damage.as_ref().is_some_and(|damage| header.first() >= damage.at)
    }
}

fn prepare(folders: &Folders) -> io::Result<()> {
    for dir in [&folders.dir, &folders.divergent] {
        if !dir.try_exists()? {
            fs::create_dir_all(dir)?;
            sync_dir(dir.parent().unwrap_or(Path::new(".")))?;
        }
    }
    Ok(())
}

fn refuse_newer(survey: Survey) -> Result<Survey, OpenError> {
    match &survey.newer {
        Some((path, version)) => Err(OpenError::Newer { path: path.clone(), version: *version }),
        None => Ok(survey),
    }
}

fn repair(
    options: JournalOptions,
    folders: Folders,
    mut survey: Survey,
) -> io::Result<OpenJournal> {
    for path in survey.unfinished.drain(..) {
        fs::remove_file(path)?;
    }
    sync_dir(&folders.dir)?;
    if survey.segments.is_empty() && survey.damage.is_none() && options.must_exist {
        survey.lose(Seq(1), &folders.dir, "no segment is left");
    }
    if let Some(damage) = survey.damage.take() {
        // Durable before anything is cut: afterwards nothing shows that entries are missing.
        let recorded = survey.recorded.get_or_insert(damage);
        let text = format!("{}\n{}\n", recorded.at, recorded.what);
        replace_file(&folders.dir.join(DAMAGE_FILE), text.as_bytes())?;
        return cut_damage(options, folders, survey);
    }
    for path in &survey.stale {
        let first = path.file_name().and_then(|n| n.to_str()).and_then(parse_file_name);
        folders.archive(path, first.unwrap_or_default(), Reason::Superseded)?;
    }
    let Some(surveyed) = survey.segments.last() else {
        let preceding = (EntryId::ZERO, Chain::default());
        return create(options, folders, survey, preceding);
    };
    let report = surveyed.report.clone();
    let mut segments = survey.table()?;
    let tail = report.last != report.proven.0;
    let torn = report.stop != Stop::Sealed && survey.remainder.used;
    let active = if tail || torn {
        let old = segments.last().expect("as many as were surveyed").clone();
        let (new, active) = folders.rewrite_tail(&old, report.proven, report.last.seq, torn)?;
        if new.header.first() == old.header.first() {
            segments.pop();
        }
        segments.push(new);
        active
    } else if report.stop == Stop::Sealed {
        let header = SegmentHeader {
            base: false,
            preceding: report.last,
            preceding_chain: report.chain,
            ..surveyed.header
        };
        let start = Start { header, capacity: folders.segment_bytes };
        let active = NewSegment::begin(&folders.dir, start)?.publish()?;
        segments.push(Segment::of(&active, Vec::new()));
        active
    } else {
        let resume = Resume {
            last: report.last,
            chain: report.chain,
            count: report.count,
            position: report.end,
        };
        ActiveSegment::resume(surveyed.path.clone(), surveyed.header, resume)?
    };
    let recovered = survey.recovered(torn);
    Ok(OpenJournal { options, folders, segments, active, recovered })
}

/// Cuts the log off before the damage and keeps everything behind it in the divergent folder.
fn cut_damage(
    options: JournalOptions,
    folders: Folders,
    mut survey: Survey,
) -> io::Result<OpenJournal> {
    // What has no readable header isn't in the survey: go by names.
    let mut known: Vec<&Path> = survey.segments.iter().map(|s| s.path.as_path()).collect();
    known.extend(survey.stale.iter().map(PathBuf::as_path));
    let mut severed = Vec::new();
    for file in fs::read_dir(&folders.dir)? {
        let path = file?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(first) = parse_file_name(name)
            && !known.contains(&path.as_path())
        {
            severed.push((first, path));
        }
    }
    severed.sort();
    for (first, path) in severed.iter().rev() {
        folders.archive(path, *first, Reason::Corrupt)?;
    }
    for path in &survey.stale {
        let first = path.file_name().and_then(|n| n.to_str()).and_then(parse_file_name);
        folders.archive(path, first.unwrap_or_default(), Reason::Superseded)?;
    }
    let Some(report) = survey.segments.last().map(|last| last.report.clone()) else {
        let preceding = (EntryId::ZERO, Chain::default());
        return create(options, folders, survey, preceding);
    };
    let segments = survey.table()?;
    let from = report.last.seq.next();
    let (segments, active) = folders.truncate(&segments, from, Reason::Corrupt)?;
    survey.remainder = Remainder::default();
    let recovered = survey.recovered(false);
    Ok(OpenJournal { options, folders, segments, active, recovered })
}

/// Makes the first segment of a log.
fn create(
    options: JournalOptions,
    folders: Folders,
    survey: Survey,
    preceding: (EntryId, Chain),
) -> io::Result<OpenJournal> {
    let header = base_header(preceding, (options.cluster, options.generation));
    let start = Start { header, capacity: folders.segment_bytes };
    let active = NewSegment::begin(&folders.dir, start)?.publish()?;
    let segments = vec![Segment::of(&active, Vec::new())];
    let recovered = survey.recovered(false);
    Ok(OpenJournal { options, folders, segments, active, recovered })
}

impl Survey {
    fn table(&self) -> io::Result<Vec<Segment>> {
        self.segments
            .iter()
            .map(|segment| {
                Ok(Segment {
                    file: Arc::new(segment.file.try_clone()?),
                    path: segment.path.clone(),
                    header: segment.header,
                    end: segment.report.end,
                    index: segment.report.index.clone(),
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
            for (seq, epoch) in &report.epochs {
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
    let bytes = crate::storage::durable::read_bounded(&path, 64 << 10)?;
    let text = String::from_utf8_lossy(&bytes);
    let (at, what) = text.split_once('\n').unwrap_or(("", &text));
    let at = Seq(at.trim().parse().unwrap_or_default());
    Ok(Some(Damage { at, what: what.trim().to_owned() }))
}
