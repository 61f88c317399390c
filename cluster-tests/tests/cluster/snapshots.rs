//! A replica that was away for longer than the journal reaches back.

use std::fs;
use std::time::{Duration, Instant};

use quorate_cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY_LIMIT, Receiving, poll};
use quorate_cluster_tests::resp::Value;
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions};

use crate::common::{metric, noise, settle, wait_for_writes};
use crate::degraded::set_policy;

/// Journals that are trimmed soon. The state is flushed once 64 MiB of journal depend on it.
const EXTRA: &str =
    "[storage]\njournal_segment_bytes = \"1MiB\"\njournal_retain_bytes = \"4MiB\"\n";

/// Slow enough that a transfer can be interrupted, fast enough for a test.
const BYTES_PER_SECOND: &str = "16MiB";

/// Keys of the ballast: the state has about 70 MB of it, in tables and in blob files.
const BALLAST_KEYS: u64 = 1_000;

/// How long writing the ballast and trimming may take.
const TRIM_LIMIT: Duration = Duration::from_mins(2);

fn start(name: &str) -> Cluster {
    let options = ClusterOptions { extra: EXTRA, ..ClusterOptions::default() };
    let mut cluster = Cluster::prepare(name, &options);
    for id in cluster.ids() {
        let path = cluster.settings(id).config_file();
        let text = fs::read_to_string(&path).expect("read the configuration");
        let rate = format!("[peer]\nsnapshot_bytes_per_second = \"{BYTES_PER_SECOND}\"\n");
        fs::write(&path, text.replace("[peer]\n", &rate)).expect("write the configuration");
        cluster.start_node(id);
    }
    cluster.wait_until_writable();
    cluster
}

/// Writes until the journals of the others begin above what a node that is down has.
fn write_beyond(cluster: &Cluster, down: u64, seq: u64) {
    let primary = cluster.wait_for_primary();
    let others = cluster.others(down);
    let mut client = cluster.connect(primary);
    let mut count = 0u64;
    poll(TRIM_LIMIT, "the journal to be trimmed", || {
        for _ in 0..50 {
            count += 1;
            let key = format!("ballast:{}", count % BALLAST_KEYS).into_bytes();
            let length = if count.is_multiple_of(20) { 200_000 } else { 60_000 };
            let reply = client.command(&[b"SET".to_vec(), key, noise(count, length)]);
            assert_eq!(reply.ok(), Some(Value::Simple("OK".into())));
        }
        let first = |id: &u64| metric(cluster, *id, "quorate_journal_first_seq");
        others.iter().all(|id| first(id) > seq + 1).then_some(())
    });
}

/// Kills a replica and writes until it needs a snapshot. Returns the replica, and the primary.
fn leave_behind(cluster: &mut Cluster) -> (u64, u64) {
    let primary = cluster.wait_for_primary();
    let replica = cluster.others(primary)[0];
    let seq = cluster.status(primary).expect("it runs").committed_seq;
    cluster.kill(replica);
    write_beyond(cluster, replica, seq);
    (replica, primary)
}

/// Waits until a transfer is well under way, and not about to end.
fn wait_for_transfer(cluster: &Cluster, id: u64) -> Receiving {
    poll(RECOVERY_LIMIT, "a snapshot to be received", || {
        let receiving = cluster.status(id)?.receiving?;
        (receiving.received_bytes > receiving.total_bytes / 5).then_some(receiving)
    })
}

/// Waits until a node has installed a snapshot and restarted by itself.
fn wait_for_snapshot(cluster: &Cluster, id: u64) {
    let current = cluster.settings(id).data_dir().join("CURRENT");
    poll(RECOVERY_LIMIT, "a snapshot to be installed", || current.exists().then_some(()));
    poll(RECOVERY_LIMIT, "the node to come back", || cluster.status(id));
}

/// What the node's log says of each snapshot that it received: bytes fetched, and bytes in all.
fn received(cluster: &Cluster, id: u64) -> Vec<(u64, u64)> {
    let log = fs::read_to_string(cluster.settings(id).log_file()).expect("read the log");
    let field = |line: &str, name: &str| -> u64 {
        let value = line.split(&format!("{name}=")).nth(1).and_then(|rest| rest.split(' ').next());
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name}: {line}"))
    };
    log.lines()
        .filter(|line| line.contains("snapshot received"))
        .inspect(|line| println!("{line}"))
        .map(|line| (field(line, "fetched_bytes"), field(line, "total_bytes")))
        .collect()
}

