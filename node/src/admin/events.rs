//! `/events`: what is recorded of operators' acts and of the cluster, as a list or as a stream.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{self, Stream};
use quorate_actors::supervisor::Phase;
use quorate_actors::view::View;
use quorate_protocol::cluster::MemberKind;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::IntoParams;

use super::NodeView;
use super::orders::refused;
use super::params::Params;
use super::routes::AdminState;
use crate::events::{Act, ActOutcome, Event, EventList, Events, fields_of};

/// Events of one answer.
const PAGE_MAX: usize = 1_024;

/// Events that a stream takes at a time: what it has not sent waits in the ring, and nowhere else.
const STREAM_PAGE: usize = 32;

/// Streams that are served at once.
pub(crate) const STREAMS_MAX: usize = 16;

/// Largest request whose order is recorded.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// Largest answer that an error is looked for in.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How often it is looked what has changed: what goes to and fro faster is no event each time.
const LOOK_PERIOD: Duration = Duration::from_millis(500);

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Since {
    /// Events behind this one.
    since: Option<u64>,
}

/// What happened to this node, and what operators did to it
///
/// With `Accept: text/event-stream` each event as it happens, with its id; `Last-Event-ID` says where
/// to go on.
#[utoipa::path(
    get, path = "/events", tag = "node", params(Since),
    responses((status = 200, content(
        (EventList = "application/json"), (Event = "text/event-stream"),
    ))),
)]
pub(super) async fn list(
    State(state): State<AdminState>,
    Params(Since { since }): Params<Since>,
    headers: HeaderMap,
) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if !text(header::ACCEPT).is_some_and(|accept| accept.contains("text/event-stream")) {
        return Json(state.events.since(since.unwrap_or_default(), PAGE_MAX)).into_response();
    }
    // As a browser asks that lost its connection.
    let last = text(header::HeaderName::from_static("last-event-id"));
    let since = since.or_else(|| last?.parse().ok()).unwrap_or_default();
    match state.event_streams.clone().try_acquire_owned() {
        Ok(permit) => {
            let keep_alive = KeepAlive::new().interval(Duration::from_secs(15));
            Sse::new(follow(state, since, permit)).keep_alive(keep_alive).into_response()
        }
        Err(_) => {
            let error = format!("{STREAMS_MAX} event streams are open, which is the limit");
            refused(StatusCode::SERVICE_UNAVAILABLE, &error)
        }
    }
}

struct Follower {
    state: AdminState,
    newest: watch::Receiver<u64>,
    since: u64,
    page: std::vec::IntoIter<Event>,
    _permit: OwnedSemaphorePermit,
}

/// Ends when the node stops.
fn follow(
    state: AdminState,
    since: u64,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<sse::Event, axum::Error>> {
    let (newest, page) = (state.events.watch(), Vec::new().into_iter());
    let follower = Follower { state, newest, since, page, _permit: permit };
    stream::unfold(follower, |mut follower| async {
        let event = follower.next().await?;
        let (id, name) = (event.id.to_string(), event.event.clone());
        Some((sse::Event::default().id(id).event(name).json_data(event), follower))
    })
}

impl Follower {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.page.next() {
                return Some(event);
            }
            if self.state.node.phase() >= Phase::ShuttingDown {
                return None;
            }
            // Before the look, so that no event falls in between.
            self.newest.mark_unchanged();
            let list = self.state.events.since(self.since, STREAM_PAGE);
            self.since = list.next;
            if list.events.is_empty() {
                // Nothing is told of the phase: it is looked at from time to time.
                let _ = tokio::time::timeout(LOOK_PERIOD, self.newest.changed()).await;
            }
            self.page = list.events.into_iter();
        }
    }
}

