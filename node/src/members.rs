//! `quorate members`: who belongs to the cluster, and changing that while it runs.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::admin::MembersOrder;
use crate::failure::Failure;
use crate::http::AdminUrl;
use crate::output::{say, table};

/// The longest wait for an answer: a hand-over and a change, each with what the node allows itself.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Between two looks at a node that is being waited for.
const WAIT_PERIOD: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(crate) enum MembersVerb {
    /// List members, nodes that call and are not members yet, and removed ids
    List,
    /// Take in a node that calls (cluster.join in its file); it becomes a voter once it has caught up
    Add(AddArgs),
    /// Remove a member for ever; one that leads hands over first
    Remove {
        /// Its number
        #[arg(long)]
        id: u64,
        /// Only say whether the old and the new voters can agree on it
        #[arg(long)]
        dry_run: bool,
    },
    /// Add a node, wait until it is a voter, and remove another; may be run again where it was cut off
    Replace {
        /// The member that goes
        #[arg(long)]
        id: u64,
        /// The node that calls and takes its place
        #[arg(long)]
        with: u64,
        /// How long the new node may take to catch up, in seconds
        #[arg(long, default_value_t = 3600)]
        wait: u64,
        /// Only say whether the voters can agree on both steps
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The node's number, as in its certificate
    #[arg(long)]
    id: u64,
    /// Its disk id in hex, for a node that can't call any member: its log has it as `disk=` at each start
    #[arg(long, requires = "peer")]
    disk: Option<String>,
    /// host:port where other nodes reach it; by default as it says
    #[arg(long)]
    peer: Option<String>,
    /// host:port where cluster clients reach it; by default as it says
    #[arg(long)]
    client: Option<String>,
    /// host:port where plain clients reach it; by default as it says
    #[arg(long)]
    plain: Option<String>,
    /// Wait so many seconds until it is a voter
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    /// Only say whether the old and the new voters can agree on it
    #[arg(long)]
    dry_run: bool,
}

/// Does what was asked.
pub(crate) fn run(admin: &AdminUrl, verb: &MembersVerb, as_json: bool) -> Result<(), Failure> {
    match verb {
        MembersVerb::List => list(admin, as_json),
        MembersVerb::Add(args) => add(admin, args, as_json),
        MembersVerb::Remove { id, dry_run } => show(&remove(admin, *id, *dry_run)?, as_json),
        MembersVerb::Replace { id, with, wait, dry_run } => {
            replace(admin, (*id, *with), Duration::from_secs(*wait), *dry_run, as_json)
        }
    }
}

fn fetch(admin: &AdminUrl) -> Result<Value, Failure> {
    admin.get("/members", ANSWER_LIMIT)?.json(admin)
}

fn post(admin: &AdminUrl, order: &MembersOrder) -> Result<Value, Failure> {
    let body = serde_json::to_string(order).map_err(|error| Failure::failed("the order", error))?;
    admin.post("/admin/members", &body, ANSWER_LIMIT)?.json(admin)
}

fn add(admin: &AdminUrl, args: &AddArgs, as_json: bool) -> Result<(), Failure> {
    let AddArgs { id, disk, peer, client, plain, wait, dry_run } = args;
    let order = MembersOrder::Add {
        node: *id,
        disk: disk.clone(),
        peer: peer.clone(),
        client: client.clone(),
        plain: plain.clone(),
        dry_run: *dry_run,
    };
    show(&post(admin, &order)?, as_json)?;
    match wait {
        Some(seconds) if !dry_run => {
            wait_for_voter(admin, *id, Duration::from_secs(*seconds), as_json)
        }
        Some(_) | None => Ok(()),
    }
}

fn remove(admin: &AdminUrl, node: u64, dry_run: bool) -> Result<Value, Failure> {
    post(admin, &MembersOrder::Remove { node, dry_run })
}

/// Each step is left out where an earlier run has done it.
fn replace(
    admin: &AdminUrl,
    (old, new): (u64, u64),
    wait: Duration,
    dry_run: bool,
    as_json: bool,
) -> Result<(), Failure> {
    let members = fetch(admin)?;
    let is_member = |node| kind_of(&members, node).is_some();
    if !is_member(old) {
        return Err(Failure::Usage(format!("node {old} is not a member")));
    }
    if !is_member(new) {
        let (disk, peer, client, plain) = (None, None, None, None);
        let order = MembersOrder::Add { node: new, disk, peer, client, plain, dry_run };
        show(&post(admin, &order)?, as_json)?;
    }
    if dry_run {
        return show(&remove(admin, old, true)?, as_json);
    }
    wait_for_voter(admin, new, wait, as_json)?;
    show(&remove(admin, old, false)?, as_json)
}

/// voter or learner, if it is a member.
fn kind_of(members: &Value, node: u64) -> Option<&str> {
    let all = members["members"].as_array()?;
    all.iter().find(|member| member["node"] == node)?["kind"].as_str()
}

fn wait_for_voter(
    admin: &AdminUrl,
    node: u64,
    limit: Duration,
    as_json: bool,
) -> Result<(), Failure> {
    let deadline = Instant::now() + limit;
    let mut said = String::new();
    let mut seen = false;
    loop {
        let members = fetch(admin)?;
        match kind_of(&members, node) {
            Some("voter") => {
                if !as_json {
                    say(format_args!("node-{node} is a voter"));
                }
                return Ok(());
            }
            Some(_) => seen = true,
            // A replica learns of it a moment after the primary has said so.
            None if !seen && Instant::now() < deadline => {
                std::thread::sleep(WAIT_PERIOD);
                continue;
            }
            None => return Err(Failure::Failed(format!("node {node} is no member"))),
        }
        let all = members["members"].as_array();
        let own = all.and_then(|all| all.iter().find(|member| member["node"] == node));
        let applied = own.and_then(|member| member["cursors"]["applied_seq"].as_u64());
        let now = match applied {
            Some(seq) => format!("node-{node} is a learner, and holds the log through {seq}"),
            None => format!("node-{node} is a learner that fetches a snapshot or is not connected"),
        };
        if now != said && !as_json {
            say(&now);
            said = now;
        }
        if Instant::now() >= deadline {
            return Err(Failure::Failed(format!("node {node} is no voter within {limit:?}")));
        }
        std::thread::sleep(WAIT_PERIOD);
    }
}

fn show(answer: &Value, as_json: bool) -> Result<(), Failure> {
    let possible = answer["possible"].as_bool();
    if as_json {
        say(answer);
    } else {
        match possible {
            None => say(text(&answer["change"])),
            Some(true) => say(forecast(answer)),
            Some(false) => {}
        }
    }
    if possible == Some(false) {
        let (change, refused) = (text(&answer["change"]), text(&answer["refused"]));
        return Err(Failure::Failed(format!("{change}: would be refused: {refused}")));
    }
    Ok(())
}

fn forecast(answer: &Value) -> String {
    let quorum = |which: &str| {
        let reachable = numbers(&answer[which]["reachable"]);
        let needed = &answer[which]["needed"];
        format!("{needed} of the {which} voters must hold it; these answer: {reachable}")
    };
    let mut text =
        format!("{}: possible\n  {}\n  {}", text(&answer["change"]), quorum("old"), quorum("new"));
    if answer["hands_over"] == true {
        text += "\n  it leads, and hands over first";
    }
    text += &format!(
        "\n  voters afterwards: {}, under {}",
        numbers(&answer["voters"]),
        self::text(&answer["policy"])
    );
    if let Some(warning) = answer["warning"].as_str() {
        text += &format!("\n  {warning}");
    }
    text
}

fn numbers(list: &Value) -> String {
    let all = list.as_array().into_iter().flatten();
    all.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(admin: &AdminUrl, as_json: bool) -> Result<(), Failure> {
    let members = fetch(admin)?;
    if as_json {
        say(&members);
        return Ok(());
    }
    let header = ["NODE", "KIND", "ROLE", "CONNECTED", "APPLIED", "PEERS", "CLIENTS"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for member in members["members"].as_array().into_iter().flatten() {
        rows.push(vec![
            format!("node-{}", member["node"]),
            text(&member["kind"]),
            text(&member["role"]),
            if member["connected"] == true { "yes" } else { "NO" }.to_owned(),
            member["cursors"]["applied_seq"].as_u64().map_or("-".to_owned(), |seq| seq.to_string()),
            text(&member["peer_addr"]),
            text(&member["client_addr"]),
        ]);
    }
    for candidate in members["candidates"].as_array().into_iter().flatten() {
        rows.push(vec![
            format!("node-{}", candidate["node"]),
            "calls".to_owned(),
            "-".to_owned(),
            "-".to_owned(),
            "-".to_owned(),
            text(&candidate["peer_addr"]),
            text(&candidate["client_addr"]),
        ]);
    }
    say(table(&rows).trim_end());
    let removed = numbers(&members["removed"]);
    if !removed.is_empty() {
        say(format_args!("removed for ever: {removed}"));
    }
    Ok(())
}
