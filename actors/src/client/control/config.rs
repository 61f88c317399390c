//! `CONFIG …`: the keys that clients ask for, in Redis's names. A node's own configuration is its
//! file; what can be set here lasts until the node stops.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use quorate_protocol::command::{Config, glob};
use quorate_protocol::resp::Reply;

use super::text;
use crate::client::refusal::error;
use crate::client::shared::Shared;

pub(super) fn config(shared: &Shared, command: Config) -> Reply {
    match command {
        Config::Get { patterns } => get(shared, &patterns),
        Config::Set { pairs } => set(shared, &pairs),
        Config::ResetStat => {
            shared.metrics.reset_info();
            Reply::OK
        }
        Config::Rewrite => error("ERR The server is running without a config file"),
    }
}

fn get(shared: &Shared, patterns: &[Bytes]) -> Reply {
    let settings = values(shared);
    let patterns: Vec<Vec<u8>> =
        patterns.iter().map(|pattern| pattern.to_ascii_lowercase()).collect();
    let found = settings
        .into_iter()
        .filter(|(name, _)| patterns.iter().any(|pattern| glob::matches(pattern, name.as_bytes())));
    Reply::Map(found.map(|(name, value)| (text(name.to_owned()), text(value))).collect())
}

/// What clients and tools ask for, with what is true here: every acknowledged write is synced
/// (`appendonly yes`), and nothing is evicted.
fn values(shared: &Shared) -> Vec<(&'static str, String)> {
    let live = shared.live();
    let settings = &live.settings;
    let yes = || "yes".to_owned();
    let no = || "no".to_owned();
    vec![
        ("save", String::new()),
        ("appendonly", yes()),
        ("appendfsync", "always".to_owned()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("maxclients", settings.maxclients.to_string()),
        ("timeout", shared.idle_timeout_s.load(Ordering::Relaxed).to_string()),
        ("tcp-keepalive", super::super::server::KEEPALIVE.as_secs().to_string()),
        ("databases", "1".to_owned()),
        ("port", settings.listen.port().to_string()),
        ("bind", settings.listen.ip().to_string()),
        ("cluster-enabled", yes()),
        ("cluster-require-full-coverage", yes()),
        ("cluster-allow-reads-when-down", no()),
        ("replica-read-only", yes()),
        ("slave-read-only", yes()),
        ("min-replicas-to-write", "0".to_owned()),
        ("proto-max-bulk-len", settings.max_value_bytes.to_string()),
        ("client-query-buffer-limit", settings.request_bytes_max.to_string()),
        ("client-output-buffer-limit", format!("normal {} 0 0", settings.output_bytes_max)),
        ("notify-keyspace-events", String::new()),
        ("lazyfree-lazy-user-flush", no()),
        ("slowlog-log-slower-than", threshold(shared).to_string()),
        ("slowlog-max-len", shared.slowlog.length_max.load(Ordering::Relaxed).to_string()),
        ("attribution", if shared.metrics.attribution.is_on() { yes() } else { no() }),
        ("latency-monitor-threshold", "0".to_owned()),
        ("hz", "10".to_owned()),
    ]
}

fn threshold(shared: &Shared) -> i64 {
    shared.slowlog.threshold_us.load(Ordering::Relaxed)
}

/// All or nothing, as Redis does it.
fn set(shared: &Shared, pairs: &[(Bytes, Bytes)]) -> Reply {
    let mut changes = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        match Change::parse(shared, name, value) {
            Ok(change) => changes.push(change),
            Err(refused) => return refused,
        }
    }
    for change in changes {
        change.apply(shared);
    }
    Reply::OK
}

enum Change {
    IdleTimeout(u64),
    SlowLogThreshold(i64),
    SlowLogLength(usize),
    Attribution(bool),
    /// A key that tools set by habit, to the only value that it can have here.
    Nothing,
}

impl Change {
    fn parse(shared: &Shared, name: &[u8], value: &[u8]) -> Result<Self, Reply> {
        let lower = String::from_utf8_lossy(name).to_ascii_lowercase();
        let value = std::str::from_utf8(value).unwrap_or_default();
        let failed = |why: &str| {
            let lower = lower.replace(['\r', '\n'], " ");
            Reply::Error(
                format!("ERR CONFIG SET failed (possibly related to argument '{lower}') - {why}")
                    .into(),
            )
        };
        let not_a_number = || failed("argument couldn't be parsed into an integer");
        Ok(match lower.as_str() {
            "timeout" => Self::IdleTimeout(value.parse().map_err(|_| not_a_number())?),
            "slowlog-log-slower-than" => {
                Self::SlowLogThreshold(value.parse().map_err(|_| not_a_number())?)
            }
            "slowlog-max-len" => {
                let length: usize = value.parse().map_err(|_| not_a_number())?;
                Self::SlowLogLength(length.min(100_000))
            }
            "attribution" => match value {
                "yes" => Self::Attribution(true),
                "no" => Self::Attribution(false),
                _ => return Err(failed("argument must be 'yes' or 'no'")),
            },
            "save" | "notify-keyspace-events" if value.is_empty() => Self::Nothing,
            "appendonly" if value == "yes" => Self::Nothing,
            "maxmemory" if value == "0" => Self::Nothing,
            "latency-monitor-threshold" if value == "0" => Self::Nothing,
            name if values(shared).iter().any(|(known, _)| *known == name) => {
                return Err(failed("can't set immutable config"));
            }
            name => {
                let name = name.replace(['\r', '\n'], " ");
                return Err(Reply::error(format!(
                    "ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
                )));
            }
        })
    }

    fn apply(self, shared: &Shared) {
        match self {
            Self::IdleTimeout(seconds) => {
                shared.idle_timeout_s.store(seconds, Ordering::Relaxed);
            }
            Self::SlowLogThreshold(us) => {
                shared.slowlog.threshold_us.store(us, Ordering::Relaxed);
            }
            Self::SlowLogLength(length) => {
                shared.slowlog.length_max.store(length, Ordering::Relaxed);
            }
            Self::Attribution(on) => shared.metrics.attribution.set(on),
            Self::Nothing => {}
        }
    }
}