#[test]
fn a_replica_behind_the_journal_catches_up_by_a_snapshot_under_load() {
    let mut cluster = start("snapshot");
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, 300);
    let (replica, primary) = leave_behind(&mut cluster);
    cluster.start_node(replica);
    wait_for_snapshot(&cluster, replica);
    wait_for_writes(&writers, 300);
    settle(&cluster, writers);
    assert_eq!(received(&cluster, replica).len(), 1);
    assert_eq!(metric(&cluster, primary, "quorate_snapshots_made_total"), 1);

    // What was switched to is what an ordinary restart finds, and the old state is gone.
    let states = || fs::read_dir(cluster.settings(replica).data_dir().join("state"));
    assert_eq!(states().expect("the folder is there").count(), 1);
    cluster.kill(replica);
    cluster.start_node(replica);
    cluster.wait_until_equal();
    // It votes and leads like any other.
    cluster.kill(primary);
    cluster.wait_until_writable();
    cluster.start_node(primary);
    cluster.wait_until_equal();
}

#[test]
fn a_receiver_killed_in_the_middle_goes_on_where_it_left_off() {
    let mut cluster = start("snapshot-receiver");
    let (replica, _) = leave_behind(&mut cluster);
    cluster.start_node(replica);
    let before = wait_for_transfer(&cluster, replica);
    cluster.kill(replica);
    cluster.start_node(replica);
    wait_for_snapshot(&cluster, replica);
    cluster.wait_until_equal();
    let (fetched, total) = received(&cluster, replica)[0];
    assert!(
        fetched <= total - before.received_bytes / 2,
        "{fetched} of {total} were fetched again after {before:?}"
    );
}

#[test]
fn a_source_killed_in_the_middle_is_replaced_by_the_next_primary() {
    let mut cluster = start("snapshot-source");
    let (replica, primary) = leave_behind(&mut cluster);
    cluster.start_node(replica);
    let receiving = wait_for_transfer(&cluster, replica);
    assert_eq!(receiving.from, primary);
    // The other end says the same.
    let sent = poll(RECOVERY_LIMIT, "the source to tell of it", || {
        cluster.status(primary)?.sending.into_iter().find(|one| one.to == replica)
    });
    assert_eq!(sent.total_bytes, receiving.total_bytes);
    // What was received has been sent, up to what is told of only a MiB at a time.
    let behind = receiving.received_bytes.saturating_sub(sent.sent_bytes);
    assert!(behind <= 1 << 20 && sent.sent_bytes < sent.total_bytes, "{sent:?} {receiving:?}");
    assert!(metric(&cluster, primary, "quorate_snapshot_unsent_bytes") > 0);
    cluster.kill(primary);
    // No majority holds the log until the replica has the next primary's snapshot.
    wait_for_snapshot(&cluster, replica);
    cluster.wait_until_writable();
    cluster.start_node(primary);
    cluster.wait_until_equal();
}

/// A replica that waits for a snapshot answers heartbeats, and holds no copy of anything new: a policy
/// that needs it can't be met, and clients are told so at once.
#[test]
fn writes_that_need_a_replica_below_the_journal_are_refused_and_not_left_waiting() {
    let mut cluster = start("below-journal-all");
    let (replica, primary) = leave_behind(&mut cluster);
    let (done, said) = set_policy(&cluster, primary, "all");
    assert!(done, "{said}");
    cluster.start_node(replica);
    wait_for_transfer(&cluster, replica);
    let mut client = cluster.connect(primary);
    let began = Instant::now();
    let reply = client.command(&["SET", "k", "v"]).expect("a reply");
    println!("{reply:?} after {:?}", began.elapsed());
    let expected = "NOREPLICAS The durability policy can't be met: persisted>=all needs 3 voters";
    assert!(matches!(&reply, Value::Error(text) if text.starts_with(expected)), "{reply:?}");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(cluster.status(replica).is_some_and(|s| s.receiving.is_some()), "it still receives");
    wait_for_snapshot(&cluster, replica);
    cluster.wait_until_writable();
    let primary = cluster.wait_for_primary();
    let reply = cluster.connect(primary).command(&["SET", "k", "v"]).expect("a reply");
    assert_eq!(reply, Value::Simple("OK".into()));
}
