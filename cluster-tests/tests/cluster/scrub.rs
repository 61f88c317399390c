//! Whether nodes hold the same, and can read it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use quorate_cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY_LIMIT, Role, binary, poll};
use quorate_cluster_tests::http;
use quorate_cluster_tests::resp::Value;
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions};
use quorate_protocol::command::slot;
use serde_json::Value as Json;

use crate::common::{metric, settle, wait_for_writes};

/// What the command prints, and its exit code.
fn scrub(cluster: &Cluster, node: u64) -> (Json, Option<i32>) {
    scrub_with(cluster, node, &[])
}

fn scrub_with(cluster: &Cluster, node: u64, flags: &[&str]) -> (Json, Option<i32>) {
    let admin = format!("http://{}", cluster.settings(node).ports.admin);
    let Output { status, stdout, stderr } = Command::new(binary())
        .args(["scrub", "--json", "--admin", &admin])
        .args(flags)
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

const TRUTH: &[u8] = b"this is what the client wrote";
const LIE: &[u8] = b"this is what the client hated";

/// Sets a key, stops a replica, and exchanges the value in the state that it keeps, leaving position
/// and chain as they are. Returns primary and replica, which runs again.
fn start_with_a_lie(cluster: &mut Cluster) -> (u64, u64) {
    let primary = cluster.wait_until_writable();
    let mut client = cluster.connect(primary);
    let reply = client.command(&[b"SET".as_slice(), b"k", TRUTH]).expect("a reply");
    assert_eq!(reply, Value::Simple("OK".into()));
    let replica = cluster.others(primary)[0];
    cluster.wait_until_equal();
    assert!(cluster.stop(replica).success());
    let state = cluster.settings(replica).data_dir().join("state/1");
    let db = rocksdb::DB::open(&rocksdb::Options::default(), state).expect("open the state");
    let stored = db.iterator(rocksdb::IteratorMode::Start).map(|pair| pair.expect("a pair"));
    let found = stored.filter(|(_, value)| value.ends_with(TRUTH)).collect::<Vec<_>>();
    let [(key, value)] = &found[..] else { panic!("{} such values", found.len()) };
    let head = &value[..value.len() - TRUTH.len()];
    db.put(key, [head, LIE].concat()).expect("put");
    db.flush().expect("flush");
    drop(db);
    cluster.start_node(replica);
    poll(RECOVERY_LIMIT, "the replica to catch up", || {
        let applied = |id| cluster.status(id).map(|status| status.applied_seq);
        (applied(replica)? == applied(primary)?).then_some(())
    });
    (primary, replica)
}

/// What a node says itself, once it knows that it is near enough to the primary.
fn value_at(cluster: &Cluster, id: u64) -> Vec<u8> {
    poll(RECOVERY_LIMIT, "the node to serve reads", || {
        let mut client = cluster.connect(id);
        client.command(&["READONLY"]).ok()?;
        client.command(&["GET", "k"]).ok()?.bytes().map(<[u8]>::to_vec)
    })
}

fn wait_until_repaired(cluster: &Cluster, replica: u64, before: u64) {
    // Not to where the primary is by then: under load nobody is.
    let primary = cluster.wait_for_primary();
    let committed = cluster.status(primary).expect("it runs").committed_seq;
    poll(RECOVERY_LIMIT, "the replica to be rebuilt", || {
        let status = cluster.status(replica).filter(|status| status.incarnation > before)?;
        (status.role == Role::Replica && status.applied_seq >= committed).then_some(())
    });
    assert_eq!(value_at(cluster, replica), TRUTH);
}

#[test]
fn a_scrub_names_other_content_to_its_slots_and_repairs_it_where_it_is_told_to() {
    let mut cluster = Cluster::start("scrub-repair");
    let (primary, replica) = start_with_a_lie(&mut cluster);
    assert_eq!(value_at(&cluster, replica), LIE, "nobody has noticed yet");
    let (found, code) = scrub(&cluster, primary);
    println!("{found}");
    assert_eq!((found["clean"].as_bool(), code), (Some(false), Some(1)), "{found}");
    let difference = &found["differences"][0];
    assert_eq!(difference["nodes"], serde_json::json!([replica]), "{found}");
    let slots = difference["first_slot"].as_u64()..=difference["last_slot"].as_u64();
    assert!(slots.contains(&Some(u64::from(slot(b"k")))), "{found}");
    assert_eq!(found["repaired"], serde_json::json!([]), "{found}");

    let before = cluster.status(replica).expect("it runs").incarnation;
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    let began = std::time::Instant::now();
    let (told, code) = scrub_with(&cluster, primary, &["--repair"]);
    assert_eq!((&told["repaired"], code), (&serde_json::json!([replica]), Some(1)), "{told}");
    wait_until_repaired(&cluster, replica, before);
    println!("repaired {:?} after the command", began.elapsed());
    wait_for_writes(&writers, 100);
    settle(&cluster, writers);
    let (clean, code) = scrub(&cluster, primary);
    assert_eq!((clean["clean"].as_bool(), code), (Some(true), Some(0)), "{clean}");
}

#[test]
fn the_schedule_scrubs_from_the_primary_alone_and_repairs_what_it_finds() {
    let extra = "[health]\nscrub_period = \"3s\"\n";
    let mut cluster =
        Cluster::start_with("scrub-schedule", &ClusterOptions { extra, ..Default::default() });
    let (primary, replica) = start_with_a_lie(&mut cluster);
    wait_until_repaired(&cluster, replica, 2);
    let made = |id| {
        let name = |outcome| format!("quorate_scrubs_total{{outcome=\"{outcome}\"}}");
        metric(&cluster, id, &name("found")) + metric(&cluster, id, &name("clean"))
    };
    poll(RECOVERY_LIMIT, "a clean scrub", || {
        (metric(&cluster, primary, "quorate_scrubs_total{outcome=\"clean\"}") > 0).then_some(())
    });
    for id in cluster.others(primary) {
        assert_eq!(made(id), 0, "node {id} is not primary");
    }
    assert_eq!(metric(&cluster, primary, "quorate_scrub_different_slots"), 0);
}
