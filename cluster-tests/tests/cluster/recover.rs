//! Quorum loss: one node goes on alone by an operator's order, and says what that may cost.

use std::path::Path;
use std::process::{Command, Output};

use quorate_cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY_LIMIT, Role, binary, poll};
use quorate_cluster_tests::history::judge;
use quorate_cluster_tests::resp::Value;
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions, keys};
use serde_json::Value as Json;

use crate::common::{judge_writes, token, wait_for_voter, wait_for_writes};
use crate::drill::drill;

/// Runs `quorate recover` for one node, with no terminal.
fn recover(cluster: &Cluster, survivor: u64, arguments: &[&str]) -> Output {
    Command::new(binary())
        .arg("recover")
        .arg("--config")
        .arg(cluster.settings(survivor).config_file())
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("start the binary")
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

fn json(output: &Output) -> Json {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(output)))
}

/// Waits until every node that runs holds the same log, so that any may survive without a loss.
fn under_load(cluster: &Cluster, more: u64) -> UniqueWriters {
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, more);
    writers
}

/// Everything that decides whether this directory may elect anybody.
fn promises(data: &Path) -> Vec<Vec<u8>> {
    ["hardstate.a", "hardstate.b", "identity"]
        .map(|name| std::fs::read(data.join(name)).expect("a file of the data directory"))
        .to_vec()
}

