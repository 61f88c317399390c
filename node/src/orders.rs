//! `quorate promote` and `quorate policy`: orders for the primary's admin port.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::http::{AdminUrl, Answer};
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
    },
}

/// Hands leadership over.
pub(crate) fn promote(admin: &AdminUrl, to: Option<u64>, as_json: bool) -> Result<(), Failure> {
    let body = json!({ "to": to }).to_string();
    let answer = checked(admin, admin.post("/admin/promote", &body, ANSWER_LIMIT)?)?;
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

/// Shows or sets the policy.
pub(crate) fn policy(admin: &AdminUrl, verb: &PolicyVerb, as_json: bool) -> Result<(), Failure> {
    let answer = match verb {
        PolicyVerb::Show => admin.get("/policy", ANSWER_LIMIT)?,
        PolicyVerb::Set { policy } => {
            let body = json!({ "policy": policy }).to_string();
            admin.post("/admin/policy", &body, ANSWER_LIMIT)?
        }
    };
    let answer = checked(admin, answer)?;
    if as_json {
        say(answer);
        return Ok(());
    }
    say(answer["policy"].as_str().unwrap_or("not formed yet"));
    if let Some(degraded) = answer["degraded"].as_str() {
        say(format_args!("degraded: {degraded}"));
    }
    Ok(())
}

/// The answer's JSON; what it says is wrong, otherwise.
pub(crate) fn checked(admin: &AdminUrl, answer: Answer) -> Result<Value, Failure> {
    let body: Value = serde_json::from_str(&answer.body).unwrap_or(Value::Null);
    let error = body["error"].as_str().unwrap_or(answer.body.trim());
    match answer.status {
        200 => Ok(body),
        400 => Err(Failure::Usage(error.to_owned())),
        status => Err(Failure::Failed(format!("{admin} answers {status}: {error}"))),
    }
}
