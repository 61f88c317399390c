//! Members come and go under load.

use std::fs;
use std::time::Duration;

use quorate_cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY_LIMIT, poll};
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions};
use serde_json::Value as Json;

use crate::common::{json, judge_writes, quorate, settle, wait_for_writes};

/// The exit code of a node that was removed.
const REMOVED: Option<i32> = Some(4);

/// Light enough that ten processes on a small machine keep their periods.
const LIGHT: WriterOptions = WriterOptions {
    writers: 2,
    pipeline: 2,
    pause: Duration::from_millis(4),
    timeout: Duration::from_secs(10),
};

fn members(cluster: &Cluster, asked: u64) -> Json {
    json(cluster, asked, &["members", "list"])
}

/// voter or learner, as a node sees it.
fn kind(cluster: &Cluster, asked: u64, node: u64) -> Option<String> {
    let all = members(cluster, asked);
    let member = all["members"].as_array()?.iter().find(|member| member["node"] == node)?.clone();
    member["kind"].as_str().map(str::to_owned)
}

/// Starts a node that calls members, takes it in at one of them, and waits until it votes.
fn join(cluster: &mut Cluster, node: u64, by_way_of: &[u64]) {
    cluster.add_node(node, by_way_of);
    cluster.start_node(node);
    let asked = by_way_of[0];
    poll(RECOVERY_LIMIT, "the node to call", || {
        let listed = members(cluster, asked);
        let calls = listed["candidates"].as_array()?.iter().any(|one| one["node"] == node);
        calls.then_some(())
    });
    let id = node.to_string();
    let forecast = json(cluster, asked, &["members", "add", "--id", &id, "--dry-run"]);
    assert_eq!(forecast["possible"], true, "{forecast}");
    assert_eq!(kind(cluster, asked, node), None, "a dry run changes nothing");
    let added = quorate(cluster, asked, &["members", "add", "--id", &id, "--wait", "60"]);
    let said = String::from_utf8_lossy(&added.stdout).into_owned();
    assert!(added.status.success(), "{said}{}", String::from_utf8_lossy(&added.stderr));
    println!("{said}");
    assert_eq!(kind(cluster, asked, node).as_deref(), Some("voter"));
}

/// While a node joins, the policy is changed again and again: one change at a time, and each is either
/// in force or refused.
#[test]
fn the_policy_changes_while_a_node_joins() {
    let mut cluster = Cluster::start("join-policy");
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), LIGHT);
    wait_for_writes(&writers, 100);
    let primary = cluster.wait_for_primary();
    cluster.add_node(4, &[primary]);
    cluster.start_node(4);
    poll(RECOVERY_LIMIT, "the node to call", || {
        let listed = members(&cluster, primary);
        (!listed["candidates"].as_array()?.is_empty()).then_some(())
    });
    let (mut in_force, mut refused, mut added) = (0, 0, false);
    let mut policies = ["hybrid", "majority"].into_iter().cycle();
    poll(RECOVERY_LIMIT, "the node to become a voter", || {
        let policy = policies.next().expect("endless");
        let set = quorate(&cluster, primary, &["policy", "set", policy]);
        let said = String::from_utf8_lossy(&set.stderr).into_owned();
        if set.status.success() {
            in_force += 1;
        } else {
            assert!(said.contains("not in force yet") || said.contains("nothing would"), "{said}");
            refused += 1;
        }
        if !added {
            added = quorate(&cluster, primary, &["members", "add", "--id", "4"]).status.success();
        }
        (kind(&cluster, primary, 4).as_deref() == Some("voter")).then_some(())
    });
    println!("{in_force} policies in force meanwhile, {refused} refused");
    assert!(in_force > 1);
    wait_for_writes(&writers, 100);
    settle(&cluster, writers);
}

/// Removes a node at another one's admin port, and sees it end by itself.
fn leave(cluster: &mut Cluster, node: u64, asked: u64) {
    let id = node.to_string();
    let forecast = json(cluster, asked, &["members", "remove", "--id", &id, "--dry-run"]);
    assert_eq!(forecast["possible"], true, "{forecast}");
    let removed = json(cluster, asked, &["members", "remove", "--id", &id]);
    println!("{removed}");
    assert_eq!(cluster.wait_for_end(node).code(), REMOVED);
}

#[test]
fn one_node_grows_to_five_and_shrinks_to_three_under_load() {
    let options = ClusterOptions { nodes: 1, ..ClusterOptions::default() };
    let mut cluster = Cluster::start_with("grow", &options);
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), LIGHT);
    wait_for_writes(&writers, 100);
    join(&mut cluster, 2, &[1]);
    join(&mut cluster, 3, &[1, 2]);
    wait_for_writes(&writers, 100);
    // By way of a replica, which passes on what it knows of the node.
    let primary = cluster.wait_for_primary();
    let replicas = cluster.others(primary);
    join(&mut cluster, 4, &replicas);
    join(&mut cluster, 5, &replicas[..1]);
    wait_for_writes(&writers, 200);
    // Those knew the first node alone, and find no other once it has left.
    let early = writers.finish();
    let writers = UniqueWriters::start("v", &cluster.client_addresses(), LIGHT);
    wait_for_writes(&writers, 100);

    // The primary leaves, asked at its own port: it hands over first.
    let leader = cluster.wait_for_primary();
    leave(&mut cluster, leader, leader);
    wait_for_writes(&writers, 100);
    let successor = cluster.wait_for_primary();
    assert_ne!(successor, leader);
    let gone = cluster.others(successor).into_iter().find(|id| *id != leader).expect("four left");
    leave(&mut cluster, gone, successor);
    wait_for_writes(&writers, 100);

    // Removed for ever: started again they say so and end, and their ids are refused.
    for id in [leader, gone] {
        cluster.start_node(id);
        assert_eq!(cluster.wait_for_end(id).code(), REMOVED);
        let log = fs::read_to_string(cluster.settings(id).log_file()).expect("read the log");
        assert!(log.contains("this node was removed from the cluster"), "{log}");
        let node = id.to_string();
        let again = ["members", "add", "--id", &node, "--disk", "7", "--peer", "127.0.0.1:9"];
        let refused = quorate(&cluster, successor, &again);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("ids are never used again"), "{said}");
        cluster.drop_node(id);
    }
    let listed = members(&cluster, successor);
    assert_eq!(listed["removed"].as_array().map(Vec::len), Some(2), "{listed}");
    assert_eq!(listed["members"].as_array().map(Vec::len), Some(3), "{listed}");
    settle(&cluster, writers);
    judge_writes(&cluster, &early);
}

