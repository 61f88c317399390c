//! `quorate drill`: breaks a running cluster on purpose, and reports what its clients saw.
//!
//! - `cluster`: the nodes, as clients reach them.
//! - `fault`: how the primary is broken and mended.
//! - `run`: one fault under load, from start to judgement.
//! - `figures`: what a run measures.
//! - `report`: runs as a table or as JSON.

mod cluster;
mod fault;
mod figures;
mod report;
mod run;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::http::AdminUrl;
use crate::output::say;
use cluster::DrillCluster;
use fault::{Fault, Kind};
use report::Report;
use run::Run;

/// Which drill.
#[derive(Debug, Subcommand)]
pub(crate) enum DrillVerb {
    /// Break the primary under load: how long nobody could write, and what became of every write
    Failover(FailoverArgs),
}

/// How the primary is broken.
#[derive(Debug, Args)]
pub(crate) struct FailoverArgs {
    /// End its process at once, as SIGKILL does (the default)
    #[arg(long, conflicts_with = "pause")]
    kill: bool,
    /// Stop its process for a while, as SIGSTOP does, and let it go on
    #[arg(long)]
    pause: bool,
    /// How long a pause lasts
    #[arg(long, value_name = "MS", default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pause_ms: u64,
    /// Take its data away while it is down (it is kept aside); needs --dir
    #[arg(long, conflicts_with = "pause", requires = "dir")]
    wipe: bool,
    /// The folder of a `quorate dev` cluster: killed nodes are started again from there.
    /// Elsewhere whatever runs the nodes has to do that
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How many times
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// Clients that write unique values
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    writers: u16,
    /// How long clients wait for a reply
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    reply_timeout_ms: u64,
    /// Also where the nodes' configuration doesn't say `node.drill_allowed`
    #[arg(long)]
    yes: bool,
}

/// Runs the drill. Fails if a write was lost, or anything else was seen that must not be.
pub(crate) fn run(admin: &AdminUrl, verb: &DrillVerb, as_json: bool) -> Result<(), Failure> {
    let DrillVerb::Failover(args) = verb;
    let kind = if args.pause {
        Kind::Pause(Duration::from_millis(args.pause_ms))
    } else {
        Kind::Kill { wipe: args.wipe }
    };
    let cluster = DrillCluster::find(admin, args.dir.as_deref())?;
    let fault = Fault::new(kind, admin.clone(), args.yes);
    let mut report = Report::new(&cluster, &fault, args.reply_timeout_ms);
    for number in 1..=args.runs {
        let run = Run {
            cluster: &cluster,
            fault: &fault,
            name: format!("quorate:drill:{}:{number}", std::process::id()),
            writers: usize::from(args.writers),
            reply_timeout: Duration::from_millis(args.reply_timeout_ms),
        };
        let figures = run.execute()?;
        eprintln!("run {number}/{}: {figures}", args.runs);
        let (recovered, kept_in) = (figures.recovered, figures.kept_in.clone());
        report.runs.push(figures);
        if recovered {
            eprintln!(
                "no other node could be elected: one goes on alone (`quorate recover`), and the \
                 others have to join anew. There are no further runs"
            );
            if let Some(kept_in) = kept_in {
                eprintln!("the data that was taken away is in {}", kept_in.display());
            }
            break;
        }
    }
    if as_json {
        say(report.to_json());
    } else {
        say(report.to_table().trim_end());
    }
    report.verdict()
}
