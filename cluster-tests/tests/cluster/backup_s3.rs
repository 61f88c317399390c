//! Archives in an S3 store: the same as in a directory, and a network in between.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use quorate_cluster_tests::harness::{
    Cluster, ClusterOptions, RECOVERY_LIMIT, S3Fault, S3Proxy, S3Server, binary, poll,
};
use quorate_cluster_tests::resp::Value;
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions};
use serde_json::{Value as Json, json};

use crate::archives::{Oracle, back_up, contents, elsewhere, json, quorate, restore, said, start};
use crate::common::{self, noise, settle, wait_for_writes};

fn target(name: &str) -> String {
    format!("s3://{}/{name}", S3Server::BUCKET)
}

/// A cluster that reaches the store at this address.
fn cluster(name: &str, nodes: usize, (s3, at): (&S3Server, SocketAddr), timeout: &str) -> Cluster {
    let extra = format!("[archive]\n{}", s3.settings(at, timeout));
    let options = ClusterOptions { nodes, extra: extra.leak(), ..ClusterOptions::default() };
    Cluster::start_with(name, &options)
}

/// A verb on an archive, which is reached as node 1 is configured.
fn archive(cluster: &Cluster, verb: &str, target: &str, further: &[&str]) -> Output {
    let config = cluster.settings(1).config_file().display().to_string();
    let first = ["backup", "--json", verb, "--target", target, "--config", &config];
    quorate(&[&first[..], further].concat())
}

/// `verify` finds no fault; what it says.
fn assert_whole(cluster: &Cluster, target: &str) -> Json {
    let found = json(&archive(cluster, "verify", target, &[]));
    assert_eq!(found["faults"], json!([]), "{found}");
    found
}

fn write_large(cluster: &Cluster, node: u64, count: u64) {
    let mut client = cluster.connect(node);
    for n in 0..count {
        let key = format!("large:{n}").into_bytes();
        let reply = client.command(&[b"SET".to_vec(), key, noise(n, 1 << 20)]).expect("a reply");
        assert_eq!(reply, Value::Simple("OK".into()));
    }
}

#[test]
fn an_archive_in_s3_is_made_under_load_verified_pruned_and_restored() {
    let s3 = S3Server::start();
    let mut cluster = cluster("backup-s3", 3, (&s3, s3.address()), "30s");
    let target = target("shop/nightly");
    let primary = cluster.wait_for_primary();
    let replica = cluster.others(primary)[0];
    // More than one part of an object.
    write_large(&cluster, primary, 20);
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    let mut oracle = Oracle::new(&cluster);
    for (by, further) in [
        (primary, &[][..]),
        (replica, &["--no-snapshot"]),
        (replica, &[]),
        (primary, &["--no-snapshot"]),
        (primary, &[]),
    ] {
        oracle.write(40);
        wait_for_writes(&writers, 100);
        let report = json(&back_up(&cluster, by, &target, further));
        println!("{report}");
        oracle.remember();
    }
    oracle.write(10);
    let last = json(&back_up(&cluster, primary, &target, &["--no-snapshot"]));
    settle(&cluster, writers);
    let scratch = cluster.dir().display().to_string();
    let whole = json(&archive(&cluster, "verify", &target, &["--restore", "--scratch", &scratch]));
    println!("{whole}");
    assert_eq!((&whole["faults"], &whole["unlisted"]), (&json!([]), &json!([])));
    assert_eq!((&whole["snapshots"], &whole["restored"]["compared"]), (&json!(3), &json!(true)));

    let pruned = json(&archive(&cluster, "prune", &target, &["--keep-snapshots", "2"]));
    assert_eq!((&pruned["snapshots"], &pruned["leftovers"]), (&json!(1), &json!(0)), "{pruned}");
    let whole = assert_whole(&cluster, &target);
    assert_eq!((&whole["snapshots"], &whole["unlisted"]), (&json!(2), &json!([])));
    for (index, (seq, expected)) in oracle.points.iter().enumerate().skip(3) {
        let settings = elsewhere(&cluster, &format!("restored-{index}"));
        let restored = json(&restore(&settings, &target, &format!("seq {seq}")));
        assert_eq!(restored["seq"], *seq, "{restored}");
        let (process, mut client) = start(&settings);
        assert_eq!(contents(&mut client), *expected, "as of entry {seq}");
        process.kill();
    }
    let settings = elsewhere(&cluster, "restored-latest");
    let restored = json(&restore(&settings, &target, "latest"));
    assert_eq!(restored["seq"], last["archived_seq"]);
    let (process, mut client) = start(&settings);
    assert_eq!(contents(&mut client), oracle.now);
    process.kill();
    cluster.kill(replica);
}

