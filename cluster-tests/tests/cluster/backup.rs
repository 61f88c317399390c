//! Backups: taken under load, looked through, damaged, and restored to points of the past.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use quorate_cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY_LIMIT, binary, poll};
use quorate_cluster_tests::resp::Value;
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions};
use serde_json::Value as Json;

use crate::archives::{
    Oracle, back_up, contents, elsewhere, files, json, quorate, refused_start, restore, said,
    start, verify,
};
use crate::common::{metric, noise, settle, wait_for_writes};

#[test]
fn a_backup_under_load_is_restored_to_ten_points_of_the_past() {
    let mut cluster = Cluster::start("backup-points");
    let target = cluster.dir().join("archive");
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    let mut oracle = Oracle::new(&cluster);
    oracle.write(60);
    let primary = cluster.wait_for_primary();
    let replica = cluster.others(primary)[0];
    let first = json(&back_up(&cluster, primary, &target, &[]));
    println!("{first}");
    for round in 0..10 {
        oracle.write(37);
        oracle.remember();
        if round % 3 == 1 {
            // From a replica, too: whoever writes goes on where the archive ends.
            let by = if round == 4 { replica } else { primary };
            let further = if round == 7 { &[][..] } else { &["--no-snapshot"][..] };
            wait_for_writes(&writers, 50);
            json(&back_up(&cluster, by, &target, further));
        }
    }
    wait_for_writes(&writers, 100);
    let last = json(&back_up(&cluster, primary, &target, &[]));
    println!("{last}");
    settle(&cluster, writers);
    let whole = json(&verify(&target, &["--restore", "--scratch", &target.display().to_string()]));
    println!("{whole}");
    assert_eq!(
        (&whole["faults"], &whole["unlisted"]),
        (&Json::from(Vec::<Json>::new()), &Json::from(Vec::<Json>::new()))
    );
    assert_eq!(whole["restored"]["compared"], true);
    assert_eq!(whole["archived_seq"], last["archived_seq"]);

    for (index, (seq, expected)) in oracle.points.iter().enumerate() {
        let settings = elsewhere(&cluster, &format!("restored-{index}"));
        let restored = json(&restore(&settings, &target, &format!("seq {seq}")));
        assert_eq!(restored["seq"], *seq, "{restored}");
        let (process, mut client) = start(&settings);
        assert_eq!(contents(&mut client), *expected, "as of entry {seq}");
        let ok = client.command(&["SET", "goes", "on"]).expect("a reply");
        assert_eq!(ok, Value::Simple("OK".into()));
        process.kill();
    }
    // By time: two milliseconds after the last entry of a point, nothing else was written by the oracle.
    let (seq, expected) = &oracle.points[6];
    let settings = elsewhere(&cluster, "restored-seq");
    let by_seq = json(&restore(&settings, &target, &format!("seq {seq}")));
    let moment = by_seq["time_ms"].as_u64().expect("a moment") + 2;
    let settings = elsewhere(&cluster, "restored-time");
    let by_time = json(&restore(&settings, &target, &format!("time {moment}")));
    assert!(by_time["seq"].as_u64() >= Some(*seq) && by_time["time_ms"].as_u64() <= Some(moment));
    let (process, mut client) = start(&settings);
    assert_eq!(contents(&mut client), *expected, "as of {moment} ms");
    process.kill();
    // The old cluster runs on all the while, and its nodes are other members of the same name.
    let settings = elsewhere(&cluster, "restored-latest");
    let restored = json(&restore(&settings, &target, "latest"));
    assert_eq!(
        (&restored["seq"], &restored["compared"]),
        (&last["archived_seq"], &Json::from(true))
    );
    assert_ne!(restored["cluster_id"], restored["from_cluster"]);
    let (process, mut client) = start(&settings);
    assert_eq!(contents(&mut client), oracle.now);
    process.kill();
    assert!(restore(&settings, &target, "latest").status.code() == Some(1), "it is not empty");
    let beyond = restore(&elsewhere(&cluster, "beyond"), &target, "seq 99999999");
    assert!(said(&beyond).contains("doesn't reach entry 99999999"), "{}", said(&beyond));
    cluster.kill(replica);
}

