//! Policies that can't be met: what clients are told, what an operator may do, what is logged.

use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use quorate_cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY_LIMIT, binary, poll};
use quorate_cluster_tests::resp::{Client, ClientError, Value};

/// How soon new writes are refused once copies are missing, and what a busy machine adds.
const REFUSED_WITHIN: Duration = Duration::from_millis(1_500);

/// How long a write is watched before it counts as waiting.
const GLANCE: Duration = Duration::from_millis(100);

/// Between two attempts of a client that asks all the time.
const PACE: Duration = Duration::from_millis(5);

/// More than any deadline here.
const PATIENCE: Duration = Duration::from_secs(10);

fn cluster_with(name: &str, policy: &'static str) -> Cluster {
    Cluster::start_with(name, &ClusterOptions { policy, ..ClusterOptions::default() })
}

fn is_ok(reply: &Value) -> bool {
    *reply == Value::Simple("OK".into())
}

/// Sends a write on a new connection every now and then, until one is refused. Returns that
/// refusal and the connections whose writes wait.
fn write_until_refused(cluster: &Cluster, primary: u64) -> (String, Vec<Client>) {
    let mut waiting = Vec::new();
    poll(RECOVERY_LIMIT, "a write to be refused", || {
        let mut client = cluster.connect(primary);
        client.set_timeout(GLANCE);
        let key = format!("waiting:{}", waiting.len());
        client.send(&["SET", &key, "v"]).expect("send");
        match client.receive() {
            Ok(Value::Error(refused)) => Some((refused, std::mem::take(&mut waiting))),
            Ok(other) => panic!("{other:?} although copies are missing"),
            Err(ClientError::Timeout(_)) => {
                client.set_timeout(PATIENCE);
                waiting.push(client);
                None
            }
            Err(error) => panic!("{error}"),
        }
    })
}

/// `quorate policy set`: whether it worked, and what it said.
pub(crate) fn set_policy(cluster: &Cluster, id: u64, policy: &str) -> (bool, String) {
    let admin = format!("http://{}", cluster.settings(id).ports.admin);
    let output = Command::new(binary())
        .args(["policy", "set", policy, "--yes", "--admin", &admin])
        .output()
        .expect("start the binary");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).trim().to_owned())
}

/// Lines of a node's log that speak of a degraded policy, or of one that can be met again.
fn lines_about_the_policy(cluster: &mut Cluster, id: u64) -> Vec<String> {
    let log = cluster.process(id).log();
    let about = |line: &&str| line.contains("degraded") || line.contains("can be met again");
    log.lines().filter(about).map(str::to_owned).collect()
}

#[test]
fn all_with_one_replica_stopped_refuses_until_the_policy_is_changed() {
    let mut cluster = cluster_with("all-one-stopped", "all");
    let primary = cluster.wait_for_primary();
    let stopped = cluster.others(primary)[0];
    cluster.pause(stopped);
    let fault = Instant::now();
    let (refused, waiting) = write_until_refused(&cluster, primary);
    let refused_after = fault.elapsed();
    println!("refused {refused_after:?} after the fault, {} writes wait: {refused}", waiting.len());
    assert_eq!(
        refused,
        "NOREPLICAS The durability policy can't be met: persisted>=all needs 3 voters, 2 reachable"
    );
    assert!(refused_after < REFUSED_WITHIN, "{refused_after:?}");
    assert!(!waiting.is_empty(), "none was let in before");
    poll(RECOVERY_LIMIT, "a line in the log", || {
        (!lines_about_the_policy(&mut cluster, primary).is_empty()).then_some(())
    });

    let change = Instant::now();
    let (done, said) = set_policy(&cluster, primary, "majority");
    assert!(done, "{said}");
    let mut released = 0;
    for mut client in waiting {
        // The last ones may not have found a place in the log before the others were refused.
        match client.receive().expect("the connection stays open") {
            reply if is_ok(&reply) => released += 1,
            Value::Error(error) if error == refused => {}
            reply => panic!("a waiting write is answered {reply:?}"),
        }
        if released == 1 {
            println!("waiting writes released {:?} after `policy set` began", change.elapsed());
        }
        let next = client.command(&["SET", "next", "v"]).expect("the connection stays open");
        assert!(is_ok(&next), "{next:?}");
    }
    println!("{released} writes released");
    assert!(released > 0, "no waiting write was released");
    let lines = poll(RECOVERY_LIMIT, "the end in the log", || {
        let lines = lines_about_the_policy(&mut cluster, primary);
        lines.iter().any(|line| line.contains("can be met again")).then_some(lines)
    });
    println!("{}", lines.join("\n"));
    cluster.resume(stopped);
    cluster.wait_until_equal();
}

