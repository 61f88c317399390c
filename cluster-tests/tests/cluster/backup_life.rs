//! Backups in the life of nodes: what a schedule begins, what a stop ends, and what grows from a restore.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use quorate_cluster_tests::harness::{
    Cluster, ClusterOptions, DiskCall, DiskFault, NodeProcess, Ports, RECOVERY_LIMIT, Role,
    S3Fault, S3Proxy, S3Server, Status, binary, poll,
};
use quorate_cluster_tests::resp::{Client, Value};
use serde_json::Value as Json;

use crate::archives::{
    Oracle, back_up, contents, elsewhere, json, quorate, restore, said, start, verify,
};
use crate::common::{self, metric};

fn start_with(name: &str, nodes: usize, extra: String) -> Cluster {
    let options = ClusterOptions { nodes, extra: extra.leak(), ..ClusterOptions::default() };
    Cluster::start_with(name, &options)
}

/// A folder for one test, which isn't there yet.
fn folder(name: &str) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("quorate-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    dir
}

/// What the others hold is committed and applied on a node, too, whose own journal is behind.
#[test]
fn a_backup_waits_for_a_journal_that_is_behind_the_state() {
    let mut cluster = Cluster::prepare("backup-journal-behind", &ClusterOptions::default());
    let mut faults = std::collections::BTreeMap::new();
    for id in cluster.ids() {
        faults.insert(id, DiskFault::install(cluster.settings_mut(id)));
        cluster.start_node(id);
    }
    let primary = cluster.wait_until_writable();
    let replica = cluster.others(primary)[0];
    let target = cluster.dir().join("archive");
    let mut client = cluster.connect(primary);
    let mut write = || client.command(&["INCR", "n"]).expect("a reply");
    write();
    cluster.wait_until_equal();
    json(&back_up(&cluster, replica, &target, &[]));
    let fault = &faults[&replica];
    fault.hang(DiskCall::Write, "/journal/");
    // The first is in the call that hangs, further ones wait behind it.
    let mut last = Value::Null;
    for _ in 0..3 {
        last = write();
    }
    fault.wait_until_hit();
    let seq = cluster.status(primary).expect("it runs").applied_seq;
    poll(RECOVERY_LIMIT, "the replica to apply them", || {
        (cluster.status(replica)?.applied_seq >= seq).then_some(())
    });
    let mut running = std::process::Command::new(binary())
        .args(["backup", "--json", "--admin", &admin(&cluster, replica), "create"])
        .args(["--no-snapshot", "--target"])
        .arg(&target)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("start the binary");
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(500) {
        assert_eq!(running.try_wait().expect("it can be asked"), None, "it doesn't wait");
        std::thread::sleep(Duration::from_millis(10));
    }
    fault.end();
    let made = json(&running.wait_with_output().expect("it ends"));
    assert!(made["archived_seq"].as_u64() >= Some(seq), "{made}");
    assert_eq!(json(&verify(&target, &[]))["faults"], serde_json::json!([]));
    assert_eq!(last, Value::Integer(4));
}

/// A file system that isn't mounted is a folder that isn't there, or an empty one.
#[test]
fn a_schedule_begins_no_archive_where_its_directory_is_missing() {
    let dir = folder("unmounted");
    let target = dir.join("mounted");
    fs::create_dir_all(&dir).expect("made");
    let extra = format!("[archive]\ntarget = \"{}\"\ninterval = \"1s\"\n", target.display());
    let cluster = start_with("backup-unmounted", 1, extra);
    let failed = || metric(&cluster, 1, "quorate_backups_total{outcome=\"failed\"}");
    let good = || metric(&cluster, 1, "quorate_backups_total{outcome=\"good\"}");
    poll(RECOVERY_LIMIT, "two backups to fail", || (failed() >= 2).then_some(()));
    let shown = said(&quorate(&["status", "--json", "--admin", &admin(&cluster, 1)]));
    assert!(shown.contains("No such file"), "{shown}");
    // An order that names no target is for the configured one.
    let ordered = quorate(&["backup", "--admin", &admin(&cluster, 1), "create"]);
    assert!(!ordered.status.success() && said(&ordered).contains("No such file"));
    assert!(!target.exists() && good() == 0);
    fs::create_dir(&target).expect("made");
    poll(RECOVERY_LIMIT, "a backup", || (good() >= 1).then_some(()));
    // Away again: what is there without it is no archive, and none is begun.
    let away = dir.join("away");
    fs::rename(&target, &away).expect("renamed");
    fs::create_dir(&target).expect("made");
    let before = failed();
    poll(RECOVERY_LIMIT, "a backup to fail", || (failed() > before).then_some(()));
    assert_eq!(fs::read_dir(&target).expect("a folder").count(), 0);
    fs::remove_dir(&target).expect("it is empty");
    fs::rename(&away, &target).expect("renamed");
    let before = good();
    poll(RECOVERY_LIMIT, "the archive to go on", || (good() > before).then_some(()));
    assert_eq!(json(&verify(&target, &[]))["faults"], serde_json::json!([]));
    drop(cluster);
    fs::remove_dir_all(&dir).expect("removed");
}