/// A small archive with two snapshots and some segments, and nothing that changes it any more.
fn small_archive(name: &str) -> (Cluster, PathBuf) {
    let cluster = Cluster::start(name);
    let target = cluster.dir().join("archive");
    let mut oracle = Oracle::new(&cluster);
    let primary = cluster.wait_for_primary();
    for round in 0..4 {
        oracle.write(30);
        let further = if round % 3 == 0 { &[][..] } else { &["--no-snapshot"][..] };
        json(&back_up(&cluster, primary, &target, further));
    }
    (cluster, target)
}

/// An archive of another cluster, in a folder that the caller removes.
fn foreign_archive() -> PathBuf {
    let copy = std::env::temp_dir().join(format!("quorate-foreign-{}", std::process::id()));
    // One cluster at a time, and its files go with it.
    let (_cluster, target) = small_archive("backup-foreign");
    copy_dir(&target, &copy);
    copy
}

fn cut(path: &Path) {
    let bytes = fs::read(path).expect("readable");
    fs::write(path, &bytes[..bytes.len() / 2]).expect("written");
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("readable");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("written");
}

/// `verify` fails, and names one of these.
fn assert_found(archive: &Path, what: &str, named: &[&str]) {
    let found = verify(archive, &[]);
    let text = said(&found);
    assert_eq!(found.status.code(), Some(1), "{what}: {text}");
    assert!(named.iter().any(|name| text.contains(name)), "{what}: {text}");
}

/// Names of the files of an archive that count and hold something, in a folder and with an ending.
fn names(archive: &Path, folder: &str, end: &str) -> Vec<String> {
    files(archive)
        .iter()
        .filter(|path| fs::metadata(path).expect("it is there").len() > 0)
        .map(|path| path.strip_prefix(archive).expect("inside").display().to_string())
        .filter(|name| name != "archive.lock" && name != "MANIFEST.json")
        .filter(|name| name.starts_with(folder) && name.ends_with(end))
        .collect()
}

#[test]
fn every_damage_to_an_archive_is_found_by_name() {
    let (cluster, target) = small_archive("backup-damage");
    let copy = cluster.dir().join("copy");
    let fresh = || {
        let _ = fs::remove_dir_all(&copy);
        copy_dir(&target, &copy);
    };
    assert!(names(&target, "snapshots/", ".sst").len() >= 2);
    for name in names(&target, "", "") {
        fresh();
        fs::remove_file(copy.join(&name)).expect("removed");
        // An archive without HEAD is none.
        let named = if name == "HEAD" { "no archive" } else { &name };
        assert_found(&copy, &format!("{name} missing"), &[named]);
        for (what, damage) in [("truncated", cut as fn(&Path)), ("flipped", flip)] {
            fresh();
            damage(&copy.join(&name));
            assert_found(&copy, &format!("{name} {what}"), &[&name]);
        }
    }
    for end in [".qj", ".json"] {
        fresh();
        let [one, two] = &names(&target, "journal/", end)[..2] else { panic!("two of them") };
        fs::copy(target.join(one), copy.join(two)).expect("copied");
        fs::copy(target.join(two), copy.join(one)).expect("copied");
        assert_found(&copy, &format!("{end} reordered"), &[one, two]);
    }
    // A restore finds it, too, without that anyone has verified.
    let settings = elsewhere(&cluster, "restored");
    let manifest = names(&target, "snapshots/", "manifest.json").pop().expect("the newest");
    let folder = manifest.trim_end_matches("manifest.json");
    for name in names(&target, folder, "") {
        fresh();
        flip(&copy.join(&name));
        let refused = restore(&settings, &copy, "latest");
        assert!(!refused.status.success() && said(&refused).contains(&name), "{}", said(&refused));
    }
}

