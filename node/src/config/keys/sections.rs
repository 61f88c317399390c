//! What the sections of the file are about.

/// Sections in the order of the example, with what they are about.
pub(crate) const SECTIONS: &[(&str, &str)] = &[
    ("node", "This node."),
    (
        "cluster",
        "What the cluster is formed with. Only the first boot reads members, policy and the timers \
         that safety needs; afterwards they live in the replicated log, and change there.",
    ),
    ("client", "Listeners for Redis clients, and the limits on them."),
    ("peer", "The QUIC endpoint that other nodes connect to."),
    ("admin", "HTTP for operators: health, status, metrics."),
    ("tls", "This node's identity among its peers. `quorate pki` makes these files."),
    ("storage", "The journal, and how long a request may take."),
    (
        "storage.rocksdb",
        "RocksDB, which holds the state. What is not set is left to RocksDB's own default.",
    ),
    ("health", "When a node calls itself unhealthy: writes are refused, and another node leads."),
    ("archive", "Backups. How they work: docs/operations.md."),
    ("log", "What is logged, how and where."),
];