#[test]
fn majority_with_two_stopped_answers_in_doubt_then_refuses_and_takes_no_policy() {
    let mut cluster = Cluster::start("majority-two-stopped");
    let primary = cluster.wait_for_primary();
    let replicas = cluster.others(primary);
    let mut patient = cluster.connect(primary);
    assert!(is_ok(&patient.command(&["SESSION", "DEADLINE", "250"]).expect("a reply")));
    for replica in &replicas {
        cluster.pause(*replica);
    }
    let fault = Instant::now();
    let doubt = patient.command(&["SET", "k", "waits"]).expect("a reply");
    let doubted_after = fault.elapsed();
    println!("a waiting write, {doubted_after:?} after the fault: {doubt:?}");
    let doubt = doubt.error().expect("two disks are missing");
    assert!(doubt.starts_with("INDOUBT ") && doubt.ends_with("reason=deadline"), "{doubt}");
    assert!(doubted_after < Duration::from_secs(1), "{doubted_after:?}");
    let fenced = until_fenced(&mut patient, fault);
    let refused = ["INDOUBT", "NOREPLICAS", "CLUSTERDOWN"];
    assert!(fenced.iter().all(|code| refused.contains(&code.as_str())), "{fenced:?}");
    // Whose connections have timed out is known to be missing.
    let refused = poll(RECOVERY_LIMIT, "the missing nodes to be named", || {
        let (done, said) = set_policy(&cluster, primary, "local");
        assert!(!done, "{said}");
        said.contains("missing").then_some(said)
    });
    println!("policy set local: {refused}");
    assert!(refused.contains(&format!("missing: {}, {}", replicas[0], replicas[1])), "{refused}");
    assert!(refused.contains("quorate recover"), "{refused}");
    let resumed = Instant::now();
    for replica in &replicas {
        cluster.resume(*replica);
    }
    cluster.wait_until_writable();
    println!("writes are taken {:?} after the replicas go on", resumed.elapsed());

    // Replicas that are stopped in order say so: the primary knows at once, while it still leads.
    let primary = cluster.wait_for_primary();
    let replicas = cluster.others(primary);
    cluster.stop(replicas[0]);
    let address = cluster.client_address(primary);
    let refused = thread::scope(|scope| {
        let asked = scope.spawn(|| refusals_until_fenced(address));
        cluster.stop(replicas[1]);
        asked.join().expect("the client")
    });
    println!("{refused:?}");
    let [.., no_replicas, cluster_down] = refused.as_slice() else { panic!("{refused:?}") };
    assert_eq!(
        no_replicas,
        "NOREPLICAS The durability policy can't be met: persisted>=majority needs 2 voters, 1 \
         reachable"
    );
    assert!(cluster_down.starts_with("CLUSTERDOWN "), "{cluster_down}");
    for replica in replicas {
        cluster.start_node(replica);
    }
    cluster.wait_until_writable();
    cluster.wait_until_equal();
}

/// What writes are refused with, by a client that waits for nothing, until it is `CLUSTERDOWN`.
fn refusals_until_fenced(address: SocketAddr) -> Vec<String> {
    let mut client = Client::connect(address, PATIENCE).expect("connect");
    assert!(is_ok(&client.command(&["SESSION", "DEADLINE", "50"]).expect("a reply")));
    let mut refusals: Vec<String> = Vec::new();
    poll(RECOVERY_LIMIT, "CLUSTERDOWN", || {
        let reply = client.command(&["SET", "k", "new"]).expect("a reply");
        let said = reply.error().unwrap_or("OK").to_owned();
        let fenced = said.starts_with("CLUSTERDOWN ");
        // What was let in before waits for its copies, or for its place in the log.
        let waited = ["OK", "INDOUBT ", "TIMEOUT "].iter().any(|code| said.starts_with(code));
        if !waited && refusals.last() != Some(&said) {
            refusals.push(said);
        }
        fenced.then_some(())
    });
    refusals
}