#[test]
fn of_two_nodes_that_archive_to_s3_at_once_one_succeeds() {
    let s3 = S3Server::start();
    let cluster = cluster("backup-s3-fenced", 3, (&s3, s3.address()), "30s");
    let target = target("two");
    let primary = cluster.wait_for_primary();
    let replica = cluster.others(primary)[0];
    let mut oracle = Oracle::new(&cluster);
    let mut fenced = 0;
    for round in 0..8 {
        oracle.write(10);
        cluster.wait_until_equal();
        let running = [primary, replica].map(|node| begin_backup(&cluster, node, &target));
        let outcomes = running.map(|running| running.wait_with_output().expect("it ended"));
        let succeeded = outcomes.iter().filter(|output| output.status.success()).count();
        assert!(succeeded > 0, "round {round}: {}", outcomes.each_ref().map(said).concat());
        for failed in outcomes.iter().filter(|output| !output.status.success()) {
            assert!(said(failed).contains("another node has written"), "{}", said(failed));
            fenced += 1;
        }
        let whole = assert_whole(&cluster, &target);
        assert_eq!(whole["unlisted"], json!([]), "round {round}: {whole}");
    }
    println!("{fenced} of 8 rounds had a backup that came too late");
    assert!(fenced > 0, "no two backups met");
}

fn begin_backup(cluster: &Cluster, node: u64, target: &str) -> Child {
    let admin = format!("http://{}", cluster.settings(node).ports.admin);
    let mut command = Command::new(binary());
    command.args(["backup", "--admin", &admin, "create", "--target", target]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("start the binary")
}

#[test]
fn what_keeps_a_node_from_s3_is_named_and_its_keys_are_not() {
    let s3 = S3Server::start();
    let extra = format!("[archive]\n{}[log]\nlevel = \"debug\"\n", s3.settings(s3.address(), "2s"));
    let options = ClusterOptions { nodes: 1, extra: extra.leak(), ..ClusterOptions::default() };
    let mut cluster = Cluster::start_with("backup-s3-refused", &options);
    let good = target("named");
    json(&back_up(&cluster, 1, &good, &[]));
    let mut all = String::new();
    let mut assert_names = |output: Output, what: &str| {
        let text = said(&output);
        println!("{text}");
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(what), "{what}: {text}");
        all.push_str(&text);
    };
    let nowhere = "s3://no-such-bucket/a";
    assert_names(back_up(&cluster, 1, nowhere, &[]), "there is no bucket no-such-bucket");
    assert_names(archive(&cluster, "list", nowhere, &[]), "there is no bucket no-such-bucket");
    assert_names(archive(&cluster, "list", &target("empty"), &[]), "holds no archive");
    let odd = quorate(&["backup", "list", "--target", "gs://archive/a"]);
    assert!(odd.status.code() == Some(2) && said(&odd).contains("gs://"), "{}", said(&odd));

    // Of the environment, without a configuration.
    let secret_file = secret_file(&cluster);
    let access = fs::read_to_string(secret_file.replace("secret", "access")).expect("readable");
    let from_environment = |secret: &str| {
        let endpoint = format!("http://{}", s3.address());
        let mut command = Command::new(binary());
        command.args(["backup", "--json", "verify", "--target", &good]);
        command.env("AWS_ENDPOINT_URL", endpoint).env("AWS_ALLOW_HTTP", "true");
        command.env("AWS_ACCESS_KEY_ID", &access).env("AWS_SECRET_ACCESS_KEY", secret);
        command.output().expect("start the binary")
    };
    assert_eq!(json(&from_environment(s3.secret()))["faults"], json!([]));
    assert_names(from_environment("another secret"), "the store refuses the credentials");

    cluster.stop(1);
    fs::write(&secret_file, "wrong-secret-of-a-node").expect("written");
    cluster.start_node(1);
    cluster.wait_until_writable();
    assert_names(back_up(&cluster, 1, &good, &[]), "the store refuses the credentials");
    let secret = s3.secret().to_owned();
    let address = s3.address().to_string();
    drop(s3);
    let began = Instant::now();
    assert_names(back_up(&cluster, 1, &good, &[]), "Connection refused");
    assert!(all.contains(&address) && began.elapsed() < Duration::from_secs(20), "{all}");
    let log = fs::read_to_string(cluster.settings(1).log_file()).expect("a log");
    for text in [&all, &log] {
        assert!(!text.contains(&secret) && !text.contains("wrong-secret-of-a-node"), "{text}");
        assert!(!text.contains(&access), "{text}");
    }
}