/// Records what is asked of this node alone; orders for the cluster are recorded where they are
/// carried out.
pub(super) async fn audit(
    State(state): State<AdminState>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let order = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, REQUEST_BYTES_MAX).await else {
        return refused(StatusCode::PAYLOAD_TOO_LARGE, "the request is too long");
    };
    let (events, actor) = (state.events.clone(), caller.to_string());
    let pending = Pending { events, order, actor, fields: fields_of(&body), answer: None };
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    let (parts, body) = response.into_parts();
    let Ok(body) = to_bytes(body, ANSWER_BYTES_MAX).await else {
        return refused(StatusCode::INTERNAL_SERVER_ERROR, "the answer can't be recorded");
    };
    pending.answered(parts.status, &body);
    Response::from_parts(parts, Body::from(body))
}

/// An act until it is recorded, which it is also if nobody waits for its answer any more.
struct Pending {
    events: Arc<Events>,
    order: String,
    actor: String,
    fields: Map<String, Value>,
    answer: Option<(ActOutcome, Option<String>)>,
}

impl Pending {
    fn answered(mut self, status: StatusCode, body: &[u8]) {
        let outcome = ActOutcome::of_status(status.as_u16());
        let error = || {
            let answer: Value = serde_json::from_slice(body).ok()?;
            Some(answer["error"].as_str()?.to_owned())
        };
        let reason = if outcome == ActOutcome::Allowed { None } else { error() };
        self.answer = Some((outcome, reason));
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let (outcome, reason) = self.answer.take().unwrap_or_else(|| {
            let reason = "no answer was waited for: it may have been carried out";
            (ActOutcome::Failed, Some(reason.to_owned()))
        });
        let act = Act { actor: std::mem::take(&mut self.actor), outcome, reason };
        self.events.acted(&self.order, act, std::mem::take(&mut self.fields));
    }
}

/// Records what changes in the cluster as this node sees it, until it is dropped.
pub(crate) async fn watch_cluster(node: Arc<dyn NodeView>, events: Arc<Events>) {
    let mut before = Facts::new();
    loop {
        let now = facts(node.as_ref(), &node.view());
        for (event, fields) in &now {
            let news = match before.get(event) {
                Some(known) => known != fields,
                // That nothing is wrong is no news.
                None => !fields.values().all(is_nothing),
            };
            if news {
                events.changed(event, fields.clone());
            }
        }
        before = now;
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

type Facts = BTreeMap<&'static str, Map<String, Value>>;

fn is_nothing(value: &Value) -> bool {
    [json!(null), json!(false), json!(0)].contains(value)
}

/// What is recorded when it changes. Each fact is small, and holds nothing that moves with the load.
fn facts(node: &dyn NodeView, view: &View) -> Facts {
    let health = node.health();
    let archive = node.archive();
    let mut facts = BTreeMap::from([
        ("phase", json!({ "phase": node.phase().to_string() })),
        (
            "primary",
            json!({
                "epoch": view.epoch.0,
                "primary": view.primary.map(|node| node.0),
                "this_node": view.primary == Some(view.node),
            }),
        ),
        ("degraded", json!({ "reason": view.degraded })),
        ("unhealthy", json!({ "reason": health.unhealthy })),
        ("disk_full", json!({ "disk_full": health.disk_full })),
        (
            "backup",
            json!({
                "succeeded_at_ms": archive.runs.succeeded_at_ms,
                "failure": archive.runs.failure.as_ref().or(archive.verifications.failure.as_ref()),
            }),
        ),
        ("divergence", json!({ "reason": node.divergence() })),
    ]);
    if let Some(config) = &view.config {
        let of_kind = |kind: MemberKind| -> Vec<u64> {
            let members = config.members.iter().filter(|member| member.kind == kind);
            members.map(|member| member.node.0).collect()
        };
        let members = json!({
            "voters": of_kind(MemberKind::Voter),
            "learners": of_kind(MemberKind::Learner),
            "generation": config.generation.0,
        });
        facts.insert("members", members);
        facts.insert("policy", json!({ "policy": config.policy.to_string() }));
        facts.insert("cluster_version", json!({ "version": config.version }));
    }
    let object = |value| match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    facts.into_iter().map(|(event, value)| (event, object(value))).collect()
}
