//! Tables of the state that rot or go missing under a running node.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use quorate_cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY_LIMIT, Role, binary, poll};
use quorate_cluster_tests::http;
use quorate_cluster_tests::resp::Value;
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions};

use crate::common::{metric, noise, settle, wait_for_writes};

/// Journals that are trimmed soon, and values that are read from tables.
const EXTRA: &str = "[storage]\njournal_segment_bytes = \"1MiB\"\njournal_retain_bytes = \"2MiB\"\n\
                     [storage.rocksdb]\nblock_cache_size = \"64KiB\"\ncompression = \"none\"\n\
                     write_buffer_size = \"4MiB\"\n";

const BALLAST_KEYS: u64 = 400;
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

fn ballast(cluster: &Cluster) {
    let mut client = cluster.connect(cluster.wait_for_primary());
    for n in 0..BALLAST_KEYS {
        let key = format!("ballast:{n}").into_bytes();
        let reply = client.command(&[b"SET".to_vec(), key, noise(n, 30_000)]).ok();
        assert_eq!(reply, Some(Value::Simple("OK".into())));
    }
}

/// Flushes by the operator's command until the journals begin behind the first entry.
fn trim(cluster: &Cluster) {
    poll(RECOVERY_LIMIT, "journals to be trimmed", || {
        for id in cluster.ids() {
            let url = format!("http://{}", cluster.settings(id).ports.admin);
            let output = Command::new(binary())
                .args(["storage", "flush", "--admin", &url])
                .output()
                .expect("run the binary");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && text.starts_with("flushed through entry "),
                "{text}"
            );
        }
        let trimmed = |id: &u64| metric(cluster, *id, "quorate_journal_first_seq") > 1;
        cluster.ids().iter().all(trimmed).then_some(())
    });
}

/// The tables of the state in force.
fn tables(data_dir: &Path) -> Vec<PathBuf> {
    let instances = fs::read_dir(data_dir.join("state")).expect("the folder is there");
    let files = instances.flatten().flat_map(|dir| fs::read_dir(dir.path()).into_iter().flatten());
    files
        .flatten()
        .map(|f| f.path())
        .filter(|p| p.extension().is_some_and(|e| e == "sst"))
        .collect()
}

/// More than a table's index and filters take here, which RocksDB has in memory anyway, and less than
/// a value of the ballast.
const TABLE_END_BYTES: u64 = 16 << 10;

/// Flips a bit in each piece of every table but for its end, so that no value of the ballast is whole.
fn flip(data_dir: &Path) {
    for table in tables(data_dir) {
        let file = fs::OpenOptions::new().read(true).write(true).open(&table).expect("open it");
        let length = file.metadata().expect("its length").len();
        for at in (500..length.saturating_sub(TABLE_END_BYTES)).step_by(8 << 10) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("read");
            file.write_all_at(&[byte[0] ^ 0x10], at).expect("write");
        }
    }
}

fn incarnation(cluster: &Cluster, id: u64) -> u64 {
    poll(RECOVERY_LIMIT, "the node to answer", || cluster.status(id)).incarnation
}

/// Waits until the node has restarted by itself to set its state aside, and once more on what a
/// snapshot brought.
fn wait_for_rebuild(cluster: &Cluster, id: u64, before: u64) {
    poll(RECOVERY_LIMIT, "the node to be rebuilt", || {
        let status = cluster.status(id).filter(|status| status.incarnation >= before + 2)?;
        (status.role == Role::Replica && status.applied_seq > 0).then_some(())
    });
    assert!(log_has(cluster, id, "the state is damaged: it is set aside"));
    assert!(log_has(cluster, id, "rebuilding the state from a snapshot"));
}

fn log_has(cluster: &Cluster, id: u64, text: &str) -> bool {
    fs::read_to_string(cluster.settings(id).log_file()).expect("read the log").contains(text)
}

#[test]
fn a_primary_whose_tables_rot_hands_over_and_is_rebuilt_by_a_snapshot() {
    let options = ClusterOptions { extra: EXTRA, ..ClusterOptions::default() };
    let cluster = Cluster::start_with("rot", &options);
    ballast(&cluster);
    trim(&cluster);
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, 300);
    let victim = cluster.wait_for_primary();
    let before = incarnation(&cluster, victim);
    flip(&cluster.settings(victim).data_dir());
    let fault = Instant::now();
    let mut client = cluster.connect(victim);
    let text = match client.command(&["GET", "ballast:7"]) {
        Ok(Value::Error(text)) => text,
        Ok(reply) => panic!("rotten data was served: {reply:?}"),
        // The apply loop met another rotten key first, and the node is stopping already.
        Err(error) => error.to_string(),
    };
    assert!(!text.starts_with("UNHEALTHY ") || text.contains("Corruption"), "{text}");
    let primary = poll(RECOVERY_LIMIT, "another primary", || {
        cluster.primary().filter(|primary| *primary != victim)
    });
    println!("the reader saw: {text}; node {primary} led {:?} later", fault.elapsed());
    wait_for_writes(&writers, 300);
    wait_for_rebuild(&cluster, victim, before);
    println!("rebuilt {:?} after the fault", fault.elapsed());
    settle(&cluster, writers);
    // What was rotten is whole again there.
    let mut ask = cluster.connect(victim);
    ask.command(&["READONLY"]).expect("an answer");
    let reply = ask.command(&["GET", "ballast:7"]).expect("an answer");
    assert_eq!(reply.bytes().map(<[u8]>::to_vec), Some(noise(7, 30_000)));
}

