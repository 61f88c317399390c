//! SIGSTOP and SIGCONT: a node that does not know that time has passed.

use quorate_cluster_tests::harness::{Cluster, RECOVERY_LIMIT, poll};
use quorate_cluster_tests::resp::Value;
use quorate_cluster_tests::workload::{
    RegisterClients, RegisterOptions, UniqueWriters, WriterOptions,
};

use crate::common::{settle, wait_for_writes};

#[test]
fn a_paused_primary_neither_answers_stale_reads_nor_confirms_lost_writes() {
    let mut cluster = Cluster::start("pause-primary");
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    let registers =
        RegisterClients::start("r", &cluster.client_addresses(), RegisterOptions::default());
    for round in 0..4 {
        wait_for_writes(&writers, 300);
        let old = cluster.wait_for_primary();
        let mut client = cluster.connect(old);
        let key = format!("pause:{round}");
        let reply = client.command(&["SET", &key, "old"]).expect("reply");
        assert_eq!(reply, Value::Simple("OK".into()));
        cluster.pause(old);
        // These wait in the sleeping node's socket.
        client.send(&["GET", &key]).expect("send");
        client.send(&["SET", &format!("{key}:late"), "late"]).expect("send");
        let new =
            poll(RECOVERY_LIMIT, "another primary", || cluster.primary().filter(|id| *id != old));
        let mut other = cluster.connect(new);
        poll(RECOVERY_LIMIT, "a write at the new primary", || {
            (other.command(&["SET", &key, "new"]).expect("reply") == Value::Simple("OK".into()))
                .then_some(())
        });
        cluster.resume(old);
        let read = client.receive().expect("reply");
        assert_ne!(read, Value::Bulk(b"old".to_vec()), "a stale read");
        let late = client.receive().expect("reply");
        assert!(late.error().is_some(), "the old primary answered a write {late:?}");
    }
    wait_for_writes(&writers, 300);
    let operations = registers.finish_and_check();
    println!("{operations} operations on registers are linearizable");
    settle(&cluster, writers);
}

#[test]
fn a_replica_that_sleeps_catches_up() {
    let mut cluster = Cluster::start("pause-replica");
    let primary = cluster.wait_for_primary();
    let replica = cluster.others(primary)[0];
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, 200);
    cluster.pause(replica);
    wait_for_writes(&writers, 2_000);
    cluster.resume(replica);
    wait_for_writes(&writers, 500);
    settle(&cluster, writers);
}
