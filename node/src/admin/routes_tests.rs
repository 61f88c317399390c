//! The admin port over real sockets, with a node that is made up.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use quorate_actors::archive::{Archive, ArchiveStatus};
use quorate_actors::health::HealthView;
use quorate_actors::node::Drained;
use quorate_actors::quorum::QuorumHandle;
use quorate_actors::storage::Freed;
use quorate_actors::storage::state::{CompactError, Compacted};
use quorate_actors::supervisor::{ColdStep, Lifecycle, Phase, Supervisor};
use quorate_actors::view::{Published, Role, View};
use quorate_actors::wake::Wake;
use quorate_protocol::types::NodeId;
use serde_json::json;

use super::*;
use crate::admin::{BoxFuture, ContentHash, Positions};
use crate::events::EventList;
use crate::http::{AdminUrl, Answer};
use crate::stop::{Stop, StopReport, Told};

struct Fake {
    lifecycle: Arc<Lifecycle>,
    stop: Stop,
    published: Arc<Published>,
    quorum: QuorumHandle,
}

impl NodeView for Fake {
    fn receiving(&self) -> Option<quorate_actors::snapshot::SnapshotProgress> {
        None
    }

    fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    fn published(&self) -> &Published {
        &self.published
    }

    fn quorum(&self) -> &QuorumHandle {
        &self.quorum
    }

    fn orders(&self) -> Option<&quorate_actors::orders::OrderDesk> {
        None
    }

    fn candidates(&self) -> Vec<quorate_actors::replication::Candidate> {
        Vec::new()
    }

    fn scrubber(&self) -> Option<&quorate_actors::scrub::Scrubber> {
        None
    }

    fn positions(&self) -> Positions {
        Positions { committed: 9, acknowledgeable: 8, applied: 7 }
    }

    fn may_read(&self) -> bool {
        false
    }

    fn health(&self) -> Arc<HealthView> {
        Arc::default()
    }

    fn archiver(&self) -> Option<&Archive> {
        None
    }

    fn archive(&self) -> Arc<ArchiveStatus> {
        Arc::default()
    }

    fn metrics(&self) -> Result<String, String> {
        Ok("quorate_up 1\n".to_owned())
    }

    fn flush(&self) -> Result<u64, String> {
        Ok(7)
    }

    fn compact(&self) -> Result<Compacted, CompactError> {
        Err(CompactError::UnderWay)
    }

    fn relieve(&self) -> Freed {
        Freed { memtables: 1, block_cache: 2, log_cache: 4 }
    }

    fn content_hash(&self) -> Result<ContentHash, String> {
        Ok(ContentHash { applied_seq: 7, keys: 1, content_hash: "ab".to_owned() })
    }

    fn drain(&self, _: Duration) -> BoxFuture<'_, Drained> {
        Box::pin(std::future::ready(Drained::HandedOver(Some(NodeId(3)))))
    }

    fn stop(&self) -> &Stop {
        &self.stop
    }
}

struct Server {
    node: Arc<Fake>,
    supervisor: Supervisor,
    url: AdminUrl,
    runtime: tokio::runtime::Runtime,
}

impl Server {
    fn start() -> Self {
        let published = Published::new();
        published.set_view(View {
            node: NodeId(2),
            role: Role::Replica,
            waiting: Some("node 3 is missing".to_owned()),
            ..View::default()
        });
        // Nobody is behind its queues.
        let (quorum, _) = QuorumHandle::new(Arc::new(Wake::new(|| {})));
        let lifecycle: Arc<Lifecycle> = Arc::default();
        let node = Arc::new(Fake {
            lifecycle: lifecycle.clone(),
            stop: Stop::default(),
            published,
            quorum,
        });
        let state = AdminState {
            node: node.clone(),
            cluster_name: "test".into(),
            public_metrics: false,
            drill_allowed: false,
            cluster_version_max: 1,
            identity: Arc::new(ArcSwap::default()),
            events: Arc::default(),
            event_streams: Arc::new(Semaphore::new(1)),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener =
            runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let url = AdminUrl::at(listener.local_addr().expect("bound"));
        let service = router(state).into_make_service_with_connect_info::<SocketAddr>();
        runtime.spawn(async move { axum::serve(listener, service).await });
        let supervisor = runtime.block_on(Supervisor::spawn(lifecycle)).expect("it starts");
        Self { node, supervisor, url, runtime }
    }

    /// Sends the head of a request.
    fn connect(&self, head: &str) -> TcpStream {
        let address = self.url.to_string().replace("http://", "");
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
        write!(stream, "{head}\r\nConnection: close\r\n\r\n").expect("sent");
        stream
    }

    fn raw(&self, head: &str) -> String {
        let mut answer = String::new();
        self.connect(head).read_to_string(&mut answer).expect("an answer");
        answer
    }

    fn get(&self, path: &str) -> Answer {
        self.url.get(path, Duration::from_secs(5)).expect("an answer")
    }
}

#[test]
fn health_follows_the_phase() {
    let server = Server::start();
    assert_eq!(server.get("/health/live").status, 200);
    server.node.lifecycle.begin(ColdStep::JournalReplay);
    let startup = server.get("/health/startup");
    assert_eq!(startup.status, 503);
    let body: serde_json::Value = serde_json::from_str(&startup.body).expect("JSON");
    assert_eq!((&body["reason"], &body["phase"]), (&json!("journal_recovery"), &json!("starting")));
    let ready = server.get("/health/ready?for=read");
    assert!(ready.status == 503 && ready.body.contains("journal_recovery"), "{}", ready.body);
    let hash = server.get("/admin/content-hash");
    assert!(hash.status == 503 && hash.body.contains("starting: journal"), "{}", hash.body);
    assert_eq!(server.get("/status").status, 200);
    server.supervisor.enter(Phase::Ready);
    assert_eq!(server.get("/health/startup").status, 200);
    let ready = server.get("/health/ready?for=write");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("forming: node 3 is missing"), "{}", ready.body);
    assert_eq!(server.get("/health/ready?for=lunch").status, 400);
}

