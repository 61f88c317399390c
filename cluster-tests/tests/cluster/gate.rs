//! What the gate says of its waits, and what a session may ask of it.

use std::process::Command;
use std::time::{Duration, Instant};

use quorate_cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY_LIMIT, poll, python};
use quorate_cluster_tests::http;
use quorate_cluster_tests::resp::{Client, Value};

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

/// The first word of an error and the whole of it.
fn refusal(client: &mut Client, command: &[&str]) -> String {
    let reply = client.command(command).expect("a reply");
    reply.error().unwrap_or_else(|| panic!("{command:?} was answered {reply:?}")).to_owned()
}

/// Epoch and seq of an `INDOUBT`.
fn doubted(text: &str) -> (&str, &str) {
    let field = |name| {
        let (_, rest) = text.split_once(name).unwrap_or_else(|| panic!("{text}"));
        rest.split(' ').next().expect("a value follows")
    };
    assert!(text.starts_with("INDOUBT "), "{text}");
    (field("epoch="), field("seq="))
}

#[test]
fn a_session_that_asks_for_more_waits_for_it_and_holds_nobody_up() {
    let mut cluster =
        Cluster::start_with("session-all", &ClusterOptions { policy: "local", ..<_>::default() });
    let primary = cluster.wait_for_primary();
    let replica = cluster.others(primary)[0];
    let (mut careful, mut other) = (cluster.connect(primary), cluster.connect(primary));
    ok(&mut careful, &["SESSION", "DURABILITY", "all"]);
    ok(&mut careful, &["SESSION", "DEADLINE", "1000"]);
    ok(&mut careful, &["SET", "careful", "1"]);
    cluster.pause(replica);
    careful.send(&["SET", "careful", "2"]).expect("send");
    let sent = Instant::now();
    let mut longest = Duration::ZERO;
    for n in 0..50 {
        let since = Instant::now();
        ok(&mut other, &["SET", "other", &n.to_string()]);
        longest = longest.max(since.elapsed());
    }
    let waited_for_others = sent.elapsed();
    let doubt = careful.receive().expect("a reply");
    let doubt = doubt.error().expect("the stopped disk can't have it").to_owned();
    println!("50 writes of others in {waited_for_others:?}, the longest {longest:?}");
    println!("the session that asks for all, after {:?}: {doubt}", sent.elapsed());
    assert!(doubt.ends_with("reason=deadline"), "{doubt}");
    // It is in doubt only for the session: the cluster's own policy is met.
    let (epoch, seq) = doubted(&doubt);
    let outcome = other.command(&["QUORATE", "OUTCOME", epoch, seq]).expect("a reply");
    assert_eq!(outcome, Value::Bulk(b"committed".to_vec()));
    let refused = poll(RECOVERY_LIMIT, "the session's writes to be refused", || {
        let refused = refusal(&mut careful, &["SET", "careful", "3"]);
        (!refused.starts_with("INDOUBT ")).then_some(refused)
    });
    println!("then: {refused}");
    assert_eq!(
        refused,
        "NOREPLICAS The durability policy can't be met: this session's persisted>=all needs 3 \
         voters, 2 reachable"
    );
    ok(&mut other, &["SET", "other", "still"]);
    cluster.resume(replica);
    poll(RECOVERY_LIMIT, "the session's writes to be taken again", || {
        let reply = careful.command(&["SET", "careful", "4"]).expect("a reply");
        (reply == Value::Simple("OK".into())).then_some(())
    });
    cluster.wait_until_equal();
}

#[test]
fn the_outcome_of_a_write_in_doubt_is_told_by_whoever_leads() {
    let mut cluster = Cluster::start("outcome");
    let primary = cluster.wait_for_primary();
    let mut client = cluster.connect(primary);
    ok(&mut client, &["SET", "key", "1"]);
    let Value::Array(last) = client.command(&["QUORATE", "LASTWRITE"]).expect("a reply") else {
        panic!("an array of names and values");
    };
    let [_, Value::Integer(epoch), _, Value::Integer(seq)] = last[..] else {
        panic!("{last:?}");
    };
    let ask = |client: &mut Client, epoch: &str, seq: &str| {
        let reply = client.command(&["QUORATE", "OUTCOME", epoch, seq]).expect("a reply");
        String::from_utf8_lossy(reply.bytes().unwrap_or_else(|| panic!("{reply:?}"))).into_owned()
    };
    let (epoch, seq) = (epoch.to_string(), seq.to_string());
    assert_eq!(ask(&mut client, &epoch, &seq), "committed");
    // Far away, so that nothing has that seq while it is asked for.
    assert_eq!(ask(&mut client, &epoch, "1000000000"), "pending");
    assert_eq!(ask(&mut client, "999999", &seq), "lost");
    for replica in cluster.others(primary) {
        cluster.kill(replica);
    }
    ok(&mut client, &["SESSION", "DEADLINE", "300"]);
    let doubt = refusal(&mut client, &["SET", "key", "2"]);
    println!("without replicas: {doubt}");
    let (epoch, seq) = doubted(&doubt);
    let refused = refusal(&mut client, &["QUORATE", "OUTCOME", epoch, seq]);
    println!("asked at once: {refused}");
    cluster.kill(primary);
    for replica in cluster.others(primary) {
        cluster.start_node(replica);
    }
    let other = cluster.wait_until_writable();
    assert_eq!(ask(&mut cluster.connect(other), epoch, seq), "lost");
    cluster.start_node(primary);
    cluster.wait_until_equal();
    assert_eq!(ask(&mut cluster.connect(cluster.wait_until_writable()), epoch, seq), "lost");
}