fn admin(cluster: &Cluster, node: u64) -> String {
    format!("http://{}", cluster.settings(node).ports.admin)
}

/// One node after the other stops: the last entry is in the archive, and those that come too late for
/// that have nothing to add.
#[test]
fn a_cluster_that_is_stopped_has_archived_everything() {
    let dir = folder("final");
    fs::create_dir_all(&dir).expect("made");
    let extra = format!(
        "[archive]\ntarget = \"{}\"\ninterval = \"1h\"\nsnapshot_interval = \"1h\"\n\
         final_backup = true\n",
        dir.display()
    );
    let mut cluster = start_with("backup-final", 3, extra);
    let primary = cluster.wait_for_primary();
    let mut oracle = Oracle::new(&cluster);
    oracle.write(30);
    json(&back_up(&cluster, primary, &dir, &[]));
    oracle.write(30);
    oracle.remember();
    let report = common::json(&cluster, primary, &["shutdown"]);
    println!("{report}");
    assert_eq!((&report["backup_uploaded"], &report["clean"]), (&Json::from(true), &true.into()));
    assert!(cluster.wait_for_end(primary).success());
    let whole = json(&verify(&dir, &[]));
    assert_eq!(whole["faults"], serde_json::json!([]));
    assert!(whole["archived_seq"].as_u64() >= Some(oracle.points[0].0), "{whole}");
    let (now, mut oracle) = (oracle.now, Oracle::new(&cluster));
    oracle.now = now;
    cluster.wait_until_writable();
    oracle.write(7);
    cluster.wait_until_equal();
    for id in cluster.others(primary) {
        assert!(cluster.stop(id).success());
    }
    let settings = elsewhere(&cluster, "restored");
    json(&restore(&settings, &dir, "latest"));
    let (process, mut client) = start(&settings);
    assert_eq!(contents(&mut client), oracle.now);
    process.kill();

    // Nowhere to archive to: that it was asked for and failed is the outcome, and nothing is lost.
    cluster.start_node(primary);
    cluster.start_node(cluster.others(primary)[0]);
    let node = cluster.wait_until_writable();
    let away = dir.with_extension("away");
    fs::rename(&dir, &away).expect("renamed");
    let asked = common::quorate(&cluster, node, &["shutdown", "--backup", "--json"]);
    println!("{}", said(&asked));
    assert_eq!(asked.status.code(), Some(1), "{}", said(&asked));
    let report: Json = serde_json::from_slice(&asked.stdout).expect("a report");
    assert_eq!((&report["backup_uploaded"], &report["clean"]), (&false.into(), &true.into()));
    let why = report["backup_error"].as_str().expect("a reason");
    assert!(why.contains("No such file"), "{why}");
    assert_eq!(cluster.wait_for_end(node).code(), Some(1));
    fs::remove_dir_all(&away).expect("removed");
}

