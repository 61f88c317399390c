//! SIGKILL.

use quorate_cluster_tests::harness::Cluster;
use quorate_cluster_tests::workload::{
    RegisterClients, RegisterOptions, UniqueWriters, WriterOptions,
};

use crate::common::{judge_writes, settle, wait_for_writes};

#[test]
fn the_primary_is_killed_ten_times_under_load() {
    let mut cluster = Cluster::start("kill-primary");
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    let registers =
        RegisterClients::start("r", &cluster.client_addresses(), RegisterOptions::default());
    for _ in 0..10 {
        wait_for_writes(&writers, 500);
        let primary = cluster.wait_for_primary();
        cluster.kill(primary);
        // Progress without the old primary, before it comes back.
        wait_for_writes(&writers, 100);
        cluster.start_node(primary);
    }
    wait_for_writes(&writers, 500);
    let operations = registers.finish_and_check();
    println!("{operations} operations on registers are linearizable");
    settle(&cluster, writers);
}

#[test]
fn each_replica_is_killed_under_load() {
    let mut cluster = Cluster::start("kill-replicas");
    let primary = cluster.wait_for_primary();
    let epoch = cluster.status(primary).expect("the primary answers").epoch;
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    for replica in cluster.others(primary) {
        wait_for_writes(&writers, 300);
        cluster.kill(replica);
        wait_for_writes(&writers, 300);
        cluster.start_node(replica);
    }
    wait_for_writes(&writers, 300);
    settle(&cluster, writers);
    let after = cluster.status(primary).expect("the primary answers");
    assert_eq!(after.epoch, epoch, "the loss of a replica is no reason for an election");
}

#[test]
fn all_nodes_are_killed_at_once_and_restarted() {
    let mut cluster = Cluster::start("kill-all");
    let mut history = Vec::new();
    for round in 0..3 {
        let writers = UniqueWriters::start(
            &format!("w{round}"),
            &cluster.client_addresses(),
            WriterOptions::default(),
        );
        wait_for_writes(&writers, 500);
        for id in cluster.ids() {
            cluster.kill(id);
        }
        history.extend(writers.finish());
        for id in cluster.ids() {
            cluster.start_node(id);
        }
        judge_writes(&cluster, &history);
    }
}

#[test]
fn all_nodes_are_stopped_in_order_and_restarted() {
    let mut cluster = Cluster::start("stop-all");
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, 500);
    for id in cluster.ids() {
        let status = cluster.stop(id);
        assert!(status.success(), "node {id} ended with {status}");
    }
    let history = writers.finish();
    for id in cluster.ids() {
        cluster.start_node(id);
    }
    judge_writes(&cluster, &history);
}
