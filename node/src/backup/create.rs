//! `quorate backup create`.

use std::time::Duration;

use clap::Args;
use quorate_actors::archive::Location;
use serde_json::json;

use crate::failure::Failure;
use crate::http::AdminUrl;
use crate::output::say;

/// Copying a large state takes long.
const ANSWER_LIMIT: Duration = Duration::from_hours(24);

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// A directory on the node's machine, or s3://bucket/prefix; the configured target without
    #[arg(long, value_name = "TARGET")]
    target: Option<Location>,
    /// Only what is new in the log, where there is a snapshot already
    #[arg(long)]
    no_snapshot: bool,
}

pub(super) fn create(admin: &AdminUrl, args: &CreateArgs, as_json: bool) -> Result<(), Failure> {
    let here = std::env::current_dir().map_err(|error| Failure::Usage(error.to_string()))?;
    let target = args.target.clone().map(|target| target.within(&here).to_string());
    let body = json!({ "target": target, "snapshot": !args.no_snapshot }).to_string();
    let answer = admin.post("/admin/backup", &body, ANSWER_LIMIT)?.json(admin)?;
    if as_json {
        say(answer);
        return Ok(());
    }
    let number = |key: &str| answer[key].as_u64().unwrap_or_default();
    say(format_args!(
        "archived through entry {} in {}: {} new segments with {} entries, {} bytes in {:.1} s",
        number("archived_seq"),
        answer["target"].as_str().unwrap_or_default(),
        number("segments"),
        number("entries"),
        number("bytes"),
        answer["seconds"].as_f64().unwrap_or_default(),
    ));
    if let Some(snapshot) = answer["snapshot"].as_str() {
        say(format_args!("snapshot {snapshot}"));
    }
    if let (Some(first), Some(last)) =
        (answer["gap"]["first"].as_u64(), answer["gap"]["last"].as_u64())
    {
        say(format_args!(
            "entries {first} to {last} are not in the archive: they were gone from the journal. The \
             snapshot holds what they did, but no moment between them can be restored"
        ));
    }
    for step in answer["steps"].as_array().into_iter().flatten() {
        if let (Some(step), Some(why)) = (step["step"].as_str(), step["missed"].as_str()) {
            say(format_args!("{step}: not done: {why}"));
        }
    }
    Ok(())
}
