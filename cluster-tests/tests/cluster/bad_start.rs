//! Nodes that must refuse to start, and say why.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use quorate_cluster_tests::harness::{Cluster, ClusterOptions, binary};

/// How long a refusal may take.
const REFUSAL_LIMIT: Duration = Duration::from_secs(20);

/// Starts a node and waits for it to give up; returns its exit code and all it said.
fn refusal(cluster: &mut Cluster, id: u64) -> (Option<i32>, String) {
    let log = cluster.settings(id).log_file();
    let _ = fs::remove_file(&log);
    cluster.start_node(id);
    let status = cluster.process(id).wait_for_end(REFUSAL_LIMIT).unwrap_or_else(|| {
        panic!("node {id} runs all the same: {}", cluster.process(id).log_end(10))
    });
    let said = cluster.process(id).log();
    cluster.kill(id);
    (status.code(), said)
}

fn assert_refused(cluster: &mut Cluster, id: u64, code: i32, words: &[&str]) {
    let (found, said) = refusal(cluster, id);
    println!("exit code {found:?}: {}", said.trim_end());
    assert_eq!(found, Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    // What ends because the start failed is no failure of its own.
    assert!(!said.contains("a part of the node failed"), "{said}");
}

fn assert_serves(cluster: &Cluster) {
    cluster.wait_until_writable();
}

#[test]
fn unknown_and_wrong_configuration_keys_are_named_with_their_line() {
    let mut cluster = Cluster::prepare("bad-config", &ClusterOptions::default());
    let good = cluster.settings(1).to_toml();
    let file = cluster.settings(1).config_file();
    let cases: [(&str, &str, &[&str]); 6] = [
        ("listen = ", "lissten = ", &["quorate.toml:", "client.lissten"]),
        ("[client]", "[clients]", &["quorate.toml:", "clients"]),
        (
            "policy = \"majority\"",
            "policy = \"persisted>=9\"",
            &["quorate.toml:", "cluster.policy", "9"],
        ),
        (
            "policy = \"majority\"",
            "policy = \"most\"",
            &["quorate.toml:", "cluster.policy", "most"],
        ),
        ("id = 1", "id = 0", &["quorate.toml:", "node.id"]),
        ("[node]", "[node", &["quorate.toml:1"]),
    ];
    for (from, to, words) in cases {
        assert!(good.contains(from), "{from} is in the file");
        fs::write(&file, good.replacen(from, to, 1)).expect("write the configuration");
        assert_refused(&mut cluster, 1, 2, words);
    }
    fs::write(&file, good.replace("id = 1", "")).expect("write the configuration");
    assert_refused(&mut cluster, 1, 2, &["node.id"]);
    fs::remove_file(&file).expect("remove the configuration");
    assert_refused(&mut cluster, 1, 2, &["quorate.toml"]);
}

#[test]
fn ports_in_use_are_named_and_the_other_nodes_serve() {
    let mut cluster = Cluster::start("ports");
    let primary = cluster.wait_for_primary();
    let victim = cluster.others(primary)[0];
    cluster.stop(victim);
    let ports = cluster.settings(victim).ports;
    for address in [ports.client, ports.plain, ports.admin] {
        let _holder = TcpListener::bind(address).expect("the port is free");
        assert_refused(&mut cluster, victim, 1, &[&address.to_string()]);
    }
    let holder = UdpSocket::bind(ports.peer).expect("the port is free");
    assert_refused(&mut cluster, victim, 1, &[&ports.peer.to_string()]);
    drop(holder);
    assert_serves(&cluster);
    cluster.start_node(victim);
    cluster.wait_until_equal();
}

#[test]
fn missing_and_wrong_certificates_are_named() {
    let mut cluster = Cluster::prepare("certificates", &ClusterOptions::default());
    let good = cluster.settings(1).to_toml();
    let file = cluster.settings(1).config_file();
    let cases: [(&str, &str, &[&str]); 4] = [
        ("node-1.crt", "absent.crt", &["absent.crt"]),
        ("node-1.key", "absent.key", &["absent.key"]),
        // Somebody else's certificate, and a key that does not belong to the certificate.
        ("node-1.crt", "node-2.crt", &["certificate is not for node 1", "node 2"]),
        ("node-1.key", "node-2.key", &["key"]),
    ];
    for (from, to, words) in cases {
        fs::write(&file, good.replace(from, to)).expect("write the configuration");
        let (code, said) = refusal(&mut cluster, 1);
        println!("exit code {code:?}: {}", said.trim_end());
        assert!(matches!(code, Some(1 | 2)), "{code:?}: {said}");
        for word in words {
            assert!(said.contains(word), "no {word:?} in: {said}");
        }
    }
    fs::write(&file, &good).expect("write the configuration");
    let key = cluster.settings(1).certificates.join("node-1.key");
    fs::write(&key, "no key at all").expect("write");
    let (code, said) = refusal(&mut cluster, 1);
    assert!(matches!(code, Some(1 | 2)) && said.contains("key"), "{code:?}: {said}");
}

#[test]
fn a_node_of_a_foreign_authority_gets_no_vote_and_hurts_nobody() {
    let mut cluster = Cluster::start("foreign-authority");
    let primary = cluster.wait_for_primary();
    let epoch = cluster.status(primary).expect("the primary answers").epoch;
    let victim = cluster.others(primary)[0];
    cluster.stop(victim);
    let foreign = cluster.dir().join("foreign-pki");
    for arguments in [
        vec!["pki", "ca", "--cluster", "test"],
        vec!["pki", "node", "--cluster", "test", "--id", &victim.to_string()],
    ] {
        let dir = foreign.to_str().expect("a path of ours");
        let output = Command::new(binary()).args(&arguments).args(["--dir", dir]).output();
        assert!(output.expect("start the binary").status.success(), "{arguments:?}");
    }
    let own = cluster.settings(victim).certificates.clone();
    cluster.settings_mut(victim).certificates = foreign;
    cluster.settings(victim).write();
    cluster.start_node(victim);
    // Several times the longest election timeout: what it could upset would be upset by then.
    std::thread::sleep(Duration::from_secs(3));
    assert_serves(&cluster);
    let status = cluster.status(primary).expect("the primary answers");
    assert_eq!(status.epoch, epoch, "a stranger caused an election");
    let before = cluster.status(victim).expect("it runs").applied_seq;
    assert!(before < status.applied_seq, "a stranger received the log");
    cluster.stop(victim);
    cluster.settings_mut(victim).certificates = own;
    cluster.settings(victim).write();
    cluster.start_node(victim);
    cluster.wait_until_equal();
}

#[test]
fn data_of_another_node_and_damaged_identities_are_refused() {
    let mut cluster = Cluster::start("foreign-data");
    let primary = cluster.wait_for_primary();
    let victim = cluster.others(primary)[0];
    cluster.stop(victim);
    let own = cluster.settings(victim).data_dir();
    let kept = own.with_file_name("kept");
    fs::rename(&own, &kept).expect("put its data aside");

    // The whole directory of another node, as a careless restore would bring it.
    let other = cluster.others(primary)[1];
    cluster.stop(other);
    copy_dir(&cluster.settings(other).data_dir(), &own);
    cluster.start_node(other);
    assert_refused(&mut cluster, victim, 1, &[&format!("node {other}")]);
    fs::remove_dir_all(&own).expect("remove the copy");

    // An identity that a newer version wrote: another number, and a checksum that is right.
    copy_dir(&kept, &own);
    let identity = own.join("identity");
    let mut bytes = fs::read(&identity).expect("read the identity");
    bytes[8] += 1;
    let end = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
    fs::write(&identity, &bytes).expect("write the identity");
    assert_refused(&mut cluster, victim, 1, &["identity", "format 2", "newer"]);
    fs::remove_dir_all(&own).expect("remove the copy");

    // An identity with a flipped byte.
    copy_dir(&kept, &own);
    let mut bytes = fs::read(&identity).expect("read the identity");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(&identity, &bytes).expect("write the identity");
    assert_refused(&mut cluster, victim, 1, &["identity"]);
    fs::remove_dir_all(&own).expect("remove the copy");

    fs::rename(&kept, &own).expect("bring its data back");
    cluster.start_node(victim);
    assert_serves(&cluster);
    cluster.wait_until_equal();
}

#[test]
fn a_data_directory_in_memory_is_refused() {
    let shm = Path::new("/dev/shm");
    assert!(shm.is_dir(), "this test needs /dev/shm");
    let mut cluster = Cluster::prepare("volatile", &ClusterOptions::default());
    let good = cluster.settings(1).to_toml();
    let volatile = shm.join(format!("quorate-test-{}", std::process::id()));
    let own = cluster.settings(1).data_dir().display().to_string();
    fs::write(
        cluster.settings(1).config_file(),
        good.replace(&own, &volatile.display().to_string()),
    )
    .expect("write the configuration");
    assert_refused(&mut cluster, 1, 1, &["tmpfs", "allow-volatile"]);
    let _ = fs::remove_dir_all(&volatile);
}

#[test]
fn a_second_process_on_the_same_directory_is_refused() {
    let mut cluster = Cluster::start("two-processes");
    let primary = cluster.wait_for_primary();
    let pid = cluster.process(primary).pid().to_string();
    let config = cluster.settings(primary).config_file();
    // Its own ports, so that the directory is what it stumbles over.
    let mut text = cluster.settings(primary).to_toml();
    let ports = cluster.settings(primary).ports;
    let others = quorate_cluster_tests::harness::Ports::free();
    for (from, to) in
        [(ports.client, others.client), (ports.plain, others.plain), (ports.admin, others.admin)]
    {
        text = text.replace(&from.to_string(), &to.to_string());
    }
    let second = config.with_file_name("second.toml");
    fs::write(&second, text).expect("write the configuration");
    let output = Command::new(binary())
        .args(["start", "--config", second.to_str().expect("a path of ours")])
        .output()
        .expect("start the binary");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&pid), "no pid {pid} in: {said}");
    assert_serves(&cluster);
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("make a directory");
    for entry in fs::read_dir(from).expect("read a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copy a file");
        }
    }
}
