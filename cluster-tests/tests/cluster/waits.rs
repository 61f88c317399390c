//! What clients wait for.

use std::time::{Duration, Instant};

use quorate_cluster_tests::harness::Cluster;
use quorate_cluster_tests::resp::Value;

/// Cursors were shown every 50 ms, and each `WAIT` waited for that.
#[test]
fn wait_is_answered_when_a_cursor_moves() {
    let cluster = Cluster::start("wait");
    let primary = cluster.wait_for_primary();
    let mut client = cluster.connect(primary);
    let mut took: Vec<Duration> = (0..101)
        .map(|n| {
            let set = client.command(&["SET", "key", &n.to_string()]).expect("an answer");
            assert_eq!(set, Value::Simple("OK".into()));
            let since = Instant::now();
            let held = client.command(&["WAIT", "1", "5000"]).expect("an answer");
            assert!(matches!(held, Value::Integer(1 | 2)), "{held:?}");
            since.elapsed()
        })
        .collect();
    took.sort();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    println!("WAIT 1: median {median:?}, longest {longest:?}");
    assert!(median < Duration::from_millis(25), "median {median:?}, longest {longest:?}");
}
