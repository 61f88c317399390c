//! redis-py as users run it, through the death of the primary.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use quorate_cluster_tests::harness::{Cluster, RECOVERY_LIMIT, poll, python};
use quorate_cluster_tests::resp::Value;
use serde::Deserialize;

use crate::common::json;

/// What the script prints at its end.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) acknowledged_sets: HashMap<String, String>,
    pub(crate) in_doubt_sets: HashMap<String, String>,
    acknowledged_incrs: i64,
    pub(crate) in_doubt_incrs: i64,
    sent_incrs: i64,
    pub(crate) errors: Vec<String>,
}

/// The running script; it is killed when this is dropped.
pub(crate) struct Script {
    child: Child,
    control: Option<ChildStdin>,
    done: Arc<AtomicU64>,
    reader: Option<JoinHandle<String>>,
}

impl Script {
    pub(crate) fn start(arguments: &[String]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/failover_load.py");
        let mut child = Command::new(python())
            .arg(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start Python");
        let done = Arc::new(AtomicU64::new(0));
        let output = child.stdout.take().expect("its output is piped");
        let control = child.stdin.take();
        let counter = Arc::clone(&done);
        let reader = Some(thread::spawn(move || read(output, &counter)));
        Self { child, control, done, reader }
    }

    pub(crate) fn wait_for_commands(&self, more: u64) {
        let goal = self.done.load(Ordering::Relaxed) + more;
        poll(RECOVERY_LIMIT, "redis-py to go on", || {
            (self.done.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    pub(crate) fn finish(mut self) -> Report {
        let mut control = self.control.take().expect("taken once");
        control.write_all(b"stop\n").expect("the script reads");
        let last = self.reader.take().expect("taken once").join().expect("the reader");
        serde_json::from_str(&last).unwrap_or_else(|error| panic!("{error}: {last}"))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Follows the counts, and returns the last line.
fn read(output: ChildStdout, done: &AtomicU64) -> String {
    let mut last = String::new();
    for line in BufReader::new(output).lines() {
        last = line.expect("text");
        if let Ok(count) = last.parse() {
            done.store(count, Ordering::Relaxed);
        }
    }
    last
}

fn through_the_death_of_the_primary(name: &str, options: &[&str]) {
    let mut cluster = Cluster::start(name);
    let primary = cluster.wait_until_writable();
    // Enter by a node that stays.
    let entry = cluster.client_address(cluster.others(primary)[0]).to_string();
    let mut arguments = vec![entry];
    arguments.extend(options.iter().map(|option| (*option).to_owned()));
    let script = Script::start(&arguments);
    script.wait_for_commands(500);
    cluster.kill(primary);
    script.wait_for_commands(500);
    cluster.start_node(primary);
    script.wait_for_commands(500);
    judge(&cluster, script);
}

/// No exception reached a caller, and what was acknowledged is there.
fn judge(cluster: &Cluster, script: Script) {
    let report = script.finish();
    assert!(report.errors.is_empty(), "{} errors: {:?}", report.errors.len(), report.errors);
    let keys: Vec<String> = report.acknowledged_sets.keys().cloned().collect();
    let store = cluster.read_all(&keys);
    let lost = report.acknowledged_sets.iter().find(|(key, value)| store.get(*key) != Some(value));
    assert_eq!(lost, None, "an acknowledged SET is lost");
    for (key, value) in cluster.read_all(&report.in_doubt_sets.keys().cloned().collect::<Vec<_>>())
    {
        assert_eq!(report.in_doubt_sets[&key], value, "{key}");
    }
    let mut client = cluster.connect(cluster.wait_until_writable());
    let reply = client.command(&["GET", "py:counter"]).expect("a reply");
    let total: i64 = match &reply {
        Value::Bulk(digits) => String::from_utf8_lossy(digits).parse().expect("a number"),
        other => panic!("the counter is {other:?}"),
    };
    assert!(
        (report.acknowledged_incrs..=report.sent_incrs).contains(&total),
        "{total} is not between {} acknowledged and {} sent INCRs",
        report.acknowledged_incrs,
        report.sent_incrs
    );
    println!(
        "{} SET and {} INCR acknowledged, counter {total}, {} INCR sent, {} + {} in doubt",
        report.acknowledged_sets.len(),
        report.acknowledged_incrs,
        report.sent_incrs,
        report.in_doubt_sets.len(),
        report.in_doubt_incrs
    );
    cluster.wait_until_equal();
}

#[test]
fn four_clients_write_through_the_death_of_the_primary() {
    through_the_death_of_the_primary("redis-py", &[]);
}

#[test]
fn four_threads_of_one_client_write_through_the_death_of_the_primary() {
    through_the_death_of_the_primary("redis-py-shared", &["--shared"]);
}

/// Leadership goes round while they write: a planned switchover costs a client nothing but time.
#[test]
fn four_clients_write_through_ten_switchovers() {
    let cluster = Cluster::start("redis-py-promote");
    let primary = cluster.wait_until_writable();
    let script = Script::start(&[cluster.client_address(primary).to_string()]);
    for run in 0..10 {
        script.wait_for_commands(300);
        let promoted = json(&cluster, cluster.ids()[run % 3], &["promote"]);
        println!("{promoted}");
    }
    script.wait_for_commands(300);
    judge(&cluster, script);
}
