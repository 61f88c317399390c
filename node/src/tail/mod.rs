//! `quorate tail`: what was cut from a node's log, or left in one that never runs again, and what an
//! operator may do with it.
//!
//! - `list`: which files there are.
//! - `contents`: showing and exporting what one of them holds.
//! - `replay`, `connection`: sending it to a cluster.

mod connection;
mod contents;
mod list;
mod replay;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use quorate_actors::storage::journal;
use quorate_protocol::entry::Entry;
use quorate_protocol::types::Seq;

use crate::failure::Failure;
use crate::logged::{Contents, contents};

pub(crate) use replay::ReplayArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum TailVerb {
    /// List what was cut from a node's log, and why
    List {
        /// A data directory, or the folder `divergent` in it
        path: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the commands in one file, entry by entry
    Show {
        #[command(flatten)]
        source: SourceArgs,
        /// As JSON, one entry a line and nothing cut short
        #[arg(long)]
        json: bool,
    },
    /// Write the commands in one file to another
    Export(contents::ExportArgs),
    /// Send the commands in one file to a cluster, in order
    Replay(ReplayArgs),
}

/// Where entries come from.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// A file that `list` names, or the data directory of a node that never runs again
    path: PathBuf,
    /// Leave out entries up to this position; needed for a data directory
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
}

/// Does what was asked.
pub(crate) fn run(verb: &TailVerb) -> Result<(), Failure> {
    match verb {
        TailVerb::List { path, json } => list::list(path, *json),
        TailVerb::Show { source, json } => contents::show(source, *json),
        TailVerb::Export(args) => contents::export(args),
        TailVerb::Replay(args) => replay::replay(args),
    }
}

/// Hands out the entries of a source, with their commands, while `each` says so. What can't be read is
/// told on standard error, and is no failure: the rest is all there is.
fn for_each_entry(
    source: &SourceArgs,
    mut each: impl FnMut(&Entry, &Contents) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let mut outcome = Ok(true);
    for (path, from) in files(source)? {
        let damage = journal::read_entries(&path, from, |entry| {
            let contents = contents(&entry);
            if let Some(fault) = contents.fault {
                eprintln!("entry {}: {fault}", entry.id);
            }
            outcome = each(&entry, &contents);
            matches!(outcome, Ok(true))
        });
        let damage = damage.map_err(|error| Failure::failed(path.display(), error))?;
        if let Some(damage) = damage {
            eprintln!("{}: can't be read further: {damage}", path.display());
        }
        if !matches!(outcome, Ok(true)) {
            break;
        }
    }
    outcome.map(|_| ())
}

/// The files to read, each with the position from which on it counts.
fn files(source: &SourceArgs) -> Result<Vec<(PathBuf, Seq)>, Failure> {
    let SourceArgs { path, after } = source;
    let failed = |error| Failure::failed(path.display(), error);
    let behind = after.map(|after| Seq(after).next());
    if !path.is_dir() {
        let cut = journal::divergent_file(path).map_err(failed)?.cut;
        return Ok(vec![(path.clone(), cut.max(behind.unwrap_or_default()))]);
    }
    let Some(from) = behind else {
        return Err(Failure::Usage(format!(
            "{} is a folder: name the last entry to leave out with --after",
            path.display()
        )));
    };
    let inside = path.join("journal");
    let folder = if inside.is_dir() { &inside } else { path };
    let segments = journal::inspect(folder).map_err(failed)?.segments;
    let wanted = segments.into_iter().filter(|segment| segment.last.seq >= from);
    Ok(wanted.map(|segment| (segment.path, from)).collect())
}
