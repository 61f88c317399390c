//! A node's life: what it says while it starts, how it is taken out of service, and how it stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate_cluster_tests::harness::{
    Cluster, ClusterOptions, DiskCall, DiskFault, RECOVERY_LIMIT, Role, poll,
};
use quorate_cluster_tests::http;
use quorate_cluster_tests::resp::Value;
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions};

use crate::common::{
    assert_only_redirected, json, judge_writes, quorate, real_metric, wait_for_writes,
};

/// The longest wait for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Status code and body of a probe; `None` where nobody answers.
fn probe(admin: SocketAddr, path: &str) -> Option<(u16, serde_json::Value)> {
    let response = http::get(admin, path, ANSWER_LIMIT).ok()?;
    Some((response.status, serde_json::from_str(&response.body).expect("JSON")))
}

#[test]
fn a_node_tells_why_it_is_not_ready_while_it_recovers() {
    let mut cluster = Cluster::prepare("life-start", &ClusterOptions::default());
    let id = 3;
    let fault = DiskFault::install(cluster.settings_mut(id));
    for id in cluster.ids() {
        cluster.start_node(id);
    }
    cluster.wait_until_writable();
    cluster.stop(id);
    // The first thing that a start writes: its new life.
    fault.hang(DiskCall::Sync, "/hardstate.");
    cluster.start_node(id);
    fault.wait_until_hit();
    let admin = cluster.settings(id).ports.admin;
    let (code, body) = probe(admin, "/health/startup").expect("it answers");
    assert_eq!((code, body["reason"].as_str()), (503, Some("journal_recovery")), "{body}");
    assert_eq!(body["phase"], "starting");
    for purpose in ["", "?for=read", "?for=write", "?for=sync"] {
        let (code, body) = probe(admin, &format!("/health/ready{purpose}")).expect("it answers");
        assert_eq!((code, body["reason"].as_str()), (503, Some("journal_recovery")), "{body}");
        assert!(body["started_at"].is_string() && body["ready_at"].is_null(), "{body}");
    }
    assert_eq!(probe(admin, "/health/live").expect("it answers").0, 200);
    let status = json(&cluster, id, &["status"]);
    assert_eq!(
        (&status["phase"], &status["reason"]),
        (&"starting".into(), &"journal_recovery".into())
    );
    assert!((real_metric(&cluster, id, "quorate_phase") - 0.0).abs() < 0.1);
    // Nothing to drain, and nothing else to be done.
    let drained = json(&cluster, id, &["drain"]);
    assert_eq!((&drained["drained"], &drained["phase"]), (&"starting".into(), &"starting".into()));
    let refused = quorate(&cluster, id, &["policy", "show"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("the node is starting: journal_recovery"), "{text}");

    fault.end();
    let ready = poll(RECOVERY_LIMIT, "the node to be ready", || {
        let (code, body) = probe(admin, "/health/ready?for=sync")?;
        (code == 200).then_some(body)
    });
    assert_eq!(ready["phase"], "ready", "the request to drain changed nothing");
    assert!(ready["ready_at"].is_string() && ready["reason"].is_null(), "{ready}");
    let steps = &ready["cold_start_seconds"];
    let took = |step: &str| steps[step].as_f64().unwrap_or_else(|| panic!("{step}: {ready}"));
    let sum = took("journal_replay") + took("restore") + took("warm_up");
    assert!(took("total") >= sum && sum > 0.0, "{ready}");
    assert!(steps["snapshot_install"].is_null(), "none was needed: {ready}");
    // The same ever after.
    let status = json(&cluster, id, &["status"]);
    assert_eq!(&status["cold_start_seconds"], steps);
    let total = real_metric(&cluster, id, "quorate_cold_start_seconds{step=\"total\"}");
    assert!((total - took("total")).abs() < 1e-9, "{total}");
}

/// A recovery decides by such an answer who holds most.
#[test]
fn a_node_that_is_ready_knows_its_log_at_once() {
    let mut cluster = Cluster::start("life-knows");
    let id = cluster.others(cluster.wait_for_primary())[0];
    cluster.wait_until_equal();
    for _ in 0..10 {
        cluster.stop(id);
        cluster.start_node(id);
        let admin = cluster.settings(id).ports.admin;
        let deadline = Instant::now() + RECOVERY_LIMIT;
        let first = loop {
            assert!(Instant::now() < deadline, "the node isn't ready");
            // Without a pause: it is the very first answer that counts.
            match probe(admin, "/status") {
                Some((_, status)) if status["phase"] != "starting" => break status,
                _ => std::hint::spin_loop(),
            }
        };
        assert!(first["last_seq"].as_u64() > Some(0), "{first}");
        assert!(first["cluster_id"].is_string() && first["policy"].is_string(), "{first}");
    }
}

#[test]
fn a_stop_that_is_asked_for_during_recovery_ends_by_its_deadline() {
    let mut cluster = Cluster::prepare("life-overdue", &ClusterOptions::default());
    let deadline = ("QUORATE_NODE__SHUTDOWN_DEADLINE".to_owned(), "1s".to_owned());
    cluster.settings_mut(1).environment.push(deadline);
    let fault = DiskFault::install(cluster.settings_mut(1));
    fault.hang(DiskCall::Sync, "/hardstate.");
    cluster.start_node(1);
    fault.wait_until_hit();
    let process = cluster.process(1);
    kill(Pid::from_raw(process.pid().cast_signed()), Signal::SIGTERM).expect("it runs");
    let status = process.wait_for_end(Duration::from_secs(10)).expect("it ends");
    assert_eq!(status.code(), Some(1));
    assert!(process.log().contains("told to stop by SIGTERM"), "{}", process.log_end(3));
}

#[test]
fn a_primary_is_drained_without_a_failed_write_and_its_reads_go_on() {
    let mut cluster = Cluster::start("life-drain");
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, 500);
    let primary = cluster.wait_for_primary();
    let admin = cluster.settings(primary).ports.admin;
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    let reads = thread::spawn(move || {
        let mut codes = Vec::new();
        while !seen.load(Ordering::Relaxed) {
            codes.extend(probe(admin, "/health/ready?for=read"));
        }
        codes
    });
    let drained = json(&cluster, primary, &["drain"]);
    println!("{drained}");
    assert_eq!(drained["drained"], "handed_over");
    let (code, body) = probe(admin, "/health/ready?for=write").expect("it answers");
    assert_eq!((code, body["reason"].as_str()), (503, Some("draining")), "{body}");
    let successor = drained["primary"].as_u64().expect("it was heard");
    assert_ne!(successor, primary);
    wait_for_writes(&writers, 500);
    // Again: it is drained already, and no one can make it lead.
    assert_eq!(json(&cluster, primary, &["drain"])["drained"], "replica");
    let promoted = quorate(&cluster, successor, &["promote", "--to", &primary.to_string()]);
    assert_eq!(promoted.status.code(), Some(1), "{}", String::from_utf8_lossy(&promoted.stdout));
    wait_for_writes(&writers, 500);
    assert_ne!(cluster.primary(), Some(primary));
    stop.store(true, Ordering::Relaxed);
    let codes = reads.join().expect("no panic");
    let failed = codes.iter().find(|(code, _)| *code != 200);
    assert!(failed.is_none() && codes.len() > 10, "{} probes, {failed:?}", codes.len());

    // It follows, counts and stops in order, as any node does.
    let status = cluster.stop(primary);
    assert!(status.success(), "{status}");
    cluster.start_node(primary);
    let history = writers.finish();
    assert_only_redirected(&history);
    judge_writes(&cluster, &history);
}

