//! One backup: named steps, each required or best effort.
//!
//! Nothing counts before `HEAD` names it, and `HEAD` is replaced last of all that is required: a run
//! that ends anywhere before leaves files that nobody reads, and the next one begins again from what
//! `HEAD` says.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate_protocol::types::{
    Chain, ClusterId, ClusterTime, EntryId, EntryKind, Generation, NodeId, Seq,
};

use super::catalogue::{
    CATALOGUE, CATALOGUE_BYTES_SHORT, Catalogue, ConfigAt, Content, FORMAT, Gap, HEAD, Head, Link,
    Origin, Position, SegmentManifest, Sha256, SnapshotFile, SnapshotManifest, encode, hex,
    new_run, sha256,
};
use super::chain::Tip;
use super::error::ArchiveError;
use super::options::{RunOptions, WithState};
use super::pace::Pace;
use super::report::{BackupFailure, BackupReport, StepReport};
use super::segment::SegmentBuilder;
use super::settings::InForce;
use super::status::{SnapshotSeen, Written};
use super::target::Target;
use crate::clock;
use crate::storage::JournalHold;
use crate::storage::journal::JournalReader;
use crate::storage::state::{Applied, StateReader, StateSnapshot, StoredCluster, position_in};
use crate::view::Published;

/// Entries read from the journal at a time.
const READ_BYTES: usize = 1 << 20;

/// How long the journal may take to have what is applied already, and how often it is looked at.
const JOURNAL_LIMIT: Duration = Duration::from_secs(10);
const JOURNAL_POLL: Duration = Duration::from_millis(5);

/// The step in which an archive becomes what it will be.
const HEAD_STEP: &str = "head";

/// What a run works with.
#[derive(Clone)]
pub(crate) struct RunParts {
    pub(crate) state: StateReader,
    pub(crate) journal: JournalReader,
    pub(crate) published: Arc<Published>,
    pub(crate) data_dir: PathBuf,
    pub(crate) hold: Arc<JournalHold>,
    /// Where a checkpoint may be made; a start removes what is left there.
    pub(crate) scratch: PathBuf,
    pub(crate) node: NodeId,
    pub(crate) cluster_name: String,
    pub(crate) settings: InForce,
    /// How long the list of everything was when this node last wrote it.
    pub(crate) listed_bytes: Arc<AtomicU64>,
    /// Set when the node stops.
    pub(crate) stopping: Arc<AtomicBool>,
}

/// Makes one backup. Blocks for as long as copying takes.
///
/// # Errors
/// The first required step that failed.
pub(super) fn run(
    parts: &RunParts,
    target: &Target,
    options: RunOptions,
) -> Result<BackupReport, BackupFailure> {
    let named = new_run().map_err(|source| BackupFailure {
        step: "gate check",
        error: ArchiveError::Local { path: parts.data_dir.clone(), source },
    })?;
    let mut run = Run {
        named,
        pace: Pace::new(),
        written: Vec::new(),
        parts,
        target,
        options,
        began: Instant::now(),
        steps: Vec::new(),
        bytes: 0,
        segments: 0,
        entries: 0,
        gap: None,
    };
    let outcome = run.all();
    // Whether `HEAD` was replaced after all may show later, and what it names must be there then. What
    // stays behind is pruned.
    let named = |failure: &BackupFailure| {
        failure.step == HEAD_STEP && !matches!(failure.error, ArchiveError::Fenced)
    };
    if outcome.as_ref().is_err_and(|failure| !named(failure)) {
        run.clean_up();
    }
    outcome
}

struct Run<'a> {
    /// Part of the names of its files.
    named: String,
    pace: Pace,
    /// Files put into the archive.
    written: Vec<String>,
    parts: &'a RunParts,
    target: &'a Target,
    options: RunOptions,
    began: Instant,
    steps: Vec<StepReport>,
    bytes: u64,
    segments: u64,
    entries: u64,
    gap: Option<Gap>,
}

/// What a run begins with.
struct Known {
    origin: Origin,
    ids: (ClusterId, Generation),
    /// Where the archive ends; none, if there is none.
    tip: Option<Tip>,
}

impl Known {
    fn newest_snapshot(&self) -> Option<SnapshotSeen> {
        self.tip.as_ref().map(|tip| SnapshotSeen::of(&tip.snapshot))
    }
}

