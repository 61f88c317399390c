//! The command line.

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::admin::drill::resume;
use crate::backup::{self, BackupVerb, RestoreArgs};
use crate::config::{self, Source};
use crate::dev::{self, DevArgs};
use crate::drill::{self, DrillVerb};
use crate::failure::Failure;
use crate::http::AdminUrl;
use crate::join::{self, JoinArgs};
use crate::members::{self, MembersVerb};
use crate::output::say;
use crate::policy::{self, PolicyVerb};
use crate::recover::{self, RecoverArgs};
use crate::storage::{self, StorageVerb};
use crate::tail::{self, TailVerb};
use crate::token::{self, TokenVerb};
use crate::{events, journal, orders, pki, reload, scrub, start, status};

/// A replicated store that speaks the Redis protocol and says OK only when the copies that you
/// asked for exist.
///
/// Exit codes: 0 done, 1 failed, 2 wrong arguments or configuration, 3 the node can't be reached, 4
/// this node was removed from its cluster.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a cluster of processes on this machine, to try things on
    Dev(DevArgs),
    /// Run one node in the foreground
    Start {
        #[command(flatten)]
        config: ConfigArgs,
        /// Accept a data directory on tmpfs or overlay; for tests, as storage.allow_volatile
        #[arg(long)]
        allow_volatile: bool,
    },
    /// Show members, roles, positions and policy, as one node sees them
    Status {
        #[command(flatten)]
        admin: AdminArgs,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Again every second
        #[arg(long)]
        watch: bool,
    },
    /// Hand leadership from the primary to another node
    Promote {
        #[command(flatten)]
        admin: AdminArgs,
        /// The node that is to lead; without it, the most caught-up voter
        #[arg(long)]
        to: Option<u64>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show, replace or explain the durability policy
    Policy {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        verb: PolicyVerb,
        /// As JSON
        #[arg(long, global = true)]
        json: bool,
    },
    /// Invite a node, list or revoke invitations
    Token {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        verb: TokenVerb,
        /// As JSON
        #[arg(long, global = true)]
        json: bool,
    },
    /// Make this machine a node of a cluster, by a token
    Join(JoinArgs),
    /// List, add, remove or replace members
    Members {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        verb: MembersVerb,
        /// As JSON
        #[arg(long, global = true)]
        json: bool,
    },
    /// Write one node's state to disk, rewrite its files, or give memory back
    Storage {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        verb: StorageVerb,
        /// As JSON
        #[arg(long, global = true)]
        json: bool,
    },
    /// Show what happened to a node and what operators did to it, oldest first
    Events {
        #[command(flatten)]
        admin: AdminArgs,
        /// Only those behind the one with this number
        #[arg(long, value_name = "ID", default_value_t = 0)]
        since: u64,
        /// Go on with those to come
        #[arg(long)]
        follow: bool,
        /// Each as JSON, on a line of its own
        #[arg(long)]
        json: bool,
    },
    /// Compare what the nodes hold, and read all files; exit code 1 if anything is wrong
    Scrub {
        #[command(flatten)]
        admin: AdminArgs,
        /// Have nodes that differ from most rebuild their state from the others
        #[arg(long)]
        repair: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Archive a node's state and log, and look after archives
    Backup {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        verb: BackupVerb,
        /// As JSON
        #[arg(long, global = true)]
        json: bool,
    },
    /// Restore an archive into an empty data directory, as a cluster of its own
    Restore(RestoreArgs),
    /// Have one stopped node go on alone, when too few are left to elect a primary; may lose writes
    Recover(RecoverArgs),
    /// Take a node out of service: a primary hands leadership over, and the node takes none
    Drain {
        #[command(flatten)]
        admin: AdminArgs,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Break a running cluster on purpose, and see what its clients see
    Drill {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(subcommand)]
        verb: DrillVerb,
        /// As JSON
        #[arg(long, global = true)]
        json: bool,
    },
    /// After all nodes run a newer binary
    #[command(subcommand)]
    Upgrade(UpgradeVerb),
    /// Let a paused process go on: for the node that starts this, in a drill
    #[command(hide = true)]
    Resume { pid: i32, after_ms: u64 },
    /// Stop a node in order, and say what that achieved
    Shutdown {
        #[command(flatten)]
        admin: AdminArgs,
        /// Archive what is new first; exit code 1 if that fails
        #[arg(long)]
        backup: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Look at a journal's files
    #[command(subcommand)]
    Journal(JournalVerb),
    /// Look at what was cut from a node's log, and send it to a cluster
    #[command(subcommand)]
    Tail(TailVerb),
    /// Write a commented configuration with every key
    Init(InitArgs),
    /// Make and show certificates
    #[command(subcommand)]
    Pki(PkiVerb),
    /// Check a configuration, or show what holds
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Print the version
    Version {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
struct InitArgs {
    /// Where to write it; `-` is standard output
    #[arg(long, default_value = "quorate.toml")]
    output: PathBuf,
    /// Overwrite the file
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct AdminArgs {
    /// The admin port of a node
    #[arg(long, env = "QUORATE_ADMIN", default_value = "http://127.0.0.1:7421", global = true)]
    admin: AdminUrl,
}

#[derive(Debug, Subcommand)]
enum JournalVerb {
    /// List segments and the last entries
    Inspect {
        /// A data directory, a journal's folder, or one segment file
        path: PathBuf,
        /// How many entries
        #[arg(long, default_value_t = 10)]
        entries: usize,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the newest entries and the commands in them, also of a running node
    Tail {
        /// A data directory, or a journal's folder
        path: PathBuf,
        /// How many entries
        #[arg(long, default_value_t = 10)]
        entries: usize,
        /// Go on with those that are written from now on
        #[arg(long)]
        follow: bool,
        /// As JSON, one entry a line
        #[arg(long)]
        json: bool,
    },
    /// Check every checksum and the chain; exit code 1 if synced entries are damaged
    Verify {
        /// A data directory, a journal's folder, or one segment file
        path: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum PkiVerb {
    /// Make a certificate authority: ca.crt and ca.key, valid for ten years
    Ca {
        /// Folder for the files
        #[arg(long, default_value = "tls")]
        dir: PathBuf,
        /// Name of the cluster
        #[arg(long, default_value = "quorate")]
        cluster: String,
        /// Overwrite existing files: nodes with certificates of the old authority are locked out
        #[arg(long)]
        force: bool,
    },
    /// Make a node's certificate: node-<ID>.crt and node-<ID>.key, valid for one year
    Node {
        /// The node's number
        #[arg(long)]
        id: u64,
        /// Name of the cluster, as in its configuration
        #[arg(long, default_value = "quorate")]
        cluster: String,
        /// A host name or IP address to name as well; may be given several times
        #[arg(long)]
        host: Vec<String>,
        /// Folder that holds ca.crt and ca.key and gets the files
        #[arg(long, default_value = "tls")]
        dir: PathBuf,
        /// Overwrite existing files
        #[arg(long)]
        force: bool,
    },
    /// Replace certificates while the cluster runs; nodes take them over at `config reload`
    Rotate {
        /// A node: a new key and certificate with the names of the present one
        #[arg(long, conflicts_with_all = ["ca", "retire"])]
        id: Option<u64>,
        /// The authority: a new one signs, and those before are trusted until they are retired
        #[arg(long, conflicts_with = "retire")]
        ca: bool,
        /// Trust only the newest authority from now on
        #[arg(long)]
        retire: bool,
        /// Name of the cluster, as in its configuration
        #[arg(long, default_value = "quorate")]
        cluster: String,
        /// Folder that holds the files
        #[arg(long, default_value = "tls")]
        dir: PathBuf,
    },
    /// Sign the request of a node that joins where no member holds the authority's key
    Sign {
        /// The request that `quorate join` wrote
        #[arg(long)]
        request: PathBuf,
        /// The node's number, as in its token
        #[arg(long)]
        id: u64,
        /// Name of the cluster, as in its configuration
        #[arg(long, default_value = "quorate")]
        cluster: String,
        /// Folder that holds ca.crt and ca.key
        #[arg(long, default_value = "tls")]
        dir: PathBuf,
        /// Where the certificate goes
        #[arg(long)]
        output: PathBuf,
    },
    /// Show whom certificates name and how long they are valid
    Show {
        /// PEM files
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum UpgradeVerb {
    /// Raise the cluster version, once all members' binaries follow it; older ones can't return then
    Finish {
        #[command(flatten)]
        admin: AdminArgs,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Print what holds for every key, and where it was set
    Show(ConfigArgs),
    /// Check the file, the environment and every file that they name
    Check(ConfigArgs),
    /// Have a running node read its configuration and certificates again: all of it, or nothing
    Reload {
        #[command(flatten)]
        admin: AdminArgs,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration file
    #[arg(long, env = "QUORATE_CONFIG")]
    config: PathBuf,
}

impl Cli {
    /// Does what was asked.
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.verb {
            Verb::Dev(args) => dev::run(args),
            Verb::Start { config, allow_volatile } => {
                start::run(&load(&config.config)?, allow_volatile)
            }
            Verb::Status { admin, json, watch } => status::run(&admin.admin, json, watch),
            Verb::Promote { admin, to, json } => orders::promote(&admin.admin, to, json),
            Verb::Token { admin, verb, json } => token::run(&admin.admin, &verb, json),
            Verb::Join(args) => join::run(&args),
            Verb::Members { admin, verb, json } => members::run(&admin.admin, &verb, json),
            Verb::Storage { admin, verb, json } => storage::run(&admin.admin, verb, json),
            Verb::Policy { admin, verb, json } => policy::run(&admin.admin, &verb, json),
            Verb::Events { admin, since, follow, json } => {
                events::run(&admin.admin, since, follow, json)
            }
            Verb::Scrub { admin, repair, json } => scrub::run(&admin.admin, repair, json),
            Verb::Backup { admin, verb, json } => backup::run(&admin.admin, &verb, json),
            Verb::Restore(args) => backup::restore(&args),
            Verb::Recover(args) => recover::run(&args),
            Verb::Drain { admin, json } => orders::drain(&admin.admin, json),
            Verb::Drill { admin, verb, json } => drill::run(&admin.admin, &verb, json),
            Verb::Upgrade(UpgradeVerb::Finish { admin, json }) => {
                orders::finish_upgrade(&admin.admin, json)
            }
            Verb::Resume { pid, after_ms } => {
                resume(pid, std::time::Duration::from_millis(after_ms))
            }
            Verb::Shutdown { admin, backup, json } => orders::shutdown(&admin.admin, backup, json),
            Verb::Journal(JournalVerb::Inspect { path, entries, json }) => {
                journal::inspect(&path, entries, json)
            }
            Verb::Journal(JournalVerb::Verify { path, json }) => journal::verify(&path, json),
            Verb::Journal(JournalVerb::Tail { path, entries, follow, json }) => {
                journal::tail(&path, entries, follow, json)
            }
            Verb::Tail(verb) => tail::run(&verb),
            Verb::Init(args) => init(&args),
            Verb::Pki(verb) => run_pki(verb),
            Verb::Config(ConfigVerb::Show(args)) => {
                say(config::effective(&load(&args.config)?).trim_end());
                Ok(())
            }
            Verb::Config(ConfigVerb::Check(args)) => {
                let source = load(&args.config)?;
                config::resolve_checked(&source)
                    .map_err(|errors| Failure::Usage(errors.to_string()))?;
                say(format_args!("{}: valid", args.config.display()));
                Ok(())
            }
            Verb::Config(ConfigVerb::Reload { admin, json }) => reload::ask(&admin.admin, json),
            Verb::Version { json } => {
                version(json);
                Ok(())
            }
            Verb::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "quorate", &mut script);
                say(String::from_utf8_lossy(&script));
                Ok(())
            }
        }
    }
}

/// Reads a configuration and lets the environment override it.
fn load(path: &Path) -> Result<Source, Failure> {
    Source::load(path, std::env::vars()).map_err(|errors| Failure::Usage(errors.to_string()))
}

fn init(args: &InitArgs) -> Result<(), Failure> {
    let text = config::example();
    if args.output == Path::new("-") {
        say(text.trim_end());
        return Ok(());
    }
    if args.output.exists() && !args.force {
        return Err(Failure::Usage(format!(
            "{} exists; --force overwrites it",
            args.output.display()
        )));
    }
    std::fs::write(&args.output, text)
        .map_err(|error| Failure::failed(args.output.display(), error))?;
    say(format_args!("wrote {}", args.output.display()));
    Ok(())
}

fn run_pki(verb: PkiVerb) -> Result<(), Failure> {
    let failed = |error: pki::PkiError| Failure::Failed(error.to_string());
    match verb {
        PkiVerb::Ca { dir, cluster, force } => {
            let files = pki::create_authority(&dir, &cluster, force).map_err(failed)?;
            say(format_args!("wrote {} and {}", files.cert.display(), files.key.display()));
        }
        PkiVerb::Node { id, cluster, host, dir, force } => {
            let files = pki::create_node(&dir, id, &cluster, &host, force).map_err(failed)?;
            say(format_args!("wrote {} and {}", files.cert.display(), files.key.display()));
        }
        PkiVerb::Rotate { id, ca, retire, cluster, dir } => {
            let files = match (id, ca, retire) {
                (Some(id), _, _) => pki::rotate_node(&dir, id, &cluster).map_err(failed)?,
                (None, true, _) => pki::rotate_authority(&dir, &cluster).map_err(failed)?,
                (None, false, true) => {
                    let retired = pki::retire_authorities(&dir).map_err(failed)?;
                    say(format_args!("{retired} authorities are trusted no more"));
                    return Ok(());
                }
                (None, false, false) => {
                    return Err(Failure::Usage("name --id, --ca or --retire".to_owned()));
                }
            };
            say(format_args!("wrote {} and {}", files.cert.display(), files.key.display()));
        }
        PkiVerb::Sign { request, id, cluster, dir, output } => {
            pki::sign_request(&dir, &request, id, &cluster, &output).map_err(failed)?;
            say(format_args!("wrote {}", output.display()));
        }
        PkiVerb::Show { files, json } => {
            let mut shown = Vec::new();
            for file in &files {
                shown.extend(pki::describe(file).map_err(failed)?);
            }
            if json {
                say(serde_json::json!(shown));
            } else {
                for certificate in shown {
                    say(certificate);
                }
            }
        }
    }
    Ok(())
}

fn version(json: bool) {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        say(serde_json::json!({ "version": version }));
    } else {
        say(format_args!("quorate {version}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
