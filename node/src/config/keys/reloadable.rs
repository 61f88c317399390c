//! Keys that take effect without a restart.

/// By section, as in the example.
pub(crate) const RELOADABLE: &[&str] = &[
    "node.shutdown_deadline",
    "client.requirepass",
    "client.requirepass_file",
    "client.maxclients",
    "client.max_value_bytes",
    "client.request_bytes_max",
    "client.output_bytes_max",
    "client.admission_bytes_max",
    "client.primary_wait",
    "peer.snapshot_bytes_per_second",
    "tls.ca",
    "tls.cert",
    "tls.key",
    "tls.ca_key",
    "storage.store_deadline",
    "storage.limit_concurrent_stores",
    "storage.limit_concurrent_loads",
    "storage.limit_concurrent_removes",
    "health.error_latch_duration",
    "health.error_unlatch_duration",
    "health.allow_error_unlatch",
    "archive.interval",
    "archive.snapshot_interval",
    "archive.retain_snapshots",
    "archive.retain_age",
    "archive.retain_bytes",
    "archive.verify_interval",
    "archive.bytes_per_second",
    "archive.ack",
    "archive.final_backup",
    "archive.s3_access_key_file",
    "archive.s3_secret_key_file",
    "archive.s3_ca",
    "archive.s3_timeout",
    "log.level",
    "log.filter",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KEYS;

    #[test]
    fn every_reloadable_key_exists_and_is_named_once() {
        for key in RELOADABLE {
            assert!(KEYS.iter().any(|known| known.path == *key), "{key}");
            assert_eq!(RELOADABLE.iter().filter(|other| *other == key).count(), 1, "{key}");
        }
    }
}