#[test]
fn status_metrics_and_hash_are_served() {
    let server = Server::start();
    server.supervisor.enter(Phase::Ready);
    let status: Status = serde_json::from_str(&server.get("/status").body).expect("a status");
    assert_eq!((status.node, status.committed_seq, status.applied_seq), (2, 9, 7));
    assert_eq!((status.role.as_str(), status.archive.as_str()), ("replica", "off"));
    assert_eq!(server.get("/metrics").body, "quorate_up 1\n");
    assert_eq!(
        server.get("/admin/content-hash").body,
        r#"{"applied_seq":7,"keys":1,"content_hash":"ab"}"#
    );
    assert_eq!(server.get("/nothing").status, 404);
}

#[test]
fn everyone_who_stops_the_node_gets_the_same_report() {
    let server = Server::start();
    server.supervisor.enter(Phase::Ready);
    assert_eq!(server.get("/admin/shutdown").status, 405, "only by POST");
    let node = server.node.clone();
    server.runtime.spawn(async move {
        let mut told = Told::new(&node.stop).expect("signals");
        told.wait().await;
        node.stop.done(StopReport::given_up(Duration::from_secs(1)));
    });
    let ask =
        || server.url.post("/admin/shutdown", "{}", Duration::from_secs(5)).expect("answered");
    let (first, others) = std::thread::scope(|scope| {
        let others = [scope.spawn(ask), scope.spawn(ask)];
        (ask(), others.map(|other| other.join().expect("no panic")))
    });
    assert!(first.status == 500 && first.body.contains("took longer than 1s"), "{}", first.body);
    assert!(others.iter().all(|other| other.body == first.body));
    assert_eq!(ask().body, first.body, "a later call, too");
    let bare = server.url.post("/admin/shutdown", "", Duration::from_secs(5)).expect("answered");
    assert_eq!(bare.body, first.body, "and one that says nothing of how");
    let wrong = server.url.post("/admin/shutdown", r#"{"backups":1}"#, Duration::from_secs(5));
    assert_eq!(wrong.expect("answered").status, 400);
}

#[test]
fn draining_says_who_leads() {
    let server = Server::start();
    server.supervisor.enter(Phase::Ready);
    let answer = server.url.post("/admin/drain", "{}", Duration::from_secs(5)).expect("answered");
    let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!((answer.status, &body["drained"]), (200, &json!("handed_over")));
    assert_eq!(body["primary"], 3);
}

#[test]
fn any_node_flushes_compacts_and_relieves_for_itself() {
    let server = Server::start();
    server.supervisor.enter(Phase::Ready);
    let limit = Duration::from_secs(5);
    let post = |path| server.url.post(path, "{}", limit).expect("an answer");
    let field = |answer: &Answer, name: &str| {
        serde_json::from_str::<serde_json::Value>(&answer.body).expect("JSON")[name].as_u64()
    };
    assert_eq!(field(&post("/admin/flush"), "flushed_seq"), Some(7));
    assert_eq!(field(&post("/admin/relieve"), "freed_bytes"), Some(7));
    let compact = post("/admin/compact");
    assert_eq!(compact.status, 409, "one at a time: {}", compact.body);
}

#[test]
fn acts_are_recorded_also_where_they_are_refused() {
    let server = Server::start();
    server.supervisor.enter(Phase::Ready);
    let limit = Duration::from_secs(5);
    assert_eq!(server.url.post("/admin/flush", "{}", limit).expect("answered").status, 200);
    assert_eq!(server.url.post("/admin/compact", "{}", limit).expect("answered").status, 409);
    let refused = server.raw("POST /admin/flush HTTP/1.1\r\nHost: evil.example");
    assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("Host header"), "{refused}");
    // The second one within a second is counted only.
    let refused = server.raw("POST /admin/promote HTTP/1.1\r\nHost: localhost");
    assert!(refused.starts_with("HTTP/1.1 415"), "{refused}");
    let list: EventList = serde_json::from_str(&server.get("/events").body).expect("events");
    let acts: Vec<_> =
        list.events.iter().map(|one| (one.event.as_str(), one.act.clone())).collect();
    let expected = [("flush", "Allowed"), ("compact", "Denied"), ("any", "Denied")];
    assert_eq!(acts.len(), expected.len(), "{acts:?}");
    for ((event, act), (name, outcome)) in acts.into_iter().zip(expected) {
        let act = act.expect("an act");
        assert_eq!((event, format!("{:?}", act.outcome).as_str()), (name, outcome));
        assert_eq!(act.reason.is_none(), outcome == "Allowed", "{act:?}");
        assert!(act.actor.starts_with("127.0.0.1:"), "{act:?}");
    }
    let later: EventList =
        serde_json::from_str(&server.get("/events?since=2").body).expect("events");
    assert_eq!((later.events.len(), later.missed, later.next), (1, 0, 3));
    // Whoever asks and goes is recorded, too: a stop waits for its report, which never comes here.
    let asking = server.connect(
        "POST /admin/shutdown HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json",
    );
    server.runtime.block_on(async {
        let mut told = Told::new(&server.node.stop).expect("signals");
        tokio::time::timeout(limit, told.wait()).await.expect("it has arrived");
    });
    drop(asking);
    let deadline = std::time::Instant::now() + limit;
    let left = loop {
        assert!(std::time::Instant::now() < deadline, "it is not recorded");
        let list: EventList =
            serde_json::from_str(&server.get("/events?since=3").body).expect("events");
        if let Some(event) = list.events.into_iter().next() {
            break event;
        }
    };
    let act = left.act.expect("an act");
    assert_eq!(
        (left.event.as_str(), format!("{:?}", act.outcome).as_str()),
        ("shutdown", "Failed")
    );
}

