//! What a node knows of the archive, and when it does what next.

use std::fmt;
use std::time::{Duration, Instant};

use super::catalogue::{Head, Position, SnapshotManifest};
use super::settings::ArchiveSettings;

/// What is known of the archive. Replaced whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiveStatus {
    /// Where the schedule writes to; `None` where it is off.
    pub target: Option<String>,
    /// Whether this node writes now.
    pub running: bool,
    /// Through here the log is archived, as this node last saw it.
    pub archived: Option<Position>,
    /// Who archived last, as this node last saw it.
    pub written: Option<Written>,
    /// The newest snapshot, as this node last saw it.
    pub snapshot: Option<SnapshotSeen>,
    /// This node's runs to the configured target.
    pub runs: Attempts,
    /// This node's restores for comparison.
    pub verifications: Attempts,
    /// From when this node counts.
    pub counted: Counted,
}

/// When the archive was last added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// In milliseconds since 1970.
    pub at_ms: u64,
    /// The node.
    pub by: u64,
}

/// A snapshot of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSeen {
    /// Its manifest.
    pub name: String,
    /// When it was made, in milliseconds since 1970.
    pub made_at_ms: u64,
}

/// How something went that this node does again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// When the last one ended, in milliseconds since 1970.
    pub ended_at_ms: Option<u64>,
    /// When the last one ended well.
    pub succeeded_at_ms: Option<u64>,
    /// Why the last one failed; `None` if it ended well.
    pub failure: Option<String>,
}

/// What intervals are counted from, on the monotonic clock. `None` is due at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// The last scheduled run began then, or the node started.
    pub run: Option<Instant>,
    /// This node last copied the state then, or found the newest snapshot to be of it still.
    pub snapshot: Option<Instant>,
    /// The last comparison began then, or the node started.
    pub verification: Option<Instant>,
}

/// When the primary does what next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// Archives what is new.
    pub run: Instant,
    /// Has the first run behind this moment copy the state, unless the archive is found to hold a
    /// younger snapshot.
    pub snapshot: Instant,
    /// Restores the archive; never without an interval.
    pub verification: Option<Instant>,
}

impl Written {
    pub(super) fn of(head: &Head) -> Self {
        Self { at_ms: head.written_at_ms, by: head.written_by }
    }
}

impl SnapshotSeen {
    pub(super) fn of(manifest: &SnapshotManifest) -> Self {
        Self { name: manifest.manifest_name(), made_at_ms: manifest.made_at_ms }
    }
}

/// The same for people, in milliseconds since 1970. What is past is due now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueMs {
    /// Archives what is new.
    pub run_ms: u64,
    /// Copies the state, too.
    pub snapshot_ms: u64,
    /// Restores the archive; never without an interval.
    pub verification_ms: Option<u64>,
}

impl ArchiveStatus {
    /// What is due when by these settings.
    pub(super) fn due_ms(&self, settings: &ArchiveSettings, now: Instant, now_ms: u64) -> DueMs {
        let due = self.counted.due(settings, now);
        let wall = |at: Instant| now_ms.saturating_add(millis(at.saturating_duration_since(now)));
        let made = self.snapshot.as_ref().filter(|newest| newest.made_at_ms <= now_ms);
        let old = made.map_or(0, |newest| {
            newest.made_at_ms.saturating_add(millis(settings.snapshot_interval))
        });
        let run_ms = wall(due.run);
        DueMs {
            run_ms,
            // Only a run makes one.
            snapshot_ms: wall(due.snapshot).max(old).max(run_ms),
            verification_ms: due.verification.map(wall),
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Attempts {
    /// The last one ended like this.
    pub(super) fn ended(&mut self, now_ms: u64, failure: Option<String>) {
        self.ended_at_ms = Some(now_ms);
        if failure.is_none() {
            self.succeeded_at_ms = Some(now_ms);
        }
        self.failure = failure;
    }
}

impl Counted {
    /// As of the start of a node: an archive may be young, and the first run looks at it.
    pub(super) fn from_start(now: Instant) -> Self {
        Self { run: Some(now), snapshot: None, verification: Some(now) }
    }

    /// What is due when by these settings.
    pub(super) fn due(&self, settings: &ArchiveSettings, now: Instant) -> Due {
        let due = |counted: Option<Instant>, interval: Duration| {
            counted.map_or(now, |counted| counted + interval)
        };
        let verify = settings.verify_interval;
        Due {
            run: due(self.run, settings.interval),
            snapshot: due(self.snapshot, settings.snapshot_interval),
            verification: verify.map(|interval| due(self.verification, interval)),
        }
    }
}

impl fmt::Display for ArchiveStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(target) = &self.target else { return f.write_str("off") };
        f.write_str(target)?;
        let failure = self.runs.failure.as_ref().or(self.verifications.failure.as_ref());
        match (&self.archived, failure) {
            (_, Some(failure)) => write!(f, ": {failure}"),
            (Some(archived), None) => write!(f, " through entry {}", archived.seq),
            (None, None) => f.write_str(": nothing yet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn settings(interval: u64, snapshot: u64, verify: Option<u64>) -> ArchiveSettings {
        ArchiveSettings {
            target: None,
            s3: super::super::S3Settings::default(),
            interval: SECOND * u32::try_from(interval).expect("small"),
            snapshot_interval: SECOND * u32::try_from(snapshot).expect("small"),
            retention: super::super::Retention::default(),
            verify_interval: verify.map(Duration::from_secs),
            bytes_per_second: 1 << 20,
            ack: super::super::Ack::Local,
            final_backup: false,
        }
    }

    #[test]
    fn intervals_count_from_what_was_done_and_new_ones_hold_at_once() {
        let start = Instant::now();
        let mut status =
            ArchiveStatus { counted: Counted::from_start(start), ..ArchiveStatus::default() };
        let due = |status: &ArchiveStatus, settings: ArchiveSettings| {
            // 100 s after the start, at 1,000,000 ms.
            let due = status.due_ms(&settings, start + SECOND * 100, 1_000_000);
            (due.run_ms, due.snapshot_ms, due.verification_ms)
        };
        assert_eq!(due(&status, settings(160, 500, None)), (1_060_000, 1_060_000, None));
        assert_eq!(
            due(&status, settings(10, 500, Some(130))),
            (1_000_000, 1_000_000, Some(1_030_000))
        );
        // Another node has made one 300 s ago.
        let name = "snapshots/1/manifest.json".to_owned();
        status.snapshot = Some(SnapshotSeen { name, made_at_ms: 700_000 });
        assert_eq!(due(&status, settings(160, 500, None)), (1_060_000, 1_200_000, None));
        assert_eq!(due(&status, settings(160, 200, None)), (1_060_000, 1_060_000, None));
        // This node has found 90 s ago that the newest is of its state still.
        status.counted.snapshot = Some(start + SECOND * 10);
        assert_eq!(due(&status, settings(160, 200, None)), (1_060_000, 1_110_000, None));
        // A clock that was wrong.
        status.snapshot.as_mut().expect("there is one").made_at_ms = 9_000_000;
        assert_eq!(due(&status, settings(160, 200, None)), (1_060_000, 1_110_000, None));
    }
}
