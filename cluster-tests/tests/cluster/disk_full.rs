//! Disks that run full and are relieved, on small file systems of their own.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use quorate_cluster_tests::harness::{
    Cluster, ClusterOptions, LoopDisk, RECOVERY_LIMIT, Role, binary, poll, try_poll,
};
use quorate_cluster_tests::http;
use quorate_cluster_tests::resp::{Client, Value};
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions};

use crate::common::{metric, noise, settle, wait_for_writes};

const MIB: u64 = 1 << 20;

/// A tenth of it must stay free, and of that two segments of the journal are the reserve.
const DISK_BYTES: u64 = 128 * MIB;
const MIN_FREE_BYTES: u64 = DISK_BYTES / 10;

const EXTRA: &str = "[storage]\njournal_segment_bytes = \"1MiB\"\njournal_retain_bytes = \"4MiB\"\n\
     [storage.rocksdb]\nwrite_buffer_size = \"2MiB\"\n";

/// Too large for a memtable to make the difference, too small for a file of its own.
const VALUE_BYTES: usize = 60_000;

/// How long filling a small disk may take.
const FILL_LIMIT: Duration = Duration::from_mins(1);

/// The nodes with these ids have file systems of their own.
fn start(name: &str, with_disk: &[u64]) -> Option<Cluster> {
    if !LoopDisk::is_possible() {
        println!("skipped: mounting a file system takes root");
        return None;
    }
    let options = ClusterOptions { extra: EXTRA, ..ClusterOptions::default() };
    let mut cluster = Cluster::prepare(name, &options);
    for id in cluster.ids() {
        if with_disk.contains(&id) {
            cluster.mount_disk(id, DISK_BYTES);
        }
        cluster.start_node(id);
    }
    cluster.wait_until_writable();
    Some(cluster)
}

fn key(number: u64) -> String {
    format!("fill:{number}")
}

fn set(client: &mut Client, number: u64) -> Value {
    let value = noise(number, VALUE_BYTES);
    client.command(&[b"SET".to_vec(), key(number).into_bytes(), value]).expect("a reply")
}

/// The same at whichever node leads: one with more room may have taken over.
fn set_anywhere(cluster: &Cluster, client: &mut Client, number: u64) -> Value {
    poll(RECOVERY_LIMIT, "a node that leads", || {
        let reply = set(client, number);
        if code(&reply) != "MOVED" {
            return Some(reply);
        }
        *client = cluster.connect(cluster.primary()?);
        None
    })
}

fn is_ok(reply: &Value) -> bool {
    *reply == Value::Simple("OK".into())
}

/// The error's code; empty where it is none.
fn code(reply: &Value) -> &str {
    reply.error().and_then(|text| text.split(' ').next()).unwrap_or_default()
}

/// Sets keys from `first` on until one is refused with `DISKFULL`; returns that one's number.
fn fill(cluster: &Cluster, client: &mut Client, first: u64) -> u64 {
    let mut number = first;
    poll(FILL_LIMIT, "DISKFULL", || {
        let reply = set_anywhere(cluster, client, number);
        if code(&reply) == "DISKFULL" {
            return Some(());
        }
        assert!(is_ok(&reply), "SET {number}: {reply:?}");
        number += 1;
        None
    });
    number
}

/// Waits until a node takes a write of this size again.
fn wait_until_taken(cluster: &Cluster, client: &mut Client, number: u64) -> Duration {
    let began = Instant::now();
    poll(RECOVERY_LIMIT, "a write to be taken", || {
        is_ok(&set_anywhere(cluster, client, number)).then_some(())
    });
    began.elapsed()
}

/// Leaves no node so much room that it would be asked to lead.
fn crowd(cluster: &Cluster) {
    for id in cluster.ids() {
        cluster.disk(id).fill(MIN_FREE_BYTES / 2);
    }
    poll(RECOVERY_LIMIT, "all disks to be full", || all_full(cluster).then_some(()));
}

fn all_full(cluster: &Cluster) -> bool {
    cluster.ids().iter().all(|id| metric(cluster, *id, "quorate_disk_full") == 1)
}

