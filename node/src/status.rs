//! `quorate status`: one screen about the cluster, as one node sees it.

use std::io::IsTerminal as _;
use std::time::Duration;

use crate::admin::status::{EXPIRY_WARNING_DAYS, MemberStatus, Receiving, Sending, Status};
use crate::failure::Failure;
use crate::http::AdminUrl;
use crate::output::{say, table};

/// The longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// Prints the status once, or again and again until the node can't be reached.
pub(crate) fn run(admin: &AdminUrl, json: bool, watch: bool) -> Result<(), Failure> {
    loop {
        let status = fetch(admin, ANSWER_LIMIT)?;
        let text = if json {
            serde_json::to_string(&status).map_err(|error| Failure::failed("status", error))?
        } else {
            render(&status)
        };
        if watch && !json && std::io::stdout().is_terminal() {
            // Clears the screen and goes to its corner.
            say(format_args!("\x1b[2J\x1b[H{}", text.trim_end()));
        } else {
            say(text.trim_end());
        }
        if !watch {
            return Ok(());
        }
        std::thread::sleep(WATCH_PERIOD);
    }
}

/// Asks a node for its status.
pub(crate) fn fetch(admin: &AdminUrl, timeout: Duration) -> Result<Status, Failure> {
    let answer = admin.get("/status", timeout)?;
    if answer.status != 200 {
        return Err(Failure::Failed(format!(
            "{admin} answers {}: {}",
            answer.status,
            answer.body.trim()
        )));
    }
    serde_json::from_str(&answer.body)
        .map_err(|error| Failure::failed(format_args!("the status of {admin}"), error))
}

fn render(status: &Status) -> String {
    let name = |id: Option<u64>| id.map_or("none".to_owned(), |id| format!("node-{id}"));
    let mut text = format!(
        "cluster {}  epoch {}  primary {}  policy {}\n",
        status.cluster_name,
        status.epoch,
        name(status.primary),
        status.policy.as_deref().unwrap_or("not formed yet"),
    );
    let disk_full = status.disk_full.then(|| "writes that need space are refused".to_owned());
    let receiving = status.receiving.map(|snapshot| {
        let Receiving { from, last_seq, received_bytes, total_bytes } = snapshot;
        format!(
            "a snapshot of node-{from} through {last_seq}: {received_bytes} of {total_bytes} bytes"
        )
    });
    let sending = status.sending.iter().map(|snapshot| {
        let Sending { to, last_seq, sent_bytes, total_bytes } = snapshot;
        format!("a snapshot to node-{to} through {last_seq}: {sent_bytes} of {total_bytes} bytes")
    });
    let sending = sending.reduce(|all, one| format!("{all}; {one}"));
    let expiring = status.certificate_days.filter(|days| *days < EXPIRY_WARNING_DAYS);
    let expiring = expiring.map(|days| match days {
        ..0 => "a certificate of this node has expired".to_owned(),
        0.. => format!("a certificate of this node expires in {days} days"),
    });
    for (what, why) in [
        ("CERTIFICATE", &expiring),
        ("DEGRADED", &status.degraded),
        ("UNHEALTHY", &status.unhealthy),
        ("DISK FULL", &disk_full),
        ("WAITING", &status.waiting),
        ("RECEIVING", &receiving),
        ("SENDING", &sending),
        ("DIVERGENCE", &status.divergence),
    ] {
        if let Some(why) = why {
            text.push_str(&format!("{what}: {why}\n"));
        }
    }
    text.push_str(&format!(
        "as seen by node-{}: {} {}, up {:.0} s, start {}, committed {}, applied {}{}\n\n",
        status.node,
        status.phase,
        status.role,
        status.uptime_seconds,
        status.incarnation,
        status.committed_seq,
        status.applied_seq,
        if status.memory_loss { ", may have lost memory" } else { "" },
    ));
    let header = [
        "NODE",
        "ROLE",
        "KIND",
        "CONNECTED",
        "IN MEMORY",
        "PERSISTED",
        "APPLIED",
        "LAG",
        "CLIENTS",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(status.members.iter().map(|member| row(status, member)));
    text + &table(&rows)
}

fn row(status: &Status, member: &MemberStatus) -> Vec<String> {
    let cursor = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
    let cursors = member.cursors;
    vec![
        format!("node-{}{}", member.node, if member.node == status.node { "*" } else { "" }),
        member.role.clone(),
        member.kind.clone(),
        if member.connected { "yes" } else { "NO" }.to_owned(),
        cursor(cursors.map(|c| c.in_memory_seq)),
        cursor(cursors.map(|c| c.persisted_seq)),
        cursor(cursors.map(|c| c.applied_seq)),
        cursor(cursors.map(|c| status.committed_seq.saturating_sub(c.persisted_seq))),
        member.client_addr.clone(),
    ]
}