#[test]
fn a_write_to_rotten_data_is_never_lost_and_never_acknowledged_twice() {
    let options = ClusterOptions { extra: EXTRA, ..ClusterOptions::default() };
    let cluster = Cluster::start_with("rotten-write", &options);
    ballast(&cluster);
    trim(&cluster);
    let victim = cluster.wait_for_primary();
    let before = incarnation(&cluster, victim);
    flip(&cluster.settings(victim).data_dir());
    // The apply loop has to look at what the command changes.
    let mut client = cluster.connect(victim);
    let reply = client.command(&["APPEND", "ballast:9", "x"]).expect("an answer");
    let Value::Error(text) = &reply else { panic!("it can't be carried out: {reply:?}") };
    println!("the writer saw: {text}");
    assert!(text.starts_with("INDOUBT "), "{text}");
    wait_for_rebuild(&cluster, victim, before);
    cluster.wait_until_equal();
    // It was sealed, so the others may have carried it out, once.
    let primary = cluster.wait_until_writable();
    let length = cluster.connect(primary).command(&["STRLEN", "ballast:9"]).expect("an answer");
    assert!(matches!(length, Value::Integer(30_000 | 30_001)), "{length:?}");
}

#[test]
fn a_state_without_its_tables_is_rebuilt_from_the_journal_or_from_another_node() {
    let options = ClusterOptions { extra: EXTRA, ..ClusterOptions::default() };
    let mut cluster = Cluster::start_with("gone", &options);
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, 300);
    let primary = cluster.wait_for_primary();
    let victim = cluster.others(primary)[0];
    for whole_journal in [true, false] {
        if !whole_journal {
            ballast(&cluster);
            trim(&cluster);
        }
        cluster.stop(victim);
        let before = tables(&cluster.settings(victim).data_dir());
        assert!(!before.is_empty());
        for table in before {
            fs::remove_file(table).expect("delete it");
        }
        wait_for_writes(&writers, 100);
        cluster.start_node(victim);
        poll(RECOVERY_LIMIT, "the node to come back", || cluster.status(victim));
        wait_for_writes(&writers, 100);
        let by_snapshot = || log_has(&cluster, victim, "rebuilding the state from a snapshot");
        if whole_journal {
            assert!(log_has(&cluster, victim, "the state is damaged: it is set aside"));
            assert!(!by_snapshot());
        } else {
            poll(RECOVERY_LIMIT, "a snapshot", || by_snapshot().then_some(()));
        }
    }
    settle(&cluster, writers);
}

#[test]
fn a_node_alone_with_rotten_tables_stays_latched_and_says_so() {
    let options = ClusterOptions { nodes: 1, extra: EXTRA, ..ClusterOptions::default() };
    let cluster = Cluster::start_with("alone", &options);
    ballast(&cluster);
    trim(&cluster);
    flip(&cluster.settings(1).data_dir());
    let mut client = cluster.connect(1);
    let reply = client.command(&["GET", "ballast:3"]).expect("an answer");
    assert!(matches!(&reply, Value::Error(text) if text.starts_with("UNHEALTHY ")), "{reply:?}");
    let reply = client.command(&["SET", "new", "value"]).expect("an answer");
    let Value::Error(text) = &reply else { panic!("{reply:?}") };
    assert!(text.starts_with("UNHEALTHY ") && text.contains("ballast:3"), "{text}");
    let admin = cluster.settings(1).ports.admin;
    let ready = http::get(admin, "/health/ready", ANSWER_LIMIT).expect("an answer");
    assert!(ready.status == 503 && ready.body.contains("storage_latched: "), "{}", ready.body);
    assert_eq!(http::get(admin, "/health/live", ANSWER_LIMIT).expect("an answer").status, 200);
    // What isn't rotten is still served.
    assert_eq!(client.command(&["GET", "absent"]).expect("an answer"), Value::NullBulk);
    assert_eq!(metric(&cluster, 1, "quorate_load_shed_active"), 1);
}

/// RocksDB says of a failed compaction only that there was an error. The node then reads everything.
#[test]
fn rot_that_only_a_compaction_meets_is_found_and_the_replica_is_rebuilt() {
    let options = ClusterOptions { extra: EXTRA, ..ClusterOptions::default() };
    let cluster = Cluster::start_with("rot-compacted", &options);
    ballast(&cluster);
    trim(&cluster);
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, 100);
    let primary = cluster.wait_for_primary();
    let victim = cluster.others(primary)[0];
    let before = incarnation(&cluster, victim);
    flip(&cluster.settings(victim).data_dir());
    let fault = Instant::now();
    let admin = format!("http://{}", cluster.settings(victim).ports.admin);
    let compact = Command::new(binary()).args(["storage", "compact", "--admin", &admin]).output();
    let compact = compact.expect("run the binary");
    println!("storage compact: {}", String::from_utf8_lossy(&compact.stderr).trim());
    assert_eq!(compact.status.code(), Some(1), "rotten tables can't be rewritten");
    wait_for_rebuild(&cluster, victim, before);
    println!("rebuilt {:?} after the fault", fault.elapsed());
    assert_eq!(cluster.primary(), Some(primary), "nobody else was concerned");
    settle(&cluster, writers);
    let mut ask = cluster.connect(victim);
    ask.command(&["READONLY"]).expect("an answer");
    let reply = ask.command(&["GET", "ballast:7"]).expect("an answer");
    assert_eq!(reply.bytes().map(<[u8]>::to_vec), Some(noise(7, 30_000)));
}
