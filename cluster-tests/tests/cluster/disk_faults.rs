//! Syncs that hang and syncs that fail, on the primary and on a replica.

use std::process::Command;
use std::time::{Duration, Instant};

use quorate_cluster_tests::harness::{
    Cluster, ClusterOptions, DiskCall, DiskFault, RECOVERY_LIMIT, Role, binary, poll,
};
use quorate_cluster_tests::history::UniqueWrite;
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions};

use crate::common::{judge_writes, real_metric, wait_for_writes};
use crate::probe::{Probe, Seen};

/// Parts of paths that name what a fault is about.
const JOURNAL: &str = "/journal/";
const HARD_STATE: &str = "/hardstate.";

/// How long a node may take to end after a sync has failed.
const END_LIMIT: Duration = Duration::from_secs(10);

/// A cluster under load, each node of which can be given disk faults.
struct Faulty {
    cluster: Cluster,
    faults: Vec<DiskFault>,
    writers: UniqueWriters,
    probe: Probe,
}

impl Faulty {
    fn start(name: &str) -> Self {
        let mut cluster = Cluster::prepare(name, &ClusterOptions::default());
        let mut faults = Vec::new();
        for id in cluster.ids() {
            faults.push(DiskFault::install(cluster.settings_mut(id)));
            cluster.start_node(id);
        }
        cluster.wait_until_writable();
        let nodes = cluster.client_addresses();
        let writers = UniqueWriters::start("w", &nodes, WriterOptions::default());
        let probe = Probe::start("probe", &nodes);
        wait_for_writes(&writers, 300);
        Self { cluster, faults, writers, probe }
    }

    fn fault(&self, id: u64) -> &DiskFault {
        &self.faults[usize::try_from(id).expect("a small number") - 1]
    }

    fn role(&self, id: u64) -> Option<Role> {
        self.cluster.status(id).map(|status| status.role)
    }

    /// Waits until another node leads; returns which.
    fn wait_for_another(&self, old: u64) -> u64 {
        poll(RECOVERY_LIMIT, "another primary", || self.cluster.primary().filter(|id| *id != old))
    }

    /// Waits until a node has ended by itself, sees its last line, and starts it again.
    fn see_end_and_restart(&mut self, id: u64, reason: &str) -> Duration {
        let began = Instant::now();
        let process = self.cluster.process(id);
        let status = process.wait_for_end(END_LIMIT).expect("the node to end");
        let (took, end) = (began.elapsed(), process.log_end(1));
        assert_eq!(status.code(), Some(1), "{end}");
        assert!(end.contains("the node can't go on") && end.contains(reason), "{end}");
        println!("{end}");
        wait_for_writes(&self.writers, 100);
        assert_eq!(self.cluster.restart_ended(), [id]);
        took
    }

    /// All that was written is judged; what the probe saw is printed.
    fn settle(self, fault: Instant) -> Cluster {
        wait_for_writes(&self.writers, 300);
        let (seen, probed) = self.probe.finish(fault);
        let Seen { first_refusal, longest_gap } = seen;
        println!("first refusal {first_refusal:?}, longest time without a write {longest_gap:?}");
        let mut history: Vec<UniqueWrite> = self.writers.finish();
        history.extend(probed);
        judge_writes(&self.cluster, &history);
        self.cluster
    }
}

fn epoch(cluster: &Cluster, id: u64) -> u64 {
    cluster.status(id).expect("it answers").epoch
}

#[test]
fn a_primary_whose_journal_hangs_hands_over_and_follows_when_it_returns() {
    let faulty = Faulty::start("hung-primary");
    let old = faulty.cluster.wait_for_primary();
    faulty.fault(old).hang(DiskCall::Sync, JOURNAL);
    let began = Instant::now();
    faulty.fault(old).wait_until_hit();
    let new = faulty.wait_for_another(old);
    println!("node {new} leads {:?} after node {old}'s sync hung", began.elapsed());
    wait_for_writes(&faulty.writers, 500);
    assert_eq!(faulty.role(old), Some(Role::Replica));
    let stall = real_metric(&faulty.cluster, old, "quorate_journal_stall_seconds");
    assert!(stall > 1.0, "the hang isn't seen: {stall} s");
    faulty.fault(old).end();
    let incarnation = faulty.cluster.status(old).expect("it runs").incarnation;
    let cluster = faulty.settle(began);
    assert_eq!(cluster.status(old).expect("it runs").incarnation, incarnation);
}

#[test]
fn a_failed_sync_ends_the_primary_and_it_proves_its_tail_when_it_returns() {
    let mut faulty = Faulty::start("failed-primary");
    let old = faulty.cluster.wait_for_primary();
    faulty.fault(old).fail_once(DiskCall::Sync, JOURNAL);
    let began = Instant::now();
    faulty.fault(old).wait_until_hit();
    let took = faulty.see_end_and_restart(old, "journal: sync");
    println!("node {old} ended {took:?} after the fault was seen");
    faulty.settle(began);
}

#[test]
fn a_replica_whose_journal_hangs_or_fails_holds_up_nobody() {
    let mut faulty = Faulty::start("faulty-replica");
    let primary = faulty.cluster.wait_for_primary();
    let before = epoch(&faulty.cluster, primary);
    let replica = faulty.cluster.others(primary)[0];
    let began = Instant::now();
    faulty.fault(replica).hang(DiskCall::Sync, JOURNAL);
    faulty.fault(replica).wait_until_hit();
    wait_for_writes(&faulty.writers, 1_000);
    faulty.fault(replica).end();
    wait_for_writes(&faulty.writers, 300);
    for (call, reason) in [(DiskCall::Sync, "journal: sync"), (DiskCall::Write, "journal: write")] {
        faulty.fault(replica).fail_once(call, JOURNAL);
        faulty.fault(replica).wait_until_hit();
        faulty.see_end_and_restart(replica, reason);
        poll(RECOVERY_LIMIT, "the replica", || faulty.cluster.status(replica));
    }
    assert_eq!(epoch(&faulty.cluster, primary), before, "no reason for an election");
    faulty.settle(began);
}

#[test]
fn hard_state_that_hangs_keeps_a_node_from_voting_and_nobody_from_writing() {
    let faulty = Faulty::start("hung-hard-state");
    let old = faulty.cluster.wait_for_primary();
    faulty.fault(old).hang(DiskCall::Sync, HARD_STATE);
    let began = Instant::now();
    wait_for_writes(&faulty.writers, 300);
    assert_eq!(faulty.role(old), Some(Role::Primary), "nothing to be stored, nothing to wait for");
    // Another primary needs no promise of this node.
    let admin = format!("http://{}", faulty.cluster.settings(old).ports.admin);
    let promote = Command::new(binary()).args(["promote", "--admin", &admin]).output();
    let promote = promote.expect("start the binary");
    assert!(promote.status.success(), "{}", String::from_utf8_lossy(&promote.stderr));
    faulty.wait_for_another(old);
    faulty.fault(old).wait_until_hit();
    wait_for_writes(&faulty.writers, 500);
    faulty.fault(old).end();
    faulty.settle(began);
}