#[test]
fn streams_of_events_are_limited() {
    let server = Server::start();
    server.supervisor.enter(Phase::Ready);
    let asked = "GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream";
    let mut first = server.connect(asked);
    let mut head = [0; 12];
    first.read_exact(&mut head).expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 200");
    let second = server.raw(asked);
    assert!(second.starts_with("HTTP/1.1 503") && second.contains("the limit"), "{second}");
}

#[test]
fn a_policy_is_explained_and_a_wrong_one_refused() {
    let server = Server::start();
    server.supervisor.enter(Phase::Ready);
    let answer = server.get("/policy/explain?policy=in_memory%3E%3D2&voters=3");
    let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!((answer.status, body["preset"].as_str()), (200, Some("memory")));
    assert_eq!(body["loses"][0]["text"], "any 2 voters lose power");
    assert!(body["weakness"].as_str().is_some());
    for wrong in ["policy=most&voters=3", "policy=persisted>=4&voters=3", "voters=3", "voters=10"] {
        let answer = server.get(&format!("/policy/explain?{wrong}"));
        assert_eq!(answer.status, 400, "{wrong}: {}", answer.body);
    }
    // It belongs to no cluster yet.
    assert_eq!(server.get("/policy/simulate?policy=all&down=1").status, 409);
}

/// As many methods as a path could have.
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

#[test]
fn the_description_is_of_the_routes_that_there_are() {
    let server = Server::start();
    server.supervisor.enter(Phase::Ready);
    let description: serde_json::Value =
        serde_json::from_str(&server.get("/openapi.json").body).expect("JSON");
    assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    let paths = description["paths"].as_object().expect("paths");
    // Everything but the document itself is made from what describes it.
    let all: Vec<&str> = paths.keys().map(String::as_str).collect();
    for known in ["/health/ready", "/status", "/events", "/admin/policy", "/admin/backup"] {
        assert!(all.contains(&known), "{known}: {all:?}");
    }
    for (path, operations) in paths {
        for method in METHODS {
            let described = operations.get(method.to_lowercase());
            // Nothing is carried out: it has no content type.
            let answer = server.raw(&format!("{method} {path} HTTP/1.1\r\nHost: localhost"));
            let code: u16 = answer[9..12].parse().expect("a status");
            assert!(
                answer.contains(r#"{"error""#) || described.is_some() || code == 405,
                "{answer}"
            );
            match described {
                Some(operation) => {
                    assert!(code != 404 && code != 405, "{method} {path}: {answer}");
                    let summary = operation["summary"].as_str().unwrap_or_default();
                    assert!(!summary.is_empty(), "{method} {path}");
                    for response in ["200", "default"] {
                        let description = &operation["responses"][response]["description"];
                        assert!(description.is_string(), "{method} {path}: {response}");
                    }
                }
                None => assert!([405, 415].contains(&code), "{method} {path}: {answer}"),
            }
        }
    }
    let text = description.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().expect("it ends");
        assert!(description["components"]["schemas"][name].is_object(), "{name}");
    }
}
