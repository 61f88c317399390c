//! What happened to this node, and what operators did to it: the last events, in order.
//!
//! They end with the process. The log tells of each, too.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::failure::Failure;
use crate::http::{AdminUrl, query};
use crate::moment::moment;
use crate::output::say;

/// Events that are kept; the oldest go.
const KEPT_MAX: usize = 1_024;

/// Longest request whose fields are kept with an act.
const FIELDS_BYTES_MAX: usize = 4 << 10;

/// Between two acts that are recorded of callers who may not ask anything: they can be anyone.
const STRANGERS_EVERY: Duration = Duration::from_secs(1);

/// The longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How often `--follow` asks for more.
const FOLLOW_PERIOD: Duration = Duration::from_millis(500);

/// What came of an operator's act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ActOutcome {
    /// It was carried out.
    Allowed,
    /// It was refused, and nothing was done.
    Denied,
    /// It was begun, and failed or is in doubt.
    Failed,
}

impl ActOutcome {
    /// What an HTTP status says of it.
    pub(crate) fn of_status(code: u16) -> Self {
        match code {
            200..300 => Self::Allowed,
            400..500 => Self::Denied,
            _ => Self::Failed,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// An operator's act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Act {
    /// Who asked: an address, and the node that passed it on.
    pub(crate) actor: String,
    /// What came of it.
    pub(crate) outcome: ActOutcome,
    /// Why it was not carried out.
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Event {
    /// Counted from 1 in this life of the node.
    pub(crate) id: u64,
    /// RFC 3339, in UTC.
    pub(crate) at: String,
    /// What happened: an order's name, or what of the node has changed.
    pub(crate) event: String,
    /// Whose doing it was, where it was an operator's.
    #[serde(flatten)]
    #[schema(value_type = ActFields)]
    pub(crate) act: Option<Act>,
    /// What was asked for, or what holds now.
    #[schema(value_type = Object)]
    pub(crate) fields: Map<String, Value>,
}

/// An operator's act, as an event has it that may be none.
#[expect(dead_code, reason = "it describes what serde makes of an Option")]
#[derive(ToSchema)]
struct ActFields {
    /// Who asked: an address, and the node that passed it on.
    actor: Option<String>,
    /// What came of it.
    outcome: Option<ActOutcome>,
    /// Why it was not carried out.
    reason: Option<String>,
}

/// Events from a position on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct EventList {
    /// In order.
    pub(crate) events: Vec<Event>,
    /// Events between the position asked for and the first of these, which are gone.
    pub(crate) missed: u64,
    /// Where to go on.
    pub(crate) next: u64,
}

/// The last events of this process.
pub(crate) struct Events {
    kept: Mutex<VecDeque<Event>>,
    /// The last id.
    newest: watch::Sender<u64>,
    /// When a stranger's act was last recorded, and how many were not since.
    strangers: Mutex<(Option<Instant>, u64)>,
}

impl Default for Events {
    fn default() -> Self {
        Self { kept: Mutex::default(), newest: watch::Sender::new(0), strangers: Mutex::default() }
    }
}

impl Events {
    /// An operator's act, by the node that carried it out or refused it. `fields` must hold nothing
    /// that is secret.
    pub(crate) fn acted(&self, order: &str, act: Act, fields: Map<String, Value>) {
        let Act { actor, outcome, reason } = &act;
        let (outcome, reason) = (outcome.name(), reason.as_deref().unwrap_or_default());
        let shown = Value::Object(fields.clone());
        tracing::info!(event = "control", order, actor, outcome, reason, fields = %shown, "order");
        self.push(order, Some(act), fields);
    }

    /// What a caller asked who may not ask anything. They don't fill log and memory: of many, one a
    /// second is recorded, with the count of the others.
    pub(crate) fn refused(&self, order: &str, actor: String, reason: &str) {
        let unrecorded = {
            let mut strangers = self.strangers.lock();
            if strangers.0.is_some_and(|last| last.elapsed() < STRANGERS_EVERY) {
                strangers.1 += 1;
                return;
            }
            std::mem::replace(&mut *strangers, (Some(Instant::now()), 0)).1
        };
        let fields = Map::from_iter([("not_recorded_before".to_owned(), unrecorded.into())]);
        let reason = Some(reason.to_owned());
        self.acted(order, Act { actor, outcome: ActOutcome::Denied, reason }, fields);
    }

    /// Something of the node or its cluster has changed. The log tells of it by itself.
    pub(crate) fn changed(&self, event: &str, fields: Map<String, Value>) {
        self.push(event, None, fields);
    }

    fn push(&self, event: &str, act: Option<Act>, fields: Map<String, Value>) {
        let (event, at) = (event.to_owned(), moment(OffsetDateTime::now_utc()));
        let mut kept = self.kept.lock();
        let id = kept.back().map_or(0, |last| last.id) + 1;
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(Event { id, at, event, act, fields });
        // Under the lock, so that ids only rise.
        self.newest.send_replace(id);
    }

    /// Up to `limit` events behind the one with this id. One that is greater than any is of another
    /// life of the node: then all that are kept.
    pub(crate) fn since(&self, id: u64, limit: usize) -> EventList {
        let kept = self.kept.lock();
        let newest = kept.back().map_or(0, |last| last.id);
        let id = if id > newest { 0 } else { id };
        let events: Vec<Event> =
            kept.iter().filter(|event| event.id > id).take(limit).cloned().collect();
        let missed = events.first().map_or(0, |first| first.id - id - 1);
        let next = events.last().map_or(id, |last| last.id);
        EventList { events, missed, next }
    }

    /// Told of every event.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

/// `quorate events`: prints a node's last events, and with `follow` those to come.
pub(crate) fn run(
    admin: &AdminUrl,
    since: u64,
    follow: bool,
    as_json: bool,
) -> Result<(), Failure> {
    let mut since = since;
    loop {
        let path = query("/events", &[("since", Some(since.to_string()))]);
        let answer = admin.get(&path, ANSWER_LIMIT)?;
        let list: EventList = answer.parsed(admin)?;
        if list.missed > 0 {
            tell_missed(list.missed);
        }
        for event in &list.events {
            say(if as_json { serde_json::json!(event).to_string() } else { line(event) });
        }
        since = list.next;
        if list.events.is_empty() {
            if !follow {
                return Ok(());
            }
            std::thread::sleep(FOLLOW_PERIOD);
        }
    }
}

fn tell_missed(count: u64) {
    eprintln!("{count} older events are gone from memory; the node's log has them");
}

fn line(event: &Event) -> String {
    let Event { id, at, event, act, fields } = event;
    let act = act.as_ref().map_or_else(String::new, |Act { actor, outcome, reason }| {
        let reason = reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
        format!(" by {actor}: {}{reason}", outcome.name())
    });
    let fields: Vec<String> =
        fields.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    format!("{id} {at} {event}{act}{}", fields.concat())
}

/// What a request's body asks for, where that is short.
pub(crate) fn fields_of(body: &[u8]) -> Map<String, Value> {
    if body.len() > FIELDS_BYTES_MAX {
        return Map::from_iter([("bytes".to_owned(), body.len().into())]);
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(n: u64) -> Map<String, Value> {
        Map::from_iter([("n".to_owned(), n.into())])
    }

    #[test]
    fn the_oldest_go_and_that_is_said() {
        let events = Events::default();
        assert_eq!(events.since(0, 10), EventList::default());
        let all = KEPT_MAX as u64 + 5;
        for n in 1..=all {
            events.changed("primary", fields(n));
        }
        let first = events.since(2, 10);
        assert_eq!((first.missed, first.events[0].id, first.next), (3, 6, 15));
        let last = events.since(all - 1, 10);
        assert_eq!((last.missed, last.events.len(), last.next), (0, 1, all));
        assert_eq!(last.events[0].fields, fields(all));
        assert_eq!(events.since(all, 10).events, []);
        // Of another life.
        assert_eq!(events.since(all + 1, 10).missed, 5);
        assert_eq!(*events.watch().borrow(), all);
    }

    #[test]
    fn strangers_and_long_requests_fill_nothing() {
        let events = Events::default();
        for n in 0..1_000 {
            events.refused("any", format!("192.0.2.1:{n}"), "not from there");
        }
        let kept = events.since(0, KEPT_MAX).events;
        assert!(kept.len() < 10, "{}", kept.len());
        assert_eq!(
            (kept[0].event.as_str(), kept[0].fields["not_recorded_before"].as_u64()),
            ("any", Some(0))
        );
        let long = serde_json::json!({ "a": "x".repeat(FIELDS_BYTES_MAX) }).to_string();
        assert_eq!(fields_of(long.as_bytes())["bytes"], long.len());
        assert_eq!(fields_of(br#"{"n":3}"#), fields(3));
    }

    #[test]
    fn an_act_and_a_change_are_told_apart() {
        let events = Events::default();
        let reason = Some("node 2 is not primary".to_owned());
        let act =
            Act { actor: "127.0.0.1:5".to_owned(), outcome: ActOutcome::of_status(409), reason };
        events.acted("promote", act, fields(3));
        events.changed("policy", Map::new());
        let list = serde_json::json!(events.since(0, 10));
        let [acted, changed] = list["events"].as_array().expect("a list").as_slice() else {
            panic!("two: {list}")
        };
        assert_eq!((&acted["outcome"], &acted["fields"]["n"]), (&"denied".into(), &3.into()));
        assert!(changed.get("actor").is_none(), "{changed}");
        let read: EventList = serde_json::from_value(list).expect("as it was written");
        assert_eq!(read, events.since(0, 10));
        let shown = line(&read.events[0]);
        assert!(shown.ends_with("promote by 127.0.0.1:5: denied (node 2 is not primary) n=3"));
    }
}
