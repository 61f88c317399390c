//! Opening a journal: a survey that only reads, then the repairs that it asks for.
//!
//! Every repair leaves files that a second survey accepts as they are, so a crash during
//! recovery, or a second recovery, changes nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use quorate_protocol::record::SegmentHeader;
use quorate_protocol::types::{Chain, ClusterId, EntryId, Epoch, Incarnation, Seq};

use super::cut::{Folders, Reason, base_header};
use super::options::JournalOptions;
use super::reader::JournalReader;
use super::scan::{Remainder, Stop};
use super::segment::{ActiveSegment, NewSegment, Resume, Start, parse_file_name};
use super::survey::{DAMAGE_FILE, Depth, Survey, survey};
use super::table::{Segment, Table};
use super::witness::Witness;
use crate::storage::durable::{replace_file, sync_dir};

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
    /// Synced entries were damaged that the state holds on disk: their segments were set aside in the
    /// divergent folder, and nothing is lost.
    pub repaired: Option<Damage>,
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
            .and_then(|()| survey(&dir, Depth::Newest, Seq::ZERO))
            .and_then(|survey| leave_out_covered(survey, &options))
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
        self.segments = vec![Segment::of(&active)];
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
    pub(crate) fn chain_at(&self, id: EntryId) -> Option<Chain> {
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

fn prepare(folders: &Folders) -> io::Result<()> {
    for dir in [&folders.dir, &folders.divergent] {
        if !dir.try_exists()? {
            fs::create_dir_all(dir)?;
            sync_dir(dir.parent().unwrap_or(Path::new(".")))?;
        }
    }
    Ok(())
}

/// Damage in what the state holds on disk costs nothing: the log then starts behind it, as after
/// trimming. Damage behind that stays.
fn leave_out_covered(found: Survey, options: &JournalOptions) -> io::Result<Survey> {
    let Some(damage) = found.damage.clone().filter(|_| found.recorded.is_none()) else {
        return Ok(found);
    };
    let covered = (options.covered.0)();
    if damage.at > covered {
        return Ok(found);
    }
    let again = survey(&options.dir, Depth::Newest, covered)?;
    if again.damage.is_some() || again.segments.is_empty() {
        return Ok(found);
    }
    Ok(Survey { repaired: Some(damage), ..again })
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
    for path in &survey.covered {
        let first = path.file_name().and_then(|n| n.to_str()).and_then(parse_file_name);
        folders.archive(path, first.unwrap_or_default(), Reason::Corrupt)?;
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
        segments.push(Segment::of(&active));
        active
    } else {
        let resume = Resume {
            last: report.last,
            chain: report.chain,
            count: report.count,
            index: report.index,
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
    let segments = vec![Segment::of(&active)];
    let recovered = survey.recovered(false);
    Ok(OpenJournal { options, folders, segments, active, recovered })
}
