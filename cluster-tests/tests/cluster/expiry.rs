//! Keys that expire.

use std::time::Duration;

use quorate_cluster_tests::harness::{Cluster, RECOVERY_LIMIT, poll};
use quorate_cluster_tests::resp::Value;

/// They were removed only while other commands were applied: without any they stayed for ever.
#[test]
fn expired_keys_leave_an_idle_cluster() {
    let cluster = Cluster::start("expiry");
    let primary = cluster.wait_for_primary();
    let mut client = cluster.connect(primary);
    let set = client.command(&["SET", "stays", "1"]).expect("an answer");
    assert_eq!(set, Value::Simple("OK".into()));
    // The harness may have written keys, too.
    let stay = client.command(&["DBSIZE"]).expect("an answer");
    for n in 0..200 {
        let key = format!("leaves {n}");
        let set = client.command(&["SET", &key, "1", "PX", "300"]).expect("an answer");
        assert_eq!(set, Value::Simple("OK".into()));
    }
    poll(RECOVERY_LIMIT, "expired keys to leave", || {
        (client.command(&["DBSIZE"]).expect("an answer") == stay).then_some(())
    });
    // Then the cluster is at rest again.
    let before = cluster.wait_until_equal();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(cluster.wait_until_equal(), before);
}
