//! Damage to what was synced.

use std::fs;
use std::path::PathBuf;

use quorate_cluster_tests::harness::{Cluster, ClusterOptions};
use quorate_cluster_tests::resp::Value;

use crate::common::noise;

/// A few segments after a few megabytes.
const EXTRA: &str = "[storage]\njournal_segment_bytes = \"1MiB\"\n";

/// In the middle of a full segment.
const OFFSET: usize = 500_000;

fn write(cluster: &Cluster, keys: std::ops::Range<u64>) {
    let mut client = cluster.connect(cluster.wait_for_primary());
    for n in keys {
        let key = format!("k{n}").into_bytes();
        let reply = client.command(&[b"SET".to_vec(), key, noise(n, 60_000)]);
        assert_eq!(reply.ok(), Some(Value::Simple("OK".into())));
    }
}

fn segments(cluster: &Cluster, node: u64, folder: &str) -> Vec<PathBuf> {
    let dir = cluster.settings(node).data_dir().join(folder);
    let files = fs::read_dir(dir).expect("a folder").map(|file| file.expect("a file").path());
    let mut paths: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "qj")).collect();
    paths.sort();
    paths
}

/// A bit flips in a segment whose entries the state holds on disk: the node sets the segment aside,
/// starts, goes on voting, and is at one with the others again.
#[test]
fn damage_below_the_flushed_state_costs_nothing() {
    let options = ClusterOptions { extra: EXTRA, ..ClusterOptions::default() };
    let mut cluster = Cluster::start_with("journal-damage", &options);
    let primary = cluster.wait_for_primary();
    let replica = cluster.others(primary)[0];
    write(&cluster, 0..70);
    cluster.wait_until_equal();
    // A clean stop flushes the state.
    assert!(cluster.stop(replica).success());
    let journal = segments(&cluster, replica, "journal");
    assert!(journal.len() >= 3, "{journal:?}");
    let damaged = &journal[journal.len() - 2];
    let mut bytes = fs::read(damaged).expect("readable");
    bytes[OFFSET] ^= 1;
    fs::write(damaged, bytes).expect("writable");
    let before = segments(&cluster, replica, "divergent").len();
    cluster.start_node(replica);
    write(&cluster, 70..90);
    let equal = cluster.wait_until_equal();
    let log = fs::read_to_string(cluster.settings(replica).log_file()).expect("a log");
    assert!(log.contains("which were set aside in divergent/"), "{log}");
    let aside = segments(&cluster, replica, "divergent").len() - before;
    assert!(aside >= 1, "nothing is thrown away");
    println!("{aside} of {} segments set aside; equal at {}", journal.len(), equal.applied_seq);
    // It votes: with the third node gone, the two of them elect and write.
    let third = cluster.others(primary).into_iter().find(|id| *id != replica).expect("three");
    cluster.kill(third);
    cluster.kill(primary);
    cluster.start_node(primary);
    cluster.wait_until_writable();
}
