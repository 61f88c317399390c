//! What is done with an archive's files alone.

use std::path::Path;
use std::time::Duration;

use quorate_actors::archive::{
    self, ArchiveError, Catalogue, Location, Retention, S3Settings, Target, TargetOptions,
};
use quorate_actors::storage::options::RocksOptions;
use serde_json::json;

use super::Archived;
use super::restore::Bar;
use crate::config::{self, Settings, Source};
use crate::failure::Failure;
use crate::moment::moment_ms;
use crate::output::{say, table};

impl Archived {
    /// An archive that is there.
    pub(super) fn open(&self) -> Result<Target, Failure> {
        let settings = self.config.as_ref().map(|path| read_config(path)).transpose()?;
        let s3 = settings.map(|settings| settings.node.archive.s3).unwrap_or_default();
        open(&self.target, s3)
    }
}

pub(super) fn open(location: &Location, s3: S3Settings) -> Result<Target, Failure> {
    let options = TargetOptions { s3, ..TargetOptions::default() };
    Target::open_existing(location, &options).map_err(failed)
}

pub(super) fn read_config(path: &Path) -> Result<Settings, Failure> {
    let source = Source::load(path, std::env::vars());
    let settings = source.and_then(|source| config::resolve_checked(&source));
    settings.map_err(|errors| Failure::Usage(errors.to_string()))
}

pub(super) fn failed(error: ArchiveError) -> Failure {
    Failure::Failed(error.to_string())
}

pub(super) fn list(target: &Target, as_json: bool) -> Result<(), Failure> {
    let catalogue = Catalogue::load(target).map_err(failed)?;
    let Catalogue { head, snapshots, segments } = &catalogue;
    if as_json {
        let text = serde_json::to_string(&catalogue);
        say(text.map_err(|error| Failure::failed("the catalogue", error))?);
        return Ok(());
    }
    let origin = &head.origin;
    say(format_args!(
        "cluster {} ({}), generation {}\nthrough entry {} of {}, written {} by node {}\n",
        origin.cluster_name,
        origin.cluster_id,
        origin.generation,
        head.archived.seq,
        moment_ms(head.archived.time_ms),
        moment_ms(head.written_at_ms),
        head.written_by,
    ));
    let header = ["SNAPSHOT", "OF", "BYTES", "LOG BEHIND IT", "BYTES"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for (index, snapshot) in snapshots.iter().enumerate() {
        let end = snapshots.get(index + 1).map_or(u64::MAX, |next| next.at.seq);
        let behind = segments
            .iter()
            .filter(|segment| segment.last.seq > snapshot.at.seq && segment.first().0 <= end);
        let (count, bytes) =
            behind.fold((0, 0), |(count, bytes), segment| (count + 1, bytes + segment.bytes));
        rows.push(vec![
            snapshot.at.seq.to_string(),
            moment_ms(snapshot.at.time_ms),
            snapshot.bytes().to_string(),
            format!("{count} segments"),
            bytes.to_string(),
        ]);
    }
    say(table(&rows).trim_end());
    for gap in catalogue.gaps() {
        say(format_args!(
            "no moment between entries {} and {} can be restored",
            gap.first, gap.last
        ));
    }
    Ok(())
}

pub(super) fn verify(
    target: &Target,
    scratch: Option<&Path>,
    as_json: bool,
) -> Result<(), Failure> {
    let mut bar = Bar::new("verifying");
    let verified = archive::verify(target, &mut |progress| bar.show(progress)).map_err(failed)?;
    bar.finish();
    let mut restored = None;
    if let (Some(scratch), true) = (scratch, verified.faults.is_empty()) {
        let mut bar = Bar::new("restoring");
        let rocksdb = RocksOptions::default();
        let outcome = archive::verify_by_restore(target, scratch, &rocksdb, &mut |progress| {
            bar.show(progress);
        });
        bar.finish();
        restored = Some(outcome.map_err(failed)?);
    }
    if as_json {
        let restored = restored.map(|(last, content, compared)| {
            json!({ "seq": last.seq.0, "keys": content.keys, "compared": compared })
        });
        say(json!({
            "snapshots": verified.snapshots, "segments": verified.segments,
            "entries": verified.entries, "bytes": verified.bytes,
            "archived_seq": verified.archived.seq, "faults": verified.faults,
            "unlisted": verified.unlisted, "notes": verified.notes, "restored": restored,
        }));
    } else {
        for fault in &verified.faults {
            say(format_args!("FAULT  {fault}"));
        }
        for note in &verified.notes {
            say(format_args!("note   {note}"));
        }
        for name in &verified.unlisted {
            say(format_args!(
                "note   {name} is of a backup that ended early, or of one that is under way"
            ));
        }
        say(format_args!(
            "{} snapshots, {} segments, {} entries, {} bytes; through entry {}",
            verified.snapshots,
            verified.segments,
            verified.entries,
            verified.bytes,
            verified.archived.seq
        ));
        if let Some((last, content, compared)) = restored {
            let compared = if compared {
                "the same as what was archived"
            } else {
                "not compared: the last backup was without a hash of the content"
            };
            say(format_args!("restored: {} keys at entry {}; {compared}", content.keys, last.seq));
        }
    }
    match verified.faults.len() {
        0 => Ok(()),
        count => Err(Failure::Failed(format!("{count} faults"))),
    }
}

pub(super) fn prune(
    target: &Target,
    (snapshots, age): (Option<usize>, Option<Duration>),
    as_json: bool,
) -> Result<(), Failure> {
    if snapshots.is_none() && age.is_none() {
        return Err(Failure::Usage("say what to keep: --keep-snapshots or --keep-days".to_owned()));
    }
    let retention = Retention { snapshots, age, bytes: None };
    let pruned = archive::prune(target, retention).map_err(failed)?;
    let archive::Pruned { snapshots, segments, bytes, leftovers, oldest_seq } = pruned;
    if as_json {
        say(json!({
            "snapshots": snapshots, "segments": segments, "bytes": bytes, "leftovers": leftovers,
            "oldest_seq": oldest_seq,
        }));
    } else {
        say(format_args!(
            "removed {snapshots} snapshots and {segments} segments, {bytes} bytes, and {leftovers} \
             files of backups that ended early; the oldest entry that can be restored is {oldest_seq}"
        ));
    }
    Ok(())
}
