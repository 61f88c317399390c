//! `quorate journal`: a journal's files, seen from outside its node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_actors::storage::journal::{self, EntrySummary, Follower, Inspection, SegmentSummary};

use crate::failure::Failure;
use crate::logged::{contents, entry_json, entry_lines};
use crate::output::{say, table};

/// Between two looks for new entries.
const FOLLOW_PERIOD: Duration = Duration::from_millis(200);

/// Prints segments, and the last entries.
pub(crate) fn inspect(path: &Path, entries: usize, json: bool) -> Result<(), Failure> {
    let folder = folder_of(path);
    let failed = |error| Failure::failed(folder.display(), error);
    let tail = journal::tail(&folder, entries).map_err(failed)?;
    let inspection =
        if folder.is_dir() { Some(journal::inspect(&folder).map_err(failed)?) } else { None };
    if json {
        say(serde_json::json!({
            "segments": inspection.iter().flat_map(|i| &i.segments).map(segment_json)
                .collect::<Vec<_>>(),
            "entries": tail.iter().map(summary_json).collect::<Vec<_>>(),
        }));
        return Ok(());
    }
    if let Some(inspection) = &inspection {
        print_inspection(inspection);
    }
    if !tail.is_empty() {
        let mut rows = vec![words(&["ENTRY", "KIND", "TIME (ms)", "BYTES", "CHAIN", "AT"])];
        rows.extend(tail.iter().map(entry_row));
        say(format_args!("\n{}", table(&rows).trim_end()));
    }
    Ok(())
}

/// Prints the newest entries with their commands, and with `follow` those that come. Only reads.
pub(crate) fn tail(path: &Path, entries: usize, follow: bool, json: bool) -> Result<(), Failure> {
    let folder = folder_of(path);
    let failed = |error| Failure::failed(folder.display(), error);
    let (mut follower, mut newest) = Follower::open(&folder, entries).map_err(failed)?;
    loop {
        for entry in &newest {
            let contents = contents(entry);
            if json {
                say(entry_json(entry, &contents));
            } else {
                for line in entry_lines(entry, &contents) {
                    say(line);
                }
            }
        }
        if !follow {
            return Ok(());
        }
        if newest.is_empty() {
            std::thread::sleep(FOLLOW_PERIOD);
        }
        newest = follower.look().map_err(failed)?;
    }
}

/// Checks every checksum and the chain. A torn tail is no damage: recovery cuts it.
pub(crate) fn verify(path: &Path, json: bool) -> Result<(), Failure> {
    let folder = folder_of(path);
    let report =
        journal::verify(&folder).map_err(|error| Failure::failed(folder.display(), error))?;
    let damaged = report.faults.iter().any(|fault| fault.synced);
    if json {
        let faults: Vec<_> = report
            .faults
            .iter()
            .map(|fault| serde_json::json!({ "what": fault.what, "synced": fault.synced }))
            .collect();
        say(serde_json::json!({
            "segments": report.segments,
            "entries": report.entries,
            "last": report.last.to_string(),
            "chain": report.chain.to_string(),
            "faults": faults,
        }));
    } else {
        say(format_args!(
            "{} entries in {} segments, last {}, chain {}",
            report.entries, report.segments, report.last, report.chain
        ));
        for fault in &report.faults {
            let kind = if fault.synced { "DAMAGED" } else { "torn tail (recovery cuts it)" };
            say(format_args!("{kind}: {}", fault.what));
        }
    }
    if damaged {
        return Err(Failure::Failed(format!(
            "{}: entries that were synced are damaged",
            folder.display()
        )));
    }
    Ok(())
}

/// A data directory stands for the journal in it.
fn folder_of(path: &Path) -> PathBuf {
    let inside = path.join("journal");
    if inside.is_dir() { inside } else { path.to_owned() }
}

fn print_inspection(inspection: &Inspection) {
    let mut rows =
        vec![words(&["SEGMENT", "FIRST", "LAST", "ENTRIES", "PROVEN", "BYTES", "CLOSED"])];
    rows.extend(inspection.segments.iter().map(|segment| {
        vec![
            file_name(&segment.path),
            segment.first.to_string(),
            segment.last.to_string(),
            segment.entries.to_string(),
            segment.proven.to_string(),
            segment.bytes_used.to_string(),
            if segment.closed { "yes" } else { "no" }.to_owned(),
        ]
    }));
    say(table(&rows).trim_end());
    for (what, paths) in [
        ("of a log that was restarted since", &inspection.stale),
        ("behind damage", &inspection.severed),
        ("never finished", &inspection.unfinished),
    ] {
        for path in paths {
            say(format_args!("{}: {what}; recovery puts it away", path.display()));
        }
    }
}

fn segment_json(segment: &SegmentSummary) -> serde_json::Value {
    serde_json::json!({
        "file": segment.path,
        "first": segment.first.0,
        "last": segment.last.to_string(),
        "entries": segment.entries,
        "marks": segment.marks,
        "proven": segment.proven.to_string(),
        "bytes": segment.bytes,
        "bytes_used": segment.bytes_used,
        "closed": segment.closed,
        "chain": segment.chain.to_string(),
        "cluster": segment.cluster.to_string(),
        "generation": segment.generation.0,
    })
}

fn summary_json(entry: &EntrySummary) -> serde_json::Value {
    serde_json::json!({
        "epoch": entry.id.epoch.0,
        "seq": entry.id.seq.0,
        "kind": format!("{:?}", entry.kind),
        "time_ms": entry.time.0,
        "payload_bytes": entry.payload_bytes,
        "chain": entry.chain.to_string(),
        "file": entry.path,
        "offset": entry.offset,
    })
}

fn entry_row(entry: &EntrySummary) -> Vec<String> {
    vec![
        entry.id.to_string(),
        format!("{:?}", entry.kind),
        entry.time.to_string(),
        entry.payload_bytes.to_string(),
        entry.chain.to_string(),
        format!("{}:{}", file_name(&entry.path), entry.offset),
    ]
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