#[test]
fn a_dead_node_is_replaced_and_told_when_it_comes_back() {
    let mut cluster = Cluster::start("replace");
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), LIGHT);
    wait_for_writes(&writers, 100);
    let primary = cluster.wait_for_primary();
    let dead = cluster.others(primary)[0];
    cluster.kill(dead);
    cluster.add_node(4, &[primary]);
    cluster.start_node(4);
    let (old, new) = (dead.to_string(), "4");
    poll(RECOVERY_LIMIT, "the node to call", || {
        let listed = members(&cluster, primary);
        (!listed["candidates"].as_array()?.is_empty()).then_some(())
    });
    let replace = ["members", "replace", "--id", &old, "--with", new, "--wait", "60"];
    let done = quorate(&cluster, primary, &replace);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    println!("{said}");
    wait_for_writes(&writers, 100);
    // It was down while it was removed: its own log doesn't say so, the others do.
    cluster.start_node(dead);
    assert_eq!(cluster.wait_for_end(dead).code(), REMOVED);
    cluster.drop_node(dead);
    settle(&cluster, writers);
}

#[test]
fn a_wiped_node_is_refused_under_its_old_id_and_told_how_to_rejoin() {
    let mut cluster = Cluster::start("wiped");
    let primary = cluster.wait_for_primary();
    let wiped = cluster.others(primary)[0];
    cluster.kill(wiped);
    cluster.wipe(wiped);
    cluster.start_node(wiped);
    let said = poll(RECOVERY_LIMIT, "the node to be told", || {
        let status = quorate(&cluster, wiped, &["status"]);
        let said = String::from_utf8_lossy(&status.stdout).into_owned();
        said.contains("members remove").then_some(said)
    });
    println!("{said}");
    assert!(said.contains("another disk") && said.contains("quorate join"), "{said}");
    cluster.wait_until_writable();
    // As told: the old id goes, a new one comes.
    leave(&mut cluster, wiped, primary);
    cluster.drop_node(wiped);
    join(&mut cluster, 4, &[primary]);
    cluster.wait_until_equal();
}

#[test]
fn three_stopped_nodes_start_at_other_addresses_and_lose_nothing() {
    let mut cluster = Cluster::start("addresses");
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), LIGHT);
    wait_for_writes(&writers, 100);
    let before = cluster.client_addresses();
    let history = writers.finish();
    for id in cluster.ids() {
        assert!(cluster.stop(id).success());
    }
    cluster.move_all();
    for id in cluster.ids() {
        cluster.start_node(id);
    }
    cluster.wait_until_writable();
    judge_writes(&cluster, &history);
    // The log has them now, so clients are told, and the next member needs only one of them.
    let primary = cluster.wait_for_primary();
    for id in cluster.ids() {
        let expected = cluster.client_address(id).to_string();
        poll(RECOVERY_LIMIT, "the addresses to be recorded", || {
            let listed = members(&cluster, primary);
            let all = listed["members"].as_array()?;
            let own = all.iter().find(|member| member["node"] == id)?;
            (own["client_addr"] == expected.as_str()).then_some(())
        });
        assert!(!before.contains(&cluster.client_address(id)));
    }
    join(&mut cluster, 4, &[primary]);
}

/// Nobody hears of a node whose calls go nowhere: what is missing has to be said.
#[test]
fn a_node_that_reaches_no_member_is_added_by_disk_and_address() {
    let mut cluster = Cluster::start("members-unheard");
    let primary = cluster.wait_until_writable();
    let asked = cluster.others(primary)[0];
    cluster.add_node(4, &[primary]);
    // The discard port: nobody listens there.
    let nowhere = "127.0.0.1:9".to_owned();
    cluster.settings_mut(4).members = vec![(primary, nowhere)];
    cluster.settings(4).write();
    cluster.start_node(4);
    let unheard = quorate(&cluster, asked, &["members", "add", "--id", "4"]);
    let said = String::from_utf8_lossy(&unheard.stderr).into_owned();
    assert_eq!(unheard.status.code(), Some(1), "{said}");
    let own = format!("[\"{primary}@{}\"]", cluster.settings(primary).ports.peer);
    for part in ["(no node calls the primary)", "cluster.join", &own, "--disk", "--peer"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let disk = poll(RECOVERY_LIMIT, "the node to name its disk", || {
        let log = fs::read_to_string(cluster.settings(4).log_file()).ok()?;
        let (_, disk) = log.split_once(" disk=")?;
        Some(disk.split_whitespace().next()?.to_owned())
    });
    let peer = cluster.settings(4).ports.peer.to_string();
    let add = ["members", "add", "--id", "4", "--disk", &disk, "--peer", &peer, "--wait", "60"];
    let added = quorate(&cluster, asked, &add);
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    assert_eq!(kind(&cluster, asked, 4).as_deref(), Some("voter"));
}
