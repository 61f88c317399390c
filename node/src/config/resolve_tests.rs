//! The checks on whole configurations.

use std::os::unix::fs::PermissionsExt as _;

use quorate_actors::node::config::{ConcurrencyLimits, HealthSettings};

use super::*;
use crate::config::example;
use crate::config::keys::KEYS;

/// A folder with the files that a configuration names; deleted at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("quorate-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        for file in ["ca.crt", "node-1.crt", "node-1.key"] {
            std::fs::write(path.join(file), "pem").expect("written");
            set_mode(&path.join(file), 0o600);
        }
        Self(path)
    }

    fn resolve(&self, text: &str) -> Result<Settings, String> {
        let path = self.0.join("q.toml");
        std::fs::write(&path, text).expect("written");
        let source = Source::load(&path, []).map_err(|error| error.to_string())?;
        resolve(&source)
            .map_err(|error| error.to_string().replace(&format!("{}/", self.0.display()), ""))
    }

    /// The least that a node needs, with more lines for some sections.
    fn with(&self, cluster: &str, rest: &str) -> Result<Settings, String> {
        self.resolve(&format!(
            "[node]\nid = 1\ndata_dir = \"data\"\n\
             [tls]\nca = \"ca.crt\"\ncert = \"node-1.crt\"\nkey = \"node-1.key\"\n\
             [cluster]\ninitial_members = [\"1@a:1\", \"2@b:2\", \"3@c:3\"]\n{cluster}\n{rest}"
        ))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
}

#[test]
fn the_example_holds_every_key_and_resolves_to_the_defaults() {
    let folder = Folder::new("example");
    let text = example();
    for key in KEYS {
        let line = format!("{} = ", key.name());
        let named = text.lines().any(|l| l.trim_start_matches('#').starts_with(&line));
        assert!(named, "{} is missing", key.path);
    }
    let here = text.replace("/etc/quorate/tls/", "").replace("/var/lib/quorate", "data");
    let from_example = folder.resolve(&here).expect("the example is valid");
    let least = folder.with("initial_members = []", "").expect_err("a key can't be set twice");
    assert!(least.contains("not TOML"), "{least}");
    let defaults = folder.with("", "").expect("the least is enough");
    assert_eq!(from_example.node.timers, defaults.node.timers);
    assert_eq!(from_example.node.timers, NodeTimers::default());
    assert_eq!(from_example.node.journal, JournalSettings::default());
    assert_eq!(from_example.node.disk, DiskOptions::default());
    assert_eq!(from_example.node.cluster.safety_timers, SafetyTimers::LAN);
    assert_eq!(from_example.node.cluster.policy, Policy::MAJORITY);
    assert_eq!(from_example.node.rocksdb, RocksOptions::default());
}

#[test]
fn commented_defaults_of_the_example_are_valid_too() {
    let folder = Folder::new("uncommented");
    let text: String = example()
        .replace("/etc/quorate/tls/", "")
        .lines()
        .filter(|line| !line.contains("not set by default"))
        .map(|line| {
            let is_setting = line.starts_with('#') && !line.starts_with("# ");
            format!("{}\n", if is_setting { &line[1..] } else { line })
        })
        .collect();
    let settings = folder.resolve(&text).expect("every shown default is valid");
    assert_eq!(settings.node.timers, NodeTimers::default());
    assert_eq!(settings.node.journal, JournalSettings::default());
    assert_eq!(settings.node.cluster.safety_timers, SafetyTimers::LAN);
    assert_eq!(settings.node.rocksdb, RocksOptions::default());
}

#[test]
fn a_lease_that_outlives_an_election_is_refused() {
    let folder = Folder::new("lease");
    let error = folder.with("lease = \"300ms\"", "").expect_err("lease = election timeout");
    assert_eq!(
        error,
        "q.toml:10: cluster.lease: lease + clock_drift must stay below election_timeout_min, and \
         the lease above zero, or two primaries could serve reads at once"
    );
}

#[test]
fn a_policy_names_its_clause() {
    let folder = Folder::new("policy");
    let error = folder.with("policy = \"persisted>=4\"", "").expect_err("three voters");
    assert_eq!(
        error,
        "q.toml:10: cluster.policy: clause `persisted>=4` asks for 4 copies, but there are 3 voters"
    );
}

