//! Order, batches and transactions.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

use super::{Log, Node};
use crate::submit::DoubtReason;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_keep_the_order_of_mixed_commands() {
    let node = Node::start();
    let mut client = node.connect().await;
    client
        .send("GET a\r\nSET a 1\r\nPING\r\nGET a\r\nnonsense\r\nINCR a\r\nGET a\r\nDBSIZE\r\n")
        .await;
    client
        .expect(
            "$-1\r\n+OK\r\n+PONG\r\n$1\r\n1\r\n-ERR unknown command 'nonsense', with args \
             beginning with: \r\n:2\r\n$1\r\n2\r\n:1\r\n",
        )
        .await;
    client.ask("GET a", "$1\r\n2\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consecutive_writes_are_one_batch_and_a_connection_has_one_on_its_way() {
    let node = Node::start();
    let mut client = node.connect().await;
    // One segment, so that it is one round.
    client.send("SET a 1\r\nSET b 2\r\nGET a\r\nSET c 3\r\n").await;
    client.expect("+OK\r\n+OK\r\n$1\r\n1\r\n+OK\r\n").await;
    assert_eq!(*node.fake.batches.lock(), [4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_of_fifty_thousand_is_answered_once_each_and_in_order() {
    let node = Node::start();
    let client = node.connect().await;
    let (mut reader, mut writer) = client.stream.into_split();
    let count = 50_000;
    let sending = tokio::spawn(async move {
        let pipeline = "INCR counter\r\n".repeat(count);
        writer.write_all(pipeline.as_bytes()).await.expect("it reads");
        writer
    });
    let mut expected = String::new();
    for number in 1..=count {
        let _ = write!(expected, ":{number}\r\n");
    }
    let mut got = vec![0; expected.len()];
    let read = tokio::io::AsyncReadExt::read_exact(&mut reader, &mut got);
    tokio::time::timeout(Duration::from_mins(1), read).await.expect("in time").expect("all");
    assert!(got == expected.as_bytes());
    drop(sending.await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_down_answers_every_command_of_a_pipeline_and_runs_none_twice() {
    for (count, batches) in [(1, 0), (2_000, 0), (2_000, 2), (50_000, 5)] {
        let node = Node::start();
        node.fake.set_log(Log::StepDownAfter(batches));
        let mut client = node.connect().await;
        let (reader, mut writer) = client.stream.split();
        let sending = async {
            let pipeline = "INCR counter\r\n".repeat(count);
            writer.write_all(pipeline.as_bytes()).await.expect("it reads");
        };
        let reading = async {
            let mut lines = tokio::io::BufReader::new(reader).lines();
            let mut done = 0;
            for at in 0..count {
                let line = lines.next_line().await.expect("open").expect("a reply to each");
                if let Some(number) = line.strip_prefix(':') {
                    done += 1;
                    assert_eq!(number, (at + 1).to_string(), "in order, and once");
                } else {
                    assert_eq!(line, "-MOVED 6680 127.0.0.1:7402");
                }
            }
            done
        };
        let both = async { tokio::join!(sending, reading).1 };
        let done = tokio::time::timeout(Duration::from_mins(1), both).await.expect("in time");
        assert!(batches > 0 || done == 0);
        client.ask("PING", "+PONG\r\n").await;
        node.fake.set_primary(Some(1));
        client.ask("GET counter", &value(done)).await;
    }
}

fn value(done: usize) -> String {
    match done {
        0 => "$-1\r\n".to_owned(),
        done => format!("${}\r\n{done}\r\n", done.to_string().len()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_in_many_pieces_is_one_command() {
    let node = Node::start();
    let mut client = node.connect().await;
    for piece in ["*3\r\n$3\r\nSE", "T\r\n$1", "\r\na\r\n$5\r\nhe", "llo", "\r", "\n"] {
        client.send(piece).await;
        client.stream.flush().await.expect("open");
        tokio::task::yield_now().await;
    }
    client.expect("+OK\r\n").await;
    client.ask("GET a", "$5\r\nhello\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_answered_as_a_whole() {
    let node = Node::start();
    let mut client = node.connect().await;
    client.send("MULTI\r\nSET a 1\r\nPING\r\nINCR a\r\nGET a\r\nEXEC\r\nGET a\r\n").await;
    client
        .expect(
            "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n\
             *4\r\n+OK\r\n+PONG\r\n:2\r\n$1\r\n2\r\n$1\r\n2\r\n",
        )
        .await;
    assert_eq!(node.fake.batches.lock()[0], 2, "the read after it went along");
    client.ask("MULTI\r\nEXEC", "+OK\r\n*0\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_end_as_redis_ends_them() {
    let node = Node::start();
    let mut client = node.connect().await;
    client.ask("EXEC", "-ERR EXEC without MULTI\r\n").await;
    client.ask("DISCARD", "-ERR DISCARD without MULTI\r\n").await;
    client.ask("MULTI\r\nMULTI", "+OK\r\n-ERR MULTI calls can not be nested\r\n").await;
    client.ask("WATCH a", "-ERR WATCH inside MULTI is not allowed\r\n").await;
    client.ask("SET a 1\r\nDISCARD\r\nGET a", "+QUEUED\r\n+OK\r\n$-1\r\n").await;
    client.send("MULTI\r\nSET a 1\r\nnonsense\r\nEXEC\r\nGET a\r\n").await;
    client
        .expect(
            "+OK\r\n+QUEUED\r\n-ERR unknown command 'nonsense', with args beginning with: \r\n\
             -EXECABORT Transaction discarded because of previous errors.\r\n$-1\r\n",
        )
        .await;
    client.ask("GET a", "$-1\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_key_that_changed_stops_the_transaction() {
    let node = Node::start();
    let (mut client, mut other) = (node.connect().await, node.connect().await);
    client.ask("SET a 1\r\nWATCH a absent", "+OK\r\n+OK\r\n").await;
    client.ask("MULTI\r\nINCR a\r\nEXEC", "+OK\r\n+QUEUED\r\n*1\r\n:2\r\n").await;

    client.ask("WATCH a", "+OK\r\n").await;
    other.ask("SET a 9", "+OK\r\n").await;
    client.ask("MULTI\r\nINCR a\r\nEXEC", "+OK\r\n+QUEUED\r\n*-1\r\n").await;
    client.ask("GET a", "$1\r\n9\r\n").await;

    client.ask("WATCH a\r\nUNWATCH", "+OK\r\n+OK\r\n").await;
    other.ask("SET a 1", "+OK\r\n").await;
    client.ask("MULTI\r\nINCR a\r\nEXEC", "+OK\r\n+QUEUED\r\n*1\r\n:2\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_a_sealed_batch_says_that_it_may_have_happened() {
    let node = Node::start();
    let mut client = node.connect().await;
    node.fake.set_log(Log::Doubt(DoubtReason::LeadershipLost));
    client.send("SET a 1\r\nPING\r\nSET b 1\r\n").await;
    client
        .expect(
            "-INDOUBT epoch=7 seq=2 index=3 reason=leadership_lost\r\n+PONG\r\n\
             -INDOUBT epoch=7 seq=2 index=4 reason=leadership_lost\r\n",
        )
        .await;
    node.fake.set_log(Log::Commit);
    client.ask("SET a 1", "+OK\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_in_flight_stops_only_its_own_connection() {
    let node = Node::start();
    let (mut stuck, mut other) = (node.connect().await, node.connect().await);
    node.fake.set_log(Log::Hold);
    stuck.send("SET a 1\r\n").await;
    while node.fake.batches.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    node.fake.set_log(Log::Commit);
    other.ask("SET b 1\r\nGET b", "+OK\r\n$1\r\n1\r\n").await;
}