/// What a store that hangs takes of a stop is three quarters of its time, and never the clean mark.
#[test]
fn a_last_backup_that_hangs_ends_before_the_stop_has_to() {
    let s3 = S3Server::start();
    let proxy = S3Proxy::start(s3.address());
    let extra = format!("[archive]\n{}", s3.settings(proxy.address(), "60s"));
    let options = ClusterOptions { nodes: 1, extra: extra.leak(), ..ClusterOptions::default() };
    let mut cluster = Cluster::prepare("backup-final-slow", &options);
    let target = format!("s3://{}/final", S3Server::BUCKET);
    cluster.settings_mut(1).environment = vec![
        ("QUORATE_NODE__SHUTDOWN_DEADLINE".to_owned(), "4s".to_owned()),
        ("QUORATE_ARCHIVE__TARGET".to_owned(), target.clone()),
        ("QUORATE_ARCHIVE__INTERVAL".to_owned(), "1h".to_owned()),
    ];
    cluster.start_node(1);
    cluster.wait_until_writable();
    json(&quorate(&["backup", "--admin", &admin(&cluster, 1), "--json", "create"]));
    let mut oracle = Oracle::new(&cluster);
    oracle.write(10);
    proxy.set(S3Fault::Slow(Duration::from_secs(120)));
    let began = Instant::now();
    let asked = common::quorate(&cluster, 1, &["shutdown", "--backup", "--json"]);
    let took = began.elapsed();
    println!("after {took:?}: {}", said(&asked));
    let report: Json = serde_json::from_slice(&asked.stdout).expect("a report");
    assert_eq!((&report["backup_uploaded"], &report["clean"]), (&false.into(), &true.into()));
    let why = report["backup_error"].as_str().expect("a reason");
    assert!(why.contains("not done within"), "{why}");
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(4), "{took:?}");
    assert_eq!(cluster.wait_for_end(1).code(), Some(1));
    // What was not archived is with the next one.
    proxy.set(S3Fault::None);
    cluster.start_node(1);
    cluster.wait_until_writable();
    let report = common::json(&cluster, 1, &["shutdown", "--backup"]);
    assert_eq!(report["backup_uploaded"], true, "{report}");
    assert!(cluster.wait_for_end(1).success());
    let settings = elsewhere(&cluster, "restored");
    json(&restore(&settings, &target, "latest"));
    let (process, mut client) = start(&settings);
    assert_eq!(contents(&mut client), oracle.now);
    process.kill();
}

#[test]
fn a_backup_waits_for_copies_and_says_if_that_was_in_vain() {
    let extra = "[archive]\nack = \"ack_n 3\"\n".to_owned();
    let mut cluster = start_with("backup-ack", 3, extra);
    let target = cluster.dir().join("archive");
    let primary = cluster.wait_for_primary();
    let replica = cluster.others(primary)[0];
    let mut oracle = Oracle::new(&cluster);
    let mut ack_wait = |cluster: &Cluster, node: u64| {
        oracle.write(5);
        let report = json(&back_up(cluster, node, &target, &["--no-snapshot"]));
        let steps = report["steps"].as_array().expect("steps");
        let step = steps.iter().find(|step| step["step"] == "ack wait").expect("the step");
        println!("{step}");
        (step["missed"].as_str().map(str::to_owned), step["seconds"].as_f64().expect("a number"))
    };
    let (missed, took) = ack_wait(&cluster, primary);
    assert!(missed.is_none() && took < 5.0, "{missed:?}");
    // Only the primary knows of the others.
    cluster.wait_until_equal();
    let (missed, _) = ack_wait(&cluster, replica);
    assert!(missed.is_some_and(|missed| missed.contains("only the primary")));
    cluster.kill(replica);
    let (missed, took) = ack_wait(&cluster, primary);
    assert!(missed.is_some_and(|missed| missed.contains("2 of 3 voters")));
    assert!((5.0..8.0).contains(&took), "{took}");
    assert_eq!(json(&verify(&target, &[]))["faults"], serde_json::json!([]));
}

/// A node of the restored cluster that a bare machine becomes by a token.
struct Joined {
    _process: NodeProcess,
    ports: Ports,
}