#[test]
fn a_drained_node_that_is_alone_says_so_and_still_reads() {
    let options = ClusterOptions { nodes: 1, ..ClusterOptions::default() };
    let cluster = Cluster::start_with("life-alone", &options);
    let mut client = cluster.connect(1);
    assert_eq!(client.command(&["SET", "a", "1"]).expect("a reply"), Value::Simple("OK".into()));
    assert_eq!(json(&cluster, 1, &["drain"])["drained"], "alone");
    let refused = client.command(&["SET", "a", "2"]).expect("a reply");
    assert_eq!(refused.error_code(), Some("DRAINING"), "{refused:?}");
    assert_eq!(client.command(&["GET", "a"]).expect("a reply"), Value::Bulk(b"1".to_vec()));
}

#[test]
fn a_node_stops_once_whoever_asks_and_reports_the_same_to_all() {
    let mut cluster = Cluster::start("life-stop");
    let primary = cluster.wait_for_primary();
    let mut client = cluster.connect(primary);
    client.command(&["SET", "a", "1"]).expect("a reply");
    let pid = Pid::from_raw(cluster.process(primary).pid().cast_signed());
    let began = Instant::now();
    let reports = thread::scope(|scope| {
        let ask = || json(&cluster, primary, &["shutdown"]);
        let asked: Vec<_> = (0..3).map(|_| scope.spawn(ask)).collect();
        // However often: an error means that it has ended already.
        while kill(pid, Signal::SIGTERM).is_ok() && began.elapsed() < Duration::from_millis(300) {
            thread::sleep(Duration::from_millis(10));
        }
        asked.into_iter().map(|asked| asked.join().expect("answered")).collect::<Vec<_>>()
    });
    println!("{} after {:?}", reports[0], began.elapsed());
    assert!(reports.iter().all(|report| *report == reports[0]), "{reports:?}");
    for field in ["journal_flushed", "final_checkpoint", "clean"] {
        assert_eq!(reports[0][field], true, "{field}: {}", reports[0]);
    }
    assert_eq!(reports[0]["backup_uploaded"], false);
    let process = cluster.process(primary);
    let status = process.wait_for_end(RECOVERY_LIMIT).expect("it ends");
    assert!(status.success(), "{status}");
    let printed = process
        .log()
        .lines()
        .rev()
        .find(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    assert_eq!(printed.as_ref(), Some(&reports[0]), "printed, too");
    assert_eq!(cluster.restart_ended(), [primary]);
    cluster.wait_until_writable();
    cluster.wait_until_equal();
    let status = cluster.status(primary).expect("it answers");
    assert_eq!(status.role, Role::Replica);
}
