//! Bare machines become nodes by a token.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use quorate_cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY_LIMIT, binary, poll};
use quorate_cluster_tests::resp::Value;
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions};

use crate::common::{json, noise, quorate, settle, token, wait_for_voter, wait_for_writes};

/// Every node may sign: the file goes on within `[tls]`.
const SIGNERS: &str = "ca_key = \"../pki/ca.key\"\n";

/// The same, with snapshots slow enough to be interrupted.
const SLOW: &str = "ca_key = \"../pki/ca.key\"\n[storage]\njournal_segment_bytes = \"1MiB\"\n\
                    journal_retain_bytes = \"4MiB\"\n";

const LIGHT: WriterOptions = WriterOptions {
    writers: 2,
    pipeline: 2,
    pause: Duration::from_millis(4),
    timeout: Duration::from_secs(10),
};

fn options(extra: &'static str) -> ClusterOptions {
    ClusterOptions { extra, ..ClusterOptions::default() }
}

/// What `quorate join` prints in a folder of its own, where it is refused.
fn refused(cluster: &Cluster, file: &std::path::Path, member: u64) -> String {
    let dir = cluster.dir().join("refused");
    let output = Command::new(binary())
        .args(["join", &cluster.settings(member).ports.peer.to_string(), "--no-start"])
        .args(["--token-file", file.to_str().expect("a path of ours")])
        .args(["--dir", dir.to_str().expect("a path of ours")])
        .args(["--advertise-peer", "127.0.0.1:9", "--advertise-client", "127.0.0.1:8"])
        .output()
        .expect("the binary starts");
    let _ = fs::remove_dir_all(&dir);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn bare_machines_join_by_tokens_under_load_several_at_once() {
    let mut cluster = Cluster::start_with("join", &options(SIGNERS));
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), LIGHT);
    wait_for_writes(&writers, 100);
    let primary = cluster.wait_for_primary();
    let [near, far] = cluster.others(primary)[..] else { panic!("three nodes") };
    // Asked at replicas: what only the primary can do is passed on.
    let (four, five) = (token(&cluster, near, 4, &[]), token(&cluster, far, 5, &[]));
    poll(RECOVERY_LIMIT, "both tokens to be known everywhere", || {
        let listed = json(&cluster, far, &["token", "list"]);
        (listed["tokens"].as_array()?.len() == 2).then_some(())
    });
    cluster.join_by_token(4, &four, near);
    cluster.join_by_token(5, &five, far);
    for node in [4, 5] {
        wait_for_voter(&cluster, primary, node);
    }
    wait_for_writes(&writers, 100);
    // A token goes with its node: it worked once.
    let listed = json(&cluster, primary, &["token", "list"]);
    assert_eq!(listed["tokens"].as_array().map(Vec::len), Some(0), "{listed}");
    let said = refused(&cluster, &four, near);
    assert!(said.contains("no such token"), "{said}");
    // They vote: with two of the first three gone, three of five are left.
    cluster.kill(near);
    cluster.kill(primary);
    cluster.wait_until_writable();
    cluster.start_node(near);
    cluster.start_node(primary);
    settle(&cluster, writers);
}

