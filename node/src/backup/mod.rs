//! `quorate backup` and `quorate restore`.
//!
//! `create` and `schedule` are asked of a node; all else works on the archive's files alone, also on a copy of them
//! and while no node runs.

mod create;
mod offline;
mod restore;
mod schedule;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_actors::archive::Location;

use crate::failure::Failure;
use crate::http::AdminUrl;

pub(crate) use restore::RestoreArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum BackupVerb {
    /// Have a node archive its state and log now
    Create(create::CreateArgs),
    /// Show what a node archives by itself, what came of it, and what is due when
    Schedule,
    /// List what can be restored
    List(Archived),
    /// Check every hash, every checksum and the chain; exit code 1 if anything is wrong
    Verify {
        #[command(flatten)]
        archive: Archived,
        /// Restore it into a scratch directory as well, and compare with what was archived
        #[arg(long)]
        restore: bool,
        /// Where the scratch directory is made
        #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
        scratch: PathBuf,
    },
    /// Remove what is older than the newest snapshots, with the log before them
    Prune {
        #[command(flatten)]
        archive: Archived,
        /// Snapshots to keep
        #[arg(long, value_name = "N")]
        keep_snapshots: Option<usize>,
        /// Keep what is needed to restore any moment of so many days
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(..=36_500))]
        keep_days: Option<u64>,
    },
}

/// An archive, and how it is reached.
#[derive(Debug, Args)]
pub(crate) struct Archived {
    /// The archive's directory, or s3://bucket/prefix
    #[arg(long, value_name = "TARGET")]
    target: Location,
    /// A node's configuration, whose archive.s3_* say how S3 is reached; the environment without
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Does what was asked.
pub(crate) fn run(admin: &AdminUrl, verb: &BackupVerb, json: bool) -> Result<(), Failure> {
    match verb {
        BackupVerb::Create(args) => create::create(admin, args, json),
        BackupVerb::Schedule => schedule::show(admin, json),
        BackupVerb::List(archive) => offline::list(&archive.open()?, json),
        BackupVerb::Verify { archive, restore, scratch } => {
            offline::verify(&archive.open()?, restore.then_some(scratch.as_path()), json)
        }
        BackupVerb::Prune { archive, keep_snapshots, keep_days } => {
            let age = keep_days.map(|days| Duration::from_hours(days.saturating_mul(24)));
            offline::prune(&archive.open()?, (*keep_snapshots, age), json)
        }
    }
}

pub(crate) use restore::restore;
