//! From a source to settings: defaults filled in, files read, combinations checked. Collects
//! every complaint instead of stopping at the first.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_actors::health::DiskOptions;
use quorate_actors::node::config::{
    ClientSettings, ClusterSettings, InitialMember, JournalSettings, NodeConfig, NodeTimers,
    PeerSettings, TlsMaterial,
};
use quorate_actors::storage::options::RocksOptions;
use quorate_protocol::cluster::SafetyTimers;
use quorate_protocol::formation::CLUSTER_VERSION;
use quorate_protocol::policy::Policy;
use quorate_protocol::types::NodeId;

use super::error::{ConfigError, ConfigErrors, Origin};
use super::keys::{self, Fallback, KEYS, Kind};
use super::settings::{LogFormat, LogSettings, Secret, Settings};
use super::source::Source;
use super::value::{Value, parse_bytes, parse_duration};
use crate::logging::parse_filter;

mod archive;
mod health;
mod limits;
mod members;

/// Largest certificate, key or secret file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Checks everything, reads the files that it names, and finds out whether peers would accept
/// the certificate.
pub(crate) fn resolve_checked(source: &Source) -> Result<Settings, ConfigErrors> {
    let settings = resolve(source)?;
    let mut reader = Reader { source, errors: Vec::new() };
    if let Err(error) = settings.node.check_tls() {
        reader.refuse("tls.cert", error.to_string());
    }
    if let Err(error) = settings.identity() {
        reader.refuse("tls.ca_key", error.to_string());
    }
    ConfigErrors::check(reader.errors).map(|()| settings)
}

/// Checks everything but what is in the files that it names, and reads those.
fn resolve(source: &Source) -> Result<Settings, ConfigErrors> {
    let mut reader = Reader { source, errors: Vec::new() };
    let settings = reader.settings();
    ConfigErrors::check(reader.errors).map(|()| settings)
}

/// Hands out values by key; what can't be had is recorded, and a stand-in handed out.
struct Reader<'a> {
    source: &'a Source,
    errors: Vec<ConfigError>,
}

