//! The schedule of an archive: what is shown of it, who keeps to it, and new settings for a running node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate_cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY_LIMIT, binary, poll};
use serde_json::{Value as Json, json};

use crate::archives::{Oracle, back_up, json as parsed, quorate, said, verify};
use crate::common::{self, json as ask, metric, noise};

/// One node whose `[archive]` has these lines, and the target's directory.
fn start(name: &str, lines: &str) -> (Cluster, PathBuf) {
    let mut cluster =
        Cluster::prepare(name, &ClusterOptions { nodes: 1, ..ClusterOptions::default() });
    let target = cluster.dir().join("archive");
    fs::create_dir(&target).expect("made");
    configure(&mut cluster, &target, lines);
    cluster.start_node(1);
    cluster.wait_until_writable();
    (cluster, target)
}

/// Writes the file of node 1 anew.
fn configure(cluster: &mut Cluster, target: &Path, lines: &str) {
    let extra = format!("[archive]\ntarget = \"{}\"\n{lines}", target.display());
    cluster.settings_mut(1).extra = extra;
    cluster.settings(1).write();
}

/// Has the node read its file again, and returns its answer.
fn reload(cluster: &Cluster) -> Output {
    common::quorate(cluster, 1, &["config", "reload", "--json"])
}

/// The same, which changes these keys of the archive.
fn reload_changes(cluster: &Cluster, keys: &[&str]) {
    let applied = |key: &&str| json!({ "key": format!("archive.{key}"), "result": "applied" });
    let expected: Vec<Json> = keys.iter().map(applied).collect();
    let report = parsed(&reload(cluster));
    assert_eq!((&report["applied"], &report["keys"]), (&true.into(), &expected.into()), "{report}");
}

fn good(cluster: &Cluster) -> u64 {
    metric(cluster, 1, "quorate_backups_total{outcome=\"good\"}")
}

/// What `quorate backup schedule` says of a node.
fn schedule(cluster: &Cluster, node: u64) -> Json {
    ask(cluster, node, &["backup", "schedule"])
}

fn moment(job: &Json, which: &str) -> u64 {
    job[which].as_u64().unwrap_or_else(|| panic!("no {which}: {job}"))
}

fn snapshots(target: &Path) -> Vec<Json> {
    let path = target.display().to_string();
    let listed = parsed(&quorate(&["backup", "--json", "list", "--target", &path]));
    listed["snapshots"].as_array().expect("a list").clone()
}

#[test]
fn a_schedule_changes_while_the_node_runs() {
    let lines = "interval = \"1h\"\nsnapshot_interval = \"2h\"\nretain_snapshots = 0\n";
    let (mut cluster, target) = start("backup-reload", lines);
    let mut oracle = Oracle::new(&cluster);
    oracle.write(20);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(good(&cluster), 0, "an hour has not gone by");

    // The time since the start counts.
    let lines = "interval = \"1s\"\nsnapshot_interval = \"2h\"\nretain_snapshots = 0\n";
    configure(&mut cluster, &target, lines);
    reload_changes(&cluster, &["interval"]);
    poll(RECOVERY_LIMIT, "backups every second", || (good(&cluster) >= 3).then_some(()));
    assert_eq!(snapshots(&target).len(), 1, "the first run makes one");

    let lines = "interval = \"1s\"\nsnapshot_interval = \"1s\"\nretain_snapshots = 0\n";
    configure(&mut cluster, &target, lines);
    reload_changes(&cluster, &["snapshot_interval"]);
    poll(RECOVERY_LIMIT, "snapshots every second", || {
        oracle.write(5);
        (snapshots(&target).len() >= 4).then_some(())
    });

    // What is kept counts with the next run, not with the next snapshot.
    let lines = "interval = \"1s\"\nsnapshot_interval = \"2h\"\nretain_snapshots = 2\n\
                 verify_interval = \"1s\"\n";
    configure(&mut cluster, &target, lines);
    let pid = Pid::from_raw(cluster.process(1).pid().cast_signed());
    kill(pid, Signal::SIGHUP).expect("it runs");
    poll(RECOVERY_LIMIT, "the archive to be pruned", || {
        (snapshots(&target).len() == 2).then_some(())
    });
    poll(RECOVERY_LIMIT, "the archive to be compared", || {
        let verified = "quorate_backup_verified_restore_timestamp_seconds";
        (metric(&cluster, 1, verified) > 0).then_some(())
    });
    assert_eq!(parsed(&verify(&target, &[]))["faults"], json!([]));
}

