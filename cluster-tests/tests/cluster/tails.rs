//! What is cut from a node's log, and what an operator makes of it, by the command line.

use std::process::{Command, Output};
use std::time::Duration;

use quorate_cluster_tests::harness::{Cluster, RECOVERY_LIMIT, binary, poll};
use quorate_cluster_tests::resp::Value;
use serde_json::Value as Json;

/// Writes that reach one node only.
const LOST: u64 = 5;

fn quorate(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().expect("start the binary")
}

fn lines(output: &Output) -> Vec<Json> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// Kills the replicas, has the primary write what nobody else gets, and kills it too. The others
/// then go on without it, and it comes back. Returns it.
fn cut_a_tail(cluster: &mut Cluster) -> u64 {
    let old = cluster.wait_for_primary();
    let others = cluster.others(old);
    let mut client = cluster.connect(old);
    let before = cluster.status(old).expect("it runs").last_seq;
    for id in &others {
        cluster.kill(*id);
    }
    let set = |number: u64| vec!["SET".into(), format!("lost:{number}"), "v".into()];
    let expiry = ["PX".to_owned(), "86400000".to_owned()];
    let mut commands: Vec<Vec<String>> =
        (0..LOST).map(|number| [set(number), expiry.to_vec()].concat()).collect();
    commands.push(vec!["INCRBYFLOAT".into(), "text".into(), "1".into()]);
    // In one go: one entry has them all.
    client.send_all(&commands).expect("sent");
    poll(RECOVERY_LIMIT, "the writes in its journal", || {
        let status = cluster.status(old)?;
        (status.last_seq > before && status.persisted_seq == status.last_seq).then_some(())
    });
    cluster.kill(old);
    for id in &others {
        cluster.start_node(*id);
    }
    let new = cluster.wait_until_writable();
    let mut client = cluster.connect(new);
    for (key, value) in [("text", "no number"), ("kept", "1")] {
        let reply = client.command(&["SET", key, value]).expect("a reply");
        assert_eq!(reply, Value::Simple("OK".into()));
    }
    cluster.start_node(old);
    cluster.wait_until_equal();
    old
}

#[test]
fn a_cut_tail_is_listed_shown_exported_and_replayed() {
    let mut cluster = Cluster::start("tails");
    let old = cut_a_tail(&mut cluster);
    let data = cluster.settings(old).data_dir().display().to_string();
    let listed = quorate(&["tail", "list", &data, "--json"]);
    let files = lines(&listed).remove(0);
    let file = files.as_array().and_then(|files| files.first()).expect("a file");
    assert_eq!(file["reason"], "truncated", "{files}");
    assert!(file["entries"].as_u64().is_some_and(|entries| entries > 0), "{files}");
    let path = file["file"].as_str().expect("its path");
    println!("{}", String::from_utf8_lossy(&quorate(&["tail", "list", &data]).stdout));

    let shown = quorate(&["tail", "show", path]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    println!("{text}");
    for number in 0..LOST {
        assert!(text.contains(&format!("SET lost:{number} v PXAT ")), "{text}");
    }
    let export = cluster.dir().join("tail.jsonl").display().to_string();
    assert!(quorate(&["tail", "export", path, "--output", &export]).status.success());
    let exported = std::fs::read_to_string(&export).expect("it was written");
    assert_eq!(exported.lines().count() as u64, LOST + 1, "{exported}");
    let again = quorate(&["tail", "export", path, "--output", &export]);
    assert_eq!(again.status.code(), Some(1), "nothing is overwritten");

    // To a replica, which says where the primary is.
    let replica = cluster.others(cluster.wait_for_primary())[0];
    let to = cluster.client_address(replica).to_string();
    let asked = quorate(&["tail", "replay", path, "--to", &to]);
    assert_eq!(asked.status.code(), Some(2), "not without --yes");
    let keys: Vec<String> = (0..LOST).map(|number| format!("lost:{number}")).collect();
    assert!(cluster.read_all(&keys).is_empty());
    let replayed = quorate(&["tail", "replay", path, "--to", &to, "--yes", "--json"]);
    let counts = lines(&replayed).remove(0);
    println!("{counts} {}", String::from_utf8_lossy(&replayed.stderr));
    assert_eq!(counts["ok"], LOST);
    assert_eq!(counts["failed"]["ERR"], 1, "a number can't be added to that");
    assert_eq!(replayed.status.code(), Some(1));
    assert_eq!(cluster.read_all(&keys).len() as u64, LOST);
    let mut client = cluster.connect(cluster.wait_for_primary());
    let left = client.command(&["PTTL", "lost:0"]).expect("a reply");
    assert!(matches!(left, Value::Integer(1..86_400_000)), "the time to live goes on: {left:?}");
}

#[test]
fn the_newest_entries_of_a_running_node_are_shown_and_followed() {
    let cluster = Cluster::start("journal-tail");
    let primary = cluster.wait_for_primary();
    let data = cluster.settings(primary).data_dir().display().to_string();
    let mut client = cluster.connect(primary);
    client.command(&["SET", "first", "1"]).expect("a reply");
    let shown = quorate(&["journal", "tail", &data]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    println!("{text}");
    assert!(text.contains("SET first 1") && text.contains("policy persisted>=majority"), "{text}");

    let log = cluster.dir().join("followed");
    let out = std::fs::File::create(&log).expect("a file");
    let mut follower = Command::new(binary())
        .args(["journal", "tail", &data, "--entries", "1", "--follow", "--json"])
        .stdout(out)
        .spawn()
        .expect("start the binary");
    let seen = |key: &str| {
        poll(Duration::from_secs(10), key, || {
            std::fs::read_to_string(&log).ok()?.contains(key).then_some(())
        });
    };
    seen("first");
    for number in 0..20 {
        client.command(&["SET", &format!("later:{number}"), "1"]).expect("a reply");
    }
    seen("later:19");
    follower.kill().expect("it runs");
    follower.wait().expect("it ends");
    let text = std::fs::read_to_string(&log).expect("it is there");
    for number in 0..20 {
        assert_eq!(text.matches(&format!("\"later:{number}\"")).count(), 1, "once, and in order");
    }
    cluster.wait_until_equal();
}
