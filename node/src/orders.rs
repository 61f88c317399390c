//! `quorate promote`: an order for the primary's admin port.

use std::time::Duration;

use serde_json::json;

use crate::failure::Failure;
use crate::http::AdminUrl;
use crate::output::say;

/// The longest wait for an answer: more than the node allows itself.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);

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
