//! `quorate policy`: the durability policy of a running cluster, and what one would promise.
//!
//! - `report`: explanations and simulations as data, which the admin port serves.
//! - `render`: the same in words.

mod render;
pub(crate) mod report;

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_protocol::policy::Policy;
use serde_json::json;

use self::report::{Explained, Simulated};
use crate::failure::Failure;
use crate::http::{AdminUrl, query};
use crate::output::say;

/// The longest wait for an answer: more than the node allows itself.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// Show the durability policy in force
    Show,
    /// Replace the durability policy, without a restart; waiting writes are judged by the new one
    Set {
        /// local, memory, hybrid, majority, all, or clauses such as 'persisted>=1 && in_memory>=2'
        policy: String,
        /// Don't ask before a policy that one failed node, or one power cut, may defeat
        #[arg(long)]
        yes: bool,
    },
    /// List the failures that lose acknowledged writes, and those that block writes and elections
    Explain {
        /// As for set; without it, the policy in force
        policy: Option<String>,
        /// For so many voters, without asking a node
        #[arg(long, requires = "policy", value_parser = clap::value_parser!(u8).range(1..=9))]
        voters: Option<u8>,
    },
    /// Say what would hold with these nodes failed, by where the cursors are at this moment
    Simulate(SimulateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// As for set; without it, the policy in force
    #[arg(long)]
    policy: Option<String>,
    /// Nodes that are stopped or cut off; those that don't answer anyway are added
    #[arg(long, value_delimiter = ',', value_name = "NODES")]
    down: Vec<u64>,
    /// Nodes whose machines lose power and come back
    #[arg(long, value_delimiter = ',', value_name = "NODES")]
    power_cut: Vec<u64>,
    /// Nodes whose disks are lost
    #[arg(long, value_delimiter = ',', value_name = "NODES")]
    disk_lost: Vec<u64>,
}

/// Does what was asked.
pub(crate) fn run(admin: &AdminUrl, verb: &PolicyVerb, as_json: bool) -> Result<(), Failure> {
    match verb {
        PolicyVerb::Show => {
            show(&admin.get("/policy", ANSWER_LIMIT)?.json(admin)?, as_json);
            Ok(())
        }
        PolicyVerb::Set { policy, yes } => set(admin, policy, *yes, as_json),
        PolicyVerb::Explain { policy: Some(policy), voters: Some(voters) } => {
            let voters = usize::from(*voters);
            let parsed =
                Policy::parse(policy, voters).map_err(|error| Failure::Usage(error.to_string()))?;
            print(&Explained::of(parsed, voters), render::explained, as_json)
        }
        PolicyVerb::Explain { policy, .. } => {
            let explained = explain(admin, policy.as_deref())?;
            print(&explained, render::explained, as_json)
        }
        PolicyVerb::Simulate(args) => {
            let list = |nodes: &[u64]| {
                let nodes: Vec<String> = nodes.iter().map(u64::to_string).collect();
                (!nodes.is_empty()).then(|| nodes.join(","))
            };
            let path = query(
                "/policy/simulate",
                &[
                    ("policy", args.policy.clone()),
                    ("down", list(&args.down)),
                    ("power_cut", list(&args.power_cut)),
                    ("disk_lost", list(&args.disk_lost)),
                ],
            );
            let simulated: Simulated = admin.get(&path, ANSWER_LIMIT)?.parsed(admin)?;
            print(&simulated, render::simulated, as_json)
        }
    }
}

fn explain(admin: &AdminUrl, policy: Option<&str>) -> Result<Explained, Failure> {
    let path = query("/policy/explain", &[("policy", policy.map(str::to_owned))]);
    admin.get(&path, ANSWER_LIMIT)?.parsed(admin)
}

fn print<T: serde::Serialize>(
    report: &T,
    render: impl Fn(&T) -> String,
    as_json: bool,
) -> Result<(), Failure> {
    if as_json {
        let text = serde_json::to_string(report);
        say(text.map_err(|error| Failure::failed("the report", error))?);
    } else {
        say(render(report).trim_end());
    }
    Ok(())
}

fn show(answer: &serde_json::Value, as_json: bool) {
    if as_json {
        say(answer);
        return;
    }
    say(answer["policy"].as_str().unwrap_or("not formed yet"));
    if let Some(degraded) = answer["degraded"].as_str() {
        say(format_args!("degraded: {degraded}"));
    }
}

fn set(admin: &AdminUrl, policy: &str, yes: bool, as_json: bool) -> Result<(), Failure> {
    if !yes && let Some(weakness) = explain(admin, Some(policy))?.weakness {
        confirm(policy, &weakness)?;
    }
    let body = json!({ "policy": policy }).to_string();
    let answer = admin.post("/admin/policy", &body, ANSWER_LIMIT)?.json(admin)?;
    show(&answer, as_json);
    Ok(())
}

/// Asks on a terminal; a script has to say so beforehand.
fn confirm(policy: &str, weakness: &str) -> Result<(), Failure> {
    eprintln!("{policy} is a weak policy: {weakness}");
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(format!("{policy} was not set; --yes sets it")));
    }
    eprint!("Set it? Type yes: ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    if read.is_err() || answer.trim() != "yes" {
        return Err(Failure::Failed(format!("{policy} was not set")));
    }
    Ok(())
}