#[test]
fn two_nodes_lost_for_good_and_the_third_goes_on() {
    let mut cluster = Cluster::start("recover-two-lost");
    let writers = under_load(&cluster, 500);
    let survivor = cluster.wait_for_primary();
    let [second, third] = cluster.others(survivor)[..] else { panic!("three nodes") };
    let history = writers.finish();
    cluster.wait_until_equal();
    for id in cluster.ids() {
        cluster.kill(id);
    }
    let data = cluster.settings(survivor).data_dir();
    let before = promises(&data);

    // Two copies can elect: nothing may be given up.
    let other = cluster.settings(second).data_dir().display().to_string();
    let refused = recover(&cluster, survivor, &["--copy", &other, "--dry-run"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("can elect a primary"), "{}", said(&refused));
    cluster.wipe(second);

    let looked = recover(&cluster, survivor, &["--dry-run"]);
    println!("{}", said(&looked));
    assert!(looked.status.success());
    let all = format!("{second},{third}");
    let fenced = ["--fenced", &all, "--confirm"];
    for (arguments, missing) in [
        (&[][..], "--fenced"),
        (&["--fenced", &all][..], "--confirm 'recover test'"),
        (&[&fenced[..], &["recover shop"]].concat()[..], "nothing was changed"),
    ] {
        let refused = recover(&cluster, survivor, arguments);
        assert!(
            !refused.status.success() && said(&refused).contains(missing),
            "{}",
            said(&refused)
        );
    }
    assert_eq!(promises(&data), before, "looking and refusing change nothing");

    let done = recover(&cluster, survivor, &[&fenced[..], &["recover test", "--json"]].concat());
    assert!(done.status.success(), "{}", said(&done));
    let report = json(&done);
    println!("{report}");
    assert_eq!(report["recovered"]["generation"], 1);
    let record = std::fs::read_to_string(data.join("recoveries.jsonl")).expect("a record");
    assert!(record.contains("\"begun\"") && record.contains("\"done\""), "{record}");

    cluster.start_node(survivor);
    cluster.wait_until_writable();
    let verdict = judge_writes(&cluster, &history);
    assert!(verdict.acknowledged >= 500, "the survivor held all of them: {verdict}");

    // An old member comes back with its data: it neither gets in nor loses what it holds.
    let old = cluster.settings(third).data_dir();
    let kept = cluster.status(survivor).expect("it runs").generation;
    assert_eq!(kept, 1);
    cluster.start_node(third);
    let mut client = cluster.connect(survivor);
    let ok = client.command(&["SET", "after", "1"]).expect("a reply");
    assert_eq!(ok, Value::Simple("OK".into()));
    assert!(cluster.status(third).is_none_or(|status| status.role != Role::Primary));
    cluster.kill(third);
    let behind = report["recovered"]["kept_seq"].as_u64().expect("a position") - 1;
    let shown = Command::new(binary())
        .args(["tail", "show", "--after", &behind.to_string()])
        .arg(&old)
        .output()
        .expect("start the binary");
    assert!(shown.status.success() && !shown.stdout.is_empty(), "{}", said(&shown));
}

/// What is left of a cluster becomes one that bears failures again, and the lost nodes stay outside.
#[test]
fn a_survivor_grows_back_to_three_that_pass_a_drill() {
    let extra = "ca_key = \"../pki/ca.key\"\n";
    let options = ClusterOptions { extra, ..ClusterOptions::default() };
    let mut cluster = Cluster::start_with("recover-grow", &options);
    let writers = under_load(&cluster, 300);
    let survivor = cluster.wait_for_primary();
    let lost = cluster.others(survivor);
    let history = writers.finish();
    cluster.wait_until_equal();
    for id in cluster.ids() {
        cluster.kill(id);
    }
    let all: Vec<String> = lost.iter().map(u64::to_string).collect();
    let arguments = ["--fenced", &all.join(","), "--confirm", "recover test"];
    assert!(recover(&cluster, survivor, &arguments).status.success());
    cluster.start_node(survivor);
    cluster.wait_until_writable();
    for id in [4, 5] {
        let file = token(&cluster, survivor, id, &[]);
        cluster.join_by_token(id, &file, survivor);
        wait_for_voter(&cluster, survivor, id);
    }
    // The lost ones, back after all, are told by whomever they call, and keep what they hold.
    for id in lost {
        cluster.start_node(id);
        assert!(!cluster.wait_for_end(id).success());
        let log = std::fs::read_to_string(cluster.settings(id).log_file()).expect("a log");
        assert!(log.contains("was removed from the cluster"), "{log}");
        assert!(cluster.settings(id).data_dir().join("hardstate.a").exists());
        cluster.drop_node(id);
    }
    let report = drill(&mut cluster, survivor, &["--kill", "--runs", "2"]);
    assert_eq!((&report["passed"], &report["summary"]["lost"]), (&true.into(), &0.into()));
    cluster.wait_until_equal();
    let verdict = judge_writes(&cluster, &history);
    assert!(verdict.acknowledged >= 300, "{verdict}");
}

#[test]
fn a_recovery_that_was_cut_short_is_noticed_and_done_again() {
    let mut cluster = Cluster::start("recover-cut-short");
    let history = under_load(&cluster, 300).finish();
    cluster.wait_until_equal();
    let survivor = cluster.wait_for_primary();
    for id in cluster.ids() {
        cluster.kill(id);
    }
    let all: Vec<String> = cluster.others(survivor).iter().map(u64::to_string).collect();
    let all = all.join(",");
    let arguments = ["--fenced", &all, "--confirm", "recover test"];
    let data = cluster.settings(survivor).data_dir();
    let copy = cluster.dir().join("before");
    copy_dir(&data, &copy);
    assert!(recover(&cluster, survivor, &arguments).status.success());
    // The hard state as it is now, everything else as it was: a crash between the two steps.
    for name in ["hardstate.a", "hardstate.b"] {
        std::fs::copy(data.join(name), copy.join(name)).expect("copied");
    }
    std::fs::remove_dir_all(&data).expect("removed");
    copy_dir(&copy, &data);
    cluster.start_node(survivor);
    let ended = poll(RECOVERY_LIMIT, "the node to end", || {
        cluster.process(survivor).wait_for_end(std::time::Duration::ZERO)
    });
    assert_eq!(ended.code(), Some(1));
    let log = std::fs::read_to_string(cluster.settings(survivor).log_file()).expect("a log");
    assert!(log.contains("lossy recovery of this node was cut short"), "{log}");
    let again = recover(&cluster, survivor, &arguments);
    assert!(again.status.success(), "{}", said(&again));
    assert_eq!(cluster.restart_ended(), [survivor]);
    judge_writes(&cluster, &history);
}

/// Under `local` the primary's disk alone may hold an acknowledged write: that it is lost must show,
/// in the words before and in the count afterwards.
#[test]
fn under_local_a_wiped_primary_costs_writes_within_what_was_said() {
    let options = ClusterOptions { policy: "local", ..ClusterOptions::default() };
    let mut cluster = Cluster::start_with("recover-local", &options);
    let primary = cluster.wait_for_primary();
    let others = cluster.others(primary);
    let writers = under_load(&cluster, 200);
    for id in &others {
        cluster.kill(*id);
    }
    // These reach the primary alone.
    wait_for_writes(&writers, 200);
    cluster.kill(primary);
    let history = writers.finish();
    cluster.wipe(primary);
    for id in &others {
        cluster.start_node(*id);
    }
    let (best, other) = {
        let last = |id: u64| poll(RECOVERY_LIMIT, "an answer", || cluster.status(id)).last_seq;
        if last(others[0]) >= last(others[1]) {
            (others[0], others[1])
        } else {
            (others[1], others[0])
        }
    };
    cluster.stop(best);
    let admin = format!("http://{}", cluster.settings(other).ports.admin);
    let all = format!("{primary},{other}");
    let arguments = ["--admin", &admin, "--fenced", &all, "--confirm", "recover test", "--json"];
    let done = recover(&cluster, best, &arguments);
    assert!(done.status.success(), "{}", said(&done));
    let report = json(&done);
    println!("{report}");
    let kept = report["recovered"]["kept_seq"].as_u64().expect("a position");
    assert_eq!(report["at_risk"]["unknown_beyond_seq"], kept);
    assert_eq!(report["unknown"], serde_json::json!([primary]));
    cluster.start_node(best);
    cluster.wait_until_writable();
    let found = cluster.read_all(&keys(&history));
    let lost = judge(&history, &found).expect_err("writes are lost").len();
    println!("{lost} acknowledged writes are lost, all behind entry {kept}");
    assert!(lost >= 100, "two hundred were acknowledged by the primary alone: {lost}");
}

#[test]
fn a_survivor_that_is_behind_or_runs_is_refused() {
    let options = ClusterOptions { policy: "local", ..ClusterOptions::default() };
    let mut cluster = Cluster::start_with("recover-behind", &options);
    let primary = cluster.wait_for_primary();
    let behind = cluster.others(primary)[0];
    let running = recover(&cluster, behind, &["--dry-run"]);
    assert!(said(&running).contains("is in use by process"), "{}", said(&running));
    cluster.kill(behind);
    drop(under_load(&cluster, 200).finish());
    for id in cluster.others(behind) {
        cluster.kill(id);
    }
    let further = cluster.settings(primary).data_dir().display().to_string();
    let refused = recover(&cluster, behind, &["--copy", &further, "--dry-run"]);
    let text = said(&refused);
    assert!(text.contains(&format!("node {primary} holds entries")), "{text}");
    let looked = ["--copy", &further, "--give-up-more", "--dry-run", "--json"];
    let report = json(&recover(&cluster, behind, &looked));
    println!("{report}");
    let [first, last] = ["first_seq", "last_seq"].map(|key| report["at_risk"][key].as_u64());
    assert!(first.zip(last).is_some_and(|(first, last)| last > first), "{report}");
    assert_eq!(report["most_complete"], primary);
    assert!(recover(&cluster, primary, &["--dry-run"]).status.success());
}

fn copy_dir(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.expect("cp").success(), "{} can't be copied", from.display());
}
