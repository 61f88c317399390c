//! `quorate backup` and `quorate restore`.
//!
//! `create` is asked of a node; all else works on the archive's files alone, also on a copy of them
//! and while no node runs.

mod create;
mod offline;
mod restore;

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use crate::failure::Failure;
use crate::http::AdminUrl;

pub(crate) use restore::RestoreArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum BackupVerb {
    /// Have a node archive its state and log now
    Create(create::CreateArgs),
    /// List what can be restored
    List {
        /// The archive's directory
        #[arg(long, value_name = "PATH")]
        target: PathBuf,
    },
    /// Check every hash, every checksum and the chain; exit code 1 if anything is wrong
    Verify {
        /// The archive's directory
        #[arg(long, value_name = "PATH")]
        target: PathBuf,
        /// Restore it into a scratch directory as well, and compare with what was archived
        #[arg(long)]
        restore: bool,
        /// Where the scratch directory is made
        #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
        scratch: PathBuf,
    },
    /// Remove what is older than the newest snapshots, with the log before them
    Prune {
        /// The archive's directory
        #[arg(long, value_name = "PATH")]
        target: PathBuf,
        /// Snapshots to keep
        #[arg(long, value_name = "N")]
        keep_snapshots: Option<usize>,
        /// Keep what is needed to restore any moment of so many days
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(..=36_500))]
        keep_days: Option<u64>,
    },
}

/// Does what was asked.
pub(crate) fn run(admin: &AdminUrl, verb: &BackupVerb, json: bool) -> Result<(), Failure> {
    match verb {
        BackupVerb::Create(args) => create::create(admin, args, json),
        BackupVerb::List { target } => offline::list(target, json),
        BackupVerb::Verify { target, restore, scratch } => {
            offline::verify(target, restore.then_some(scratch.as_path()), json)
        }
        BackupVerb::Prune { target, keep_snapshots, keep_days } => {
            let age = keep_days.map(|days| Duration::from_hours(days.saturating_mul(24)));
            offline::prune(target, (*keep_snapshots, age), json)
        }
    }
}

pub(crate) use restore::restore;
