//! The `[archive]` section.

use std::time::Duration;

use quorate_actors::archive::{ArchiveSettings, Retention};

use super::Reader;

impl Reader<'_> {
    pub(super) fn archive(&mut self) -> ArchiveSettings {
        const AGE: &str = "archive.retain_age";
        const BYTES: &str = "archive.retain_bytes";
        const SNAPSHOTS: &str = "archive.retain_snapshots";
        const VERIFY: &str = "archive.verify_interval";
        let snapshots = usize::try_from(self.integer(SNAPSHOTS)).unwrap_or(usize::MAX);
        let settings = ArchiveSettings {
            target: self.path("archive.target"),
            interval: self.duration("archive.interval"),
            snapshot_interval: self.duration("archive.snapshot_interval"),
            retention: Retention {
                snapshots: (snapshots > 0).then_some(snapshots),
                age: self.value(AGE).map(|_| self.duration(AGE)),
                bytes: self.value(BYTES).map(|_| self.bytes(BYTES)),
            },
            verify_interval: self.value(VERIFY).map(|_| self.duration(VERIFY)),
        };
        if settings.interval < Duration::from_secs(1) {
            self.refuse("archive.interval", "must be at least 1s");
        }
        if settings.snapshot_interval < settings.interval {
            self.refuse("archive.snapshot_interval", "must be at least archive.interval");
        }
        settings
    }
}