#[test]
fn a_new_rate_holds_for_the_backup_that_is_under_way() {
    const MIB: u64 = 1 << 20;
    let lines = "interval = \"1h\"\nsnapshot_interval = \"1h\"\nbytes_per_second = ";
    let (mut cluster, target) = start("backup-rate", &format!("{lines}\"1MiB\"\n"));
    let mut client = cluster.connect(1);
    for n in 0..30 {
        let key = format!("large:{n}").into_bytes();
        client.command(&[b"SET".to_vec(), key, noise(n, 1 << 20)]).expect("a reply");
    }
    let admin = format!("http://{}", cluster.settings(1).ports.admin);
    let mut running = Command::new(binary())
        .args(["backup", "--json", "--admin", &admin, "create"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the binary");
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(running.try_wait().expect("it can be asked"), None, "30 MiB take 30 s");
    configure(&mut cluster, &target, &format!("{lines}\"1GiB\"\nack = \"ack_n 2\"\n"));
    reload_changes(&cluster, &["bytes_per_second", "ack"]);
    let made = parsed(&running.wait_with_output().expect("it ends"));
    let took = began.elapsed();
    println!("after {took:?}: {made}");
    assert!(made["bytes"].as_u64() > Some(30 * MIB), "{made}");
    // Of them, 5 s for another voter, which there is none of.
    assert!(took < Duration::from_secs(20), "{took:?}");
    let steps = made["steps"].as_array().expect("steps");
    let waited = steps.iter().find(|step| step["step"] == "ack wait").expect("the step");
    assert!(waited["missed"].as_str().is_some_and(|why| why.contains("1 of 2 voters")), "{made}");
}

/// Two keys that could change, and something beside them that can't.
#[test]
fn a_schedule_changes_wholly_or_not_at_all() {
    let lines = "interval = \"1h\"\nsnapshot_interval = \"1h\"\n";
    let (mut cluster, target) = start("backup-reload-refused", lines);
    let shorter = "interval = \"1s\"\nsnapshot_interval = \"1s\"\n";
    for (wrong, expected) in [
        ("bytes_per_second = \"1KiB\"\n", "archive.bytes_per_second: must be at least 1MiB"),
        ("ack = \"all\"\n", "archive.ack: local, policy, or ack_n N"),
        (
            "verify_interval = \"0s\"\n",
            "archive.verify_interval: must be at least archive.interval",
        ),
        ("retain_age = \"often\"\n", "archive.retain_age: \"often\" is not a duration"),
    ] {
        configure(&mut cluster, &target, &format!("{shorter}{wrong}"));
        let refused = reload(&cluster);
        println!("{}", said(&refused));
        assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
        let report: Json = serde_json::from_slice(&refused.stdout).expect("JSON");
        assert_eq!((&report["applied"], &report["keys"]), (&false.into(), &json!([])));
        let error = report["error"].as_str().expect("what is wrong");
        assert!(error.contains(expected) && error.contains("quorate.toml:"), "{error}");
    }
    let other = cluster.dir().join("other");
    fs::create_dir(&other).expect("made");
    configure(&mut cluster, &other, shorter);
    let refused = reload(&cluster);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    let report: Json = serde_json::from_slice(&refused.stdout).expect("JSON");
    let result = |key: &str, result: &str| json!({ "key": key, "result": result });
    let expected = json!([
        result("archive.target", "needs_restart"),
        result("archive.interval", "not_applied"),
        result("archive.snapshot_interval", "not_applied"),
    ]);
    assert_eq!(report["keys"], expected, "{report}");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(good(&cluster), 0, "nothing has changed");
    assert_eq!(fs::read_dir(&target).expect("a folder").count(), 0);
    parsed(&back_up(&cluster, 1, &target, &[]));
}

/// It shows whose answer it is, and what was configured below.
fn assert_settings(shown: &Json, primary: u64, target: &Path) {
    for (key, expected) in [
        ("node", primary.into()),
        ("primary", primary.into()),
        ("archives", true.into()),
        ("target", target.display().to_string().into()),
        ("written_by", primary.into()),
        ("retain_snapshots", 7.into()),
        ("retain_age_seconds", (30.0 * 86_400.0).into()),
        ("retain_bytes", Json::Null),
        ("bytes_per_second", (64 << 20).into()),
        ("ack", "ack_n 2".into()),
        ("final_backup", false.into()),
    ] {
        assert_eq!(shown[key], expected, "{key}: {shown}");
    }
}

#[test]
fn a_schedule_is_shown_with_what_came_of_it_and_what_is_due() {
    let mut cluster = Cluster::prepare("backup-schedule-shown", &ClusterOptions::default());
    let target = cluster.dir().join("archive");
    fs::create_dir(&target).expect("made");
    for id in cluster.ids() {
        cluster.settings_mut(id).extra = format!(
            "[archive]\ntarget = \"{}\"\ninterval = \"1s\"\nsnapshot_interval = \"2h\"\n\
             verify_interval = \"2s\"\nretain_age = \"30d\"\nack = \"ack_n 2\"\n",
            target.display()
        );
        cluster.settings(id).write();
        cluster.start_node(id);
    }
    let primary = cluster.wait_until_writable();
    let replica = cluster.others(primary)[0];
    Oracle::new(&cluster).write(10);
    let shown = poll(RECOVERY_LIMIT, "a backup and a comparison", || {
        let shown = schedule(&cluster, primary);
        let done = |job: &str| shown[job]["succeeded_at_ms"].is_u64();
        (done("runs") && done("verifications")).then_some(shown)
    });
    println!("{shown}");
    assert_settings(&shown, primary, &target);
    let runs = &shown["runs"];
    assert_eq!((&runs["interval_seconds"], &runs["failure"]), (&1.0.into(), &Json::Null));
    let due = moment(runs, "due_at_ms");
    assert!(due <= moment(runs, "ended_at_ms") + 5_000, "{shown}");
    let copies = &shown["snapshots"];
    let made = moment(copies, "ended_at_ms");
    assert_eq!(moment(copies, "due_at_ms").abs_diff(made + 7_200_000) / 5_000, 0, "{shown}");
    let text = said(&common::quorate(&cluster, primary, &["backup", "schedule"]));
    println!("{text}");
    for part in ["archives, as it leads", "log         1s", "snapshot    2h", "comparison  2s"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    // The others look where the archive is, and have nothing due.
    let seen = poll(RECOVERY_LIMIT, "a replica to see it", || {
        let seen = schedule(&cluster, replica);
        seen["archived_seq"].is_u64().then_some(seen)
    });
    assert_eq!((&seen["archives"], &seen["written_by"]), (&false.into(), &primary.into()));
    assert_eq!(moment(&seen["snapshots"], "ended_at_ms"), made, "{seen}");
    for job in ["runs", "snapshots", "verifications"] {
        assert_eq!(seen[job]["due_at_ms"], Json::Null, "{seen}");
    }
    let text = said(&common::quorate(&cluster, replica, &["backup", "schedule"]));
    assert!(text.contains(&format!("node {primary} archives, as it leads: ask it")), "{text}");

    // Another one leads: it goes on, and the state needn't be copied for that.
    ask(&cluster, primary, &["promote"]);
    let next = poll(RECOVERY_LIMIT, "another primary to archive", || {
        Oracle::new(&cluster).write(3);
        let next = cluster.primary().filter(|next| *next != primary)?;
        (schedule(&cluster, next)["written_by"] == next).then_some(next)
    });
    assert_eq!(snapshots(&target).len(), 1);
    assert_eq!(parsed(&verify(&target, &[]))["faults"], json!([]));
    assert_eq!(schedule(&cluster, next)["verifications"]["failure"], Json::Null);
}

#[test]
fn a_schedule_says_what_fails_and_when_it_last_did_not() {
    let lines = "interval = \"1s\"\nsnapshot_interval = \"1h\"\nverify_interval = \"1s\"\n";
    let (cluster, target) = start("backup-schedule-failed", lines);
    poll(RECOVERY_LIMIT, "a comparison", || {
        schedule(&cluster, 1)["verifications"]["succeeded_at_ms"].as_u64()
    });
    let away = cluster.dir().join("away");
    fs::rename(&target, &away).expect("renamed");
    let failed = poll(RECOVERY_LIMIT, "both to fail", || {
        let shown = schedule(&cluster, 1);
        let fails = |job: &str| shown[job]["failure"].is_string();
        (fails("runs") && fails("verifications")).then_some(shown)
    });
    for job in [&failed["runs"], &failed["verifications"]] {
        let why = job["failure"].as_str().expect("a reason");
        assert!(why.contains("No such file"), "{why}");
        assert!(moment(job, "succeeded_at_ms") < moment(job, "ended_at_ms"), "{job}");
    }
    let text = said(&common::quorate(&cluster, 1, &["backup", "schedule"]));
    println!("{text}");
    assert!(text.contains("log failed: target:") && text.contains("last good: 20"), "{text}");
    fs::rename(&away, &target).expect("renamed");
    poll(RECOVERY_LIMIT, "both to go on", || {
        let shown = schedule(&cluster, 1);
        let fails = |job: &str| shown[job]["failure"].is_string();
        (!fails("runs") && !fails("verifications")).then_some(())
    });
    assert_eq!(parsed(&verify(&target, &[]))["faults"], json!([]));
}

#[test]
fn without_a_target_there_is_no_schedule_and_that_is_said() {
    let options = ClusterOptions { nodes: 1, ..ClusterOptions::default() };
    let cluster = Cluster::start_with("backup-no-schedule", &options);
    for further in [&[][..], &["--json"]] {
        let none = common::quorate(&cluster, 1, &[&["backup", "schedule"], further].concat());
        assert_eq!(none.status.code(), Some(1), "{}", said(&none));
        assert!(said(&none).contains("archive.target is not set on this node"), "{}", said(&none));
    }
    let gone = format!("http://{}", cluster.settings(1).ports.peer);
    let unreachable = quorate(&["backup", "schedule", "--admin", &gone]);
    assert_eq!(unreachable.status.code(), Some(3), "{}", said(&unreachable));
}
