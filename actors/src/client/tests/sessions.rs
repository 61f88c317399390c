//! How connections begin and end, and what they agree on.

use std::time::{Duration, Instant};

use quorate_protocol::policy::{Policy, Threshold};
use quorate_protocol::types::{MonoTime, NodeId};

use super::{Node, options};
use crate::view::{PeerView, View};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hello_3_changes_how_replies_are_written() {
    let node = Node::start();
    let mut client = node.connect().await;
    client.ask("GET absent", "$-1\r\n").await;
    client.send("HELLO 3\r\n").await;
    client.expect("%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.2.4\r\n").await;
    client.expect("$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1\r\n$4\r\nmode\r\n$7\r\ncluster\r\n").await;
    client.expect("$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n").await;
    client.ask("GET absent", "_\r\n").await;
    client.send("INFO\r\n").await;
    let info = client.reply().await;
    assert!(info.starts_with("txt:# Server\r\nredis_version:7.2.4\r\nquorate_version:"), "{info}");
    for line in ["role:master", "cluster_enabled:1", "loading:0", "connected_clients:1"] {
        assert!(info.contains(&format!("\r\n{line}\r\n")), "{line} in {info}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_comes_first() {
    let mut options = options();
    options.settings.requirepass = Some("secret".to_owned());
    let node = Node::start_with(options);
    let mut client = node.connect().await;
    client.ask("SET a 1\r\nPING", &"-NOAUTH Authentication required.\r\n".repeat(2)).await;
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    client.ask("AUTH other", wrong).await;
    // More than ten arguments.
    let mut hostile = node.connect().await;
    hostile.send("*11\r\n").await;
    hostile.expect("-ERR Protocol error: unauthenticated multibulk length\r\n").await;
    hostile.expect_end().await;

    client.ask("AUTH secret", "+OK\r\n").await;
    client.ask("SET a 1\r\nGET a", "+OK\r\n$1\r\n1\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_never_authenticates_is_closed() {
    let mut options = options();
    options.settings.requirepass = Some("secret".to_owned());
    options.handshake_deadline = Duration::from_millis(1);
    let node = Node::start_with(options);
    node.connect().await.expect_end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_clients_than_allowed_are_told_so() {
    let mut options = options();
    options.settings.maxclients = 1;
    let node = Node::start_with(options);
    let mut first = node.connect().await;
    first.ask("PING", "+PONG\r\n").await;
    let mut second = node.connect().await;
    second.expect("-ERR max number of clients reached\r\n").await;
    second.expect_end().await;
    first.ask("QUIT", "+OK\r\n").await;
    first.expect_end().await;
    let again = async {
        while node.server.connections() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again).await.expect("room again");
    node.connect().await.ask("PING", "+PONG\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_lets_replies_leave() {
    let node = Node::start();
    let mut client = node.connect().await;
    client.ask("SET a 1", "+OK\r\n").await;
    assert!(node.server.stop(Duration::from_secs(10)).await);
    client.expect_end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_topology_has_the_primary_first_and_keeps_the_last_one() {
    let node = Node::start();
    let mut client = node.connect().await;
    client.send("CLUSTER NODES\r\n").await;
    let nodes = client.reply().await;
    let first = nodes.lines().next().expect("a line");
    assert!(first.contains(" 127.0.0.1:7401@7411 myself,master - 0 0 7 connected 0-16383"));
    assert_eq!(first.split(' ').next().map(str::len), Some(40));
    // No replica is connected, so none is shown.
    assert_eq!(nodes.lines().count(), 1);

    node.fake.set_primary(Some(2));
    client.send("CLUSTER NODES\r\n").await;
    let nodes = client.reply().await;
    let lines: Vec<&str> = nodes.lines().collect();
    assert!(lines[0].contains("127.0.0.1:7402@7412 master - 0 0 7 connected 0-16383"), "{nodes}");
    assert!(lines[1].contains("myself,slave"), "{nodes}");

    node.fake.set_primary(None);
    client.send("CLUSTER NODES\r\n").await;
    let nodes = client.reply().await;
    assert!(nodes.lines().next().expect("a line").contains("127.0.0.1:7402@"), "{nodes}");
    client.send("CLUSTER INFO\r\n").await;
    assert!(client.reply().await.contains("cluster_state:fail\r\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_names_the_primary_only_once_it_has_heard_from_one_since() {
    let mut options = options();
    options.settings.primary_wait = Duration::from_secs(20);
    let node = Node::start_with(options);
    node.fake.set_primary(Some(2));
    node.fake.published.set_heard(MonoTime(0));
    let mut client = node.connect().await;
    client.send("CLUSTER NODES\r\n").await;
    // Node 2 is gone, which this replica doesn't know yet. Node 3 follows.
    tokio::time::sleep(Duration::from_millis(20)).await;
    node.fake.set_primary(Some(3));
    let nodes = client.reply().await;
    assert!(nodes.lines().next().expect("a line").contains("127.0.0.1:7403@"), "{nodes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wait_counts_other_members() {
    let node = Node::start();
    let mut client = node.connect().await;
    client.ask("SET a 1\r\nWAIT 1 10", "+OK\r\n:0\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wait_is_answered_by_the_cursor_that_moves() {
    let node = Node::start();
    let published = &node.fake.published;
    let mut client = node.connect().await;
    client.ask("SET a 1", "+OK\r\n").await;
    assert!(!published.cursors_are_watched(), "nobody pays where nobody waits");
    client.send("WAIT 1 9000\r\n").await;
    let deadline = Instant::now() + Duration::from_secs(5);
    while !published.cursors_are_watched() {
        assert!(Instant::now() < deadline, "the quorum actor isn't told");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let peer = PeerView {
        node: NodeId(2),
        connected: true,
        in_memory: published.committed(),
        ..PeerView::default()
    };
    published.set_view(View { peers: vec![peer], ..View::clone(&published.view()) });
    client.expect(":1\r\n").await;
    assert!(Instant::now() < deadline, "long before its own time is over");
    assert!(!published.cursors_are_watched());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_spoils_a_transaction_and_says_why() {
    let node = Node::start();
    let mut client = node.connect().await;
    client.ask("MULTI\r\nSET a 1", "+OK\r\n+QUEUED\r\n").await;
    for walk in ["KEYS *", "SCAN 0", "RANDOMKEY", "CLUSTER COUNTKEYSINSLOT 1"] {
        client
            .ask(
                walk,
                "-ERR commands that walk over keys are not allowed inside a transaction: all \
                 writes would wait for the walk\r\n",
            )
            .await;
    }
    let aborted = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    client.ask("EXEC\r\nGET a", &format!("{aborted}$-1\r\n")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_may_ask_for_more_durability_and_not_for_less() {
    let node = Node::start();
    let mut client = node.connect().await;
    let weaker = "-ERR persisted>=1 is weaker than the cluster's policy, persisted>=majority\r\n";
    client.ask("SESSION DURABILITY local", weaker).await;
    client.ask("SESSION DURABILITY memory", &weaker.replace("persisted>=1", "in_memory>=2")).await;
    let too_many = "-ERR clause `persisted>=4` asks for 4 copies, but there are 3 voters\r\n";
    client.ask("SESSION DURABILITY persisted>=4", too_many).await;
    client.ask("SET a 1", "+OK\r\n").await;
    client.ask("SESSION DURABILITY persisted>=1 && in_memory>=all", "+OK\r\n").await;
    client.ask("SET a 2", "+OK\r\n").await;
    let mut other = node.connect().await;
    other.ask("SET a 3", "+OK\r\n").await;
    client.ask("SESSION DURABILITY majority", "+OK\r\n").await;
    client.ask("SET a 4", "+OK\r\n").await;
    client.ask("SESSION DURABILITY all", "+OK\r\n").await;
    client.ask("RESET", "+RESET\r\n").await;
    client.ask("SET a 5", "+OK\r\n").await;
    let more = Policy { persisted: Some(Threshold::Count(1)), in_memory: Some(Threshold::All) };
    assert_eq!(*node.fake.durability.lock(), [None, Some(more), None, None, None]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_are_told_by_a_primary_that_may_serve_reads() {
    let node = Node::start();
    let mut client = node.connect().await;
    client.ask("SET a 1\r\nSET a 2", "+OK\r\n+OK\r\n").await;
    client.ask("SET a 3", "+OK\r\n").await;
    client.ask("QUORATE LASTWRITE", "*4\r\n$5\r\nepoch\r\n:7\r\n$3\r\nseq\r\n:3\r\n").await;
    let rounds = *node.fake.rounds.lock();
    for (asked, outcome) in [
        ("7 3", "committed"),
        ("6 3", "lost"),
        ("6 2", "committed"),
        ("7 2", "lost"),
        ("6 1", "unknown"),
        ("7 4", "pending"),
        ("6 4", "pending"),
    ] {
        let reply = format!("${}\r\n{outcome}\r\n", outcome.len());
        client.ask(&format!("QUORATE OUTCOME {asked}"), &reply).await;
    }
    assert_eq!(*node.fake.rounds.lock(), rounds + 7, "each was confirmed");
    let inside = "-ERR QUORATE OUTCOME is not allowed inside a transaction\r\n";
    let replies = format!("+OK\r\n+QUEUED\r\n*1\r\n{inside}");
    client.ask("MULTI\r\nQUORATE OUTCOME 7 3\r\nEXEC", &replies).await;
    // Even where the session reads from replicas.
    client.ask("READONLY", "+OK\r\n").await;
    node.fake.set_primary(Some(2));
    let denied = "-CLUSTERDOWN This node isn't the primary, and this command needs it\r\n";
    client.ask("QUORATE OUTCOME 7 3", denied).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_sent_again_with_its_token_happens_once() {
    let node = Node::start();
    let mut client = node.connect().await;
    client.ask("SESSION TOKEN order-1", "+OK\r\n").await;
    // Reads in between don't take it.
    client.ask("GET n", "$-1\r\n").await;
    client.ask("INCR n", ":1\r\n").await;
    client.ask("INCR n", ":2\r\n").await;
    let mut again = node.connect().await;
    again.ask("QUORATE OUTCOME TOKEN order-1", "$9\r\ncommitted\r\n").await;
    again.ask("QUORATE OUTCOME TOKEN order-2", "$7\r\nunknown\r\n").await;
    again.ask("SESSION TOKEN order-1\r\nINCR n\r\nGET n", "+OK\r\n:1\r\n$1\r\n2\r\n").await;
    // A transaction is one write.
    for _ in 0..2 {
        again.ask("SESSION TOKEN t\r\nMULTI", "+OK\r\n+OK\r\n").await;
        again.ask("INCR n\r\nGET n", "+QUEUED\r\n+QUEUED\r\n").await;
        again.ask("EXEC", "*2\r\n:3\r\n$1\r\n3\r\n").await;
    }
    let long = "x".repeat(129);
    again.ask(&format!("SESSION TOKEN {long}"), "-ERR a token has 1 to 128 bytes\r\n").await;
    again.ask("RESET\r\nGET n", "+RESET\r\n$1\r\n3\r\n").await;
}
