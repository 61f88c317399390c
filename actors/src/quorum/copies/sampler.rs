//! Which entries are watched, and when each copy of them was first seen.

use std::sync::Arc;
use std::time::Duration;

use quorate_protocol::policy::{CopyTimes, Cursors, Policy};
use quorate_protocol::types::{MonoTime, NodeId, Seq};

use super::board::{CopyTimesBoard, Sample};
use super::window;

/// Entries that are watched at a time.
const OPEN_MAX: usize = 32;

/// How long an entry is watched for copies of voters that seem to be there.
const WATCH_LIMIT_US: u64 = 1_000_000;

/// Entries that are watched in a second.
const PER_SECOND: u32 = 32;

/// Entries that are watched in one window, besides.
const PER_WINDOW: u32 = 48;

/// An entry that clients wait for, as it is sealed.
#[derive(Clone, Copy, Debug)]
pub(in crate::quorum) struct Seen {
    /// Where it stands.
    pub seq: Seq,
    /// Commands in it.
    pub commands: u32,
    /// How long one of them, in the middle, has waited until now.
    pub queued: Duration,
    /// Cluster time.
    pub cluster_ms: u64,
    /// Whether the policy in force has all copies in memory reported.
    pub memory_reported: bool,
}

/// Watches some entries. Which ones depends on their count alone, not on time: one that comes
/// after a long pause must not be more likely to be watched.
#[derive(Debug)]
pub(in crate::quorum) struct CopySampler {
    board: Arc<CopyTimesBoard>,
    open: Vec<(Seq, Sample)>,
    second: Stride,
}

/// Every how many-th entry is watched, by how many there were in the second before.
#[derive(Clone, Copy, Debug)]
struct Stride {
    began: MonoTime,
    entries: u32,
    every: u32,
    every_in_window: u32,
}

impl CopySampler {
    pub(in crate::quorum) fn new(board: Arc<CopyTimesBoard>) -> Self {
        let second = Stride { began: MonoTime(0), entries: 0, every: 1, every_in_window: 1 };
        Self { board, open: Vec::with_capacity(OPEN_MAX), second }
    }

    /// The tenure ended, or another one begins: positions may mean other entries. Or the policy has
    /// changed, and with it the load.
    pub(in crate::quorum) fn clear(&mut self) {
        self.open.clear();
        self.board.watch(false);
        self.board.clear();
    }

    /// An entry was sealed at `now`.
    pub(in crate::quorum) fn sealed(&mut self, now: MonoTime, seen: Seen) {
        let settled = window::is_settled(seen.cluster_ms);
        let every = self.second.count(now, settled);
        if !self.second.entries.is_multiple_of(every) || self.open.len() == OPEN_MAX {
            return;
        }
        let sample = Sample {
            sealed: now,
            weight: u64::from(seen.commands) * u64::from(every),
            queued_us: u32::try_from(seen.queued.as_micros()).unwrap_or(u32::MAX),
            memory_reported: seen.memory_reported || settled,
            rest_us: 0,
            copies: Vec::new(),
        };
        self.open.push((seen.seq, sample));
        self.board.watch(true);
    }

    /// Whether nothing is watched, so that the cursors need not be looked at.
    pub(in crate::quorum) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// The cursors of the voters that answer, at `now`, under the policy in force.
    pub(in crate::quorum) fn observe(
        &mut self,
        now: MonoTime,
        cursors: &[Cursors],
        (policy, voters): (Policy, usize),
    ) {
        let board = &self.board;
        self.open.retain_mut(|(seq, sample)| {
            let mut complete = true;
            for cursors in cursors {
                complete &= sample.note(*seq, cursors, now);
            }
            let applied = board.applied_at(*seq);
            let done = (complete && applied.is_some()) || now.since(sample.sealed) > WATCH_LIMIT_US;
            if done {
                sample.finish(applied, policy, voters);
                board.push(std::mem::take(sample));
            }
            !done
        });
        board.watch(!self.open.is_empty());
    }
}

impl Sample {
    /// Notes which copies of the entry at `seq` are new; true once the one on disk is there.
    fn note(&mut self, seq: Seq, cursors: &Cursors, now: MonoTime) -> bool {
        let copy = self.copy_of(cursors.node);
        let after = u32::try_from(now.since(copy.1)).unwrap_or(u32::MAX);
        let times = copy.0;
        if cursors.in_memory.max(cursors.persisted) >= seq {
            times.in_memory_us.get_or_insert(after);
        }
        if cursors.persisted >= seq {
            times.persisted_us.get_or_insert(after);
        }
        times.persisted_us.is_some()
    }

    fn finish(&mut self, applied: Option<MonoTime>, policy: Policy, voters: usize) {
        let copies: Vec<CopyTimes> = self.copies.iter().map(|(_, copy)| *copy).collect();
        if let (Some(applied), Some(met)) = (applied, policy.met_after(voters, &copies)) {
            let applied = u32::try_from(applied.since(self.sealed)).unwrap_or(u32::MAX);
            self.rest_us = applied.saturating_sub(met);
        }
    }

