//! Writes that clients send again, because they don't know what became of the first one.

use std::time::{Duration, Instant};

use quorate_cluster_tests::harness::{Cluster, RECOVERY_LIMIT, poll};
use quorate_cluster_tests::resp::{Client, Value};

const REPLY_LIMIT: Duration = Duration::from_secs(2);

/// Sends an `INCR` with a token until it is answered, to whichever node leads.
fn increment(cluster: &Cluster, token: &str) -> (i64, u32) {
    let mut attempts = 0;
    let reply = poll(RECOVERY_LIMIT, "an answer", || {
        attempts += 1;
        let address = cluster.client_address(cluster.primary()?);
        let mut client = Client::connect(address, REPLY_LIMIT).ok()?;
        client.command(&["SESSION", "TOKEN", token]).ok()?;
        match client.command(&["INCR", "counter"]).ok()? {
            Value::Integer(count) => Some(count),
            // Refused, or in doubt: the token makes both safe to repeat.
            Value::Error(_) => None,
            other => panic!("{other:?}"),
        }
    });
    (reply, attempts)
}

/// A counter that is counted up while its primaries are killed in the middle of it: as often as the
/// client wanted, and each answer is the one that its write had.
#[test]
fn a_write_is_carried_out_once_however_often_it_is_sent_through_failovers() {
    let mut cluster = Cluster::start("tokens");
    cluster.wait_until_writable();
    let (began, mut sent_again) = (Instant::now(), 0);
    for number in 1..=300_i64 {
        if number % 100 == 50 {
            let primary = cluster.wait_for_primary();
            // In the middle of a write that nobody waits for.
            let mut client = cluster.connect(primary);
            client
                .send_all(&[
                    vec!["SESSION".to_owned(), "TOKEN".to_owned(), format!("t{number}")],
                    vec!["INCR".to_owned(), "counter".to_owned()],
                ])
                .expect("sent");
            cluster.kill(primary);
            cluster.start_node(primary);
        }
        let (count, attempts) = increment(&cluster, &format!("t{number}"));
        assert_eq!(count, number, "carried out twice, or not at all");
        sent_again += u64::from(attempts - 1);
    }
    println!("300 increments, sent again {sent_again} times, in {:?}", began.elapsed());
    assert!(sent_again > 0, "nothing was ever in doubt");
    let (count, _) = increment(&cluster, "t1");
    assert_eq!(count, 1, "the first answer, after all that");
    cluster.wait_until_equal();
    let primary = cluster.wait_until_writable();
    let mut client = cluster.connect(primary);
    let stored = client.command(&["GET", "counter"]).expect("a reply");
    assert_eq!(stored, Value::Bulk(b"300".to_vec()));
    let outcome = client.command(&["QUORATE", "OUTCOME", "TOKEN", "t150"]).expect("a reply");
    assert_eq!(outcome, Value::Bulk(b"committed".to_vec()));
}