#[test]
fn members_are_checked() {
    let folder = Folder::new("members");
    let text = "[node]\nid = 4\ndata_dir = \"d\"\n[tls]\nca = \"ca.crt\"\ncert = \"node-1.crt\"\n\
                key = \"node-1.key\"\n[cluster]\n";
    for (members, expected) in [
        (r#"["1@a:1", "1@b:2"]"#, "node 1 is listed twice"),
        (r#"["a:1"]"#, "is not id@host:port"),
        (r#"["1@a:1"]"#, "node.id: node 4 is not one of cluster.initial_members"),
        ("[]", "the list is empty"),
        ("\"1@a:1\"", "expected a list of strings, found the string"),
    ] {
        let error =
            folder.resolve(&format!("{text}initial_members = {members}\n")).expect_err(members);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let folder = Folder::new("key");
    set_mode(&folder.0.join("node-1.key"), 0o644);
    let error = folder.with("", "").expect_err("a readable key");
    assert_eq!(
        error,
        "q.toml:7: tls.key: node-1.key holds a secret and others can read it (mode 644); run: \
         chmod 600 node-1.key"
    );
    std::fs::remove_file(folder.0.join("node-1.key")).expect("removed");
    let error = folder.with("", "").expect_err("a missing key");
    assert!(error.starts_with("q.toml:7: tls.key: can't read node-1.key: No such file"), "{error}");
}

#[test]
fn open_listeners_need_a_password_or_consent() {
    let folder = Folder::new("open");
    let open = "[client]\nlisten = \"0.0.0.0:7401\"\n";
    let error = folder.with("", open).expect_err("open to all");
    assert!(error.contains("client.listen: other machines reach this address"), "{error}");
    assert!(error.contains("node.advertise_client: must be set"), "{error}");
    let loopback = "[client]\nlisten = \"127.0.0.1:7401\"\n";
    let settings = folder.with("", loopback).expect("loopback needs nothing");
    assert_eq!(settings.node.client.advertise, "127.0.0.1:7401");
    let allowed = "[client]\nlisten = \"10.0.0.1:7401\"\nallow_unauthenticated = true\n";
    folder.with("", allowed).expect("consent");
}

#[test]
fn a_password_in_a_readable_file_is_refused() {
    let folder = Folder::new("password");
    let text = "[client]\nrequirepass = \"secret\"\n";
    std::fs::write(folder.0.join("q.toml"), "").expect("written");
    set_mode(&folder.0.join("q.toml"), 0o644);
    let error = folder.with("", text).expect_err("readable");
    assert!(error.contains("holds a secret and others can read it"), "{error}");
    set_mode(&folder.0.join("q.toml"), 0o600);
    let settings = folder.with("", text).expect("private");
    assert_eq!(settings.node.client.requirepass.as_deref(), Some("secret"));
}

#[test]
fn everything_wrong_is_said_at_once() {
    let folder = Folder::new("all");
    let error = folder.resolve("").expect_err("nothing is set");
    for key in ["node.id", "node.data_dir", "cluster.initial_members", "tls.ca", "tls.key"] {
        assert!(error.contains(&format!("q.toml: {key}: must be set")), "{error}");
    }
}

#[test]
fn rocksdb_s_settings_name_their_line() {
    let folder = Folder::new("rocksdb");
    let section = "[storage.rocksdb]\nmax_open_files = -1\nwrite_buffer_size = \"32MiB\"\n\
                   obsolete_files_period = \"1h\"\n";
    let settings = folder.with("", section).expect("valid");
    assert_eq!(settings.node.rocksdb.max_open_files, Some(-1));
    assert_eq!(settings.node.rocksdb.write_buffer_size, Some(32 << 20));
    assert_eq!(settings.node.rocksdb.obsolete_files_period, Duration::from_secs(3600));
    for (line, expected) in [
        ("compression = \"zlib\"", "q.toml:12: storage.rocksdb.compression: "),
        ("compression = \"lzma\"", "q.toml:12: storage.rocksdb.compression: unknown variant"),
        ("max_open_files = \"many\"", "q.toml:12: storage.rocksdb.max_open_files: invalid type"),
        ("write_buffer_sise = 1", "did you mean `storage.rocksdb.write_buffer_size`?"),
    ] {
        let error = folder.with("", &format!("[storage.rocksdb]\n{line}\n")).expect_err(line);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_health_latch_is_read_and_its_durations_must_make_sense() {
    let folder = Folder::new("health");
    let settings = folder.with("", "").expect("defaults");
    assert_eq!(settings.node.health, HealthSettings::default());
    let section = "[health]\nsample_period = \"1s\"\nerror_latch_duration = \"2s\"\n\
                   error_unlatch_duration = \"3s\"\nallow_error_unlatch = false\n";
    let health = folder.with("", section).expect("valid").node.health;
    assert_eq!((health.sample_period, health.latch.latch_after).1, Duration::from_secs(2));
    assert_eq!(health.latch.unlatch_after, Duration::from_secs(3));
    assert!(!health.latch.may_unlatch);
    let short = "[health]\nerror_latch_duration = \"4s\"\nsample_period = \"5s\"\n";
    let error = folder.with("", short).expect_err("shorter than a sample");
    assert!(error.contains("q.toml:12: health.error_latch_duration: must be"), "{error}");
}

#[test]
fn limits_of_the_disk_are_read_and_0_is_not_unset() {
    let folder = Folder::new("disk");
    let settings = folder
        .with("", "[storage]\nmin_free_bytes = \"2GiB\"\nmin_free_inodes = 0\n")
        .expect("both are valid");
    let disk = DiskOptions { min_free_bytes: Some(2 << 30), min_free_inodes: Some(0) };
    assert_eq!(settings.node.disk, disk);
    let error = folder.with("", "[storage]\nmin_free_inodes = -1\n").expect_err("negative");
    assert!(error.contains("storage.min_free_inodes"), "{error}");
}

#[test]
fn limits_on_what_is_under_way_are_read_and_none_is_zero() {
    let folder = Folder::new("limits");
    let none = folder.with("", "").expect("defaults").node.client.concurrency;
    assert_eq!(none, ConcurrencyLimits::default());
    let section = "[storage]\nlimit_concurrent_stores = 3\nlimit_concurrent_loads = 4\n";
    let limits = folder.with("", section).expect("valid").node.client.concurrency;
    assert_eq!((limits.stores, limits.loads, limits.removes), (Some(3), Some(4), None));
    let zero = "[storage]\nlimit_concurrent_removes = 0\n";
    let error = folder.with("", zero).expect_err("nothing could be removed");
    assert!(error.contains("q.toml:12: storage.limit_concurrent_removes: must be"), "{error}");
}