fn join(dir: &Path, restored: SocketAddr, admin: &str, node: u64) -> Joined {
    let ports = Ports::free();
    fs::create_dir_all(dir).expect("made");
    let token = dir.join("token").display().to_string();
    let id = node.to_string();
    json(&quorate(&[
        "token", "--admin", admin, "--json", "create", "--id", &id, "--output", &token,
    ]));
    let [member, peer, client, own] =
        [restored, ports.peer, ports.client, ports.admin].map(|address| address.to_string());
    let home = dir.join("home").display().to_string();
    let arguments = [
        ["join", &member, "--token-file", &token, "--dir", &home].as_slice(),
        &["--advertise-peer", &peer, "--listen-peer", &peer],
        &["--advertise-client", &client, "--listen-client", &client],
        &["--listen-admin", &own],
    ]
    .concat();
    let process = NodeProcess::start(&arguments, &dir.join("log"));
    poll(RECOVERY_LIMIT * 2, "the node to become a voter", || {
        let listed = json(&quorate(&["members", "--admin", admin, "--json", "list"]));
        let is_voter = |one: &Json| one["node"] == node && one["kind"] == "voter";
        listed["members"].as_array()?.iter().any(is_voter).then_some(())
    });
    Joined { _process: process, ports }
}

/// Both have the same name, the same authority and nodes of the same numbers: what keeps them apart is
/// the id that the restore gave.
#[test]
fn a_restored_cluster_grows_to_three_and_stays_apart_from_the_old_one() {
    // It may sign: the file goes on within `[tls]`.
    let mut cluster = start_with("backup-grown", 3, "ca_key = \"../pki/ca.key\"\n".to_owned());
    let target = cluster.dir().join("archive");
    let primary = cluster.wait_for_primary();
    let mut oracle = Oracle::new(&cluster);
    oracle.write(50);
    json(&back_up(&cluster, primary, &target, &[]));
    let expected = oracle.now.clone();
    // As node 1, at an address of its own; its file names the other old members.
    let mut settings = elsewhere(&cluster, "restored");
    settings.members[0].1 = settings.ports.peer.to_string();
    settings.write();
    json(&restore(&settings, &target, "latest"));
    let (process, mut client) = start(&settings);
    assert_eq!(client.command(&["SET", "new", "1"]).expect("a reply"), Value::Simple("OK".into()));
    let (admin, peer) = (format!("http://{}", settings.ports.admin), settings.ports.peer);
    let joined =
        [2, 3].map(|id| join(&cluster.dir().join(format!("joined-{id}")), peer, &admin, id));
    // A node of the old cluster calls the restored one in place of the old node 1, which is gone.
    for id in [1, 3] {
        cluster.kill(id);
    }
    cluster.settings_mut(3).members[0].1 = peer.to_string();
    cluster.settings(3).write();
    cluster.start_node(3);
    let refuses = |path: std::path::PathBuf| {
        let log = fs::read_to_string(path).unwrap_or_default();
        log.contains("its log belongs to cluster") || log.contains("refused this node: cluster id")
    };
    poll(RECOVERY_LIMIT, "both to refuse each other", || {
        let old = refuses(cluster.settings(3).log_file());
        (old && refuses(settings.log_file())).then_some(())
    });
    // Each goes on by itself, also without the node that was restored.
    cluster.wait_until_writable();
    oracle = Oracle::new(&cluster);
    oracle.now.clone_from(&expected);
    oracle.write(9);
    cluster.wait_until_equal();
    process.kill();
    let led = poll(RECOVERY_LIMIT, "the joined nodes to lead", || {
        joined.iter().find(|node| {
            Status::of(node.ports.admin).is_some_and(|status| status.role == Role::Primary)
        })
    });
    let mut client = Client::connect(led.ports.client, RECOVERY_LIMIT).expect("it listens");
    poll(RECOVERY_LIMIT, "a write", || {
        let reply = client.command(&["SET", "new", "2"]).ok()?;
        (reply == Value::Simple("OK".into())).then_some(())
    });
    assert_eq!(contents(&mut client), expected, "nothing of what the old one wrote since");
    let primary = cluster.wait_until_writable();
    let mut client = cluster.connect(primary);
    assert_eq!(contents(&mut client), oracle.now);
    assert!(client.command(&["GET", "new"]).expect("a reply").is_null());
}
