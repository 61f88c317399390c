//! Too little memory, and a RocksDB that takes no writes for a while.

use std::time::{Duration, Instant};

use quorate_cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY_LIMIT, poll};
use quorate_cluster_tests::history::Outcome;
use quorate_cluster_tests::http;
use quorate_cluster_tests::resp::Value;
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions, reasons};

use crate::common::{judge_writes, metric, noise};

const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What `/health/ready` says, as status and reason.
fn readiness(cluster: &Cluster, id: u64, query: &str) -> (u16, String) {
    let admin = cluster.settings(id).ports.admin;
    let path = format!("/health/ready{query}");
    let answer = http::get(admin, &path, ANSWER_LIMIT).expect("an answer");
    (answer.status, answer.body)
}

fn error(reply: &Value) -> &str {
    let Value::Error(text) = reply else { panic!("{reply:?} is no error") };
    text
}

#[test]
fn without_memory_writes_are_refused_and_everything_else_goes_on() {
    // Less than any node takes when it does nothing.
    let options = ClusterOptions {
        extra: "[health]\nmemory_limit = \"8MiB\"\n",
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::prepare("no-memory", &options);
    for id in cluster.ids() {
        cluster.start_node(id);
    }
    let primary = cluster.wait_for_primary();
    let mut client = cluster.connect(primary);
    poll(RECOVERY_LIMIT, "a look at memory", || {
        (metric(&cluster, primary, "quorate_memory_full") == 1).then_some(())
    });
    let refused = client.command(&["SET", "key", "value"]).expect("an answer");
    assert!(error(&refused).starts_with("OOM "), "{refused:?}");
    // What only removes is done, and reads are.
    assert_eq!(client.command(&["DEL", "key"]).expect("an answer"), Value::Integer(0));
    assert_eq!(client.command(&["GET", "key"]).expect("an answer"), Value::NullBulk);
    let admin = cluster.settings(primary).ports.admin;
    assert_eq!(http::get(admin, "/health/live", ANSWER_LIMIT).expect("an answer").status, 200);
    assert_eq!(readiness(&cluster, primary, "").0, 200);
    let (status, body) = readiness(&cluster, primary, "?for=write");
    assert!(status == 503 && body.contains("memory_full"), "{status} {body}");
    let refusals = "quorate_admission_refusals_total{reason=\"out_of_memory\"}";
    assert_eq!(metric(&cluster, primary, refusals), 1);
}

#[test]
fn memory_is_given_back_at_three_quarters_of_the_budget() {
    // Memtables and the log's cache alone would fill the budget.
    let options = ClusterOptions {
        extra: "[storage]\njournal_cache_bytes = \"128MiB\"\n\
                [storage.rocksdb]\nwrite_buffer_size = \"256MiB\"\n\
                [health]\nmemory_limit = \"240MiB\"\n",
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start_with("shrink", &options);
    let primary = cluster.wait_for_primary();
    let mut client = cluster.connect(primary);
    let (mut taken, mut refused, mut highest) = (0, 0, 0);
    for n in 0..7_000_u64 {
        let key = format!("key:{n}").into_bytes();
        match client.command(&[b"SET".to_vec(), key, noise(n, 50_000)]).expect("an answer") {
            Value::Simple(_) => taken += 1,
            reply => {
                assert!(error(&reply).starts_with("OOM "), "{reply:?}");
                refused += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        if n % 100 == 0 {
            highest = highest.max(metric(&cluster, primary, "quorate_memory_used_bytes"));
        }
    }
    let figure = |name| metric(&cluster, primary, name);
    println!(
        "{taken} writes of 50 kB taken, {refused} refused; highest {} MB; {} shrinks gave back {} MB",
        highest >> 20,
        figure("quorate_memory_shrinks_total"),
        figure("quorate_memory_freed_bytes_total") >> 20,
    );
    assert!(figure("quorate_memory_shrinks_total") > 0);
    assert!(figure("quorate_memory_freed_bytes_total") > 0);
    assert!(taken > 3_000, "{taken}");
    let budget = figure("quorate_memory_budget_bytes");
    assert_eq!(budget, 240 << 20);
    assert!(highest < budget, "{highest} of {budget}");
    poll(RECOVERY_LIMIT, "writes to be taken", || {
        let reply = client.command(&["SET", "last", "1"]).expect("an answer");
        (reply == Value::Simple("OK".into())).then_some(())
    });
    cluster.wait_until_equal();
}

#[test]
fn writes_survive_a_rocksdb_that_stops_them_again_and_again() {
    // Memtables of the least size, and a stop as soon as level 0 has two files.
    let options = ClusterOptions {
        extra: "[storage.rocksdb]\nwrite_buffer_size = \"64KiB\"\n\
                level0_stop_writes_trigger = 2\nmin_blob_size = 0\n",
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start_with("stalls", &options);
    let primary = cluster.wait_for_primary();
    let load = WriterOptions { writers: 16, pipeline: 16, ..WriterOptions::default() };
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), load);
    let began = Instant::now();
    let stalls = || metric(&cluster, primary, "quorate_state_write_stalls_total");
    while began.elapsed() < Duration::from_secs(8) {
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(readiness(&cluster, primary, "?for=read").0, 200, "reads go on");
    }
    let found = stalls();
    let history = writers.finish();
    println!("{found} writes of the apply loop were put off; {:?}", reasons(&history));
    assert!(found > 10, "RocksDB put off {found} writes only: the test tests nothing");
    let definite =
        history.iter().all(|w| matches!(w.outcome, Outcome::Done(_) | Outcome::Refused(_)));
    assert!(definite, "nothing is in doubt: {:?}", reasons(&history));
    judge_writes(&cluster, &history);
    assert_eq!(metric(&cluster, primary, "quorate_health_latched_total"), 0);
}
