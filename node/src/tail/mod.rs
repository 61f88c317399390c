//! `quorate tail`: what was cut from a node's log, and what an operator may do with it.
//!
//! - `list`: which files there are.
//! - `contents`: showing and exporting what one of them holds.
//! - `replay`, `connection`: sending it to a cluster.

mod connection;
mod contents;
mod list;
mod replay;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use quorate_actors::storage::journal::{self, DivergentFile};
use quorate_protocol::entry::Entry;

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
        /// A file that `list` names
        file: PathBuf,
        /// As JSON, one entry a line and nothing cut short
        #[arg(long)]
        json: bool,
    },
    /// Write the commands in one file to another
    Export(contents::ExportArgs),
    /// Send the commands in one file to a cluster, in order
    Replay(ReplayArgs),
}

/// Does what was asked.
pub(crate) fn run(verb: &TailVerb) -> Result<(), Failure> {
    match verb {
        TailVerb::List { path, json } => list::list(path, *json),
        TailVerb::Show { file, json } => contents::show(file, *json),
        TailVerb::Export(args) => contents::export(args),
        TailVerb::Replay(args) => replay::replay(args),
    }
}

/// Hands out the entries that were cut, with their commands, while `each` says so. What can't be
/// read is told on standard error, and is no failure: the rest is all there is.
fn for_each_entry(
    file: &Path,
    mut each: impl FnMut(&Entry, &Contents) -> Result<bool, Failure>,
) -> Result<DivergentFile, Failure> {
    let failed = |error| Failure::failed(file.display(), error);
    let described = journal::divergent_file(file).map_err(failed)?;
    let mut outcome = Ok(true);
    journal::read_entries(file, described.cut, |entry| {
        let contents = contents(&entry);
        if let Some(fault) = contents.fault {
            eprintln!("entry {}: {fault}", entry.id);
        }
        outcome = each(&entry, &contents);
        matches!(outcome, Ok(true))
    })
    .map_err(failed)?;
    outcome?;
    if let Some(damage) = &described.damage {
        eprintln!("{}: can't be read further: {damage}", file.display());
    }
    Ok(described)
}
