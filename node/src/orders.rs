//! `quorate promote`, `quorate drain` and `quorate shutdown`: orders for a node's admin port.

use std::time::Duration;

use serde_json::json;

use crate::failure::Failure;
use crate::http::AdminUrl;
use crate::output::say;
use crate::stop::StopReport;

/// The longest wait for an answer: more than the node allows itself.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);

/// How long a node may take to stop: longer than any deadline that makes sense for it.
const STOP_LIMIT: Duration = Duration::from_secs(600);

/// Hands leadership over.
pub(crate) fn promote(admin: &AdminUrl, to: Option<u64>, as_json: bool) -> Result<(), Failure> {
    let body = json!({ "to": to }).to_string();
    let answer = admin.post("/admin/promote", &body, ANSWER_LIMIT)?.json(admin)?;
    if as_json {
        say(answer);
        return Ok(());
    }
    let took = answer["milliseconds"].as_f64().unwrap_or_default();
    match answer["primary"].as_u64() {
        Some(primary) => say(format_args!("node-{primary} is primary; it took {took:.0} ms")),
        None => say("leadership was handed over; the new primary was not heard yet"),
    }
    Ok(())
}

/// Takes a node out of service.
pub(crate) fn drain(admin: &AdminUrl, as_json: bool) -> Result<(), Failure> {
    let answer = admin.post("/admin/drain", "{}", ANSWER_LIMIT)?.json(admin)?;
    if as_json {
        say(answer);
        return Ok(());
    }
    let leads = match answer["primary"].as_u64() {
        Some(primary) => format!("node-{primary} leads"),
        None => "no primary is known yet".to_owned(),
    };
    match answer["drained"].as_str().unwrap_or_default() {
        "starting" => say("the node is starting: there is nothing to drain"),
        "replica" => say(format_args!("draining; {leads}, as before")),
        "handed_over" => say(format_args!("draining; {leads}")),
        _ => say("draining; there is no other voter to lead, so new writes are refused"),
    }
    Ok(())
}

/// Raises the cluster version to what the primary's binary brings.
pub(crate) fn finish_upgrade(admin: &AdminUrl, as_json: bool) -> Result<(), Failure> {
    let answer = admin.post("/admin/upgrade", "{}", ANSWER_LIMIT)?.json(admin)?;
    if as_json {
        say(answer);
        return Ok(());
    }
    let version = &answer["cluster_version"];
    if answer["raised"] == true {
        say(format_args!(
            "the cluster version is {version} now; older binaries don't start any more"
        ));
    } else {
        say(format_args!("the cluster version is {version} already"));
    }
    Ok(())
}

/// Stops a node, after a backup if one is wanted, and returns when it has stopped.
pub(crate) fn shutdown(admin: &AdminUrl, backup: bool, as_json: bool) -> Result<(), Failure> {
    let body = json!({ "backup": backup }).to_string();
    let answer = admin.post("/admin/shutdown", &body, STOP_LIMIT)?;
    let report: StopReport = answer.parsed(admin)?;
    // A stop that had begun without one may be done well.
    let outcome = report.outcome().and_then(|()| {
        if backup && !report.backup_uploaded {
            return Err(Failure::Failed("stopped, and no backup: it was stopping already".into()));
        }
        Ok(())
    });
    if as_json {
        say(json!(report));
        return outcome;
    }
    let StopReport { journal_flushed, final_checkpoint, backup_uploaded, .. } = report;
    let word = |done| if done { "yes" } else { "no" };
    say(format_args!(
        "stopped in {:.2} s, from {} to {}: journal flushed {}, final checkpoint {}, backup \
         uploaded {}",
        report.duration_seconds,
        report.started_at,
        report.completed_at,
        word(journal_flushed),
        word(final_checkpoint),
        word(backup_uploaded),
    ));
    outcome
}
