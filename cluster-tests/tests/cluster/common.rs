//! What the tests share.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use quorate_cluster_tests::harness::{Cluster, RECOVERY_LIMIT, binary, poll};
use quorate_cluster_tests::history::{UniqueWrite, Verdict, judge};
use quorate_cluster_tests::http;
use quorate_cluster_tests::workload::{UniqueWriters, keys, reasons};

/// Stops the writers and judges what they were told, once all nodes hold the same content.
pub(crate) fn settle(cluster: &Cluster, writers: UniqueWriters) -> Verdict {
    judge_writes(cluster, &writers.finish())
}

/// Every acknowledged write is there, no refused one is, and those in doubt are there wholly or
/// not at all; all running nodes hold the same content.
pub(crate) fn judge_writes(cluster: &Cluster, history: &[UniqueWrite]) -> Verdict {
    cluster.wait_until_writable();
    let hash = cluster.wait_until_equal();
    let store = cluster.read_all(&keys(history));
    let verdict = judge(history, &store).unwrap_or_else(|violations| {
        panic!(
            "{} violations, the first: {:?}",
            violations.len(),
            &violations[..violations.len().min(5)]
        )
    });
    assert!(verdict.acknowledged > 0, "nothing was written: {verdict}; {:?}", reasons(history));
    println!(
        "{verdict}; reasons {:?}; all equal at {} ({})",
        reasons(history),
        hash.applied_seq,
        hash.content_hash
    );
    verdict
}

/// Every write that was not confirmed was refused with the address of who leads: a command by itself
/// (`MOVED`), or a transaction whose command had been (`EXECABORT`).
pub(crate) fn assert_only_redirected(history: &[UniqueWrite]) {
    let reasons = reasons(history);
    let redirected = |reason: &String| ["MOVED", "EXECABORT"].contains(&reason.as_str());
    assert!(reasons.keys().all(redirected), "{reasons:?}");
}

/// A command for one node's admin port, from a script: nothing to type an answer on.
pub(crate) fn quorate(cluster: &Cluster, node: u64, arguments: &[&str]) -> Output {
    let admin = format!("http://{}", cluster.settings(node).ports.admin);
    let mut command = Command::new(binary());
    command.args(arguments).args(["--admin", &admin]).stdin(Stdio::null());
    command.output().expect("the binary starts")
}

/// The same, which must succeed, as JSON.
pub(crate) fn json(cluster: &Cluster, node: u64, arguments: &[&str]) -> serde_json::Value {
    let output = quorate(cluster, node, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Waits until the writers have had so many more writes confirmed.
pub(crate) fn wait_for_writes(writers: &UniqueWriters, more: u64) {
    let goal = writers.acknowledged() + more;
    poll(RECOVERY_LIMIT, "writers to go on", || (writers.acknowledged() >= goal).then_some(()));
}

/// Bytes that don't compress.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// What a node exports under this name.
pub(crate) fn metric(cluster: &Cluster, id: u64, name: &str) -> u64 {
    real_metric(cluster, id, name) as u64
}

/// The same, where it isn't a whole number.
pub(crate) fn real_metric(cluster: &Cluster, id: u64, name: &str) -> f64 {
    let admin = cluster.settings(id).ports.admin;
    let response = http::get(admin, "/metrics", Duration::from_secs(5)).expect("metrics");
    let line = response.body.lines().find(|line| line.starts_with(&format!("{name} ")));
    let value = line.and_then(|line| line.split(' ').nth(1)).and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("{name} is missing:\n{}", response.body))
}

/// Has a node make a token.
pub(crate) fn token(cluster: &Cluster, asked: u64, id: u64, further: &[&str]) -> PathBuf {
    let file = cluster.dir().join(format!("join-{id}.token"));
    let (path, id) = (file.to_str().expect("a path of ours"), id.to_string());
    let create = ["token", "create", "--id", &id, "--output", path];
    let made = json(cluster, asked, &[&create, further].concat());
    assert_eq!(made["node"].to_string(), id, "{made}");
    file
}

/// Waits until a node that joins votes, as this node knows.
pub(crate) fn wait_for_voter(cluster: &Cluster, asked: u64, node: u64) {
    poll(RECOVERY_LIMIT * 2, "the node to become a voter", || {
        let listed = json(cluster, asked, &["members", "list"]);
        let member = listed["members"].as_array()?.iter().find(|one| one["node"] == node)?.clone();
        (member["kind"] == "voter").then_some(())
    });
}