#[test]
fn a_token_that_was_used_revoked_or_has_ended_is_refused() {
    let cluster = Cluster::start_with("join-refused", &options(SIGNERS));
    let primary = cluster.wait_for_primary();
    let revoked = token(&cluster, primary, 7, &[]);
    assert!(quorate(&cluster, primary, &["token", "revoke", "--id", "7"]).status.success());
    let said = refused(&cluster, &revoked, primary);
    assert!(said.contains("no such token"), "{said}");
    let ended = token(&cluster, primary, 8, &["--ttl", "1s"]);
    thread::sleep(Duration::from_millis(2_100));
    let said = refused(&cluster, &ended, primary);
    assert!(said.contains("expired"), "{said}");
    // Bound to the first key: somebody who copied the token comes too late.
    let copied = token(&cluster, primary, 9, &[]);
    let dir = cluster.dir().join("first");
    let first = Command::new(binary())
        .args(["join", &cluster.settings(primary).ports.peer.to_string(), "--no-start"])
        .args([
            "--token-file",
            copied.to_str().expect("ours"),
            "--dir",
            dir.to_str().expect("ours"),
        ])
        .args(["--advertise-peer", "127.0.0.1:9", "--advertise-client", "127.0.0.1:8"])
        .output()
        .expect("the binary starts");
    assert!(first.status.success(), "{first:?}");
    let said = refused(&cluster, &copied, primary);
    assert!(said.contains("redeemed for another key"), "{said}");
    // Files that others may read, and authorities that aren't the token's.
    let text = fs::read_to_string(&copied).expect("readable");
    let authority = serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
    let authority = authority["authorities"][0].as_str().expect("one").to_owned();
    fs::write(&copied, text.replace(&authority, &"0".repeat(64))).expect("written");
    let began = Instant::now();
    let mut joining = Command::new(binary())
        .args(["join", &cluster.settings(primary).ports.peer.to_string(), "--no-start"])
        .args([
            "--token-file",
            copied.to_str().expect("ours"),
            "--dir",
            dir.join("x").to_str().expect("ours"),
        ])
        .args(["--advertise-peer", "127.0.0.1:9", "--advertise-client", "127.0.0.1:8"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut said = String::new();
    let mut output = std::io::BufReader::new(joining.stdout.take().expect("piped"));
    std::io::BufRead::read_line(&mut output, &mut said).expect("it says why");
    assert!(said.contains("not the one that the token names"), "{said} {:?}", began.elapsed());
    let _ = joining.kill();
    let _ = joining.wait();
    cluster.wait_until_writable();
}

/// Killed whenever something new is there, and run again each time.
#[test]
fn a_join_goes_on_wherever_it_was_cut_off() {
    let mut cluster = Cluster::start_with("join-killed", &options(SIGNERS));
    let primary = cluster.wait_for_primary();
    let file = token(&cluster, primary, 4, &[]);
    let dir = cluster.dir().join("node-4");
    for mark in ["node.key", "node.csr", "ca.crt", "node.crt", "quorate.toml", "data/identity"] {
        cluster.join_by_token(4, &file, primary);
        poll(RECOVERY_LIMIT, mark, || dir.join(mark).exists().then_some(()));
        cluster.kill(4);
    }
    // The member that it calls dies, too: it asks again.
    cluster.join_by_token(4, &file, primary);
    cluster.kill(primary);
    let successor = cluster.wait_until_writable();
    wait_for_voter(&cluster, successor, 4);
    cluster.start_node(primary);
    cluster.wait_until_equal();
}

#[test]
fn without_an_authority_s_key_a_join_waits_for_a_signed_file() {
    let mut cluster = Cluster::start("join-unsigned");
    let primary = cluster.wait_for_primary();
    let file = token(&cluster, primary, 4, &[]);
    cluster.join_by_token(4, &file, primary);
    let dir = cluster.dir().join("node-4");
    poll(RECOVERY_LIMIT, "the request", || {
        let log = fs::read_to_string(cluster.settings(4).log_file()).ok()?;
        log.contains("quorate pki sign").then_some(())
    });
    let signed = Command::new(binary())
        .args(["pki", "sign", "--id", "4", "--cluster", "test"])
        .args(["--dir", cluster.dir().join("pki").to_str().expect("ours")])
        .args(["--request", dir.join("node.csr").to_str().expect("ours")])
        .args(["--output", dir.join("node.crt").to_str().expect("ours")])
        .output()
        .expect("the binary starts");
    assert!(signed.status.success(), "{signed:?}");
    wait_for_voter(&cluster, primary, 4);
    cluster.wait_until_equal();
}

/// Ballast that takes some seconds to send.
fn start_with_ballast(name: &str) -> Cluster {
    let mut cluster = Cluster::prepare(name, &options(SLOW));
    for id in cluster.ids() {
        let path = cluster.settings(id).config_file();
        let text = fs::read_to_string(&path).expect("read the configuration");
        let rate = "[peer]\nsnapshot_bytes_per_second = \"8MiB\"\n";
        fs::write(&path, text.replace("[peer]\n", rate)).expect("write the configuration");
        cluster.start_node(id);
    }
    let primary = cluster.wait_until_writable();
    let mut client = cluster.connect(primary);
    for key in 0..400u64 {
        let name = format!("ballast:{key}").into_bytes();
        let reply = client.command(&[b"SET".to_vec(), name, noise(key, 100_000)]);
        assert_eq!(reply.ok(), Some(Value::Simple("OK".into())));
    }
    cluster
}

/// Ten kills spread over a transfer; what has arrived is kept, so that it ends all the same.
#[test]
fn a_transfer_survives_ten_kills_of_its_target() {
    let mut cluster = start_with_ballast("join-target");
    let primary = cluster.wait_for_primary();
    let file = token(&cluster, primary, 4, &[]);
    for tenth in 0..10u64 {
        cluster.join_by_token(4, &file, primary);
        let reached = poll(RECOVERY_LIMIT, "the transfer to get on", || {
            let receiving = cluster.status(4).and_then(|status| status.receiving);
            match receiving {
                Some(one) if one.received_bytes >= one.total_bytes * tenth / 10 => Some(one),
                Some(_) => None,
                // Over already: the node has become a member meanwhile.
                None => None,
            }
        });
        println!("killed at {} of {}", reached.received_bytes, reached.total_bytes);
        cluster.kill(4);
    }
    cluster.join_by_token(4, &file, primary);
    wait_for_voter(&cluster, primary, 4);
    cluster.wait_until_equal();
}

/// Whoever sends dies, ten times, at ten points. The target begins anew at another node, whose
/// snapshot has other files.
#[test]
fn a_transfer_survives_ten_kills_of_its_source() {
    let mut cluster = start_with_ballast("join-source");
    let primary = cluster.wait_for_primary();
    let file = token(&cluster, primary, 4, &[]);
    cluster.join_by_token(4, &file, primary);
    for tenth in 0..10u64 {
        let reached = poll(RECOVERY_LIMIT * 2, "the transfer to get on", || {
            let receiving = cluster.status(4)?.receiving?;
            (receiving.received_bytes >= receiving.total_bytes * tenth / 10).then_some(receiving)
        });
        println!(
            "source {} killed at {} of {}",
            reached.from, reached.received_bytes, reached.total_bytes
        );
        cluster.kill(reached.from);
        cluster.start_node(reached.from);
        cluster.wait_until_writable();
    }
    let primary = cluster.wait_for_primary();
    wait_for_voter(&cluster, primary, 4);
    cluster.wait_until_equal();
    // Each attempt had got on when it was cut off: that is no reason to wait ever longer.
    let log = fs::read_to_string(cluster.settings(4).log_file()).expect("a log");
    assert!(!log.contains("retry_in=10s"), "{log}");
}
