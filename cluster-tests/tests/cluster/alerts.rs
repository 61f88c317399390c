//! What the alert rules are about is what nodes export.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_cluster_tests::harness::Cluster;
use quorate_cluster_tests::http;

#[test]
fn every_metric_that_a_rule_names_is_exported() {
    let cluster = Cluster::start("alerts");
    let primary = cluster.wait_until_writable();
    cluster.connect(primary).command(&["SET", "a", "1"]).expect("a reply");
    let admin = cluster.settings(primary).ports.admin;
    let exported = http::get(admin, "/metrics", Duration::from_secs(5)).expect("metrics").body;
    let exported: BTreeSet<&str> =
        exported.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    let rules = include_str!("../../../deploy/prometheus/rules.yml");
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == ':';
    let named: BTreeSet<&str> =
        rules.split(|c| !is_name(c)).filter(|name| name.starts_with("quorate_")).collect();
    assert!(named.len() > 20, "{named:?}");
    let missing: Vec<_> = named.difference(&exported).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