/// Where all are full leadership stays, and with it the lease. A node that gets room by flushing
/// and trimming is not full any more and may be handed it: then this begins anew. Leadership that
/// moves among full nodes never stays for so long.
fn leadership_stays_while_all_are_full(cluster: &Cluster) {
    const WATCH: Duration = Duration::from_secs(5);
    poll(FILL_LIMIT, "leadership to stay while all are full", || {
        crowd(cluster);
        let primary = cluster.primary()?;
        let epoch = cluster.status(primary)?.epoch;
        let watched = Instant::now();
        while all_full(cluster) {
            let status = cluster.status(primary).expect("it runs");
            if (status.role, status.epoch) != (Role::Primary, epoch) {
                return None;
            }
            if watched.elapsed() > WATCH {
                return Some(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    });
}

#[test]
fn full_disks_refuse_what_needs_space_take_deletes_and_recover_by_themselves() {
    let Some(cluster) = start("disk-full", &[1, 2, 3]) else { return };
    let ids = cluster.ids();
    for id in &ids {
        cluster.disk(*id).fill(DISK_BYTES / 4);
    }
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, 200);
    let mut client = cluster.connect(cluster.wait_for_primary());

    // Filled by writes.
    let began = Instant::now();
    let filled = fill(&cluster, &mut client, 0);
    let primary = cluster.wait_for_primary();
    println!(
        "{} MB in {:?} until the first refusal, {} KiB left",
        filled * VALUE_BYTES as u64 / 1_000_000,
        began.elapsed(),
        cluster.disk(primary).free_bytes() >> 10,
    );
    for id in &ids {
        let errors = metric(&cluster, *id, "quorate_rocksdb_background_errors");
        assert_eq!(errors, 0, "node {id}: refused too late for flushes and compactions");
    }
    leadership_stays_while_all_are_full(&cluster);
    let primary = cluster.wait_for_primary();
    client = cluster.connect(primary);
    let reply = client.command(&["GET", &key(0)]).expect("a reply");
    assert_eq!(reply, Value::Bulk(noise(0, VALUE_BYTES)), "reads go on");
    assert_eq!(client.command(&["DEL", &key(0)]).expect("a reply"), Value::Integer(1));
    let admin = cluster.settings(primary).ports.admin;
    let ready = http::get(admin, "/health/ready?for=write", Duration::from_secs(5)).expect("HTTP");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("disk_full"), "{}", ready.body);
    assert_eq!(metric(&cluster, primary, "quorate_disk_full"), 1);

    let freed = Instant::now();
    for id in &ids {
        cluster.disk(*id).relieve();
    }
    wait_until_taken(&cluster, &mut client, filled);
    println!("writes taken {:?} after space was freed", freed.elapsed());

    // Filled by another program, all at once.
    for id in &ids {
        cluster.disk(*id).fill(MIN_FREE_BYTES / 2);
    }
    let fault = Instant::now();
    let last = fill(&cluster, &mut client, filled + 1);
    println!("refused {:?} after another program took the space", fault.elapsed());
    let freed = Instant::now();
    for id in &ids {
        cluster.disk(*id).relieve();
    }
    wait_until_taken(&cluster, &mut client, last);
    println!("writes taken {:?} after it gave it back", freed.elapsed());

    client = cluster.connect(cluster.wait_for_primary());
    for number in 1..=last {
        let reply = client.command(&["GET", &key(number)]).expect("a reply");
        assert_eq!(reply, Value::Bulk(noise(number, VALUE_BYTES)), "{}", key(number));
    }
    let verdict = settle(&cluster, writers);
    assert!(verdict.refused > 0, "{verdict}");
    for id in ids {
        let status = cluster.status(id).expect("it runs");
        assert_eq!(status.incarnation, 1, "node {id} was not to restart");
    }
}

/// Leaves a node no space at all, the reserve included, which it gives up first.
fn starve(cluster: &Cluster, id: u64) {
    cluster.disk(id).fill(0);
    poll(RECOVERY_LIMIT, "the node to see that its disk is full", || {
        (metric(cluster, id, "quorate_disk_full") == 1).then_some(())
    });
    let reserve = cluster.settings(id).data_dir().join("reserve");
    poll(RECOVERY_LIMIT, "the reserve to be given up", || (!reserve.exists()).then_some(()));
    cluster.disk(id).fill(0);
}

/// Waits until a node is where the others are, starting it again as often as it ends. Returns how
/// often that was.
fn wait_until_back(cluster: &mut Cluster, id: u64) -> usize {
    let mut ends = 0;
    poll(RECOVERY_LIMIT, "the node to follow", || {
        let ended = cluster.restart_ended();
        assert!(ended.iter().all(|ended| *ended == id), "{ended:?} ended");
        ends += ended.len();
        let (own, all) = (cluster.status(id)?, cluster.status(cluster.primary()?)?);
        (own.applied_seq >= all.committed_seq).then_some(())
    });
    ends
}

/// What `quorate storage flush` says; `None` if it waits.
fn flush(cluster: &Cluster, id: u64) -> Option<String> {
    let admin = format!("http://{}", cluster.settings(id).ports.admin);
    let mut child = Command::new(binary())
        .args(["storage", "flush", "--admin", &admin])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let ended = try_poll(Duration::from_secs(5), || child.try_wait().expect("wait for a child"));
    if ended.is_none() {
        child.kill().expect("end it");
    }
    let Output { stdout, stderr, .. } = child.wait_with_output().expect("its output");
    ended.map(|_| String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

#[test]
fn a_replica_without_any_space_holds_up_nobody_and_follows_when_it_has_some() {
    let Some(mut cluster) = start("disk-full-replica", &[1, 2, 3]) else { return };
    let primary = cluster.wait_for_primary();
    let replica = cluster.others(primary)[0];
    let epoch = cluster.status(primary).expect("it runs").epoch;
    let mut client = cluster.connect(primary);
    starve(&cluster, replica);
    let began = Instant::now();
    // Many segments of the journal, and more than the replica's memtables hold.
    for number in 0..300 {
        let reply = set(&mut client, number);
        assert!(is_ok(&reply), "SET {number}: {reply:?}");
    }
    println!("300 writes in {:?} beside a replica without space", began.elapsed());
    assert!(cluster.restart_ended().is_empty(), "it serves reads meanwhile");
    poll(RECOVERY_LIMIT, "failed flushes to make it unhealthy", || {
        (metric(&cluster, replica, "quorate_load_shed_active") == 1).then_some(())
    });
    println!("it is unhealthy {:?} after the writes began", began.elapsed());
    // RocksDB waits for a flush that it doesn't make any more; an operator's doesn't wait for that.
    assert!(cluster.restart_ended().is_empty(), "it still serves reads");
    let said = poll(RECOVERY_LIMIT, "a flush to be refused", || {
        flush(&cluster, replica).filter(|said| said.contains("has given it up"))
    });
    println!("storage flush: {}", said.trim());
    cluster.disk(replica).relieve();
    let freed = Instant::now();
    let ends = wait_until_back(&mut cluster, replica);
    println!("the replica follows {:?} after space was freed, {ends} restarts", freed.elapsed());
    poll(RECOVERY_LIMIT, "it to be healthy again", || {
        (metric(&cluster, replica, "quorate_load_shed_active") == 0).then_some(())
    });
    println!("it is healthy {:?} after space was freed", freed.elapsed());
    let log = cluster.process(replica).log();
    assert!(ends == 0 || log.contains("RocksDB had no space to flush"), "{ends} restarts");
    cluster.wait_until_equal();
    assert_eq!(cluster.status(primary).expect("it runs").epoch, epoch, "no election");
}

#[test]
fn a_primary_without_any_space_hands_over_and_follows_when_it_has_some() {
    let Some(mut cluster) = start("disk-full-primary", &[1, 2, 3]) else { return };
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, 200);
    let old = cluster.wait_for_primary();
    let mut client = cluster.connect(old);
    let fault = Instant::now();
    starve(&cluster, old);
    println!("no space left {:?} after it began to go", fault.elapsed());
    // Full, or handed over already, because the others have room.
    let refused = set(&mut client, 0);
    assert!(["DISKFULL", "MOVED"].contains(&code(&refused)), "{refused:?}");
    // Deletes go on, until another node leads.
    let absent = "k".repeat(VALUE_BYTES);
    let full = Instant::now();
    let new = poll(RECOVERY_LIMIT, "another primary", || {
        if let Ok(reply) = client.command(&["DEL", &absent]) {
            assert!(["", "MOVED", "INDOUBT"].contains(&code(&reply)), "{reply:?}");
        }
        cluster.restart_ended();
        cluster.primary().filter(|id| *id != old)
    });
    println!("node {new} leads {:?} after node {old} had no space at all", full.elapsed());
    wait_for_writes(&writers, 200);
    cluster.disk(old).relieve();
    let freed = Instant::now();
    let ends = wait_until_back(&mut cluster, old);
    println!("node {old} follows {:?} after space was freed, {ends} restarts", freed.elapsed());
    settle(&cluster, writers);
}

#[test]
fn a_primary_whose_disk_is_full_hands_over_to_a_voter_that_has_room() {
    let Some(cluster) = start("disk-full-one", &[1, 2, 3]) else { return };
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, 200);
    let old = cluster.wait_for_primary();
    let mut client = cluster.connect(old);
    cluster.disk(old).fill(MIN_FREE_BYTES / 2);
    let fault = Instant::now();
    let new = poll(RECOVERY_LIMIT, "another primary", || cluster.primary().filter(|id| *id != old));
    println!("node {new} leads {:?} after node {old}'s disk was full", fault.elapsed());
    // What needs space is taken again, where the old primary sends its clients.
    assert_eq!(code(&set(&mut client, 0)), "MOVED");
    assert!(is_ok(&set(&mut cluster.connect(new), 0)));
    wait_for_writes(&writers, 200);
    // Back and forth only as space goes and comes.
    let epoch = cluster.status(new).expect("it runs").epoch;
    cluster.disk(old).relieve();
    wait_for_writes(&writers, 300);
    assert_eq!(cluster.status(new).expect("it runs").epoch, epoch, "no reason to change");
    cluster.disk(new).fill(MIN_FREE_BYTES / 2);
    poll(RECOVERY_LIMIT, "yet another primary", || cluster.primary().filter(|id| *id != new));
    wait_for_writes(&writers, 200);
    cluster.disk(new).relieve();
    settle(&cluster, writers);
    for id in cluster.ids() {
        assert_eq!(cluster.status(id).expect("it runs").incarnation, 1, "node {id} restarted");
    }
}
