//! When to flush the state, and how much of the journal may go.

use std::time::Duration;

use quorate_protocol::types::Seq;

/// Sizes and times of the storage's upkeep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpkeepOptions {
    /// How often it is looked after.
    pub period: Duration,
    /// The state is flushed when a restart would have to replay more than this many bytes.
    pub replay_bytes_max: u64,
    /// And when what is applied has not been flushed for this long.
    pub flush_after: Duration,
    /// Bytes of the journal that are kept for replicas that lag, though the state doesn't need
    /// them any more.
    pub retain_bytes: u64,
    /// Bytes beyond that which a replica may keep that fetches a snapshot.
    pub hold_bytes_max: u64,
}

/// On a full disk the state is flushed after this, so that the journal behind it can go.
const FULL_FLUSH_AFTER: Duration = Duration::from_secs(5);

impl Default for UpkeepOptions {
    /// Every second; 64 MiB, a minute; 1 GiB, and 4 GiB more during a transfer.
    fn default() -> Self {
        Self {
            period: Duration::from_secs(1),
            replay_bytes_max: 64 << 20,
            flush_after: Duration::from_mins(1),
            retain_bytes: 1 << 30,
            hold_bytes_max: 4 << 30,
        }
    }
}

/// What is known when it is decided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Positions<'a> {
    /// First position and bytes of each of the journal's segments, oldest first.
    pub(super) segments: &'a [(Seq, u64)],
    /// What the state holds.
    pub(super) applied: Seq,
    /// What it holds on disk.
    pub(super) flushed: Seq,
    /// The first entry that a replica needs which fetches a snapshot.
    pub(super) held: Option<Seq>,
}

impl UpkeepOptions {
    /// What holds while the disk is full: nothing is kept that a restart doesn't need, and what
    /// it needs is made less.
    pub(super) fn when_disk_is_full(&self) -> Self {
        Self { retain_bytes: 0, flush_after: self.flush_after.min(FULL_FLUSH_AFTER), ..*self }
    }

    /// Whether the state should be flushed. `unflushed_for` is how long it has held something
    /// that isn't on disk.
    pub(super) fn flush_is_due(&self, at: Positions<'_>, unflushed_for: Duration) -> bool {
        at.applied > at.flushed
            && (unflushed_for >= self.flush_after || replay_bytes(at) > self.replay_bytes_max)
    }

    /// The position below which the journal isn't needed, if that frees a segment.
    pub(super) fn trim_below(&self, at: Positions<'_>) -> Option<Seq> {
        let mut below = retained_from(at, self.retain_bytes)?.min(at.flushed.next());
        if let Some(held) = at.held {
            let limit = retained_from(at, self.retain_bytes.saturating_add(self.hold_bytes_max))?;
            below = below.min(held.max(limit));
        }
        // A segment can go when the one after it starts at or below.
        at.segments.get(1).filter(|(second, _)| *second <= below).map(|_| below)
    }
}

/// Where the newest segments begin that hold at most so many bytes; the last one always counts.
fn retained_from(at: Positions<'_>, bytes_max: u64) -> Option<Seq> {
    let mut kept_bytes = 0;
    let mut from = at.segments.last()?.0;
    for (first, bytes) in at.segments.iter().rev() {
        kept_bytes += bytes;
        if kept_bytes > bytes_max {
            break;
        }
        from = *first;
    }
    Some(from)
}

/// Bytes of the segments that a restart would have to read.
fn replay_bytes(at: Positions<'_>) -> u64 {
    let needed = at.segments.partition_point(|(first, _)| *first <= at.flushed.next());
    at.segments[needed.saturating_sub(1)..].iter().map(|(_, bytes)| bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENTS: [(Seq, u64); 4] =
        [(Seq(1), 100), (Seq(11), 100), (Seq(21), 100), (Seq(31), 50)];

    fn at(applied: u64, flushed: u64) -> Positions<'static> {
        let (applied, flushed) = (Seq(applied), Seq(flushed));
        Positions { segments: &SEGMENTS, applied, flushed, held: None }
    }

    fn options(replay_bytes_max: u64, retain_bytes: u64) -> UpkeepOptions {
        let flush_after = Duration::from_secs(10);
        UpkeepOptions { replay_bytes_max, flush_after, retain_bytes, ..UpkeepOptions::default() }
    }

    #[test]
    fn a_flush_is_due_by_age_or_by_what_a_restart_would_replay() {
        let secs = Duration::from_secs;
        for (applied, flushed, age, replay_max, due) in [
            (35, 35, 99, 0, false), // nothing to flush
            (35, 34, 9, 1000, false),
            (35, 34, 10, 1000, true),
            (35, 34, 0, 50, false), // only the last segment: 50 bytes
            (35, 29, 0, 149, true), // 30 is in the third: 150 bytes
            (35, 29, 0, 150, false),
            (35, 0, 0, 349, true),
        ] {
            let found = options(replay_max, 0).flush_is_due(at(applied, flushed), secs(age));
            assert_eq!(found, due, "{applied} {flushed} {age} {replay_max}");
        }
    }

    #[test]
    fn the_journal_keeps_what_the_state_needs_and_the_newest_bytes() {
        for (flushed, retain, below) in [
            (0, 0, None),        // a restart needs everything
            (9, 0, None),        // 10 is in the first segment
            (10, 0, Some(11)),   // the first segment isn't needed
            (35, 0, Some(31)),   // the current segment always stays
            (35, 150, Some(21)), // 50 + 100 bytes are kept
            (35, 149, Some(31)),
            (35, 250, Some(11)),
            (35, 350, None),
        ] {
            let found = options(0, retain).trim_below(at(35, flushed));
            assert_eq!(found, below.map(Seq), "{flushed} {retain}");
        }
        // A replica that fetches a snapshot keeps more, up to a limit.
        for (held, hold_bytes_max, below) in [
            (21, 1000, Some(21)),
            (25, 1000, Some(25)),
            (5, 1000, None),
            (5, 150, Some(21)),
            (5, 250, Some(11)),
            (40, 1000, Some(31)),
        ] {
            let options = UpkeepOptions { hold_bytes_max, ..options(0, 0) };
            let found = options.trim_below(Positions { held: Some(Seq(held)), ..at(35, 35) });
            assert_eq!(found, below.map(Seq), "{held} {hold_bytes_max}");
        }
        let full = options(0, 250).when_disk_is_full();
        assert_eq!(full.trim_below(at(35, 35)), Some(Seq(31)), "nothing is kept for others");
        let one = Positions { segments: &SEGMENTS[..1], ..at(9, 9) };
        assert_eq!(options(0, 0).trim_below(one), None);
    }
}