#[test]
fn a_foreign_file_in_an_archive_is_refused_by_name() {
    let foreign = foreign_archive();
    let (cluster, target) = small_archive("backup-mixed");
    let end = json(&verify(&target, &[]))["archived_seq"].as_u64().expect("a position");
    let copy = cluster.dir().join("copy");
    let settings = elsewhere(&cluster, "restored");
    for ending in [".qj", ".json"] {
        let _ = fs::remove_dir_all(&copy);
        copy_dir(&target, &copy);
        let newest = |archive| names(archive, "journal/", ending).pop().expect("there are some");
        let mine = newest(&target);
        fs::copy(foreign.join(newest(&foreign)), copy.join(&mine)).expect("copied");
        assert_found(&copy, "foreign", &[&mine]);
        // The end is in the newest snapshot, but what is just before it needs the segment.
        let refused = restore(&settings, &copy, &format!("seq {}", end - 1));
        println!("{}", said(&refused));
        assert!(!refused.status.success() && said(&refused).contains(&mine), "{}", said(&refused));
    }
    // The first of them was refused in the middle of it.
    let started = refused_start(&settings);
    assert!(started.contains("cut short"), "{started}");
    let again = restore(&settings, &target, "latest");
    assert!(again.status.success(), "what was begun is begun again: {}", said(&again));
    fs::remove_dir_all(&foreign).expect("removed");
}

fn copy_dir(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("cp").success(), "{} can't be copied", from.display());
}

/// `HEAD` names the newest segment, however old it is.
#[test]
fn an_idle_archive_is_pruned_to_its_newest_snapshot() {
    let (cluster, target) = small_archive("backup-pruned");
    let primary = cluster.wait_for_primary();
    let path = target.display().to_string();
    json(&back_up(&cluster, primary, &target, &[]));
    let prune = ["backup", "--json", "prune", "--target", &path, "--keep-snapshots", "1"];
    let pruned = json(&quorate(&prune));
    println!("{pruned}");
    assert!(pruned["snapshots"].as_u64() >= Some(1), "{pruned}");
    let again = json(&quorate(&prune));
    assert_eq!(again["snapshots"], 0, "nothing is left to remove: {again}");
    let scratch = cluster.dir().display().to_string();
    let whole = json(&verify(&target, &["--restore", "--scratch", &scratch]));
    assert_eq!(whole["restored"]["compared"], true, "{whole}");
    assert_eq!(whole["unlisted"], serde_json::json!([]));
    json(&restore(&elsewhere(&cluster, "restored"), &target, "latest"));
    let mut oracle = Oracle::new(&cluster);
    oracle.write(10);
    json(&back_up(&cluster, primary, &target, &["--no-snapshot"]));
    assert_eq!(json(&verify(&target, &[]))["faults"], serde_json::json!([]));

    let own = cluster.settings(primary).data_dir().join("state");
    let refused = back_up(&cluster, primary, &own, &[]);
    assert!(said(&refused).contains("belongs elsewhere"), "{}", said(&refused));
    let nowhere = cluster.dir().join("nowhere");
    let refused = restore(&elsewhere(&cluster, "other"), &nowhere, "latest");
    assert!(!refused.status.success() && !nowhere.exists(), "{}", said(&refused));
}

/// After a recovery gave up what the archive holds, it may not go on there as if nothing had been.
#[test]
fn an_archive_of_a_history_that_was_given_up_is_refused() {
    let mut cluster = Cluster::start("backup-given-up");
    let target = cluster.dir().join("archive");
    let mut oracle = Oracle::new(&cluster);
    oracle.write(20);
    cluster.wait_until_equal();
    let primary = cluster.wait_for_primary();
    let survivor = cluster.others(primary)[0];
    cluster.kill(survivor);
    oracle.write(8);
    let archived = json(&back_up(&cluster, primary, &target, &[]))["archived_seq"].as_u64();
    let others: Vec<String> = cluster.others(survivor).iter().map(u64::to_string).collect();
    for id in cluster.others(survivor) {
        cluster.kill(id);
    }
    let config = cluster.settings(survivor).config_file().display().to_string();
    let fenced = others.join(",");
    let recover =
        ["recover", "--config", &config, "--fenced", &fenced, "--confirm", "recover test"];
    let recovered = quorate(&recover);
    assert!(recovered.status.success(), "{}", said(&recovered));
    cluster.start_node(survivor);
    cluster.wait_until_writable();
    let behind = back_up(&cluster, survivor, &target, &[]);
    println!("{}", said(&behind));
    let mut oracle = Oracle::new(&cluster);
    while cluster.status(survivor).expect("it runs").applied_seq <= archived.expect("a position") {
        oracle.write(1);
    }
    for further in [&[][..], &["--no-snapshot"]] {
        let refused = back_up(&cluster, survivor, &target, further);
        assert!(said(&refused).contains("a recovery gave up"), "{}", said(&refused));
    }
    assert_eq!(json(&verify(&target, &[]))["faults"], serde_json::json!([]));
    json(&back_up(&cluster, survivor, cluster.dir().join("another"), &[]));
}

