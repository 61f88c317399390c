//! What the gate says of its waits, and what a session may ask of it.

use std::process::Command;
use std::time::Duration;

use quorate_cluster_tests::harness::Cluster;
use quorate_cluster_tests::http;
use quorate_cluster_tests::resp::{Client, Value};

use crate::redis_py::python;

/// A count in the text of `/metrics`: the sum over all lines that begin so.
fn metric(cluster: &Cluster, id: u64, begins: &str) -> u64 {
    let admin = cluster.settings(id).ports.admin;
    let text = http::get(admin, "/metrics", Duration::from_secs(5)).expect("an answer").body;
    let matching = text.lines().filter(|line| line.starts_with(begins));
    matching.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

fn ok(client: &mut Client, command: &[&str]) {
    assert_eq!(client.command(command).expect("a reply"), Value::Simple("OK".into()));
}

/// What a program prints.
fn output(program: &mut Command) -> String {
    let output = program.output().expect("start it");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program:?}: {text}");
    text
}

#[test]
fn slow_writes_say_which_copy_they_waited_for() {
    let mut cluster = Cluster::start("waits-explained");
    let primary = cluster.wait_for_primary();
    let replicas = cluster.others(primary);
    let (running, stopped) = (replicas[0], replicas[1]);
    cluster.pause(stopped);
    let mut client = cluster.connect(primary);
    // What is still under way to the stopped node's disk has not been waited for in vain.
    let by_stopped =
        format!("quorate_gate_releases_total{{blocker=\"replica_disk\",node=\"{stopped}\"}}");
    let before = metric(&cluster, primary, &by_stopped);
    ok(&mut client, &["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    for n in 0..50 {
        ok(&mut client, &["SET", "key", &n.to_string()]);
    }
    let port = cluster.client_address(primary).port().to_string();
    let cli = output(Command::new("redis-cli").args(["-p", &port, "SLOWLOG", "GET", "60"]));
    let script = format!(
        "import redis\nfor e in redis.Redis(port={port}).slowlog_get(60): print(e['command'].decode())"
    );
    let py = output(Command::new(python()).args(["-c", &script]));
    for shown in [&cli, &py] {
        let waits: Vec<&str> =
            shown.lines().filter_map(|line| Some(line.split_once("# ")?.1)).collect();
        println!("{}", waits.first().expect("writes are in the slow log"));
        assert_eq!(waits.len(), 50, "{shown}");
        for waited in waits {
            let of_replica = waited.contains(&format!(", replica {running} disk "));
            assert!(of_replica || !waited.contains("replica"), "{waited}");
            assert!(waited.contains(" ms: queue ") && waited.contains(", apply "), "{waited}");
        }
    }
    assert_eq!(metric(&cluster, primary, &by_stopped), before, "the stopped node's disk");
    let released = metric(&cluster, primary, "quorate_gate_released_total");
    assert_eq!(metric(&cluster, primary, "quorate_gate_releases_total"), released);
    for part in ["queue", "journal_wait", "replica_wait", "apply", "total"] {
        let count = metric(&cluster, primary, &format!("quorate_write_{part}_seconds_count"));
        assert_eq!(count, released, "{part}");
    }
    for part in ["encode", "socket"] {
        assert!(metric(&cluster, primary, &format!("quorate_write_{part}_seconds_count")) >= 50);
    }
}
