//! `quorate tail replay`: sends what was cut from a log to a cluster, once and in order.
//!
//! The clients of these writes were told that they are in doubt, or were never told anything; some
//! have tried again since. So nothing of this happens by itself, and what may have happened is
//! never sent a second time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::connection::Connection;
use super::{SourceArgs, for_each_entry};
use crate::failure::Failure;
use crate::logged::Logged;
use crate::output::say;

/// The longest wait for a reply: longer than a node lets a request wait.
const REPLY_LIMIT: Duration = Duration::from_secs(40);

/// How often one command follows the cluster to another primary.
const MOVES_MAX: u32 = 5;

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// host:port of a node's cluster listener; the primary is found from there
    #[arg(long, default_value = "127.0.0.1:7401")]
    to: String,
    /// A file that holds the clients' password
    #[arg(long)]
    password_file: Option<PathBuf>,
    /// Send it. Without this, it is only counted
    #[arg(long)]
    yes: bool,
    /// Leave out so many writes and transactions from the start: what an earlier replay has sent
    #[arg(long, default_value_t = 0)]
    skip: u64,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What became of what was sent.
#[derive(Debug, Default)]
struct Counts {
    /// Carried out.
    ok: u64,
    /// Refused for what they are, by the error's first word.
    failed: BTreeMap<String, u64>,
    /// Transactions left out because they watched keys: whether these changed isn't known.
    watched: u64,
    /// All that were looked at, left out ones included.
    seen: u64,
}

/// Why a replay ends early.
enum Ended {
    /// The command certainly did not happen.
    Refused(String),
    /// It may have happened.
    InDoubt(String),
}

pub(super) fn replay(args: &ReplayArgs) -> Result<(), Failure> {
    if !args.yes {
        return count(args);
    }
    let password = args.password_file.as_ref().map(|path| {
        let text = std::fs::read_to_string(path);
        text.map(|text| text.trim().to_owned())
            .map_err(|error| Failure::failed(path.display(), error))
    });
    let mut target =
        Target { address: args.to.clone(), password: password.transpose()?, connection: None };
    let (mut counts, mut ended) = (Counts::default(), None);
    for_each_entry(&args.source, |entry, contents| {
        for logged in &contents.logged {
            counts.seen += 1;
            if counts.seen <= args.skip {
                continue;
            }
            match send(&mut target, logged, &mut counts) {
                Ok(()) => {}
                Err(why) => {
                    ended = Some((entry.id, why));
                    return Ok(false);
                }
            }
        }
        Ok(true)
    })?;
    counts.report(args.json);
    match ended {
        None if counts.failed.is_empty() => Ok(()),
        None => Err(Failure::Failed("some writes were refused for what they are".to_owned())),
        Some((id, Ended::Refused(why))) => Err(Failure::Failed(format!(
            "stopped at entry {id}, which was not carried out: {why}; go on with --skip {}",
            counts.seen - 1
        ))),
        Some((id, Ended::InDoubt(why))) => Err(Failure::Failed(format!(
            "stopped at entry {id}, which may have been carried out: {why}; look at its keys, then \
             go on with --skip {} to leave it out or {} to send it again",
            counts.seen,
            counts.seen - 1
        ))),
    }
}

/// What would be sent.
fn count(args: &ReplayArgs) -> Result<(), Failure> {
    let (mut writes, mut transactions, mut watched) = (0u64, 0u64, 0u64);
    for_each_entry(&args.source, |_, contents| {
        for logged in &contents.logged {
            match logged {
                Logged::Write(_) => writes += 1,
                Logged::Transaction { watched: keys, .. } if keys.is_empty() => transactions += 1,
                Logged::Transaction { .. } => watched += 1,
            }
        }
        Ok(true)
    })?;
    say(format_args!(
        "{writes} writes and {transactions} transactions for {}; {watched} transactions that \
         watched keys are left out",
        args.to
    ));
    Err(Failure::Usage("nothing was sent: --yes sends it".to_owned()))
}

fn send(target: &mut Target, logged: &Logged, counts: &mut Counts) -> Result<(), Ended> {
    if matches!(logged, Logged::Transaction { watched, .. } if !watched.is_empty()) {
        counts.watched += 1;
        return Ok(());
    }
    let commands = logged.commands();
    for _ in 0..=MOVES_MAX {
        let connection = target.connection().map_err(Ended::Refused)?;
        let error = match connection.send(&commands) {
            Ok(None) => {
                counts.ok += 1;
                return Ok(());
            }
            Ok(Some(error)) => error,
            Err(error) => return Err(Ended::InDoubt(error.to_string())),
        };
        match error.split(' ').next().unwrap_or_default() {
            "MOVED" => target.follow(&error),
            "INDOUBT" => return Err(Ended::InDoubt(error)),
            // The write itself is at fault: it would be again.
            code @ ("ERR" | "WRONGTYPE") => {
                eprintln!("{}: {error}", logged.lines().join("; "));
                *counts.failed.entry(code.to_owned()).or_default() += 1;
                return Ok(());
            }
            _ => return Err(Ended::Refused(error)),
        }
    }
    Err(Ended::Refused("the primary moves too often".to_owned()))
}

/// Where it goes.
struct Target {
    address: String,
    password: Option<String>,
    connection: Option<Connection>,
}

impl Target {
    fn connection(&mut self) -> Result<&mut Connection, String> {
        if self.connection.is_none() {
            let opened = Connection::open(&self.address, self.password.as_deref(), REPLY_LIMIT);
            let opened = opened.map_err(|error| format!("{}: {error}", self.address))?;
            self.connection = Some(opened);
        }
        Ok(self.connection.as_mut().expect("it was opened above"))
    }

    /// `MOVED slot host:port`
    fn follow(&mut self, moved: &str) {
        if let Some(address) = moved.split(' ').nth(2) {
            address.clone_into(&mut self.address);
        }
        self.connection = None;
    }
}

impl Counts {
    fn report(&self, json: bool) {
        let Self { ok, failed, watched, seen } = self;
        if json {
            say(json!({ "ok": ok, "failed": failed, "watched": watched, "seen": seen }));
            return;
        }
        let refused: u64 = failed.values().sum();
        say(format_args!(
            "{ok} carried out, {refused} failed, {watched} that watched keys left out"
        ));
        for (code, count) in failed {
            say(format_args!("  {code}: {count}"));
        }
    }
}