fn secret_file(cluster: &Cluster) -> String {
    let extra = &cluster.settings(1).extra;
    let line = extra.lines().find_map(|line| line.strip_prefix("s3_secret_key_file = \""));
    line.expect("it is configured").trim_end_matches('"').to_owned()
}

/// Of a backup's requests, by how many the next one is that fails: each fails in one of two ways, and in
/// both where `make verify-long` sets 1.
fn stride() -> usize {
    std::env::var("QUORATE_S3_STRIDE").map_or(2, |text| text.parse().expect("a number"))
}

/// Has node 1 read its files again, of which this one has changed.
fn reload(cluster: &Cluster, key: &str) {
    let report = common::json(cluster, 1, &["config", "reload"]);
    assert_eq!(report["keys"], json!([{ "key": key, "result": "applied" }]), "{report}");
}

#[test]
fn a_store_of_a_private_authority_is_reached_with_that_authority_alone() {
    let s3 = S3Server::start_tls();
    let [ca, other] = s3.authorities();
    let named = ca.with_file_name("named.crt");
    fs::copy(&ca, &named).expect("copied");
    let extra = format!(
        "[archive]\n{}s3_ca = \"{}\"\n[log]\nlevel = \"debug\"\n",
        s3.settings(s3.address(), "5s"),
        named.display()
    );
    let options = ClusterOptions { nodes: 1, extra: extra.leak(), ..ClusterOptions::default() };
    let cluster = Cluster::start_with("backup-s3-tls", &options);
    let target = target("private");
    // More than one part of an object.
    write_large(&cluster, 1, 9);
    let mut oracle = Oracle::new(&cluster);
    oracle.write(20);
    json(&back_up(&cluster, 1, &target, &[]));
    assert_whole(&cluster, &target);

    let mut all = String::new();
    let mut assert_refused = |output: Output, what: &[&str]| {
        let text = said(&output);
        println!("{text}");
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(what.iter().all(|what| text.contains(what)), "{what:?}: {text}");
        all.push_str(&text);
    };
    // Of another authority, the store is none, for the node and for commands with its configuration.
    fs::copy(&other, &named).expect("copied");
    reload(&cluster, "archive.s3_ca");
    let path = named.display().to_string();
    let refused = ["UnknownIssuer", "of none of the authorities in", &path, "CN=another authority"];
    assert_refused(back_up(&cluster, 1, &target, &[]), &refused);
    assert_refused(archive(&cluster, "list", &target, &[]), &refused);
    // Nor for a machine that knows it not; with the environment's it does.
    let access = fs::read_to_string(secret_file(&cluster).replace("secret", "access"));
    let access = access.expect("readable");
    let by_environment = |host: &str, trusted: Option<&std::path::Path>| {
        let mut command = Command::new(binary());
        command.args(["backup", "--json", "verify", "--target", &target]);
        command.env("AWS_ENDPOINT_URL", format!("https://{host}:{}", s3.address().port()));
        command.env("AWS_ACCESS_KEY_ID", &access).env("AWS_SECRET_ACCESS_KEY", s3.secret());
        command.envs(trusted.map(|path| ("SSL_CERT_FILE", path)));
        command.output().expect("start the binary")
    };
    let unknown = ["UnknownIssuer", "archive.s3_ca names others"];
    assert_refused(by_environment("127.0.0.1", None), &unknown);
    assert_refused(by_environment("localhost", Some(&ca)), &["not valid for name \"localhost\""]);
    assert_eq!(json(&by_environment("127.0.0.1", Some(&ca)))["faults"], json!([]));

    fs::copy(&ca, &named).expect("copied");
    reload(&cluster, "archive.s3_ca");
    oracle.write(5);
    let made = json(&back_up(&cluster, 1, &target, &["--no-snapshot"]));
    assert_eq!(assert_whole(&cluster, &target)["archived_seq"], made["archived_seq"]);
    // Keys are replaced while the node runs, too.
    fs::write(secret_file(&cluster), "wrong-secret-of-a-node").expect("written");
    reload(&cluster, "archive.s3_secret_key_file");
    assert_refused(back_up(&cluster, 1, &target, &[]), &["the store refuses the credentials"]);
    fs::write(secret_file(&cluster), s3.secret()).expect("written");
    reload(&cluster, "archive.s3_secret_key_file");
    let settings = elsewhere(&cluster, "restored");
    json(&restore(&settings, &target, "latest"));
    let (process, mut client) = start(&settings);
    assert_eq!(contents(&mut client), oracle.now);
    process.kill();
    let log = fs::read_to_string(cluster.settings(1).log_file()).expect("a log");
    for text in [&all, &log] {
        for secret in [s3.secret(), "wrong-secret-of-a-node", &access] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

/// What would never do is found before anything changes.
#[test]
fn authorities_that_are_none_are_refused_with_their_key() {
    let s3 = S3Server::start_tls();
    let named = s3.authorities()[0].with_file_name("named.crt");
    fs::copy(&s3.authorities()[0], &named).expect("copied");
    let settings = s3.settings(s3.address(), "5s");
    let extra = format!("[archive]\n{settings}s3_ca = \"{}\"\n", named.display());
    let options = ClusterOptions { nodes: 1, extra: extra.leak(), ..ClusterOptions::default() };
    let cluster = Cluster::start_with("backup-s3-no-ca", &options);
    for wrong in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        fs::write(&named, wrong).expect("written");
        let refused = common::quorate(&cluster, 1, &["config", "reload"]);
        assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
        let text = said(&refused);
        assert!(text.contains("archive.s3_ca: ") && text.contains("no certificate"), "{text}");
    }
    json(&back_up(&cluster, 1, target("kept"), &[]));
}

/// Wherever the store goes away, the archive is what it was or what it was to be, and the next backup
/// goes on.
#[test]
fn a_store_that_fails_at_any_request_leaves_a_whole_archive() {
    let s3 = S3Server::start();
    let proxy = S3Proxy::start(s3.address());
    let cluster = cluster("backup-s3-faults", 1, (&s3, proxy.address()), "1s");
    // One file of a snapshot is sent in parts.
    write_large(&cluster, 1, 9);
    let mut oracle = Oracle::new(&cluster);
    oracle.write(20);
    let mut broken = [0; 2];
    for (kind, fault) in
        [S3Fault::Away as fn(u64) -> S3Fault, S3Fault::Deaf].into_iter().enumerate()
    {
        let target = target(&format!("faults-{kind}"));
        json(&back_up(&cluster, 1, &target, &[]));
        for first in (1 + kind as u64..).step_by(stride()) {
            oracle.write(5);
            proxy.set(fault(first));
            let failed = back_up(&cluster, 1, &target, &[]);
            proxy.set(S3Fault::None);
            let whole = assert_whole(&cluster, &target);
            if failed.status.success() {
                break;
            }
            broken[kind] += 1;
            oracle.write(5);
            let next = json(&back_up(&cluster, 1, &target, &[]));
            assert!(next["archived_seq"].as_u64() > whole["archived_seq"].as_u64(), "{next}");
            json(&archive(&cluster, "prune", &target, &["--keep-snapshots", "2"]));
            let whole = assert_whole(&cluster, &target);
            assert_eq!(whole["unlisted"], json!([]), "{whole}");
            assert_eq!(whole["archived_seq"], next["archived_seq"]);
        }
    }
    println!("backups that ended early: {broken:?}");
    let enough = 12 / stride();
    assert!(broken.iter().all(|broken| *broken > enough), "{broken:?}");
}

/// However many segments there are, a backup asks for what is newest.
#[test]
fn a_backup_takes_as_many_requests_in_a_long_archive_as_in_a_short_one() {
    let s3 = S3Server::start();
    let proxy = S3Proxy::start(s3.address());
    let cluster = cluster("backup-s3-long", 1, (&s3, proxy.address()), "5s");
    let target = target("long");
    let mut oracle = Oracle::new(&cluster);
    json(&back_up(&cluster, 1, &target, &[]));
    let mut requests = |further: &[&str]| {
        oracle.write(2);
        proxy.set(S3Fault::None);
        json(&back_up(&cluster, 1, &target, further));
        proxy.set(S3Fault::None)
    };
    let counted: Vec<u64> = (0..20).map(|_| requests(&["--no-snapshot"])).collect();
    println!("{counted:?}");
    assert!(counted[2..].iter().all(|count| *count == counted[2]), "{counted:?}");
    let with_snapshots = [requests(&[]), requests(&[])];
    println!("{with_snapshots:?}");
    assert!(with_snapshots[0].abs_diff(with_snapshots[1]) < 5, "{with_snapshots:?}");
    let whole = assert_whole(&cluster, &target);
    assert_eq!((&whole["segments"], &whole["notes"]), (&json!(22), &json!([])), "{whole}");
}

/// The answer to any one request is lost: it is asked again, and what it did is not mistaken for another
/// node's doing.
#[test]
fn one_lost_answer_of_a_store_fails_no_backup() {
    let s3 = S3Server::start();
    let proxy = S3Proxy::start(s3.address());
    let cluster = cluster("backup-s3-lost", 1, (&s3, proxy.address()), "5s");
    write_large(&cluster, 1, 9);
    let mut oracle = Oracle::new(&cluster);
    let target = target("lost");
    let mut requests = 0;
    for only in 0.. {
        oracle.write(5);
        proxy.set(S3Fault::Lost(only));
        json(&back_up(&cluster, 1, &target, &[]));
        requests = proxy.set(S3Fault::None);
        if only > requests {
            break;
        }
        json(&archive(&cluster, "prune", &target, &["--keep-snapshots", "1"]));
    }
    println!("{requests} requests in the last backup");
    // The one that counts, of an archive that is there and of a new one.
    let new = self::target("lost-first");
    for target in [&target, &new] {
        oracle.write(5);
        proxy.set(S3Fault::LostPut("HEAD"));
        json(&back_up(&cluster, 1, target, &[]));
        assert_eq!(proxy.set(S3Fault::None), 2, "it was tried again");
    }
    assert_whole(&cluster, &target);
    assert_whole(&cluster, &new);
    let settings = elsewhere(&cluster, "restored");
    json(&restore(&settings, &new, "latest"));
    let (process, mut client) = start(&settings);
    assert_eq!(contents(&mut client), oracle.now);
    process.kill();
}

#[test]
fn a_slow_store_holds_up_neither_writes_nor_a_stop() {
    let s3 = S3Server::start();
    let proxy = S3Proxy::start(s3.address());
    let mut cluster = cluster("backup-s3-slow", 3, (&s3, proxy.address()), "3s");
    let primary = cluster.wait_for_primary();
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, 200);
    proxy.set(S3Fault::Slow(Duration::from_secs(120)));
    let began = Instant::now();
    let mut running = begin_backup(&cluster, primary, &target("slow"));
    // It waits while they are made.
    wait_for_writes(&writers, 200);
    assert!(running.try_wait().expect("a child").is_none(), "the backup should wait");
    let failed = running.wait_with_output().expect("it ended");
    let took = began.elapsed();
    println!("after {took:?}: {}", said(&failed));
    assert!(!failed.status.success() && took < Duration::from_secs(15), "{took:?}");
    assert!(said(&failed).contains("timed out"), "{}", said(&failed));

    let running = begin_backup(&cluster, primary, &target("slow"));
    poll(RECOVERY_LIMIT, "the backup to wait for the store", || {
        (proxy.set(S3Fault::Slow(Duration::from_secs(120))) > 0).then_some(())
    });
    let began = Instant::now();
    assert!(cluster.stop(primary).success());
    let took = began.elapsed();
    println!("stopped within {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    drop(running);
    cluster.start_node(primary);
    proxy.set(S3Fault::Slow(Duration::from_millis(20)));
    let next = cluster.wait_until_writable();
    json(&back_up(&cluster, next, target("slow"), &[]));
    settle(&cluster, writers);
    assert_whole(&cluster, &target("slow"));
}
