//! `quorate recover`: one node goes on alone when too few are left to elect a primary (S12).
//!
//! - `survey`: what is left, from directories and from nodes that answer.
//! - `assess`: who should go on, and what may be lost by it.
//! - `report`: the same in words, and the record that stays.
//!
//! Nothing is written before the operator has confirmed that each other member will never run
//! again with its old data, and then that the survivor is to go on.

mod assess;
mod report;
mod survey;

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use quorate_actors::node::config::NodeConfig;
use quorate_actors::node::{NewGeneration, Survivor};
use quorate_protocol::policy::Policy;
use quorate_protocol::types::NodeId;

use crate::config::{self, Source};
use crate::failure::Failure;
use crate::http::AdminUrl;
use crate::output::say;
use assess::{Assessment, Risk, assess, risk};
use report::Report;
use survey::{Place, Survey};

/// How long a node that still runs may take to stop.
const STOP_LIMIT: Duration = Duration::from_mins(1);

/// The longest wait for a node's answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// Configuration of the node that is to go on alone. It must be stopped
    #[arg(long, env = "QUORATE_CONFIG")]
    config: PathBuf,
    /// Admin port of another node that runs, to ask how far its log is; may be given several times
    #[arg(long = "admin", value_name = "URL")]
    running: Vec<AdminUrl>,
    /// Data directory of another node that is stopped, or a copy of one; may be given several times
    #[arg(long = "copy", value_name = "DIR")]
    copies: Vec<PathBuf>,
    /// The policy from then on: one node must be able to meet it [default: the present one, else
    /// majority]
    #[arg(long)]
    policy: Option<String>,
    /// Go on with this node though another copy holds more
    #[arg(long)]
    give_up_more: bool,
    /// A member that never runs again with its old data; needed for each of them
    #[arg(long = "fenced", value_name = "NODE", value_delimiter = ',')]
    fenced: Vec<u64>,
    /// `recover NAME`, with the cluster's name; asked for on a terminal
    #[arg(long, value_name = "TEXT")]
    confirm: Option<String>,
    /// Say what is left and what is at risk, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Does what was asked.
pub(crate) fn run(args: &RecoverArgs) -> Result<(), Failure> {
    let source = Source::load(&args.config, std::env::vars());
    let settings = source.and_then(|source| config::resolve_checked(&source));
    let node = settings.map_err(|errors| Failure::Usage(errors.to_string()))?.node;
    if !node.data_dir.is_dir() {
        return Err(Failure::failed(node.data_dir.display(), "there is no data directory"));
    }
    let survey = Survey::take(&node.data_dir, &args.copies, &args.running)?;
    let (assessment, risk) = judge(&survey)?;
    let policy = policy(args.policy.as_deref(), &survey)?;
    let mut report = Report::of(&node, &survey, &assessment, &risk, policy);
    if args.json {
        eprintln!("{}", report.text().trim_end());
    } else {
        say(report.text().trim_end());
    }
    permit(args, &assessment, &risk)?;
    if args.dry_run {
        report.finish(args.json);
        return Ok(());
    }
    let fenced = confirm_fences(args, &others(&survey))?;
    confirm_all(args, &node.cluster.name)?;
    // Confirming takes time, in which the others may have gone on.
    let again = Survey::take(&node.data_dir, &args.copies, &args.running)?;
    if again.copies() != survey.copies() {
        return Err(Failure::Failed("a copy has changed meanwhile: look again".to_owned()));
    }
    stop_others(&survey)?;
    report.record_begun(&node.data_dir, &fenced)?;
    let done = recover(&node, &survey, policy)?;
    report.record_done(&node.data_dir, &done)?;
    report.finish(args.json);
    Ok(())
}

fn judge(survey: &Survey) -> Result<(Assessment, Risk), Failure> {
    let configs: Vec<_> = survey.configs.iter().collect();
    let assessment = assess(&configs, &survey.copies())
        .ok_or_else(|| Failure::Failed("no copy is that of a voter".to_owned()))?;
    let risk = risk(&assessment, &survey.survivor());
    Ok((assessment, risk))
}