impl Reader<'_> {
    fn settings(&mut self) -> Settings {
        let node = NodeId(self.integer("node.id"));
        let data_dir = self.path("node.data_dir").unwrap_or_default();
        let pid_file = self.path("node.pid_file").unwrap_or_else(|| data_dir.join("pid"));
        let cluster = self.cluster(node);
        let timers = self.timers(&cluster.safety_timers);
        let client = self.client();
        let listed = [&cluster.initial_members[..], &cluster.peers[..]].concat();
        let peer = self.peer(node, &listed);
        let settings = Settings {
            node: NodeConfig {
                node,
                data_dir,
                allow_volatile: self.flag("storage.allow_volatile"),
                drill_allowed: self.flag("node.drill_allowed"),
                cluster_version_max: CLUSTER_VERSION,
                cluster,
                timers,
                client,
                peer,
                admin_listen: self.address("admin.listen").unwrap_or(NOWHERE),
                tls: self.tls(),
                journal: self.journal(),
                disk: self.disk(),
                rocksdb: self.rocksdb(),
                health: self.health(),
                archive: self.archive(),
            },
            log: self.log(),
            pid_file,
            public_metrics: self.flag("admin.public_metrics"),
            cert_file: self.path("tls.cert").unwrap_or_default(),
            ca_key: self.ca_key(),
        };
        self.check_listeners(&settings.node);
        settings
    }

    fn cluster(&mut self, node: NodeId) -> ClusterSettings {
        let name = self.text("cluster.name").unwrap_or_default();
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || name.len() > 63 || !name.chars().all(valid) {
            self.refuse("cluster.name", "1 to 63 letters, digits and hyphens");
        }
        let join = self.member_list("cluster.join");
        let peers = self.member_list("cluster.peers");
        let initial_members = self.members(node, !join.is_empty());
        let policy_text = self.text("cluster.policy").unwrap_or_default();
        let policy = Policy::parse(&policy_text, initial_members.len().max(1));
        if let (Err(error), false) = (&policy, initial_members.is_empty()) {
            self.refuse("cluster.policy", error.to_string());
        }
        let safety_timers = SafetyTimers {
            election_timeout_min_us: micros(self.duration("cluster.election_timeout_min")),
            lease_us: micros(self.duration("cluster.lease")),
            drift_us: micros(self.duration("cluster.clock_drift")),
        };
        if !safety_timers.are_safe() {
            self.refuse(
                "cluster.lease",
                "lease + clock_drift must stay below election_timeout_min, and the lease above \
                 zero, or two primaries could serve reads at once",
            );
        }
        ClusterSettings {
            name,
            initial_members,
            join,
            peers,
            policy: policy.unwrap_or(Policy::MAJORITY),
            safety_timers,
        }
    }

    fn timers(&mut self, safety: &SafetyTimers) -> NodeTimers {
        let timers = NodeTimers {
            heartbeat: self.duration("cluster.heartbeat"),
            election_timeout_max: self.duration("cluster.election_timeout_max"),
            shutdown_deadline: self.duration("node.shutdown_deadline"),
        };
        if timers.heartbeat.is_zero()
            || micros(timers.heartbeat).saturating_mul(2) > safety.lease_us
        {
            self.refuse("cluster.heartbeat", "must be above zero and at most half of the lease");
        }
        if micros(timers.election_timeout_max) <= safety.election_timeout_min_us {
            self.refuse(
                "cluster.election_timeout_max",
                "must be above election_timeout_min: elections that start together tie",
            );
        }
        timers
    }

    fn client(&mut self) -> ClientSettings {
        let listen = self.address("client.listen").unwrap_or(NOWHERE);
        let listen_plain = self.address("client.listen_plain");
        let settings = ClientSettings {
            listen,
            listen_plain,
            advertise: self.advertised("node.advertise_client", Some(listen)),
            advertise_plain: self.advertised("node.advertise_plain", listen_plain),
            requirepass: self.requirepass(),
            attribution: self.flag("client.attribution"),
            maxclients: self.size("client.maxclients"),
            max_value_bytes: self.size("client.max_value_bytes"),
            request_bytes_max: self.size("client.request_bytes_max"),
            output_bytes_max: self.size("client.output_bytes_max"),
            admission_bytes_max: self.size("client.admission_bytes_max"),
            primary_wait: self.duration("client.primary_wait"),
            store_deadline: self.duration("storage.store_deadline"),
            concurrency: self.concurrency(),
        };
        if settings.maxclients == 0 {
            self.refuse("client.maxclients", "must be at least 1");
        }
        if settings.max_value_bytes > settings.request_bytes_max {
            self.refuse("client.max_value_bytes", "must not exceed request_bytes_max");
        }
        if settings.request_bytes_max > settings.admission_bytes_max {
            self.refuse("client.request_bytes_max", "must not exceed admission_bytes_max");
        }
        if settings.store_deadline.is_zero() {
            self.refuse("storage.store_deadline", "must be above zero");
        }
        settings
    }

    fn requirepass(&mut self) -> Option<String> {
        let direct = self.text("client.requirepass");
        let file = self.path("client.requirepass_file");
        match (direct, file) {
            (Some(_), Some(_)) => {
                self.refuse("client.requirepass_file", "set this or requirepass, not both");
                None
            }
            (Some(password), None) => {
                let written_in_file =
                    matches!(self.source.origin("client.requirepass"), Origin::Line(..));
                if written_in_file && let Err(message) = private(&self.source.path) {
                    self.refuse("client.requirepass", message);
                }
                self.nonempty("client.requirepass", password)
            }
            (None, Some(path)) => {
                let bytes = self.secret("client.requirepass_file", &path)?;
                let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                self.nonempty("client.requirepass_file", text)
            }
            (None, None) => None,
        }
    }

    fn nonempty(&mut self, key: &str, password: String) -> Option<String> {
        if password.is_empty() {
            self.refuse(key, "the password is empty");
            return None;
        }
        Some(password)
    }

    fn peer(&mut self, node: NodeId, members: &[InitialMember]) -> PeerSettings {
        let listen = self.address("peer.listen").unwrap_or(NOWHERE);
        let own = members.iter().find(|member| member.node == node);
        let advertise = self
            .text_checked("node.advertise_peer", check_host_port)
            .or_else(|| own.map(|member| member.peer_addr.clone()))
            .unwrap_or_else(|| self.joiner_address(listen));
        let snapshot_bytes_per_second = self.bytes("peer.snapshot_bytes_per_second");
        if snapshot_bytes_per_second < 1 << 20 {
            self.refuse("peer.snapshot_bytes_per_second", "must be at least 1MiB");
        }
        PeerSettings { listen, advertise, snapshot_bytes_per_second }
    }

    fn tls(&mut self) -> TlsMaterial {
        let mut read = |key: &'static str, secret: bool| {
            let path = self.path(key)?;
            if secret { self.secret(key, &path) } else { self.file(key, &path) }
        };
        TlsMaterial {
            ca_pem: read("tls.ca", false).unwrap_or_default(),
            cert_pem: read("tls.cert", false).unwrap_or_default(),
            key_pem: read("tls.key", true).unwrap_or_default(),
        }
    }

    fn ca_key(&mut self) -> Option<Secret> {
        let path = self.path("tls.ca_key")?;
        let bytes = self.secret("tls.ca_key", &path)?;
        Some(Secret(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn journal(&mut self) -> JournalSettings {
        let settings = JournalSettings {
            segment_bytes: self.bytes("storage.journal_segment_bytes"),
            group_bytes_max: self.size("storage.journal_group_bytes_max"),
            cache_bytes: self.size("storage.journal_cache_bytes"),
            retain_bytes: self.bytes("storage.journal_retain_bytes"),
            divergent_bytes_max: self.bytes("storage.divergent_bytes_max"),
        };
        if settings.segment_bytes < 1 << 20 {
            self.refuse("storage.journal_segment_bytes", "must be at least 1MiB");
        }
        if settings.group_bytes_max < 64 << 10 {
            self.refuse("storage.journal_group_bytes_max", "must be at least 64KiB");
        }
        settings
    }

    fn disk(&mut self) -> DiskOptions {
        const BYTES: &str = "storage.min_free_bytes";
        const INODES: &str = "storage.min_free_inodes";
        DiskOptions {
            min_free_bytes: self.value(BYTES).map(|_| self.bytes(BYTES)),
            min_free_inodes: self.value(INODES).map(|_| self.integer(INODES)),
        }
    }

    /// The keys are those of `RocksOptions`, which reads and checks them itself.
    fn rocksdb(&mut self) -> RocksOptions {
        let mut options = RocksOptions::default();
        let mut table = toml::Table::new();
        for key in KEYS.iter().filter(|key| key.section() == "storage.rocksdb") {
            let Some((value, _)) = self.source.get(key.path) else { continue };
            let value = match (key.kind, value) {
                (Kind::Bytes, _) => i64::try_from(self.bytes(key.path)).unwrap_or(i64::MAX).into(),
                (Kind::Duration, _) => format!("{}ms", self.duration(key.path).as_millis()).into(),
                (_, Value::Integer(number)) => toml::Value::Integer(*number),
                (_, Value::Bool(flag)) => toml::Value::Boolean(*flag),
                (_, Value::Text(text)) => toml::Value::String(text.clone()),
                (_, Value::List(_)) => {
                    self.refuse(key.path, "takes no list");
                    continue;
                }
            };
            table.insert(key.name().to_owned(), value);
            // One key at a time more, so that a complaint names the key that is wrong.
            match table.clone().try_into::<RocksOptions>() {
                Ok(read) => options = read,
                Err(error) => {
                    self.refuse(key.path, error.message());
                    table.remove(key.name());
                }
            }
        }
        if let Err(error) = options.check() {
            let text = error.to_string();
            let key = KEYS.iter().find(|key| text.contains(key.path));
            self.refuse(key.map_or("storage.rocksdb", |key| key.path), text);
        }
        options
    }

    fn log(&mut self) -> LogSettings {
        let level = self.text("log.level").unwrap_or_default();
        if !["error", "warn", "info", "debug", "trace"].contains(&level.as_str()) {
            self.refuse("log.level", "one of error, warn, info, debug, trace");
        }
        let filter = self.text("log.filter").unwrap_or(level);
        if let Err(error) = parse_filter(&filter) {
            self.refuse("log.filter", error);
        }
        let format = match self.text("log.format").as_deref() {
            Some("json") => LogFormat::Json,
            Some("text") | None => LogFormat::Text,
            Some(_) => {
                self.refuse("log.format", "text or json");
                LogFormat::Text
            }
        };
        LogSettings { filter, format, file: self.path("log.file") }
    }

    fn check_listeners(&mut self, node: &NodeConfig) {
        let open = node.client.requirepass.is_some() || self.flag("client.allow_unauthenticated");
        let listeners = [
            ("client.listen", Some(node.client.listen)),
            ("client.listen_plain", node.client.listen_plain),
        ];
        for (key, listen) in listeners {
            if !open && listen.is_some_and(|listen| listen != NOWHERE && !listen.ip().is_loopback())
            {
                self.refuse(
                    key,
                    "other machines reach this address: set client.requirepass, or \
                     client.allow_unauthenticated = true",
                );
            }
        }
    }

    // Values by kind.

    fn value(&mut self, path: &str) -> Option<Value> {
        if let Some((value, _)) = self.source.get(path) {
            return Some(value.clone());
        }
        let key = keys::find(path).expect("every key that is read is in the list");
        match key.fallback {
            Fallback::Value(text) => {
                let value = toml::de::DeValue::parse(text).expect("a default is TOML");
                Some(Value::from_toml(value.get_ref()).expect("a default is a value"))
            }
            Fallback::Required(_) => {
                self.refuse(path, "must be set");
                None
            }
            Fallback::Unset(_) => None,
        }
    }

    fn refuse(&mut self, path: &str, message: impl Into<String>) {
        self.errors.push(ConfigError {
            origin: self.source.origin(path),
            key: path.to_owned(),
            message: message.into(),
        });
    }

    fn wrong_kind(&mut self, path: &str, expected: &str, found: &Value) {
        self.refuse(path, format!("expected {expected}, found {}", found.describe()));
    }

    fn text(&mut self, path: &str) -> Option<String> {
        match self.value(path)? {
            Value::Text(text) => Some(text),
            other @ (Value::Integer(_) | Value::Bool(_) | Value::List(_)) => {
                self.wrong_kind(path, "a string", &other);
                None
            }
        }
    }

    fn text_checked(
        &mut self,
        path: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Option<String> {
        let text = self.text(path)?;
        match check(&text) {
            Ok(()) => Some(text),
            Err(message) => {
                self.refuse(path, message);
                None
            }
        }
    }

    fn path(&mut self, path: &str) -> Option<PathBuf> {
        let text = self.text(path)?;
        if text.is_empty() {
            self.refuse(path, "an empty path");
            return None;
        }
        Some(self.folder().join(text))
    }

    /// Relative paths count from it.
    fn folder(&self) -> &Path {
        self.source.path.parent().unwrap_or(Path::new(""))
    }

    fn address(&mut self, path: &str) -> Option<SocketAddr> {
        let text = self.text(path)?;
        match text.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                self.refuse(path, format!("{text:?} is not ip:port, such as \"127.0.0.1:7401\""));
                None
            }
        }
    }

    /// The address that others are told: the configured one, or the one that is listened on.
    fn advertised(&mut self, path: &str, listen: Option<SocketAddr>) -> String {
        if let Some(text) = self.text_checked(path, check_host_port) {
            return text;
        }
        match listen {
            Some(listen) if listen.ip().is_unspecified() && listen != NOWHERE => {
                self.refuse(
                    path,
                    format!("must be set, because {listen} is no address that clients can reach"),
                );
                String::new()
            }
            Some(listen) => listen.to_string(),
            None => String::new(),
        }
    }

    fn integer(&mut self, path: &str) -> u64 {
        match self.value(path) {
            Some(Value::Integer(number)) => u64::try_from(number).unwrap_or_else(|_| {
                self.refuse(path, "must not be negative");
                0
            }),
            Some(other) => {
                self.wrong_kind(path, "an integer", &other);
                0
            }
            None => 0,
        }
    }

    fn flag(&mut self, path: &str) -> bool {
        match self.value(path) {
            Some(Value::Bool(flag)) => flag,
            Some(other) => {
                self.wrong_kind(path, "true or false", &other);
                false
            }
            None => false,
        }
    }

    fn list(&mut self, path: &str) -> Vec<String> {
        match self.value(path) {
            Some(Value::List(items)) if items.is_empty() => {
                self.refuse(path, "the list is empty");
                items
            }
            Some(Value::List(items)) => items,
            Some(other) => {
                self.wrong_kind(path, "a list of strings", &other);
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn duration(&mut self, path: &str) -> Duration {
        let Some(text) = self.text(path) else { return Duration::ZERO };
        parse_duration(&text).unwrap_or_else(|message| {
            self.refuse(path, message);
            Duration::ZERO
        })
    }

    fn bytes(&mut self, path: &str) -> u64 {
        let parsed = match self.value(path) {
            Some(Value::Integer(number)) => {
                u64::try_from(number).map_err(|_| "must not be negative".to_owned())
            }
            Some(Value::Text(text)) => parse_bytes(&text),
            Some(other @ (Value::Bool(_) | Value::List(_))) => {
                Err(format!("expected a size, found {}", other.describe()))
            }
            None => Ok(0),
        };
        parsed.unwrap_or_else(|message| {
            self.refuse(path, message);
            0
        })
    }

    fn size(&mut self, path: &str) -> usize {
        usize::try_from(self.bytes(path)).unwrap_or(usize::MAX)
    }

    fn file(&mut self, key: &str, path: &Path) -> Option<Vec<u8>> {
        read_file(path).map_err(|message| self.refuse(key, message)).ok()
    }

    /// A file that nobody but its owner may read.
    fn secret(&mut self, key: &str, path: &Path) -> Option<Vec<u8>> {
        let bytes = self.file(key, path)?;
        private(path).map_err(|message| self.refuse(key, message)).ok()?;
        Some(bytes)
    }
}

/// Stands in for an address that could not be had, until the complaints are returned.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("can't read {}: {error}", path.display());
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(format!("{} is not a file of at most 1 MiB", path.display()));
    }
    std::fs::read(path).map_err(failed)
}

fn private(path: &Path) -> Result<(), String> {
    let mode = std::fs::metadata(path)
        .map_err(|error| format!("can't read {}: {error}", path.display()))?
        .mode();
    if mode & 0o077 != 0 {
        return Err(format!(
            "{path} holds a secret and others can read it (mode {mode:03o}); run: chmod 600 {path}",
            path = path.display(),
            mode = mode & 0o777,
        ));
    }
    Ok(())
}

fn check_host_port(text: &str) -> Result<(), String> {
    let valid = text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(char::is_whitespace)
            && (!host.contains(':') || host.starts_with('['))
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if valid {
        Ok(())
    } else {
        Err(format!("{text:?} is not host:port, such as \"db-1.example.com:7401\""))
    }
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
