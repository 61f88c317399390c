//! New settings and certificates for running nodes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate_cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY_LIMIT, binary, poll};
use quorate_cluster_tests::resp::Value;
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions};

use crate::common::{
    assert_only_redirected, json, judge_writes, quorate, real_metric, token, wait_for_voter,
    wait_for_writes,
};

/// `quorate pki rotate` on the cluster's certificates.
fn rotate(cluster: &Cluster, arguments: &[&str]) {
    let mut command = Command::new(binary());
    command.args(["pki", "rotate", "--cluster", "test", "--dir"]).arg(cluster.dir().join("pki"));
    let output = command.args(arguments).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn reload_all(cluster: &Cluster, keys: &[&str]) {
    for id in cluster.ids() {
        let report = json(cluster, id, &["config", "reload"]);
        let changed: Vec<_> = report["keys"].as_array().expect("a list").iter().collect();
        assert_eq!(changed.len(), keys.len(), "{report}");
        for (key, expected) in changed.iter().zip(keys) {
            assert_eq!((&key["key"], &key["result"]), (&(*expected).into(), &"applied".into()));
        }
    }
}

#[test]
fn an_authority_is_replaced_and_retired_while_clients_write() {
    let mut cluster = Cluster::start("reload-tls");
    let began = Instant::now();
    let primary = cluster.wait_until_writable();
    let epoch = cluster.status(primary).expect("it answers").epoch;
    let days = json(&cluster, primary, &["status"])["certificate_days"].as_i64();
    assert!(matches!(days, Some(364 | 365)), "{days:?}");
    let expiry = "quorate_certificate_expiry_timestamp_seconds{certificate=\"authority\"}";
    let expires = real_metric(&cluster, primary, expiry);
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    // Certificates end at full seconds: the new one is to end at a later one.
    while began.elapsed() < Duration::from_millis(1_100) {
        wait_for_writes(&writers, 100);
    }
    rotate(&cluster, &["--ca"]);
    reload_all(&cluster, &["tls.ca"]);
    wait_for_writes(&writers, 300);
    for id in cluster.ids() {
        rotate(&cluster, &["--id", &id.to_string()]);
    }
    reload_all(&cluster, &["tls.cert", "tls.key"]);
    wait_for_writes(&writers, 300);
    rotate(&cluster, &["--retire"]);
    reload_all(&cluster, &["tls.ca"]);
    wait_for_writes(&writers, 300);
    assert!(real_metric(&cluster, primary, expiry) > expires, "the new one ends later");
    // No session was lost, and no write failed.
    assert_eq!(cluster.status(primary).expect("it answers").epoch, epoch);
    let history = writers.finish();
    assert_only_redirected(&history);
    // New sessions, by the new certificates alone.
    for id in cluster.ids() {
        assert!(cluster.stop(id).success());
        cluster.start_node(id);
        cluster.wait_until_writable();
    }
    judge_writes(&cluster, &history);
}

/// With what was in force at its start a node would go on signing for the authority that is to go.
#[test]
fn a_node_that_joins_after_a_rotation_belongs_to_the_new_authority() {
    let extra = "ca_key = \"../pki/ca.key\"\n";
    let options = ClusterOptions { extra, ..ClusterOptions::default() };
    let mut cluster = Cluster::start_with("reload-ca-key", &options);
    let primary = cluster.wait_until_writable();
    rotate(&cluster, &["--ca"]);
    reload_all(&cluster, &["tls.ca", "tls.ca_key"]);
    let file = token(&cluster, primary, 4, &[]);
    let first = cluster.ids();
    cluster.join_by_token(4, &file, primary);
    wait_for_voter(&cluster, primary, 4);
    for id in &first {
        rotate(&cluster, &["--id", &id.to_string()]);
    }
    rotate(&cluster, &["--retire"]);
    for id in &first {
        assert_eq!(json(&cluster, *id, &["config", "reload"])["applied"], true);
    }
    // New sessions, for which the old authority counts no more.
    assert!(cluster.stop(4).success());
    cluster.start_node(4);
    let mut client = cluster.connect(cluster.wait_until_writable());
    let written = client.command(&["SET", "a", "1"]).expect("a reply");
    assert_eq!(written, Value::Simple("OK".into()));
    cluster.wait_until_equal();
}

#[test]
fn a_certificate_that_peers_would_refuse_is_not_taken_over() {
    let cluster = Cluster::start("reload-bad-tls");
    let pki = cluster.dir().join("pki");
    let good = fs::read(pki.join("node-1.crt")).expect("it is there");
    fs::copy(pki.join("node-2.crt"), pki.join("node-1.crt")).expect("copied");
    let refused = quorate(&cluster, 1, &["config", "reload"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("tls.cert: the certificate is not for node 1"), "{text}");
    fs::write(pki.join("node-1.crt"), good).expect("put back");
    assert_eq!(json(&cluster, 1, &["config", "reload"])["keys"], serde_json::json!([]));
}

#[test]
fn limits_change_at_a_hangup_and_nothing_does_where_a_key_needs_a_restart() {
    let mut cluster = Cluster::start("reload-keys");
    let id = cluster.wait_until_writable();
    let mut client = cluster.connect(id);
    let limit = |client: &mut quorate_cluster_tests::resp::Client| {
        client.command(&["CONFIG", "GET", "maxclients"]).expect("a reply")
    };
    let shown = |count: &str| {
        Value::Array(vec![Value::Bulk(b"maxclients".to_vec()), Value::Bulk(count.into())])
    };
    let file = cluster.settings(id).config_file();
    // It will hold a secret.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("changed");
    let text = fs::read_to_string(&file).expect("it is there");
    let set = |lines: &str| {
        let text = text.replace("[client]\n", &format!("[client]\n{lines}"));
        fs::write(&file, text).expect("written");
    };
    set("maxclients = 77\nrequirepass = \"secret\"\n");
    let pid = cluster.process(id).pid().cast_signed();
    kill(Pid::from_raw(pid), Signal::SIGHUP).expect("it runs");
    poll(RECOVERY_LIMIT, "the new limit", || (limit(&mut client) == shown("77")).then_some(()));
    let refused = cluster.connect(id).command(&["GET", "a"]).expect("a reply");
    assert_eq!(refused.error_code(), Some("NOAUTH"), "{refused:?}");

    // All or nothing.
    set("maxclients = 88\n\n[log]\nformat = \"json\"\n\n[client]\n");
    let refused = quorate(&cluster, id, &["config", "reload", "--json"]);
    assert_eq!(refused.status.code(), Some(1), "a table twice is no TOML");
    fs::write(&file, format!("{text}\n[log]\nformat = \"json\"\n")).expect("written");
    let refused = quorate(&cluster, id, &["config", "reload", "--json"]);
    assert_eq!(refused.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&refused.stdout).expect("JSON");
    let result = |key: &str| {
        let keys = report["keys"].as_array().expect("a list");
        keys.iter().find(|found| found["key"] == key).map(|found| found["result"].clone())
    };
    assert_eq!(result("log.format"), Some("needs_restart".into()), "{report}");
    assert_eq!(result("client.maxclients"), Some("not_applied".into()), "{report}");
    assert_eq!(limit(&mut client), shown("77"));

    // The file moved away is written anew, and the levels change.
    fs::write(&file, text.replace("[client]\n", "[client]\nmaxclients = 99\n")).expect("written");
    assert_eq!(json(&cluster, id, &["config", "reload"])["applied"], true);
    assert_eq!(limit(&mut client), shown("99"));
    assert!(cluster.connect(id).command(&["GET", "a"]).expect("a reply").is_null());
}