    fn copy_of(&mut self, node: NodeId) -> (&mut CopyTimes, MonoTime) {
        let index = self.copies.iter().position(|(known, _)| *known == node);
        let index = index.unwrap_or_else(|| {
            self.copies.push((node, CopyTimes::default()));
            self.copies.len() - 1
        });
        (&mut self.copies[index].1, self.sealed)
    }
}

impl Stride {
    /// Counts an entry; every how many-th is watched now.
    fn count(&mut self, now: MonoTime, settled: bool) -> u32 {
        if now.since(self.began) >= 1_000_000 {
            let window = u64::from(self.entries) * window::WATCHED_MS / 1_000;
            self.every = (self.entries / PER_SECOND).max(1);
            self.every_in_window = (window as u32 / PER_WINDOW).max(1);
            self.began = now;
            self.entries = 0;
        }
        self.entries = self.entries.saturating_add(1);
        if settled { self.every_in_window.min(self.every) } else { self.every }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursors(node: u64, in_memory: u64, persisted: u64) -> Cursors {
        Cursors { node: NodeId(node), in_memory: Seq(in_memory), persisted: Seq(persisted) }
    }

    fn seen(seq: u64, cluster_ms: u64) -> Seen {
        Seen {
            seq: Seq(seq),
            commands: 1,
            queued: Duration::from_micros(100),
            cluster_ms,
            memory_reported: false,
        }
    }

    /// The state gets to `seq` at once, and the policy in force is met by one copy.
    fn observe(sampler: &mut CopySampler, now: MonoTime, cursors: &[Cursors]) {
        let applied = cursors.iter().map(|one| one.in_memory).max().expect("some");
        sampler.board.applied(applied, || now);
        sampler.observe(now, cursors, (Policy::LOCAL, 3));
    }

    #[test]
    fn each_policy_is_predicted_by_the_copies_that_it_waits_for() {
        let board = Arc::new(CopyTimesBoard::default());
        let mut sampler = CopySampler::new(board.clone());
        for seq in 1..=9 {
            let at = |us: u64| MonoTime(seq * 10_000 + us);
            sampler.sealed(at(0), seen(seq, 100));
            // The primary's own disk is slow, one replica's is quicker and the other never syncs.
            observe(
                &mut sampler,
                at(300),
                &[cursors(1, seq, seq - 1), cursors(2, seq - 1, seq - 1)],
            );
            observe(&mut sampler, at(500), &[cursors(1, seq, seq - 1), cursors(2, seq, seq - 1)]);
            observe(&mut sampler, at(900), &[cursors(1, seq, seq - 1), cursors(2, seq, seq)]);
            assert!(!sampler.is_idle());
            observe(&mut sampler, at(4_000), &[cursors(1, seq, seq), cursors(2, seq, seq)]);
            assert!(sampler.is_idle());
        }
        let p50 = |policy: Policy| {
            board.predict(policy, 3, MonoTime(200_000)).and_then(|found| found.p50_us)
        };
        assert_eq!(p50(Policy::LOCAL), Some(100 + 900));
        assert_eq!(p50(Policy::MEMORY), Some(100 + 500));
        assert_eq!(p50(Policy::HYBRID), Some(100 + 900));
        assert_eq!(p50(Policy::MAJORITY), Some(100 + 4_000));
        assert_eq!(p50(Policy::ALL), None, "the third voter was not there");
        let far = MonoTime(200_000_000);
        assert_eq!(board.predict(Policy::LOCAL, 3, far), None, "a minute later nothing is known");
    }

    #[test]
    fn copies_in_memory_count_only_where_they_were_reported() {
        let board = Arc::new(CopyTimesBoard::default());
        let mut sampler = CopySampler::new(board.clone());
        let there = [cursors(1, 1, 1), cursors(2, 1, 1)];
        // Outside any window: what was seen of memory is the disk's.
        sampler.sealed(MonoTime(0), seen(1, 2_000));
        observe(&mut sampler, MonoTime(700), &there);
        assert!(board.predict(Policy::MAJORITY, 2, MonoTime(0)).is_some());
        assert!(board.predict(Policy::HYBRID, 2, MonoTime(0)).is_none());
        sampler.sealed(MonoTime(0), Seen { memory_reported: true, ..seen(1, 2_000) });
        observe(&mut sampler, MonoTime(700), &there);
        assert!(board.predict(Policy::HYBRID, 2, MonoTime(0)).is_some());
        sampler.clear();
        assert!(board.predict(Policy::MAJORITY, 2, MonoTime(0)).is_none());
    }

    #[test]
    fn what_is_watched_is_bounded_and_stands_for_the_rest() {
        let board = Arc::new(CopyTimesBoard::default());
        let mut sampler = CopySampler::new(board.clone());
        // Ten thousand entries a second for two minutes.
        for seq in 1..=1_200_000_u64 {
            let now = MonoTime(seq * 100);
            sampler.sealed(now, seen(seq, now.0 / 1_000));
            observe(&mut sampler, now.plus(50), &[cursors(1, seq, seq)]);
        }
        let found = board.predict(Policy::LOCAL, 1, MonoTime(120_000_000)).expect("a minute");
        assert!((1_000..4_000).contains(&found.entries), "{found:?}");
        let writes = found.writes as f64;
        assert!((writes / 600_000.0 - 1.0).abs() < 0.1, "{found:?}");
        assert_eq!(found.p50_us, Some(150));
    }
}