/// What was gone from the journal before it was archived can't be restored to, and that is said.
#[test]
fn a_gap_in_an_archive_is_named_and_no_moment_of_it_is_restored() {
    let extra = "[storage]\njournal_segment_bytes = \"1MiB\"\njournal_retain_bytes = \"1MiB\"\n";
    let options = ClusterOptions { extra, nodes: 1, ..ClusterOptions::default() };
    let cluster = Cluster::start_with("backup-gap", &options);
    let target = cluster.dir().join("archive");
    let mut client = cluster.connect(1);
    client.command(&["SET", "first", "1"]).expect("a reply");
    let before = json(&back_up(&cluster, 1, &target, &[]));
    let archived = before["archived_seq"].as_u64().expect("a position");
    for n in 0..12_u64 {
        let key = format!("large:{n}").into_bytes();
        client.command(&[b"SET".to_vec(), key, noise(n, 1 << 20)]).expect("a reply");
    }
    let admin = format!("http://{}", cluster.settings(1).ports.admin);
    let journal = cluster.settings(1).data_dir().join("journal");
    poll(RECOVERY_LIMIT, "the journal to be trimmed", || {
        let _ = quorate(&["storage", "--admin", &admin, "flush"]);
        let oldest =
            files(&journal).into_iter().find(|path| path.extension().is_some_and(|e| e == "qj"))?;
        let first: u64 = oldest.file_stem()?.to_str()?.parse().ok()?;
        (first > archived + 2).then_some(())
    });
    let after = json(&back_up(&cluster, 1, &target, &["--no-snapshot"]));
    println!("{after}");
    let gap = (after["gap"]["first"].as_u64(), after["gap"]["last"].as_u64());
    assert_eq!(gap.0, Some(archived + 1), "{after}");
    assert_eq!(after["snapshot_seq"].as_u64(), gap.1);
    let path = target.display().to_string();
    let listed = said(&quorate(&["backup", "list", "--target", &path]));
    assert!(listed.contains("no moment between"), "{listed}");
    assert_eq!(json(&verify(&target, &[]))["faults"], serde_json::json!([]));
    let within = after["archived_time_ms"].as_u64().expect("a moment") - 1;
    let inside = format!("seq {}", archived + 1);
    for point in [inside, format!("time {within}"), "time 2099-01-01T00:00:00Z".to_owned()] {
        let refused = restore(&elsewhere(&cluster, "never"), &target, &point);
        assert!(said(&refused).contains("doesn't reach"), "{point}: {}", said(&refused));
    }
    for (point, name) in [(format!("seq {archived}"), "old"), ("latest".to_owned(), "new")] {
        json(&restore(&elsewhere(&cluster, name), &target, &point));
    }
}