impl Run<'_> {
    fn all(&mut self) -> Result<BackupReport, BackupFailure> {
        let known = self.step("gate check", Self::check)?;
        // From here on nothing may go that the segments will need.
        let _hold = self.parts.hold.hold_for_archive(self.parts.published.applied().prev());
        let before = known.tip.as_ref().map(|tip| &tip.head);
        let lost =
            before.is_some_and(|head| Seq(head.archived.seq).next() < self.parts.journal.first());
        let taken = if lost || self.copies_state(&known) {
            Some(self.step("snapshot", |run| run.snapshot(&known))?)
        } else {
            None
        };
        // The archive ends where this view of the state does, so that they can be compared; the
        // snapshot is older.
        let state = self.parts.state.clone();
        let view = state.snapshot();
        let applied = self.step("position", |_| view.applied().map_err(ArchiveError::from))?;
        let archived = Position::new(applied.id, applied.chain, applied.time);
        if let Some(head) = before.filter(|head| taken.is_none() && head.archived.is_at(&archived))
        {
            // Nothing is new.
            let newest = known.newest_snapshot().expect("an archive has one");
            return Ok(self.report((Some(head.archived.clone()), newest), head, None));
        }
        let hashes = self.options.hash && taken.is_some();
        let content = self.best_effort("content hash", |_| hash(hashes, &view, &applied));
        let content = content.or_else(|| before.and_then(|head| head.content.clone()));
        let start = match (before, &taken) {
            (Some(head), _) if !lost => head.archived.clone(),
            (_, Some(taken)) => taken.at.clone(),
            (_, None) => unreachable!("a snapshot is made where the log can't go on"),
        };
        if let Some(head) = before.filter(|_| lost) {
            self.gap = Some(Gap { first: head.archived.seq + 1, last: start.seq });
        }
        self.step("journal", |run| run.wait_for_journal(applied.id.seq))?;
        let segment = self
            .step("segments", |run| run.write_segments(&known, taken.as_ref(), &start, &applied))?;
        let head = Head {
            format: FORMAT,
            origin: known.origin.clone(),
            runs: before.map_or(0, |head| head.runs) + 1,
            written_at_ms: clock::wall().0,
            written_by: self.parts.node.0,
            archived: archived.clone(),
            content,
            segment,
            snapshot: match &taken {
                Some(taken) => taken.link.clone(),
                None => before.expect("a first run makes a snapshot").snapshot.clone(),
            },
            oldest_seq: before.map_or(start.seq, |head| head.oldest_seq),
        };
        self.step(HEAD_STEP, |run| {
            let bytes = encode(&head);
            run.bytes += bytes.len() as u64;
            let expected = known.tip.as_ref().map(|tip| &tip.head_bytes);
            run.target.swap(HEAD, expected, bytes)
        })?;
        self.best_effort("catalogue", |run| run.list(taken.is_some()).map(Some));
        if self.options.paced {
            self.best_effort("ack wait", |run| run.wait_for_copies(&archived).map(Some));
        }
        let before = before.map(|head| head.archived.clone());
        let newest = taken.as_ref().map(|taken| taken.seen.clone()).or(known.newest_snapshot());
        let newest = newest.expect("a first run makes a snapshot");
        Ok(self.report((before, newest), &head, taken.map(|taken| (taken.link.name, taken.at))))
    }

    /// Whether this run copies the state.
    fn copies_state(&self, known: &Known) -> bool {
        let Some(newest) = known.newest_snapshot() else { return true };
        match self.options.state {
            WithState::Yes => true,
            WithState::No => false,
            WithState::IfDue => {
                let interval = self.parts.settings.load().snapshot_interval.as_millis();
                // One that is yet to come was told by a clock that was wrong.
                let age = clock::wall().0.checked_sub(newest.made_at_ms);
                age.is_none_or(|age| u128::from(age) >= interval)
            }
        }
    }

    fn report(
        &mut self,
        (before, newest): (Option<Position>, SnapshotSeen),
        head: &Head,
        snapshot: Option<(String, Position)>,
    ) -> BackupReport {
        BackupReport {
            target: self.target.name(),
            before,
            archived: head.archived.clone(),
            written: Written::of(head),
            newest,
            snapshot,
            segments: self.segments,
            entries: self.entries,
            bytes: self.bytes,
            gap: self.gap.take(),
            steps: std::mem::take(&mut self.steps),
            took: self.began.elapsed(),
        }
    }

    /// Removes what this run has written: nothing leads there.
    fn clean_up(&self) {
        for name in &self.written {
            if let Err(error) = self.target.remove(name) {
                tracing::warn!(%error, "what a failed backup wrote stays behind until it is pruned");
                return;
            }
        }
    }

    fn step<T>(
        &mut self,
        step: &'static str,
        work: impl FnOnce(&mut Self) -> Result<T, ArchiveError>,
    ) -> Result<T, BackupFailure> {
        let began = Instant::now();
        let done = self.go_on().and_then(|()| work(self));
        self.steps.push(StepReport { step, took: began.elapsed(), missed: None });
        done.map_err(|error| BackupFailure { step, error })
    }

    fn best_effort<T>(
        &mut self,
        step: &'static str,
        work: impl FnOnce(&mut Self) -> Result<Option<T>, ArchiveError>,
    ) -> Option<T> {
        let began = Instant::now();
        let (done, missed) = match work(self) {
            Ok(done) => (done, None),
            Err(error) => (None, Some(error.to_string())),
        };
        self.steps.push(StepReport { step, took: began.elapsed(), missed });
        done
    }

    fn go_on(&self) -> Result<(), ArchiveError> {
        if self.parts.stopping.load(Ordering::Relaxed) {
            return Err(ArchiveError::Stopped);
        }
        Ok(())
    }

    /// Whose archive it is, and how far it goes.
    fn check(&mut self) -> Result<Known, ArchiveError> {
        let view = self.parts.published.view();
        let config = view.config.clone();
        let config = config
            .ok_or_else(|| ArchiveError::NotNow("it is part of no cluster yet".to_owned()))?;
        let origin = Origin {
            cluster_id: config.cluster.to_string(),
            cluster_name: self.parts.cluster_name.clone(),
            generation: config.generation.0,
        };
        self.target.must_be_apart(&self.parts.data_dir)?;
        let tip = match Tip::load(self.target) {
            Ok(found) => Some(found),
            Err(ArchiveError::Nothing { .. }) => None,
            Err(error) => return Err(error),
        };
        if let Some(Tip { head, .. }) = &tip {
            if head.origin.cluster_id != origin.cluster_id {
                let (theirs, ours) = (head.origin.cluster_id.clone(), origin.cluster_id);
                return Err(ArchiveError::OtherCluster { theirs, ours });
            }
            if head.origin.generation > origin.generation {
                let theirs = head.origin.generation;
                let why = format!("the archive is of generation {theirs}, which this node is not");
                return Err(ArchiveError::NotNow(why));
            }
            let applied = self.parts.published.applied();
            if Seq(head.archived.seq) > applied {
                let archived = head.archived.seq;
                return Err(ArchiveError::Behind { applied: applied.0, archived });
            }
            // An epoch and a position name one entry, also across recoveries.
            let here = self.parts.state.epoch_of(Seq(head.archived.seq))?;
            if here.is_some_and(|epoch| epoch.0 != head.archived.epoch) {
                return Err(ArchiveError::OtherHistory { archived: head.archived.id() });
            }
        }
        Ok(Known { origin, ids: (config.cluster, config.generation), tip })
    }

    /// Copies a checkpoint of the state.
    fn snapshot(&mut self, known: &Known) -> Result<Taken, ArchiveError> {
        let scratch = Scratch::new(&self.parts.scratch)?;
        self.parts.state.checkpoint(&scratch.0)?;
        let (applied, config) = position_in(&scratch.0)?;
        let config = config.ok_or_else(|| ArchiveError::NotNow("its state is empty".to_owned()))?;
        // After the position was read: what it holds was committed by then.
        let epoch = self.parts.published.committed_epoch().max(applied.id.epoch);
        let at = Position::new(applied.id, applied.chain, applied.time);
        let config = config_at(&config);
        if let Some(Tip { head, snapshot: newest, .. }) = &known.tip
            && newest.at.is_at(&at)
        {
            // It is there already, and what `HEAD` names must not be touched.
            let (config, seen) = (newest.config.clone(), SnapshotSeen::of(newest));
            return Ok(Taken { link: head.snapshot.clone(), at, config, seen });
        }
        let folder = SnapshotManifest::new_folder(applied.id, &self.named);
        let mut files = Vec::new();
        for (name, path) in files_of(&scratch.0)? {
            self.go_on()?;
            let (name, mut hasher) = (format!("{folder}/{name}"), Sha256::new());
            self.written.push(name.clone());
            let (stopping, pace) = (&self.parts.stopping, &mut self.pace);
            let rate = || self.options.paced.then(|| self.parts.settings.load().bytes_per_second);
            self.target.upload(&name, &path, &mut |piece| {
                hasher.update(piece);
                pace.copied(piece.len(), rate, stopping);
                if stopping.load(Ordering::Relaxed) {
                    return Err(io::Error::other("the node is stopping"));
                }
                Ok(())
            })?;
            let bytes = hasher.bytes();
            self.bytes += bytes;
            files.push(SnapshotFile { file: Link { name, sha256: hasher.finish() }, bytes });
        }
        let manifest = SnapshotManifest {
            format: FORMAT,
            files,
            origin: known.origin.clone(),
            at: at.clone(),
            made_by: self.parts.node.0,
            folder,
            epoch: epoch.0,
            config: config.clone(),
            made_at_ms: clock::wall().0,
            previous: known.tip.as_ref().map(|tip| tip.head.snapshot.clone()),
        };
        let link = self.write_manifest(manifest.manifest_name(), encode(&manifest))?;
        Ok(Taken { link, at, config, seen: SnapshotSeen::of(&manifest) })
    }

    /// Writes the list of everything, where it is short, or with a snapshot.
    fn list(&mut self, with_snapshot: bool) -> Result<(), ArchiveError> {
        let known = self.parts.listed_bytes.load(Ordering::Relaxed);
        if known > CATALOGUE_BYTES_SHORT && !with_snapshot {
            return Ok(());
        }
        let bytes = encode(&Catalogue::load_listed(self.target)?);
        let len = bytes.len() as u64;
        self.bytes += len;
        self.target.write(CATALOGUE, bytes)?;
        self.parts.listed_bytes.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn wait_for_copies(&self, archived: &Position) -> Result<(), ArchiveError> {
        let ack = self.parts.settings.load().ack;
        let go_on = || !self.parts.stopping.load(Ordering::Relaxed);
        let waited = ack.wait(&self.parts.published, Seq(archived.seq), go_on);
        waited.map_err(|missing| ArchiveError::NotAcked { seq: archived.seq, missing })
    }

    /// What others hold is committed and applied here, too, before this node's own journal has it, where
    /// its disk is slower.
    fn wait_for_journal(&self, seq: Seq) -> Result<(), ArchiveError> {
        let until = Instant::now() + JOURNAL_LIMIT;
        loop {
            let last = self.parts.journal.last();
            if last.seq >= seq {
                return Ok(());
            }
            self.go_on()?;
            if Instant::now() >= until {
                let why = format!("its state holds entry {seq}, its journal ends at {last}");
                return Err(ArchiveError::NotNow(why));
            }
            std::thread::sleep(JOURNAL_POLL);
        }
    }

    /// Writes the log from behind `start` to `applied`. Returns the newest segment.
    fn write_segments(
        &mut self,
        known: &Known,
        taken: Option<&Taken>,
        start: &Position,
        applied: &Applied,
    ) -> Result<Option<Link>, ArchiveError> {
        let tip = known.tip.as_ref();
        let mut newest = tip.and_then(|tip| tip.head.segment.clone());
        let before = tip.and_then(|tip| tip.segment.as_ref());
        let mut gap = before
            .filter(|before| before.last.seq < start.seq)
            .map(|before| Gap { first: before.last.seq + 1, last: start.seq });
        // From what the archive itself says: whoever writes this segment writes the same bytes.
        let older = tip.map(|tip| &tip.snapshot);
        let mut config = before
            .map(|before| &before.config)
            .or(older.map(|older| &older.config))
            .or(taken.map(|taken| &taken.config))
            .expect("a first run makes a snapshot")
            .clone();
        let mut at = Place::of(start)?;
        while at.id.seq < applied.id.seq {
            self.go_on()?;
            let (manifest, bytes, after) = self.segment(known, &at, applied.id.seq, &mut config)?;
            let manifest = SegmentManifest { gap: gap.take(), previous: newest.take(), ..manifest };
            self.written.push(manifest.file.name.clone());
            self.bytes += manifest.bytes;
            let copied = bytes.len();
            self.target.write(&manifest.file.name, bytes)?;
            let rate = || self.options.paced.then(|| self.parts.settings.load().bytes_per_second);
            self.pace.copied(copied, rate, &self.parts.stopping);
            self.segments += 1;
            self.entries += manifest.entries;
            newest = Some(self.write_manifest(manifest.manifest_name(), encode(&manifest))?);
            at = after;
        }
        Ok(newest)
    }

    /// One segment from behind `from` to `through` at most.
    fn segment(
        &self,
        known: &Known,
        from: &Place,
        through: Seq,
        config: &mut ConfigAt,
    ) -> Result<(SegmentManifest, Vec<u8>, Place), ArchiveError> {
        let mut builder = SegmentBuilder::new(known.ids, from.id, from.chain);
        let mut at = *from;
        let mut from_ms = None;
        'fill: while at.id.seq < through && builder.len() < self.options.segment_bytes_max {
            for entry in self.parts.journal.read(at.id.seq.next(), READ_BYTES)? {
                if entry.id.seq > through {
                    break 'fill;
                }
                if !entry.follows(at.chain) {
                    // The journal is of another branch than the archive.
                    let what = format!("entry {} doesn't continue it", entry.id);
                    return Err(ArchiveError::foreign(HEAD, what));
                }
                if entry.kind == EntryKind::Cluster {
                    let (epoch, seq) = (entry.id.epoch.0, entry.id.seq.0);
                    *config = ConfigAt { epoch, seq, payload: hex(&entry.payload) };
                }
                from_ms.get_or_insert(entry.time.0);
                builder.push(&entry);
                at = Place { id: entry.id, chain: entry.chain, time: entry.time };
            }
        }
        let entries = builder.count();
        let bytes = builder.finish();
        let name = SegmentManifest::new_name(from.id.seq.next(), at.id.seq, &self.named);
        let manifest = SegmentManifest {
            format: FORMAT,
            file: Link { name, sha256: sha256(&bytes) },
            bytes: bytes.len() as u64,
            origin: known.origin.clone(),
            preceding: Position::new(from.id, from.chain, from.time),
            last: Position::new(at.id, at.chain, at.time),
            from_ms: from_ms.unwrap_or_default(),
            entries,
            config: config.clone(),
            gap: None,
            previous: None,
        };
        Ok((manifest, bytes, at))
    }

    fn write_manifest(&mut self, name: String, bytes: Vec<u8>) -> Result<Link, ArchiveError> {
        let link = Link { name, sha256: sha256(&bytes) };
        self.written.push(link.name.clone());
        self.bytes += bytes.len() as u64;
        self.target.write(&link.name, bytes)?;
        Ok(link)
    }
}

