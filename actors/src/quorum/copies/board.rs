//! The last minute of watched entries.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use quorate_protocol::policy::{CopyTimes, Policy, predicted_median};
use quorate_protocol::types::{MonoTime, NodeId, Seq};

/// How long what was seen is kept.
const KEPT_US: u64 = 60_000_000;

/// Entries that are kept at most: more than the sampler watches in that time.
const SAMPLES_MAX: usize = 4_096;

/// Positions of the state that are kept: an entry is looked up some milliseconds after it was applied.
const APPLIED_MAX: usize = 512;

/// One watched entry.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// When it was sealed.
    pub sealed: MonoTime,
    /// Writes that it stands for.
    pub weight: u64,
    /// How long a write in it waited before.
    pub queued_us: u32,
    /// Whether copies in memory were reported when they were there, and not with the disk's.
    pub memory_reported: bool,
    /// From when the policy in force was met until the entry was applied: what comes after the copies
    /// whatever the policy. The reply leaves right then.
    pub rest_us: u32,
    /// Each voter that answered, with when its copies were there.
    pub copies: Vec<(NodeId, CopyTimes)>,
}

/// Written by the quorum actor, read by whoever asks.
#[derive(Debug, Default)]
pub struct CopyTimesBoard {
    samples: Mutex<VecDeque<Sample>>,
    /// Whether an entry is watched.
    watching: AtomicBool,
    /// The latest positions of the state, while one is.
    applied: Mutex<VecDeque<(Seq, MonoTime)>>,
}

/// What a policy would cost at the load of the last minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// Median over the writes, from when a connection read a command until its reply can be written,
    /// in microseconds; `None` if half of them or more did not meet it.
    pub p50_us: Option<u32>,
    /// Entries that it is taken from.
    pub entries: usize,
    /// Writes that they stand for.
    pub writes: u64,
}

/// How fast one voter's copies were there, as medians over entries, in microseconds since they were
/// sealed; `None` where half of them or more were not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeMedians {
    /// Which voter.
    pub node: NodeId,
    /// Copy in memory, where that was reported.
    pub in_memory_us: Option<u32>,
    /// Copy on disk.
    pub persisted_us: Option<u32>,
}

impl CopyTimesBoard {
    pub(super) fn push(&self, sample: Sample) {
        let mut samples = self.samples.lock();
        let kept_from = sample.sealed;
        while samples.len() >= SAMPLES_MAX
            || samples.front().is_some_and(|first| kept_from.since(first.sealed) > KEPT_US)
        {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    pub(super) fn clear(&self) {
        self.samples.lock().clear();
    }

    pub(super) fn watch(&self, watching: bool) {
        self.watching.store(watching, Ordering::Relaxed);
    }

    /// For the apply loop: the state holds everything through `seq`. One load while nothing is
    /// watched.
    pub(crate) fn applied(&self, seq: Seq, now: impl FnOnce() -> MonoTime) {
        if self.watching.load(Ordering::Relaxed) {
            let mut applied = self.applied.lock();
            if applied.len() == APPLIED_MAX {
                applied.pop_front();
            }
            applied.push_back((seq, now()));
        }
    }

    /// When `seq` was applied, if that was lately.
    pub(super) fn applied_at(&self, seq: Seq) -> Option<MonoTime> {
        let applied = self.applied.lock();
        applied.iter().find(|(through, _)| *through >= seq).map(|(_, at)| *at)
    }

    /// What this policy would have cost in the minute before `now`, entry by entry; `None` where
    /// nothing is known: no writes, no primary here, or none since the last window in which copies
    /// in memory are reported.
    #[must_use]
    pub fn predict(&self, policy: Policy, voters: usize, now: MonoTime) -> Option<Prediction> {
        let needs_memory = policy.needs_memory(voters);
        let mut entries = 0;
        let mut writes = 0;
        let mut waits = Vec::new();
        for sample in self.last_minute(now) {
            if needs_memory && !sample.memory_reported {
                continue;
            }
            let copies: Vec<CopyTimes> = sample.copies.iter().map(|(_, copy)| *copy).collect();
            let met = policy.met_after(voters, &copies);
            let around = sample.queued_us.saturating_add(sample.rest_us);
            waits.push((met.map(|us| us.saturating_add(around)), sample.weight));
            entries += 1;
            writes += sample.weight;
        }
        (entries > 0).then(|| Prediction { p50_us: predicted_median(waits), entries, writes })
    }

    /// Each voter's medians over the minute before `now`, by node.
    #[must_use]
    pub fn medians(&self, now: MonoTime) -> Vec<NodeMedians> {
        let samples = self.last_minute(now);
        let all = samples.iter().flat_map(|sample| {
            sample.copies.iter().map(move |(node, copy)| (*node, sample, *copy))
        });
        let mut nodes: Vec<NodeId> = all.clone().map(|(node, _, _)| node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
            .into_iter()
            .map(|node| {
                let of_node = all.clone().filter(|(other, _, _)| *other == node);
                let in_memory = of_node
                    .clone()
                    .filter(|(_, sample, _)| sample.memory_reported)
                    .map(|(_, sample, copy)| (copy.in_memory_us, sample.weight));
                let persisted = of_node.map(|(_, sample, copy)| (copy.persisted_us, sample.weight));
                NodeMedians {
                    node,
                    in_memory_us: predicted_median(in_memory.collect()),
                    persisted_us: predicted_median(persisted.collect()),
                }
            })
            .collect()
    }

    /// Copied, so that the quorum actor never waits for a calculation.
    fn last_minute(&self, now: MonoTime) -> Vec<Sample> {
        let samples = self.samples.lock();
        let lately = |sample: &&Sample| now.since(sample.sealed) <= KEPT_US;
        samples.iter().filter(lately).cloned().collect()
    }
}
