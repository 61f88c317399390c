//! The keys of the archive.

use super::Fallback::{Unset, Value};
use super::{Key, Kind};

pub(super) const KEYS: &[Key] = &[
    Key {
        path: "archive.target",
        kind: Kind::Text,
        fallback: Unset("\"/mnt/backups/shop\""),
        doc: "A directory, or s3://bucket/prefix, the same on all nodes, that the primary archives \
              to. Unset: no backups.",
    },
    Key {
        path: "archive.interval",
        kind: Kind::Duration,
        fallback: Value("\"1min\""),
        doc: "How often what is new in the log is archived.",
    },
    Key {
        path: "archive.snapshot_interval",
        kind: Kind::Duration,
        fallback: Value("\"1d\""),
        doc: "How often the state is copied too, from which restores begin.",
    },
    Key {
        path: "archive.retain_snapshots",
        kind: Kind::Integer,
        fallback: Value("7"),
        doc: "Snapshots that are kept, with the log behind the oldest of them; 0 is all.",
    },
    Key {
        path: "archive.retain_age",
        kind: Kind::Duration,
        fallback: Unset("\"30d\""),
        doc: "What is older than that goes, too.",
    },
    Key {
        path: "archive.retain_bytes",
        kind: Kind::Bytes,
        fallback: Unset("\"100GiB\""),
        doc: "The oldest goes beyond that, but never the newest snapshot.",
    },
    Key {
        path: "archive.verify_interval",
        kind: Kind::Duration,
        fallback: Unset("\"7d\""),
        doc: "How often the primary restores the archive beside its data and compares. Unset: never.",
    },
    Key {
        path: "archive.bytes_per_second",
        kind: Kind::Bytes,
        fallback: Value("\"64MiB\""),
        doc: "What a backup copies in a second, so that writes have the rest of disk and network. \
              At least 1MiB. The last backup of a node that stops has no limit.",
    },
    Key {
        path: "archive.ack",
        kind: Kind::Text,
        fallback: Value("\"local\""),
        doc: "What a backup waits for at its end, for 5 s at most: that what it archived is on this \
              node's disk (local), on the disks of N voters (ack_n N), or where the policy wants it \
              (policy). The backup's report says if it was in vain.",
    },
    Key {
        path: "archive.final_backup",
        kind: Kind::Bool,
        fallback: Value("false"),
        doc: "Whether a node that is told to stop archives what is new before it does, within three \
              quarters of `node.shutdown_deadline`.",
    },
    Key {
        path: "archive.s3_endpoint",
        kind: Kind::Text,
        fallback: Unset("\"https://s3.example.com\""),
        doc: "The URL of an S3 store that isn't Amazon's. This and what follows is for targets in S3. \
              What is not set is taken from the environment: AWS_ENDPOINT_URL, AWS_REGION, \
              AWS_ACCESS_KEY_ID and so on.",
    },
    Key {
        path: "archive.s3_region",
        kind: Kind::Text,
        fallback: Unset("\"eu-central-1\""),
        doc: "The store's region.",
    },
    Key {
        path: "archive.s3_access_key_file",
        kind: Kind::Path,
        fallback: Unset("\"/etc/quorate/s3-access-key\""),
        doc: "Holds the access key. Others must not be able to read it. With both files, \
              credentials of the environment are not looked at.",
    },
    Key {
        path: "archive.s3_secret_key_file",
        kind: Kind::Path,
        fallback: Unset("\"/etc/quorate/s3-secret-key\""),
        doc: "Holds the secret key. Others must not be able to read it.",
    },
    Key {
        path: "archive.s3_ca",
        kind: Kind::Path,
        fallback: Unset("\"/etc/quorate/s3-ca.crt\""),
        doc: "Holds certificates, in PEM, of the authorities that the store's may be of, in place of \
              the machine's.",
    },
    Key {
        path: "archive.s3_allow_http",
        kind: Kind::Bool,
        fallback: Value("false"),
        doc: "Whether the endpoint may be http://: what is archived then crosses the network in \
              clear.",
    },
    Key {
        path: "archive.s3_timeout",
        kind: Kind::Duration,
        fallback: Value("\"30s\""),
        doc: "How long one request may take, which moves at most 8 MiB; it is tried again a few times.",
    },
];
