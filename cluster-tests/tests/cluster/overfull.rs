//! A disk that promised more space than it has: writes seem to go through, and fail when they are
//! synced, as on a thin volume or a file system that lost its disk.

use std::fs;
use std::process::Command;
use std::time::Instant;

use quorate_cluster_tests::harness::{
    Cluster, ClusterOptions, LoopDisk, RECOVERY_LIMIT, binary, poll,
};
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions};

use crate::common::{settle, wait_for_writes};

const MIB: u64 = 1 << 20;

/// What there really is, and what the node's file system believes to have.
const REAL_BYTES: u64 = 160 * MIB;
const PROMISED_BYTES: u64 = 512 * MIB;

const EXTRA: &str = "[storage]\njournal_segment_bytes = \"1MiB\"\njournal_retain_bytes = \"4MiB\"\n\
     min_free_bytes = \"16MiB\"\n[storage.rocksdb]\nwrite_buffer_size = \"2MiB\"\n";

#[test]
fn syncs_that_fail_for_want_of_promised_space_end_the_primary_and_no_ok_was_false() {
    if !LoopDisk::is_possible() {
        println!("skipped: mounting a file system takes root");
        return;
    }
    let options = ClusterOptions { extra: EXTRA, ..ClusterOptions::default() };
    let mut cluster = Cluster::prepare("overfull", &options);
    // Beside the cluster's folder: it must outlive the disk that lies on it.
    let image = cluster.dir().with_extension("below.image");
    let below = cluster.dir().with_extension("below");
    let outer = LoopDisk::mount(&image, &below, REAL_BYTES);
    let victim = 1;
    cluster.mount_overfull_disk(victim, &below, PROMISED_BYTES);
    for id in cluster.ids() {
        cluster.start_node(id);
    }
    if cluster.wait_until_writable() != victim {
        let admin = format!("http://{}", cluster.settings(cluster.wait_for_primary()).ports.admin);
        let promote = ["promote", "--to", "1", "--admin", &admin];
        let promoted = Command::new(binary()).args(promote).output().expect("the binary starts");
        assert!(promoted.status.success(), "{}", String::from_utf8_lossy(&promoted.stderr));
        poll(RECOVERY_LIMIT, "node 1 to lead", || (cluster.primary() == Some(1)).then_some(()));
    }
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, 200);

    outer.fill(0);
    let fault = Instant::now();
    let end = cluster.process(victim).wait_for_end(RECOVERY_LIMIT);
    let log = cluster.process(victim).log();
    let last = log.lines().rfind(|line| line.contains("ERROR")).unwrap_or_default();
    println!("node {victim} ended {:?} after its disk was overfull: {last}", fault.elapsed());
    let end = end.unwrap_or_else(|| panic!("it goes on:\n{log}"));
    assert_eq!(end.code(), Some(1), "{log}");
    assert!(last.contains("journal: sync") || last.contains("hard state"), "{last}");
    // As kernels name it that pass the reason on, and those that don't.
    let reasons = ["No space left on device", "Input/output error"];
    assert!(reasons.iter().any(|reason| last.contains(reason)), "{last}");
    wait_for_writes(&writers, 300);
    println!("another node leads, writes went on {:?} after the fault", fault.elapsed());

    outer.relieve();
    cluster.disk(victim).repair();
    assert_eq!(cluster.restart_ended(), [victim]);
    let back = Instant::now();
    poll(RECOVERY_LIMIT, "the node to follow", || {
        let (own, all) = (cluster.status(victim)?, cluster.status(cluster.primary()?)?);
        (own.applied_seq >= all.committed_seq).then_some(())
    });
    println!("it follows {:?} after its start", back.elapsed());
    settle(&cluster, writers);
    drop(cluster);
    drop(outer);
    fs::remove_file(image).and_then(|()| fs::remove_dir(below)).expect("clean up");
}