/// A snapshot that `HEAD` may name.
struct Taken {
    link: Link,
    at: Position,
    config: ConfigAt,
    seen: SnapshotSeen,
}

/// A position in the log, as the program handles it.
#[derive(Clone, Copy, Debug)]
struct Place {
    id: EntryId,
    chain: Chain,
    time: ClusterTime,
}

impl Place {
    fn of(position: &Position) -> Result<Self, ArchiveError> {
        let chain = position.chain().map_err(|what| ArchiveError::damaged(HEAD, what))?;
        Ok(Self { id: position.id(), chain, time: ClusterTime(position.time_ms) })
    }
}

fn hash(
    wanted: bool,
    view: &StateSnapshot<'_>,
    applied: &Applied,
) -> Result<Option<Content>, ArchiveError> {
    if !wanted {
        return Ok(None);
    }
    let found = view.content_hash()?;
    assert_eq!(found.id, applied.id, "one view of the state is of one position");
    Ok(Some(Content { seq: found.id.seq.0, keys: found.keys, hash: hex(&found.hash) }))
}

fn config_at(stored: &StoredCluster) -> ConfigAt {
    ConfigAt { epoch: stored.id.epoch.0, seq: stored.id.seq.0, payload: hex(&stored.payload) }
}

/// All files but RocksDB's own log and lock, in the order of their names.
fn files_of(dir: &Path) -> Result<Vec<(String, PathBuf)>, ArchiveError> {
    let failed = |source| ArchiveError::Local { path: dir.to_owned(), source };
    let mut files = Vec::new();
    for file in fs::read_dir(dir).map_err(failed)? {
        let path = file.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.starts_with("LO") {
            files.push((name.to_owned(), path.clone()));
        }
    }
    files.sort();
    Ok(files)
}

/// A folder that is removed with this.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: &Path) -> Result<Self, ArchiveError> {
        let failed = |source| ArchiveError::Local { path: path.to_owned(), source };
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let parent = path.parent().unwrap_or(path);
        fs::create_dir_all(parent).map_err(failed)?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is removed by the next run or start.
        let _ = fs::remove_dir_all(&self.0);
    }
}
