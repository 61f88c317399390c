//! `quorate tail list`.

use std::path::Path;

use quorate_actors::storage::journal::{self, DivergentFile};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::moment::{moment, moment_ms};
use crate::output::{say, table};

const HEADER: [&str; 8] =
    ["FILE", "REASON", "FIRST", "LAST", "ENTRIES", "SEALED FROM", "CUT AT", "BYTES"];

pub(super) fn list(path: &Path, json: bool) -> Result<(), Failure> {
    let inside = path.join("divergent");
    let folder = if inside.is_dir() { inside } else { path.to_owned() };
    if !folder.is_dir() {
        return Err(Failure::failed(folder.display(), "is no folder"));
    }
    let files =
        journal::divergent(&folder).map_err(|error| Failure::failed(folder.display(), error))?;
    if json {
        say(Value::Array(files.iter().map(file_json).collect()));
        return Ok(());
    }
    if files.is_empty() {
        say("nothing was cut from this node's log");
        return Ok(());
    }
    let mut rows = vec![HEADER.map(str::to_owned).to_vec()];
    rows.extend(files.iter().map(row));
    say(table(&rows).trim_end());
    for file in files.iter().filter(|file| file.damage.is_some()) {
        let damage = file.damage.as_deref().unwrap_or_default();
        say(format_args!("{}: can't be read further: {damage}", file.path.display()));
    }
    Ok(())
}

fn row(file: &DivergentFile) -> Vec<String> {
    let absent = || "-".to_owned();
    let tail = file.tail.as_ref();
    vec![
        file.path.display().to_string(),
        file.reason.to_string(),
        tail.map_or_else(|| file.cut.to_string(), |tail| tail.first.to_string()),
        tail.map_or_else(absent, |tail| tail.last.to_string()),
        tail.map_or(0, |tail| tail.entries).to_string(),
        tail.map_or_else(absent, |tail| moment_ms(tail.from.0)),
        moment(file.at.into()),
        file.bytes.to_string(),
    ]
}

fn file_json(file: &DivergentFile) -> Value {
    json!({
        "file": file.path,
        "reason": file.reason.to_string(),
        "cut_seq": file.cut.0,
        "cut_at": moment(file.at.into()),
        "bytes": file.bytes,
        "cluster": file.origin.map(|(cluster, _)| cluster.to_string()),
        "generation": file.origin.map(|(_, generation)| generation.0),
        "entries": file.tail.map_or(0, |tail| tail.entries),
        "first": file.tail.map(|tail| tail.first.to_string()),
        "last": file.tail.map(|tail| tail.last.to_string()),
        "first_time_ms": file.tail.map(|tail| tail.from.0),
        "last_time_ms": file.tail.map(|tail| tail.to.0),
        "damage": file.damage,
    })
}
