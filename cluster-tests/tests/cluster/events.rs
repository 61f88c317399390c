//! What a node tells of operators' acts and of its cluster.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use quorate_cluster_tests::harness::{Cluster, RECOVERY_LIMIT, poll};
use serde_json::Value;

use crate::common::{json, quorate};

/// How often a moment is tried for that may be missed.
const TRIES: usize = 5;

/// What `quorate events` prints of this node.
fn events(cluster: &Cluster, node: u64) -> Vec<Value> {
    let output = quorate(cluster, node, &["events", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
}

fn wait_for(cluster: &Cluster, node: u64, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    poll(RECOVERY_LIMIT, what, || events(cluster, node).into_iter().rev().find(|one| fits(one)))
}

#[test]
fn acts_and_changes_are_told_by_the_nodes_that_they_concern() {
    let mut cluster = Cluster::start("events");
    let primary = cluster.wait_until_writable();
    let [replica, other] = cluster.others(primary)[..] else { panic!("three nodes") };
    let led = wait_for(&cluster, replica, "the primary", |one| {
        one["event"] == "primary" && one["fields"]["primary"] == primary
    });
    assert_eq!(led["fields"]["this_node"], false, "{led}");

    // An act of the primary, asked for elsewhere.
    json(&cluster, replica, &["policy", "set", "hybrid"]);
    let act = wait_for(&cluster, primary, "the act", |one| one["event"] == "policy set");
    assert_eq!((&act["outcome"], &act["fields"]["policy"]), (&"allowed".into(), &"hybrid".into()));
    let actor = act["actor"].as_str().expect("text");
    assert!(actor.starts_with("127.0.0.1:") && actor.ends_with(&format!("at node {replica}")));
    for id in cluster.ids() {
        wait_for(&cluster, id, "the new policy", |one| {
            one["event"] == "policy" && one["fields"]["policy"] == "persisted>=1 && in_memory>=2"
        });
    }
    assert!(events(&cluster, replica).iter().all(|one| one["event"] != "policy set"));

    // One that is refused, and one of a single node.
    assert!(!quorate(&cluster, primary, &["policy", "set", "hybrid"]).status.success());
    let denied = wait_for(&cluster, primary, "a refusal", |one| one["outcome"] == "denied");
    assert!(denied["reason"].as_str().is_some_and(|text| text.contains("nothing would change")));
    // The same, asked for elsewhere.
    assert!(!quorate(&cluster, replica, &["policy", "set", "hybrid"]).status.success());
    let passed_on = wait_for(&cluster, primary, "a refusal that was passed on", |one| {
        one["outcome"] == "denied"
            && one["actor"].as_str().is_some_and(|who| who.ends_with(&format!("at node {replica}")))
    });
    assert_eq!(
        (&passed_on["event"], &passed_on["reason"]),
        (&"policy set".into(), &denied["reason"])
    );
    assert!(events(&cluster, replica).iter().all(|one| one["event"] != "policy set"));
    json(&cluster, other, &["storage", "flush"]);
    let flushed = wait_for(&cluster, other, "the flush", |one| one["event"] == "flush");
    assert_eq!(
        (&flushed["outcome"], flushed.get("reason")),
        (&"allowed".into(), Some(&Value::Null))
    );

    // Whom it becomes instead.
    cluster.kill(primary);
    let next = cluster.wait_until_writable();
    let led = wait_for(&cluster, next, "its own tenure", |one| {
        one["event"] == "primary" && one["fields"]["this_node"] == true
    });
    assert_eq!(led["fields"]["primary"], next);
}

/// The primary begins, and then nobody answers it any more.
#[test]
fn an_act_that_may_yet_happen_is_told_as_failed_and_in_doubt() {
    let mut cluster = Cluster::start("events-in-doubt");
    for attempt in 1..=TRIES {
        let primary = cluster.wait_until_writable();
        cluster.wait_until_equal();
        let replicas = cluster.others(primary);
        for replica in &replicas {
            cluster.pause(*replica);
        }
        let asked = quorate(&cluster, primary, &["policy", "set", "hybrid"]);
        let said = String::from_utf8_lossy(&asked.stderr).into_owned();
        let told = events(&cluster, primary).into_iter().rfind(|one| one["event"] == "policy set");
        for replica in &replicas {
            cluster.resume(*replica);
        }
        assert_eq!(asked.status.code(), Some(1), "{said}");
        let told = told.unwrap_or_else(|| panic!("nothing is recorded of {said}"));
        println!("{told}");
        let reason = told["reason"].as_str().expect("why");
        assert!(said.contains(reason), "{said}");
        // Where the silence was noticed first, nothing was begun.
        if told["outcome"] == "denied" && attempt < TRIES {
            continue;
        }
        assert!(said.contains("504"), "{said}");
        assert_eq!(
            (&told["outcome"], &told["fields"]["policy"]),
            (&"failed".into(), &"hybrid".into())
        );
        assert!(reason.starts_with("in doubt") && reason.ends_with("yet"), "{reason}");
        break;
    }
    cluster.wait_until_writable();
    cluster.wait_until_equal();
}

/// Nobody acts: the node that was asked is the one that refuses.
#[test]
fn an_act_that_no_primary_takes_is_told_where_it_was_asked_for() {
    let mut cluster = Cluster::start("events-alone");
    let primary = cluster.wait_until_writable();
    let [replica, other] = cluster.others(primary)[..] else { panic!("three nodes") };
    cluster.kill(other);
    cluster.kill(primary);
    let refused = quorate(&cluster, replica, &["policy", "set", "hybrid"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    let told = wait_for(&cluster, replica, "the act", |one| one["event"] == "policy set");
    println!("{told}");
    assert_ne!(told["outcome"], "allowed");
    let reason = told["reason"].as_str().expect("why");
    assert!(said.contains(reason), "{said}: {reason}");
    // By whoever is at this machine, and by way of no other node.
    assert!(told["actor"].as_str().is_some_and(|who| !who.contains("at node")), "{told}");
}

/// A stream tells what is new, and doesn't hold up a stop.
#[test]
fn a_stream_of_events_ends_with_the_node() {
    let mut cluster = Cluster::start("events-stream");
    let primary = cluster.wait_until_writable();
    let node = cluster.others(primary)[0];
    let last = events(&cluster, node).last().map_or(0, |one| one["id"].as_u64().expect("a number"));
    let admin = cluster.settings(node).ports.admin;
    let mut stream = TcpStream::connect(admin).expect("it listens");
    stream.set_read_timeout(Some(RECOVERY_LIMIT)).expect("a limit");
    write!(
        stream,
        "GET /events?since={last} HTTP/1.1\r\nHost: {admin}\r\nAccept: text/event-stream\r\n\r\n"
    )
    .expect("sent");
    json(&cluster, node, &["storage", "flush"]);
    let mut reader = BufReader::new(stream);
    let mut seen = String::new();
    while !seen.contains("event: flush\n") {
        assert!(reader.read_line(&mut seen).expect("a line in time") > 0, "{seen}");
    }
    assert!(seen.starts_with("HTTP/1.1 200") && seen.contains("text/event-stream"), "{seen}");
    let began = std::time::Instant::now();
    assert!(cluster.stop(node).success());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    reader.read_to_string(&mut seen).expect("the stream ends");
}
