//! What clients are told when something can't be done here, or at all.

use std::time::{Duration, Instant};

use quorate_protocol::types::{MonoTime, NodeId, Seq};
use tokio::io::AsyncWriteExt;

use super::{Log, Node, options};
use crate::health::{DiskLook, MemoryLook, Space};
use crate::storage::state::StateError;
use crate::submit::Refusal;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_has_its_own_code() {
    let node = Node::start();
    let mut client = node.connect().await;
    let clause = "persisted>=majority: 1 of 2".to_owned();
    for (refusal, code) in [
        (Refusal::NoReplicas { clause }, "-NOREPLICAS "),
        (Refusal::Unhealthy("disk\r\nhangs".to_owned()), "-UNHEALTHY disk  hangs"),
        (Refusal::DiskFull, "-DISKFULL "),
        (Refusal::OutOfMemory, "-OOM "),
        (Refusal::Overloaded, "-OVERLOADED "),
        (Refusal::Timeout { caller: false }, "-TIMEOUT store"),
        (Refusal::Draining, "-DRAINING "),
    ] {
        node.fake.set_log(Log::Refuse(refusal));
        client.send("SET a 1\r\n").await;
        let line = client.line().await;
        assert!(line.starts_with(code), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_takes_deletes_only_and_an_unhealthy_node_no_write() {
    let node = Node::start();
    let mut client = node.connect().await;
    client.ask("SET a 1", "+OK\r\n").await;
    let look = |free_bytes| {
        let space = Space { free_bytes, total_bytes: 1000, ..Space::default() };
        DiskLook { space, ..DiskLook::default() }
    };
    node.health.looked_at_disk(&look(1), 0);
    client.send("SET b 1\r\n").await;
    assert!(client.line().await.starts_with("-DISKFULL "));
    client.ask("GET a", "$1\r\n1\r\n").await;
    // What needs no space is carried out, whatever stands beside it.
    let full = "-DISKFULL Too little free disk space for writes\r\n";
    client.ask("SET b 1\r\nDEL a\r\nSET b 2\r\nGET a", &format!("{full}:1\r\n{full}$-1\r\n")).await;
    node.health.looked_at_disk(&look(900), 0);
    client.ask("SET b 1", "+OK\r\n").await;
    // The same where memory runs out.
    let look = |used_bytes| MemoryLook { used_bytes, budget_bytes: 1_000 };
    node.health.looked_at_memory(look(900));
    let full = "-OOM Too little memory for writes\r\n";
    client.ask("SET a 1\r\nDEL b\r\nGET b", &format!("{full}:1\r\n$-1\r\n")).await;
    node.health.looked_at_memory(look(100));
    client.ask("SET b 1", "+OK\r\n").await;
    node.health.report(&StateError::BadRecord { record: "epochs" });
    client.send("DEL b\r\n").await;
    let line = client.line().await;
    assert!(line.starts_with("-UNHEALTHY ") && line.contains("epochs"), "{line}");
    client.ask("GET b", "$1\r\n1\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wait_for_a_turn_counts_against_the_deadline_and_the_error_says_whose_it_was() {
    let mut options = options();
    options.settings.concurrency.stores = Some(1);
    options.settings.store_deadline = Duration::from_millis(300);
    let node = Node::start_with(options);
    node.fake.set_log(Log::Hold);
    let mut first = node.connect().await;
    first.send("SET a 1\r\n").await;
    while node.fake.batches.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (mut second, mut third) = (node.connect().await, node.connect().await);
    third.send("SET c 1\r\n").await;
    second.ask("SESSION DEADLINE 50", "+OK\r\n").await;
    second.send("SET b 1\r\n").await;
    let line = second.line().await;
    assert!(line.starts_with("-TIMEOUT caller"), "{line}");
    assert_eq!(node.health.view().foreground_errors, 0, "that is no trouble of the store");
    let line = third.line().await;
    assert!(line.starts_with("-TIMEOUT store"), "{line}");
    assert_eq!(node.health.view().foreground_errors, 1);
    assert_eq!(node.fake.batches.lock().len(), 1, "neither was handed over");
    second.ask("GET a", "$-1\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_redirects_keys_and_refuses_the_rest() {
    let node = Node::start();
    node.fake.set_primary(Some(2));
    let mut client = node.connect().await;
    client.ask("SET foo 1", "-MOVED 12182 127.0.0.1:7402\r\n").await;
    client.ask("GET foo", "-MOVED 12182 127.0.0.1:7402\r\n").await;
    client.ask("FLUSHALL", "-READONLY You can't write against a read only replica.\r\n").await;
    client.send("DBSIZE\r\n").await;
    assert!(client.line().await.starts_with("-CLUSTERDOWN "));
    client.send("KEYS *\r\n").await;
    assert!(client.line().await.starts_with("-CLUSTERDOWN "));
    client.send("MULTI\r\nSET foo 1\r\nEXEC\r\n").await;
    client.expect("+OK\r\n-MOVED 12182 127.0.0.1:7402\r\n-EXECABORT ").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plain_listener_never_redirects() {
    let node = Node::start();
    node.fake.set_primary(Some(2));
    let mut client = node.connect_plain().await;
    client.ask("SET foo 1", "-READONLY You can't write against a read only replica.\r\n").await;
    client.send("GET foo\r\n").await;
    assert!(client.line().await.starts_with("-CLUSTERDOWN "));
    client.ask("CLUSTER SLOTS", "-ERR This instance has cluster support disabled\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_answers_reads_only_where_asked_and_only_when_fresh() {
    let node = Node::start();
    let mut client = node.connect().await;
    client.ask("SET foo 1", "+OK\r\n").await;
    node.fake.set_primary(Some(2));
    client.ask("READONLY\r\nGET foo", "+OK\r\n$1\r\n1\r\n").await;
    // Behind the commit position for longer than the allowed lag.
    node.fake.published.set_positions(Seq(1_000), Seq(1_000));
    client.ask("GET foo", "-MOVED 12182 127.0.0.1:7402\r\n").await;
    node.fake.set_primary(None);
    client.send("GET foo\r\n").await;
    assert!(client.line().await.starts_with("-MASTERDOWN "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_primary_commands_wait_and_then_say_so() {
    let node = Node::start();
    node.fake.set_primary(None);
    let mut client = node.connect().await;
    let started = Instant::now();
    client.send("SET foo 1\r\nSET foo 2\r\nGET foo\r\n").await;
    for _ in 0..3 {
        assert!(client.line().await.starts_with("-CLUSTERDOWN "));
    }
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(100), "waited for a primary, {took:?}");
    assert!(took < Duration::from_secs(3), "and once for the round, {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_appears_in_time_serves_what_waited() {
    let mut options = options();
    options.settings.primary_wait = Duration::from_secs(20);
    let node = Node::start_with(options);
    node.fake.set_primary(None);
    let mut client = node.connect().await;
    client.send("SET foo 1\r\n").await;
    tokio::task::yield_now().await;
    node.fake.set_primary(Some(1));
    client.expect("+OK\r\n").await;
    node.fake.set_primary(None);
    client.send("GET foo\r\n").await;
    tokio::task::yield_now().await;
    node.fake.set_primary(Some(3));
    client.expect("-MOVED 12182 127.0.0.1:7403\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_was_not_sealed_goes_to_the_new_primary() {
    let node = Node::start();
    let mut client = node.connect().await;
    node.fake.set_log(Log::Refuse(Refusal::NotPrimary { primary: Some(NodeId(2)) }));
    client.send("SET foo 1\r\n").await;
    while node.fake.batches.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    node.fake.set_primary(Some(2));
    client.expect("-MOVED 12182 127.0.0.1:7402\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_lease_a_read_is_confirmed_by_a_round() {
    let node = Node::start();
    let mut client = node.connect().await;
    client.ask("SET foo 1\r\nGET foo", "+OK\r\n$1\r\n1\r\n").await;
    client.ask("GET foo", "$1\r\n1\r\n").await;
    assert_eq!(*node.fake.rounds.lock(), 0);
    node.fake.published.set_lease(true, MonoTime(0));
    client.ask("GET foo\r\nGET foo", "$1\r\n1\r\n$1\r\n1\r\n").await;
    assert!(*node.fake.rounds.lock() >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admission_budget_holds_writes_back_until_their_deadline() {
    let mut options = options();
    options.settings.admission_bytes_max = 10_000;
    options.settings.store_deadline = Duration::from_millis(300);
    let node = Node::start_with(options);
    node.fake.set_log(Log::Hold);
    let (mut first, mut second) = (node.connect().await, node.connect().await);
    let value = "x".repeat(9_000);
    first.send(&format!("SET a {value}\r\n")).await;
    while node.fake.batches.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    second.send(&format!("SET b {value}\r\n")).await;
    let line = second.line().await;
    assert!(line.starts_with("-OVERLOADED "), "{line}");
    assert_eq!(node.fake.batches.lock().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_input_ends_its_connection_and_no_other() {
    let node = Node::start();
    let mut good = node.connect().await;
    for (bad, answer) in [
        ("*1\r\n+PING\r\n", "-ERR Protocol error: expected '$', got '+'\r\n"),
        ("*-5000000000\r\n$1\r\n", ""),
        ("*1048577\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        ("*1\r\n$999999999999\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        ("SET \"a\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
    ] {
        let mut client = node.connect().await;
        client.send(&format!("PING\r\n{bad}")).await;
        client.expect("+PONG\r\n").await;
        if answer.is_empty() {
            client.stream.shutdown().await.expect("open");
        } else {
            client.expect(answer).await;
        }
        client.expect_end().await;
        good.ask("PING", "+PONG\r\n").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_cut_and_the_others_do_not_notice() {
    let node = Node::start();
    let mut good = node.connect().await;
    let value = "x".repeat(100_000);
    good.ask(&format!("SET big {value}"), "+OK\r\n").await;
    let mut silent = node.connect().await;
    silent.ask("PING", "+PONG\r\n").await;
    // Far more replies than socket buffers and the limit of 1 MiB hold.
    let asking = "GET big\r\n".repeat(2_000);
    let sent = silent.stream.write_all(asking.as_bytes());
    let _ = tokio::time::timeout(Duration::from_secs(20), sent).await;
    let cut = async {
        while node.server.connections() == 2 {
            good.ask("PING", "+PONG\r\n").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), cut).await.expect("it is cut");
    good.ask("PING", "+PONG\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_slowly_gets_everything() {
    let node = Node::start();
    let mut client = node.connect().await;
    let value = "x".repeat(100_000);
    client.ask(&format!("SET big {value}"), "+OK\r\n").await;
    let count = 200;
    client.send(&"GET big\r\n".repeat(count)).await;
    for _ in 0..count {
        assert_eq!(client.reply().await.len(), value.len());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
