//! Orders from any node: what only the primary can do, asked at another node's admin port.

use std::fs;

use quorate_cluster_tests::harness::{Cluster, RECOVERY_LIMIT, poll};
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions};

use crate::common::{json, quorate, settle, wait_for_writes};

/// Lines of a node's log about orders that it carried out.
fn recorded(cluster: &Cluster, node: u64) -> Vec<String> {
    let log = fs::read_to_string(cluster.settings(node).log_file()).expect("read the log");
    log.lines().filter(|line| line.contains("event=\"control\"")).map(str::to_owned).collect()
}

#[test]
fn a_replica_passes_orders_to_the_primary_and_brings_its_answers_back() {
    let cluster = Cluster::start("orders");
    let primary = cluster.wait_for_primary();
    let [replica, target] = cluster.others(primary)[..] else { panic!("three nodes") };
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, 300);

    assert_eq!(json(&cluster, replica, &["policy", "set", "hybrid"])["warning"].as_str(), None);
    let shown = poll(RECOVERY_LIMIT, "the policy to be known here", || {
        let shown = json(&cluster, replica, &["policy", "show"]);
        (shown["policy"] == "persisted>=1 && in_memory>=2").then_some(shown)
    });
    println!("{shown}");
    // The primary's own words, whoever was asked.
    let here = quorate(&cluster, primary, &["policy", "set", "hybrid"]);
    let there = quorate(&cluster, replica, &["policy", "set", "hybrid"]);
    assert_eq!(there.status.code(), Some(1));
    let said = |output: &[u8]| {
        let text = String::from_utf8_lossy(output);
        text.split(": ").skip(2).collect::<Vec<_>>().join(": ")
    };
    assert_eq!(said(&there.stderr), said(&here.stderr));
    assert!(String::from_utf8_lossy(&there.stderr).contains("409: nothing would change"));

    let to = target.to_string();
    let promoted = json(&cluster, replica, &["promote", "--to", &to]);
    assert_eq!(promoted["primary"].as_u64(), Some(target), "{promoted}");
    wait_for_writes(&writers, 300);
    settle(&cluster, writers);

    let acts = recorded(&cluster, primary);
    for (order, outcome) in
        [("policy set", "allowed"), ("policy set", "denied"), ("promote", "allowed")]
    {
        let at = format!(" at node {replica}\"");
        let found = acts.iter().any(|line| {
            line.contains(&format!("order=\"{order}\""))
                && line.contains(&format!("outcome=\"{outcome}\""))
                && line.contains(&at)
        });
        assert!(found, "{order} {outcome}: {acts:#?}");
    }
    assert!(recorded(&cluster, replica).is_empty(), "who passes on doesn't act");
}

/// A primary that stands still shakes no hands, so it can't have begun.
#[test]
fn an_order_that_found_no_connection_has_changed_nothing() {
    let mut cluster = Cluster::start("orders-silent");
    let primary = cluster.wait_for_primary();
    let [replica, other] = cluster.others(primary)[..] else { panic!("three nodes") };
    // One voter elects nobody: the cluster stays as it is meanwhile.
    cluster.kill(other);
    cluster.pause(primary);
    let refused = quorate(&cluster, replica, &["policy", "set", "hybrid"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    println!("{said}");
    assert_eq!(refused.status.code(), Some(1));
    let not_asked =
        said.contains("503") && said.contains(&format!("node {primary} can't be asked"));
    // Where the silence was noticed first.
    let unknown = said.contains("409") && said.contains("no primary is known");
    assert!(not_asked || unknown, "{said}");
    let acts = recorded(&cluster, replica);
    assert!(acts.len() == 1 && !acts[0].contains("outcome=\"allowed\""), "{acts:#?}");
    cluster.resume(primary);
    cluster.wait_until_writable();
    let shown = json(&cluster, primary, &["policy", "show"]);
    assert_eq!(shown["policy"], "persisted>=majority");
}
