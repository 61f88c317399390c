//! Every key there is.

mod archive;
mod reloadable;
mod sections;

use reloadable::RELOADABLE;
pub(crate) use sections::SECTIONS;

/// What a key's value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// A path; a relative one counts from the folder of the file.
    Path,
    /// `ip:port`.
    Address,
    /// `host:port`, a name or an address.
    HostPort,
    /// A whole number of at least 0.
    Integer,
    /// `true` or `false`.
    Bool,
    /// A number with `us`, `ms`, `s`, `min`, `h` or `d`.
    Duration,
    /// A number of bytes, or one with `KiB`, `MiB` or `GiB`.
    Bytes,
    /// A list of strings.
    List,
}

/// What holds where nobody sets a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// It must be set; the text, in TOML, is what the example shows.
    Required(&'static str),
    /// This value, in TOML.
    Value(&'static str),
    /// Nothing; the text, in TOML, is what the example shows.
    Unset(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// Section and name, with dots.
    pub(crate) path: &'static str,
    /// What it takes.
    pub(crate) kind: Kind,
    /// What holds without it.
    pub(crate) fallback: Fallback,
    /// What it does, for the example. Lines are broken at 92 columns.
    pub(crate) doc: &'static str,
}

impl Key {
    /// The section, with dots.
    pub(crate) fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// The name within its section.
    pub(crate) fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    /// Whether it takes effect without a restart.
    pub(crate) fn is_reloadable(&self) -> bool {
        RELOADABLE.contains(&self.path)
    }

    /// The environment variable that overrides it: `client.listen` is `QUORATE_CLIENT__LISTEN`.
    pub(crate) fn variable(&self) -> String {
        format!("QUORATE_{}", self.path.to_ascii_uppercase().replace('.', "__"))
    }
}

/// The key with this path.
pub(crate) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

use Fallback::{Required, Unset, Value};

/// All keys, those of a section in the order of the example.
pub(crate) const KEYS: &[Key] = &joined::<{ GENERAL.len() + archive::KEYS.len() }>();

const fn joined<const COUNT: usize>() -> [Key; COUNT] {
    let mut all = [GENERAL[0]; COUNT];
    let mut at = 0;
    while at < COUNT {
        all[at] = if at < GENERAL.len() { GENERAL[at] } else { archive::KEYS[at - GENERAL.len()] };
        at += 1;
    }
    all
}

const GENERAL: &[Key] = &[
    Key {
        path: "node.id",
        kind: Kind::Integer,
        fallback: Required("1"),
        doc: "This node's number: at least 1, one of `cluster.initial_members` if that is set, never \
              used again for another node or for an emptied disk.",
    },
    Key {
        path: "node.data_dir",
        kind: Kind::Path,
        fallback: Required("\"/var/lib/quorate\""),
        doc: "Journal and state. On a disk that survives a reboot.",
    },
    Key {
        path: "node.pid_file",
        kind: Kind::Path,
        fallback: Unset("\"/run/quorate/pid\""),
        doc: "Holds the process id while the node runs. Unset: `pid` in the data directory.",
    },
    Key {
        path: "node.advertise_client",
        kind: Kind::HostPort,
        fallback: Unset("\"db-1.example.com:7401\""),
        doc: "Where clients reach `client.listen`; a host name or an address with a port. Needed \
              where `client.listen` binds all addresses (0.0.0.0).",
    },
    Key {
        path: "node.advertise_plain",
        kind: Kind::HostPort,
        fallback: Unset("\"db-1.example.com:7431\""),
        doc: "Where clients reach `client.listen_plain`.",
    },
    Key {
        path: "node.advertise_peer",
        kind: Kind::HostPort,
        fallback: Unset("\"db-1.example.com:7411\""),
        doc: "Where other nodes reach `peer.listen`. Unset: this node's address among \
              `cluster.initial_members`.",
    },
    Key {
        path: "node.shutdown_deadline",
        kind: Kind::Duration,
        fallback: Value("\"30s\""),
        doc: "How long an orderly stop may take.",
    },
    Key {
        path: "node.drill_allowed",
        kind: Kind::Bool,
        fallback: Value("false"),
        doc: "Whether a failover drill may break this node without asking again.",
    },
    Key {
        path: "cluster.name",
        kind: Kind::Text,
        fallback: Value("\"quorate\""),
        doc: "Name of the cluster: letters, digits and hyphens. Node certificates name \
              `node-<id>.<name>`; sentinel clients ask for it.",
    },
    Key {
        path: "cluster.initial_members",
        kind: Kind::List,
        fallback: Required("[\"1@10.0.0.1:7411\", \"2@10.0.0.2:7411\", \"3@10.0.0.3:7411\"]"),
        doc: "The first members, each `id@host:port` with the address of its `peer.listen`. The \
              cluster forms once all of them are there with empty disks. A node that joins a formed \
              cluster sets `cluster.join` instead.",
    },
    Key {
        path: "cluster.join",
        kind: Kind::List,
        fallback: Unset("[\"1@10.0.0.1:7411\"]"),
        doc: "In place of `cluster.initial_members`: members of the formed cluster that this node \
              joins, each `id@host:port`. It calls them until `quorate members add` takes it in.",
    },
    Key {
        path: "cluster.peers",
        kind: Kind::List,
        fallback: Unset("[\"2@10.0.1.2:7411\"]"),
        doc: "Where other members may be found, each `id@host:port`, in addition to the addresses \
              in the log: for when all of them have changed while no node ran.",
    },
    Key {
        path: "cluster.policy",
        kind: Kind::Text,
        fallback: Value("\"majority\""),
        doc: "When a write is acknowledged: local, memory, hybrid, majority, all, or clauses such \
              as \"persisted>=1 && in_memory>=2\".",
    },
    Key {
        path: "cluster.heartbeat",
        kind: Kind::Duration,
        fallback: Value("\"50ms\""),
        doc: "How often a primary is heard at least.",
    },
    Key {
        path: "cluster.election_timeout_min",
        kind: Kind::Duration,
        fallback: Value("\"300ms\""),
        doc: "Nobody is elected within this time after a primary was heard.",
    },
    Key {
        path: "cluster.election_timeout_max",
        kind: Kind::Duration,
        fallback: Value("\"600ms\""),
        doc: "Elections start at a random time between the two.",
    },
    Key {
        path: "cluster.lease",
        kind: Kind::Duration,
        fallback: Value("\"250ms\""),
        doc: "How long a primary serves reads after a majority last answered it. Lease and clock \
              drift together stay below `election_timeout_min`.",
    },
    Key {
        path: "cluster.clock_drift",
        kind: Kind::Duration,
        fallback: Value("\"10ms\""),
        doc: "How far two machines' clocks may drift apart during one lease.",
    },
    Key {
        path: "client.listen",
        kind: Kind::Address,
        fallback: Value("\"127.0.0.1:7401\""),
        doc: "Speaks RESP as a Redis Cluster node: redis-cli -c, redis.cluster.RedisCluster.",
    },
    Key {
        path: "client.listen_plain",
        kind: Kind::Address,
        fallback: Unset("\"127.0.0.1:7431\""),
        doc: "Speaks RESP as a standalone server, for clients without cluster support.",
    },
    Key {
        path: "client.requirepass",
        kind: Kind::Text,
        fallback: Unset("\"a long secret\""),
        doc: "The password that clients must give. The file must not be readable by others then.",
    },
    Key {
        path: "client.requirepass_file",
        kind: Kind::Path,
        fallback: Unset("\"/etc/quorate/requirepass\""),
        doc: "The same, read from a file that others can't read.",
    },
    Key {
        path: "client.allow_unauthenticated",
        kind: Kind::Bool,
        fallback: Value("false"),
        doc: "Listen on addresses that other machines reach, without a password.",
    },
    Key {
        path: "client.maxclients",
        kind: Kind::Integer,
        fallback: Value("10000"),
        doc: "Connections at one time, both listeners together.",
    },
    Key {
        path: "client.attribution",
        kind: Kind::Bool,
        fallback: Value("true"),
        doc: "Whether it is noted what each write waits for: in the slow log, and in the metrics \
              quorate_write_*. Changed while the node runs by CONFIG SET attribution yes|no.",
    },
    Key {
        path: "client.max_value_bytes",
        kind: Kind::Bytes,
        fallback: Value("\"16MiB\""),
        doc: "Longest value.",
    },
    Key {
        path: "client.request_bytes_max",
        kind: Kind::Bytes,
        fallback: Value("\"64MiB\""),
        doc: "Longest request, all arguments together.",
    },
    Key {
        path: "client.output_bytes_max",
        kind: Kind::Bytes,
        fallback: Value("\"64MiB\""),
        doc: "Replies that may wait for a client that doesn't read; beyond it, it is cut.",
    },
    Key {
        path: "client.admission_bytes_max",
        kind: Kind::Bytes,
        fallback: Value("\"64MiB\""),
        doc: "Writes that may wait for their place in the log, all clients together; beyond it \
              they are refused with OVERLOADED.",
    },
    Key {
        path: "client.primary_wait",
        kind: Kind::Duration,
        fallback: Value("\"500ms\""),
        doc: "How long a command waits for a primary before CLUSTERDOWN.",
    },
    Key {
        path: "peer.listen",
        kind: Kind::Address,
        fallback: Value("\"0.0.0.0:7411\""),
        doc: "UDP. Only nodes with a certificate of the same authority get through.",
    },
    Key {
        path: "peer.snapshot_bytes_per_second",
        kind: Kind::Bytes,
        fallback: Value("\"64MiB\""),
        doc: "What this node sends of snapshots in a second, to all replicas together that have \
              fallen behind the journal. At least 1MiB.",
    },
    Key {
        path: "admin.listen",
        kind: Kind::Address,
        fallback: Value("\"127.0.0.1:7421\""),
        doc: "Callers from other machines get /health/* only, and /metrics where \
              `public_metrics` is set; the rest is for callers on this machine.",
    },
    Key {
        path: "admin.public_metrics",
        kind: Kind::Bool,
        fallback: Value("false"),
        doc: "Whether other machines may read /metrics.",
    },
    Key {
        path: "tls.ca",
        kind: Kind::Path,
        fallback: Required("\"/etc/quorate/tls/ca.crt\""),
        doc: "Certificates of the authorities whose node certificates are accepted.",
    },
    Key {
        path: "tls.cert",
        kind: Kind::Path,
        fallback: Required("\"/etc/quorate/tls/node-1.crt\""),
        doc: "This node's certificate. It is renewed where it lies, if a member has `tls.ca_key`.",
    },
    Key {
        path: "tls.ca_key",
        kind: Kind::Path,
        fallback: Unset("\"tls/ca.key\""),
        doc: "The key of the first authority in `tls.ca`: this node then signs the certificates of nodes \
              that join with a token, and renews those of members. Keep it on as few nodes as possible.",
    },
    Key {
        path: "tls.key",
        kind: Kind::Path,
        fallback: Required("\"/etc/quorate/tls/node-1.key\""),
        doc: "Its private key; others must not be able to read it.",
    },
    Key {
        path: "storage.allow_volatile",
        kind: Kind::Bool,
        fallback: Value("false"),
        doc: "Accept a data directory on tmpfs or overlay. For tests: a node that forgets its \
              disk forgets what it acknowledged.",
    },
    Key {
        path: "storage.journal_segment_bytes",
        kind: Kind::Bytes,
        fallback: Value("\"64MiB\""),
        doc: "A journal file of this size is sealed and the next one begun.",
    },
    Key {
        path: "storage.journal_group_bytes_max",
        kind: Kind::Bytes,
        fallback: Value("\"8MiB\""),
        doc: "What one write to the journal holds at most.",
    },
    Key {
        path: "storage.journal_cache_bytes",
        kind: Kind::Bytes,
        fallback: Value("\"64MiB\""),
        doc: "Newest part of the log that stays in memory for replicas.",
    },
    Key {
        path: "storage.journal_retain_bytes",
        kind: Kind::Bytes,
        fallback: Value("\"4GiB\""),
        doc: "Journal that is kept on disk for replicas that lag.",
    },
    Key {
        path: "storage.divergent_bytes_max",
        kind: Kind::Bytes,
        fallback: Value("\"1GiB\""),
        doc: "What is kept of entries that were cut from the log; the oldest files go first, and \
              the newest stays whatever its size.",
    },
    Key {
        path: "storage.min_free_bytes",
        kind: Kind::Bytes,
        fallback: Unset("\"1GiB\""),
        doc: "Below so many free bytes writes that need space are refused with DISKFULL. Unset: a \
              tenth of the file system, at most 1GiB. 0: never.",
    },
    Key {
        path: "storage.min_free_inodes",
        kind: Kind::Integer,
        fallback: Unset("10000"),
        doc: "The same for inodes. Unset: a tenth, at most 10000. 0: never.",
    },
    Key {
        path: "storage.store_deadline",
        kind: Kind::Duration,
        fallback: Value("\"30s\""),
        doc: "How long a request may take: afterwards TIMEOUT if it certainly didn't happen, \
              INDOUBT if it may have.",
    },
    Key {
        path: "storage.limit_concurrent_stores",
        kind: Kind::Integer,
        fallback: Unset("64"),
        doc: "Batches of writes under way at once, all clients together. Others wait, until their \
              deadline ends with TIMEOUT. Unset: any number.",
    },
    Key {
        path: "storage.limit_concurrent_loads",
        kind: Kind::Integer,
        fallback: Unset("64"),
        doc: "The same for rounds of reads.",
    },
    Key {
        path: "storage.limit_concurrent_removes",
        kind: Kind::Integer,
        fallback: Unset("64"),
        doc: "The same for batches that only remove.",
    },
    Key {
        path: "storage.rocksdb.increase_parallelism",
        kind: Kind::Integer,
        fallback: Unset("2"),
        doc: "Threads for background work. Unset: half of the cores, at least one.",
    },
    Key {
        path: "storage.rocksdb.optimize_level_style_compaction",
        kind: Kind::Bytes,
        fallback: Unset("\"512MiB\""),
        doc: "Tune level compaction for this much memory in memtables.",
    },
    Key {
        path: "storage.rocksdb.optimize_universal_style_compaction",
        kind: Kind::Bytes,
        fallback: Unset("\"512MiB\""),
        doc: "Use universal compaction, tuned for this much memory in memtables.",
    },
    Key {
        path: "storage.rocksdb.paranoid_checks",
        kind: Kind::Bool,
        fallback: Value("false"),
        doc: "Check more while reading, and refuse to open a damaged store.",
    },
    Key {
        path: "storage.rocksdb.compression",
        kind: Kind::Text,
        fallback: Value("\"snappy\""),
        doc: "none, snappy, lz4, lz4hc or zstd.",
    },
    Key {
        path: "storage.rocksdb.compaction_readahead_size",
        kind: Kind::Bytes,
        fallback: Unset("\"2MiB\""),
        doc: "What a compaction reads ahead.",
    },
    Key {
        path: "storage.rocksdb.level_compaction_dynamic_level_bytes",
        kind: Kind::Bool,
        fallback: Value("false"),
        doc: "Let RocksDB choose the sizes of levels.",
    },
    Key {
        path: "storage.rocksdb.max_open_files",
        kind: Kind::Integer,
        fallback: Unset("-1"),
        doc: "Files kept open; -1 is all.",
    },
    Key {
        path: "storage.rocksdb.write_buffer_size",
        kind: Kind::Bytes,
        fallback: Unset("\"64MiB\""),
        doc: "Size of one memtable.",
    },
    Key {
        path: "storage.rocksdb.level0_stop_writes_trigger",
        kind: Kind::Integer,
        fallback: Unset("36"),
        doc: "Files in level 0 at which writes stop.",
    },
    Key {
        path: "storage.rocksdb.log_level",
        kind: Kind::Text,
        fallback: Value("\"info\""),
        doc: "What RocksDB writes to its own log: debug, info, warn, error, fatal, header.",
    },
    Key {
        path: "storage.rocksdb.memtable_huge_page_size",
        kind: Kind::Bytes,
        fallback: Unset("\"2MiB\""),
        doc: "Size of a huge page for memtables.",
    },
    Key {
        path: "storage.rocksdb.log_file_time_to_roll",
        kind: Kind::Duration,
        fallback: Value("\"1d\""),
        doc: "How long RocksDB writes into one log file.",
    },
    Key {
        path: "storage.rocksdb.obsolete_files_period",
        kind: Kind::Duration,
        fallback: Value("\"6h\""),
        doc: "How often files that are no longer needed are looked for.",
    },
    Key {
        path: "storage.rocksdb.keep_log_file_num",
        kind: Kind::Integer,
        fallback: Value("10"),
        doc: "How many of RocksDB's log files are kept.",
    },
    Key {
        path: "storage.rocksdb.block_cache_size",
        kind: Kind::Bytes,
        fallback: Value("\"64MiB\""),
        doc: "Cache for uncompressed blocks.",
    },
    Key {
        path: "storage.rocksdb.min_blob_size",
        kind: Kind::Bytes,
        fallback: Value("\"64KiB\""),
        doc: "Values of this size go to blob files, which compactions don't rewrite; 0 is never.",
    },
    Key {
        path: "health.sample_period",
        kind: Kind::Duration,
        fallback: Value("\"5s\""),
        doc: "How often the storage is sampled.",
    },
    Key {
        path: "health.error_latch_duration",
        kind: Kind::Duration,
        fallback: Value("\"15s\""),
        doc: "Storage errors that go on for so long make the node unhealthy. Damage does at once.",
    },
    Key {
        path: "health.error_unlatch_duration",
        kind: Kind::Duration,
        fallback: Value("\"5min\""),
        doc: "So long without a further error makes it healthy again.",
    },
    Key {
        path: "health.allow_error_unlatch",
        kind: Kind::Bool,
        fallback: Value("true"),
        doc: "Whether it gets healthy again without a restart.",
    },
    Key {
        path: "health.memory_limit",
        kind: Kind::Bytes,
        fallback: Unset("\"4GiB\""),
        doc: "Memory that the node may take: memory is given back at 75%, writes are refused with \
              OOM at 90%. Unset: the limit of its control group, else of the process, else all RAM.",
    },
    Key {
        path: "health.scrub_period",
        kind: Kind::Duration,
        fallback: Value("\"7d\""),
        doc: "How often the primary has all nodes read and compare what they hold, and has those \
              that differ from most rebuilt; 0s is never.",
    },
    Key {
        path: "health.chain_check_period",
        kind: Kind::Duration,
        fallback: Value("\"30s\""),
        doc: "How often this node compares its log with the other voters'; 0s is never.",
    },
    Key {
        path: "log.level",
        kind: Kind::Text,
        fallback: Value("\"info\""),
        doc: "error, warn, info, debug, trace.",
    },
    Key {
        path: "log.filter",
        kind: Kind::Text,
        fallback: Unset("\"info,quorate_actors::replication=debug\""),
        doc: "Levels by module, in place of `level`.",
    },
    Key {
        path: "log.format",
        kind: Kind::Text,
        fallback: Value("\"text\""),
        doc: "text or json, one event per line.",
    },
    Key {
        path: "log.file",
        kind: Kind::Path,
        fallback: Unset("\"/var/log/quorate/log\""),
        doc: "Appended to. Unset: standard error.",
    },
];
