//! New settings and certificates for running nodes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate_cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY_LIMIT, binary, poll};
use quorate_cluster_tests::http;
use quorate_cluster_tests::resp::Value;
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use time::OffsetDateTime;

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

    // By hand until the next reload.
    let admin = cluster.settings(id).ports.admin;
    let level = |level: &str| {
        let body = format!("{{\"level\":\"{level}\"}}");
        http::post(admin, "/admin/log-level", &body, Duration::from_secs(5)).expect("an answer")
    };
    let log = || fs::read_to_string(cluster.settings(id).log_file()).expect("a log");
    let refused = level("inof");
    assert!(refused.status == 400 && refused.body.contains("no level"), "{}", refused.body);
    assert_eq!(level("off").status, 200);
    let before = log().len();
    json(&cluster, id, &["storage", "flush"]);
    assert_eq!(log().len(), before, "nothing is told");
    assert_eq!(json(&cluster, id, &["config", "reload"])["applied"], true);
    json(&cluster, id, &["storage", "flush"]);
    assert!(log()[before..].contains("state flushed by an operator"));
}

/// Puts a certificate in the place of a node's own, for the same key, four fifths of whose life are over.
fn age(cluster: &Cluster, id: u64, host: &str) {
    let file = |name: &str| cluster.dir().join("pki").join(name);
    let read = |name: &str| fs::read_to_string(file(name)).expect("it is there");
    let key = KeyPair::from_pem(&read("ca.key")).expect("a key");
    let authority = Issuer::from_ca_cert_pem(&read("ca.crt"), key).expect("an authority");
    let names = vec![format!("node-{id}.test"), host.to_owned()];
    let mut params = CertificateParams::new(names).expect("names");
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let now = OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::days(80);
    params.not_after = now + time::Duration::days(20);
    let own = KeyPair::from_pem(&read(&format!("node-{id}.key"))).expect("a key");
    let aged = params.signed_by(&own, &authority).expect("signed");
    fs::write(file(&format!("node-{id}.crt")), aged.pem()).expect("written");
}

/// One of them holds the authority's key, the other one asks it; the third's is not due.
#[test]
fn certificates_are_renewed_at_two_thirds_of_their_life() {
    let mut cluster = Cluster::prepare("renewal", &ClusterOptions::default());
    age(&cluster, 1, "db-1.example");
    age(&cluster, 2, "10.0.0.2");
    cluster.settings_mut(1).extra = "ca_key = \"../pki/ca.key\"\n".to_owned();
    cluster.settings(1).write();
    let certificate = |id: u64| cluster.dir().join("pki").join(format!("node-{id}.crt"));
    let third = fs::read(certificate(3)).expect("it is there");
    let [first, second] = [1, 2].map(certificate);
    let before = [&first, &second].map(|file| fs::read(file).expect("it is there"));
    for id in cluster.ids() {
        cluster.start_node(id);
    }
    cluster.wait_until_writable();
    for (id, file, before, host) in
        [(1, &first, &before[0], "db-1.example"), (2, &second, &before[1], "10.0.0.2")]
    {
        // Another look follows after a minute, if the two had not found each other at the first one.
        poll(3 * RECOVERY_LIMIT, "a new certificate", || {
            (fs::read(file).expect("it is there") != *before).then_some(())
        });
        poll(RECOVERY_LIMIT, "it to be in force", || {
            let days = json(&cluster, id, &["status"])["certificate_days"].as_i64();
            (days == Some(364)).then_some(())
        });
        let shown = Command::new(binary()).args(["pki", "show", "--json"]).arg(file).output();
        let shown = String::from_utf8(shown.expect("it starts").stdout).expect("text");
        let names = format!("[\"node-{id}.test\",\"{host}\"]");
        assert!(shown.contains(&names), "{shown}");
        let told = String::from_utf8(quorate(&cluster, id, &["events"]).stdout).expect("text");
        assert!(told.contains(" certificate valid_until="), "{told}");
    }
    // Recorded by whoever signed.
    let told = String::from_utf8(quorate(&cluster, 1, &["events"]).stdout).expect("text");
    assert!(told.contains("renew by this node at node 2: allowed"), "{told}");
    assert_eq!(fs::read(cluster.dir().join("pki/node-3.crt")).expect("it is there"), third);
    // New sessions go by them.
    assert!(cluster.stop(2).success());
    cluster.start_node(2);
    let mut client = cluster.connect(cluster.wait_until_writable());
    let written = client.command(&["SET", "a", "1"]).expect("a reply");
    assert_eq!(written, Value::Simple("OK".into()));
    cluster.wait_until_equal();
}

/// What an operator has put there and not reloaded yet is not overwritten: what is signed for the key in
/// force doesn't fit the new one, and the node could not start again.
#[test]
fn a_renewal_overwrites_no_certificate_that_was_replaced() {
    let extra = "ca_key = \"../pki/ca.key\"\n";
    let options = ClusterOptions { nodes: 1, extra, ..ClusterOptions::default() };
    let mut cluster = Cluster::prepare("renewal-replaced", &options);
    let file = cluster.dir().join("pki/node-1.crt");
    // A node looks two seconds after it is ready, which may be missed.
    for attempt in 1.. {
        assert!(attempt <= 5, "the renewal was always first");
        age(&cluster, 1, "db-1.example");
        let aged = fs::read(&file).expect("it is there");
        cluster.start_node(1);
        cluster.wait_until_writable();
        cluster.pause(1);
        if fs::read(&file).expect("it is there") == aged {
            break;
        }
        cluster.resume(1);
        assert!(cluster.stop(1).success());
    }
    rotate(&cluster, &["--id", "1"]);
    let replaced = fs::read(&file).expect("it is there");
    cluster.resume(1);
    poll(RECOVERY_LIMIT, "a renewal that is not made", || {
        let log = fs::read_to_string(cluster.settings(1).log_file()).ok()?;
        log.contains("tls.cert or tls.key were replaced").then_some(())
    });
    assert_eq!(fs::read(&file).expect("it is there"), replaced);
    assert_eq!(json(&cluster, 1, &["config", "reload"])["applied"], true);
    assert!(cluster.stop(1).success());
    cluster.start_node(1);
    cluster.wait_until_writable();
}
