//! The `[archive]` section.

use std::time::Duration;

use quorate_actors::archive::{Ack, ArchiveSettings, Authorities, Location, Retention, S3Settings};

use super::Reader;

impl Reader<'_> {
    pub(super) fn archive(&mut self) -> ArchiveSettings {
        const AGE: &str = "archive.retain_age";
        const BYTES: &str = "archive.retain_bytes";
        const RATE: &str = "archive.bytes_per_second";
        const SNAPSHOTS: &str = "archive.retain_snapshots";
        const VERIFY: &str = "archive.verify_interval";
        let snapshots = usize::try_from(self.integer(SNAPSHOTS)).unwrap_or(usize::MAX);
        let settings = ArchiveSettings {
            target: self.location("archive.target"),
            s3: self.s3(),
            interval: self.duration("archive.interval"),
            snapshot_interval: self.duration("archive.snapshot_interval"),
            retention: Retention {
                snapshots: (snapshots > 0).then_some(snapshots),
                age: self.value(AGE).map(|_| self.duration(AGE)),
                bytes: self.value(BYTES).map(|_| self.bytes(BYTES)),
            },
            verify_interval: self.value(VERIFY).map(|_| self.duration(VERIFY)),
            bytes_per_second: self.bytes(RATE),
            ack: self.ack(),
            final_backup: self.flag("archive.final_backup"),
        };
        if settings.final_backup && settings.target.is_none() {
            self.refuse("archive.final_backup", "needs archive.target");
        }
        if settings.bytes_per_second < 1 << 20 {
            self.refuse(RATE, "must be at least 1MiB");
        }
        if settings.interval < Duration::from_secs(1) {
            self.refuse("archive.interval", "must be at least 1s");
        }
        if settings.snapshot_interval < settings.interval {
            self.refuse("archive.snapshot_interval", "must be at least archive.interval");
        }
        if settings.verify_interval.is_some_and(|interval| interval < settings.interval) {
            self.refuse(VERIFY, "must be at least archive.interval");
        }
        settings
    }

    fn ack(&mut self) -> Ack {
        let text = self.text("archive.ack").unwrap_or_default();
        text.parse().unwrap_or_else(|expected: &str| {
            self.refuse("archive.ack", expected);
            Ack::Local
        })
    }

    /// A relative directory counts from the file's folder.
    fn location(&mut self, key: &str) -> Option<Location> {
        match self.text(key)?.parse::<Location>() {
            Ok(location) => Some(location.within(self.folder())),
            Err(message) => {
                self.refuse(key, message);
                None
            }
        }
    }

    fn s3(&mut self) -> S3Settings {
        const ACCESS: &str = "archive.s3_access_key_file";
        const SECRET: &str = "archive.s3_secret_key_file";
        const ENDPOINT: &str = "archive.s3_endpoint";
        let settings = S3Settings {
            endpoint: self.text(ENDPOINT),
            region: self.text("archive.s3_region"),
            keys: self.secret_line(ACCESS).zip(self.secret_line(SECRET)),
            ca: self.authorities("archive.s3_ca"),
            allow_http: self.flag("archive.s3_allow_http"),
            timeout: self.duration("archive.s3_timeout"),
        };
        match (self.value(ACCESS), self.value(SECRET)) {
            (Some(_), None) => self.refuse(ACCESS, "needs archive.s3_secret_key_file, too"),
            (None, Some(_)) => self.refuse(SECRET, "needs archive.s3_access_key_file, too"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        if let Some(endpoint) = &settings.endpoint {
            let is_http = endpoint.starts_with("http://");
            if is_http && !settings.allow_http {
                self.refuse(
                    ENDPOINT,
                    "set archive.s3_allow_http to send what is archived in clear",
                );
            } else if !is_http && !endpoint.starts_with("https://") {
                self.refuse(ENDPOINT, "must begin with https://");
            }
        }
        if settings.timeout < Duration::from_secs(1) {
            self.refuse("archive.s3_timeout", "must be at least 1s");
        }
        settings
    }

    fn authorities(&mut self, key: &'static str) -> Option<Authorities> {
        let path = self.path(key)?;
        let pem = self.file(key, &path)?;
        Authorities::new(path, pem).map_err(|message| self.refuse(key, message)).ok()
    }

    /// What a secret file holds in its one line.
    fn secret_line(&mut self, key: &'static str) -> Option<String> {
        let path = self.path(key)?;
        let bytes = self.secret(key, &path)?;
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        if text.is_empty() {
            self.refuse(key, "the file is empty");
            return None;
        }
        Some(text)
    }
}
