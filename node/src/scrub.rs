//! `quorate scrub`: whether all nodes hold the same and can read it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::failure::Failure;
use crate::http::AdminUrl;
use crate::output::{say, table};
use crate::progress;

/// The longest wait for an answer: all nodes read everything that they hold.
const ANSWER_LIMIT: Duration = Duration::from_mins(35);

/// What a scrub found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Scrubbed {
    /// Whether every voter answered, holds the same and can read it.
    pub(crate) clean: bool,
    /// The position at which they were compared.
    pub(crate) seq: u64,
    /// Every voter.
    pub(crate) nodes: Vec<NodeScrubbed>,
    /// Where they differ.
    pub(crate) differences: Vec<Different>,
    /// Nodes that were told to rebuild their state.
    #[serde(default)]
    pub(crate) repaired: Vec<u64>,
}

/// What one voter said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct NodeScrubbed {
    /// Its number.
    pub(crate) node: u64,
    /// Live keys; none where its content can't be read or it didn't answer.
    pub(crate) keys: Option<u64>,
    /// What can't be read there.
    pub(crate) fault: Option<String>,
    /// Why it didn't answer.
    pub(crate) absent: Option<String>,
}

/// Slots with different content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Different {
    /// The first slot.
    pub(crate) first_slot: u16,
    /// The last slot.
    pub(crate) last_slot: u16,
    /// Nodes that differ from what most hold; all where no more than half agree.
    pub(crate) nodes: Vec<u64>,
}

/// Has the cluster scrubbed. Fails if anything is wrong.
pub(crate) fn run(admin: &AdminUrl, repair: bool, as_json: bool) -> Result<(), Failure> {
    let body = if repair { r#"{"repair":true}"# } else { "{}" };
    let order = || admin.post("/admin/scrub", body, ANSWER_LIMIT);
    let answer = progress::shown(admin, "all nodes read what they hold", |_| None, order);
    let report: Scrubbed = answer?.parsed(admin)?;
    if as_json {
        let text = serde_json::to_string(&report);
        say(text.map_err(|error| Failure::failed("the report", error))?);
    } else {
        say(render(&report).trim_end());
    }
    if report.clean {
        Ok(())
    } else {
        Err(Failure::Failed("the scrub found something: see above".to_owned()))
    }
}

fn render(report: &Scrubbed) -> String {
    let mut rows = vec![["NODE", "KEYS", "FOUND"].map(str::to_owned).to_vec()];
    for NodeScrubbed { node, keys, fault, absent } in &report.nodes {
        let found = match (fault, absent) {
            (Some(fault), _) => format!("can't read: {fault}"),
            (None, Some(absent)) => format!("not looked at: {absent}"),
            (None, None) => "reads all that it holds".to_owned(),
        };
        let keys = keys.map_or("-".to_owned(), |keys| keys.to_string());
        rows.push(vec![format!("node-{node}"), keys, found]);
    }
    let mut text = format!("compared at {}\n{}", report.seq, table(&rows));
    for Different { first_slot, last_slot, nodes } in &report.differences {
        let nodes: Vec<String> = nodes.iter().map(|node| format!("node-{node}")).collect();
        let odd = nodes.join(", ");
        text += &format!("slots {first_slot} to {last_slot}: different content on {odd}\n");
    }
    for node in &report.repaired {
        text += &format!("node-{node} rebuilds its state from the others\n");
    }
    text
}