#[test]
fn the_schedule_goes_on_when_the_archiving_node_is_killed() {
    let dir = std::env::temp_dir().join(format!("quorate-archive-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    let extra = format!(
        "[archive]\ntarget = \"{}\"\ninterval = \"1s\"\nsnapshot_interval = \"5s\"\n\
         retain_snapshots = 2\nverify_interval = \"2s\"\n",
        dir.display()
    );
    // A schedule begins an archive only where there is a directory.
    fs::create_dir_all(&dir).expect("made");
    let options = ClusterOptions { extra: extra.leak(), ..ClusterOptions::default() };
    let mut cluster = Cluster::start_with("backup-schedule", &options);
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    let archived = |cluster: &Cluster, id: u64| metric(cluster, id, "quorate_archive_archived_seq");
    for _ in 0..2 {
        let primary = cluster.wait_until_writable();
        wait_for_writes(&writers, 200);
        let seq = cluster.status(primary).expect("it runs").applied_seq;
        poll(RECOVERY_LIMIT, "the archive to reach it", || {
            (archived(&cluster, primary) >= seq).then_some(())
        });
        let replica = cluster.others(primary)[0];
        poll(RECOVERY_LIMIT, "a replica to see it", || {
            (archived(&cluster, replica) >= seq).then_some(())
        });
        cluster.kill(primary);
        cluster.wait_until_writable();
        cluster.start_node(primary);
    }
    let primary = cluster.wait_until_writable();
    poll(RECOVERY_LIMIT, "a restore to be compared", || {
        (metric(&cluster, primary, "quorate_backup_verified_restore_timestamp_seconds") > 0)
            .then_some(())
    });
    settle(&cluster, writers);
    for id in cluster.ids() {
        cluster.stop(id);
    }
    let whole = json(&verify(&dir, &[]));
    println!("{whole}");
    assert_eq!(whole["faults"], serde_json::json!([]));
    assert!(whole["snapshots"].as_u64().is_some_and(|kept| (1..=3).contains(&kept)), "{whole}");
    fs::remove_dir_all(&dir).expect("removed");
}

/// Wherever a run ends, the archive is what it was before it, and the next run goes on.
#[test]
fn a_node_killed_while_it_archives_leaves_a_whole_archive() {
    let mut cluster = Cluster::start("backup-killed");
    let target = cluster.dir().join("archive");
    let primary = cluster.wait_for_primary();
    let mut client = cluster.connect(primary);
    for n in 0..24_u64 {
        let value = noise(n, 1 << 20);
        let key = format!("large:{n}").into_bytes();
        let reply = client.command(&[b"SET".to_vec(), key, value]).expect("a reply");
        assert_eq!(reply, Value::Simple("OK".into()));
    }
    json(&back_up(&cluster, primary, &target, &[]));
    for kill_after in [2, 10, 25, 50, 90, 150] {
        let node = cluster.wait_until_writable();
        let mut client = cluster.connect(node);
        client.command(&["SET", "round", &kill_after.to_string()]).expect("a reply");
        let admin = format!("http://{}", cluster.settings(node).ports.admin);
        let mut running = Command::new(binary())
            .args(["backup", "--admin", &admin, "create", "--target"])
            .arg(&target)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start the binary");
        std::thread::sleep(Duration::from_millis(kill_after));
        cluster.kill(node);
        let _ = running.wait();
        let whole = json(&verify(&target, &[]));
        assert_eq!(whole["faults"], serde_json::json!([]), "after {kill_after} ms");
        cluster.start_node(node);
        let next = cluster.wait_until_writable();
        json(&back_up(&cluster, next, &target, &[]));
    }
    let whole = json(&verify(&target, &["--restore", "--scratch", &target.display().to_string()]));
    println!("{whole}");
    assert_eq!(whole["restored"]["compared"], true);
}

#[test]
fn a_restore_that_was_killed_is_begun_again() {
    let (cluster, target) = small_archive("restore-killed");
    let settings = elsewhere(&cluster, "restored");
    let config = settings.config_file().display().to_string();
    for kill_after in [1, 5, 20, 60, 120] {
        let mut running = Command::new(binary())
            .args(["restore", "--config", &config, "--target"])
            .arg(&target)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start the binary");
        std::thread::sleep(Duration::from_millis(kill_after));
        let _ = running.kill();
        let done = running.wait().expect("it ended").success();
        if done {
            fs::remove_dir_all(settings.data_dir()).expect("removed");
            continue;
        }
        // Nothing yet, or a mark that keeps a node from starting.
        if settings.data_dir().join("RESTORING").exists() {
            let started = refused_start(&settings);
            assert!(started.contains("cut short"), "{started}");
        }
    }
    let restored = json(&restore(&settings, &target, "latest"));
    let (process, mut client) = start(&settings);
    assert_eq!(restored["compared"], true);
    assert!(!contents(&mut client).is_empty());
    process.kill();
}
