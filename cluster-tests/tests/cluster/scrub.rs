//! Whether nodes hold the same, and can read it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use quorate_cluster_tests::harness::{Cluster, RECOVERY_LIMIT, binary, poll};
use quorate_cluster_tests::http;
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions};
use serde_json::Value as Json;

use crate::common::{settle, wait_for_writes};

/// What the command prints, and its exit code.
fn scrub(cluster: &Cluster, node: u64) -> (Json, Option<i32>) {
    let admin = format!("http://{}", cluster.settings(node).ports.admin);
    let Output { status, stdout, stderr } = Command::new(binary())
        .args(["scrub", "--json", "--admin", &admin])
        .output()
        .expect("the binary starts");
    let said = String::from_utf8_lossy(&stderr);
    let report = serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    (report, status.code())
}

/// Nodes are compared at one position while clients write. A flipped bit in a file of a replica's
/// state is then found there, named, and alarmed.
#[test]
fn a_scrub_compares_nodes_under_load_and_finds_a_flipped_bit() {
    let mut cluster = Cluster::start("scrub");
    let primary = cluster.wait_for_primary();
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, 2_000);
    let (under_load, code) = scrub(&cluster, primary);
    println!("{under_load}");
    assert_eq!((under_load["clean"].as_bool(), code), (Some(true), Some(0)), "{under_load}");
    let keys: Vec<_> = (0..3).map(|n| under_load["nodes"][n]["keys"].as_u64()).collect();
    assert!(keys[0] >= Some(2_000) && keys.iter().all(|one| *one == keys[0]), "{under_load}");
    settle(&cluster, writers);

    let replica = cluster.others(primary)[0];
    assert!(cluster.stop(replica).success());
    let state = cluster.settings(replica).data_dir().join("state");
    let files = |dir: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).expect("a directory");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    };
    // In the middle of the largest, where keys are and not what a start reads.
    let table = files(&files(&state)[0])
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "sst"))
        .max_by_key(|path| path.metadata().expect("its size").len())
        .expect("a stop flushes");
    let mut bytes = fs::read(&table).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&table, bytes).expect("writable");
    cluster.start_node(replica);
    poll(RECOVERY_LIMIT, "the replica to catch up", || {
        let applied = |id| cluster.status(id).map(|status| status.applied_seq);
        (applied(replica)? == applied(primary)?).then_some(())
    });
    let (found, code) = scrub(&cluster, primary);
    println!("{found}");
    assert_eq!((found["clean"].as_bool(), code), (Some(false), Some(1)), "{found}");
    let nodes = found["nodes"].as_array().expect("nodes");
    for node in nodes {
        let faulty = node["fault"].as_str().is_some_and(|fault| fault.contains("mismatch"));
        assert_eq!(faulty, node["node"] == replica, "{found}");
    }
    let admin = cluster.settings(primary).ports.admin;
    let metrics = http::get(admin, "/metrics", Duration::from_secs(5)).expect("metrics").body;
    for line in ["quorate_scrub_faulty_nodes 1", "quorate_scrubs_total{outcome=\"found\"} 1"] {
        assert!(metrics.contains(line), "{line}");
    }
}