/// One node's policy: the one that is asked for, or the present one where it can meet that.
fn policy(asked: Option<&str>, survey: &Survey) -> Result<Policy, Failure> {
    if let Some(text) = asked {
        return Policy::parse(text, 1).map_err(|error| Failure::Usage(error.to_string()));
    }
    let present = survey.configs.last().map(|config| config.policy);
    Ok(present.filter(|policy| policy.check(1).is_ok()).unwrap_or(Policy::MAJORITY))
}

/// Refuses what loses more than it has to.
fn permit(args: &RecoverArgs, assessment: &Assessment, risk: &Risk) -> Result<(), Failure> {
    if assessment.can_elect {
        return Err(Failure::Failed(
            "these nodes can elect a primary without losing anything: start them".to_owned(),
        ));
    }
    if let Some((first, last)) = risk.known
        && !args.give_up_more
    {
        let best = assessment.best.node;
        return Err(Failure::Failed(format!(
            "node {best} holds entries {first} to {} that this node doesn't: recover there, or \
             give them up with --give-up-more",
            last.seq
        )));
    }
    Ok(())
}

/// Every member but the survivor, in any configuration that may be in force.
fn others(survey: &Survey) -> Vec<NodeId> {
    let members = survey.configs.iter().flat_map(|config| &config.members);
    let mut others: Vec<NodeId> = members.map(|member| member.node).collect();
    others.retain(|node| *node != survey.own.node);
    others.sort_unstable();
    others.dedup();
    others
}

/// An old member that ran on could be elected by others of its kind, and two clusters would answer.
fn confirm_fences(args: &RecoverArgs, others: &[NodeId]) -> Result<Vec<NodeId>, Failure> {
    if let Some(stranger) = args.fenced.iter().find(|node| !others.contains(&NodeId(**node))) {
        return Err(Failure::Usage(format!(
            "--fenced {stranger}: node {stranger} is no other member"
        )));
    }
    for node in others.iter().filter(|node| !args.fenced.contains(&node.0)) {
        let text = format!("fenced {node}");
        let answer = ask(
            &format!(
                "Node {node} must never run again with its old data: not before its data directory \
                 is wiped and it joins anew.\nType `{text}` if that is so: "
            ),
            &format!("--fenced {node} (it will never run again with its old data)"),
        )?;
        if answer != text {
            return Err(Failure::Failed(format!("node {node} is not fenced; nothing was changed")));
        }
    }
    Ok(others.to_vec())
}

fn confirm_all(args: &RecoverArgs, cluster: &str) -> Result<(), Failure> {
    let text = format!("recover {cluster}");
    let answer = match &args.confirm {
        Some(answer) => answer.clone(),
        None => ask(&format!("Type `{text}` to go on: "), &format!("--confirm '{text}'"))?,
    };
    if answer == text {
        Ok(())
    } else {
        Err(Failure::Failed(format!("{answer:?} is not {text:?}; nothing was changed")))
    }
}

/// Asks on a terminal; a script has to say so beforehand.
fn ask(question: &str, option: &str) -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(format!("nothing was changed; missing: {option}")));
    }
    eprint!("{question}");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| Failure::failed("standard input", error))?;
    Ok(answer.trim().to_owned())
}

/// Nodes that answered were confirmed to be fenced, so they are stopped.
fn stop_others(survey: &Survey) -> Result<(), Failure> {
    for seen in &survey.seen {
        let Place::Running(admin) = &seen.place else { continue };
        // It answers when it has stopped.
        let asked = admin.post("/admin/shutdown", "{}", STOP_LIMIT)?;
        let deadline = Instant::now() + STOP_LIMIT;
        while !admin.is_refused(ANSWER_LIMIT) {
            if Instant::now() > deadline {
                let status = asked.status;
                return Err(Failure::failed(admin, format!("it doesn't stop (answer {status})")));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}

fn recover(node: &NodeConfig, survey: &Survey, policy: Policy) -> Result<NewGeneration, Failure> {
    let failed = |error: quorate_actors::node::RecoverError| Failure::Failed(error.to_string());
    let survivor = Survivor::open(node).map_err(failed)?;
    if survivor.last() < survey.own.last {
        return Err(Failure::failed(
            node.data_dir.display(),
            format!("it ends at {} once opened, not at {}", survivor.last(), survey.own.last),
        ));
    }
    survivor.recover(policy).map_err(failed)
}

/// The file that keeps what was done, one line for each step.
fn record_path(data_dir: &Path) -> PathBuf {
    data_dir.join("recoveries.jsonl")
}