/// First words of the answers to writes, each once in a row, until one is `CLUSTERDOWN`.
fn until_fenced(client: &mut Client, fault: Instant) -> Vec<String> {
    let mut codes: Vec<String> = Vec::new();
    poll(RECOVERY_LIMIT, "CLUSTERDOWN", || {
        let reply = client.command(&["SET", "k", "new"]).expect("a reply");
        let code = reply.error().map_or("OK", |text| text.split(' ').next().unwrap_or(text));
        if codes.last().is_none_or(|last| last != code) {
            println!("{code} {:?} after the fault", fault.elapsed());
            codes.push(code.to_owned());
        }
        (code == "CLUSTERDOWN").then_some(())
    });
    codes
}

#[test]
fn local_with_two_stopped_goes_on_serving() {
    let mut cluster = cluster_with("local-two-stopped", "local");
    let primary = cluster.wait_for_primary();
    let mut client = cluster.connect(primary);
    let replicas = cluster.others(primary);
    for replica in &replicas {
        cluster.pause(*replica);
    }
    let fault = Instant::now();
    let (mut writes, mut longest) = (0, Duration::ZERO);
    // Several times as long as anyone would take to notice.
    while fault.elapsed() < Duration::from_secs(4) {
        let since = Instant::now();
        let value = writes.to_string();
        let set = client.command(&["SET", "k", &value]).expect("a reply");
        assert!(is_ok(&set), "write {writes}, {:?} after the fault: {set:?}", fault.elapsed());
        let got = client.command(&["GET", "k"]).expect("a reply");
        assert_eq!(got, Value::Bulk(value.into_bytes()));
        longest = longest.max(since.elapsed());
        writes += 1;
    }
    println!("{writes} writes and reads alone, the longest pair took {longest:?}");
    assert_eq!(lines_about_the_policy(&mut cluster, primary), Vec::<String>::new());
    for replica in replicas {
        cluster.resume(replica);
    }
    cluster.wait_until_equal();
}

#[test]
fn a_flapping_replica_fills_no_log() {
    let mut cluster = cluster_with("flapping", "all");
    let primary = cluster.wait_for_primary();
    let flapping = cluster.others(primary)[0];
    let mut client = cluster.connect(primary);
    assert!(is_ok(&client.command(&["SESSION", "DEADLINE", "100"]).expect("a reply")));
    let (mut said, mut flaps) = (std::collections::BTreeMap::<String, u32>::new(), 0);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        // Longer than a primary waits for an answer, and shorter than what counts as lasting.
        cluster.pause(flapping);
        let until = Instant::now() + Duration::from_millis(900);
        while Instant::now() < until {
            let reply = client.command(&["SET", "k", "v"]).expect("a reply");
            let code = reply.error().unwrap_or("OK").split(' ').next().unwrap_or_default();
            *said.entry(code.to_owned()).or_default() += 1;
            thread::sleep(PACE);
        }
        cluster.resume(flapping);
        poll(RECOVERY_LIMIT, "a write to be taken", || {
            is_ok(&client.command(&["SET", "k", "v"]).expect("a reply")).then_some(())
        });
        flaps += 1;
    }
    println!("{flaps} flaps, {said:?}");
    assert!(said.contains_key("NOREPLICAS"), "the policy was never degraded: {said:?}");
    let lines = lines_about_the_policy(&mut cluster, primary);
    println!("{} lines", lines.len());
    // One that lasts a little longer on a busy machine is said, and that it's over: no more.
    assert!(lines.len() <= 2 + flaps / 2, "{}", lines.join("\n"));
    let log = cluster.process(primary).log();
    assert!(log.lines().count() < 100, "{} lines in all", log.lines().count());
    cluster.wait_until_equal();
}
