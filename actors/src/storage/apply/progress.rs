//! What the apply thread is doing, for whoever wonders why the state doesn't get on.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use quorate_protocol::types::Seq;

use crate::clock;

/// What the thread is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Activity {
    /// Waiting for a commit.
    Idle = 0,
    /// Taking entries from the log.
    ReadingLog = 1,
    /// Carrying an entry out: looking up what it changes.
    Executing = 2,
    /// Writing a round, or waiting to try that again after RocksDB put it off.
    Writing = 3,
    /// Handing replies to the gate.
    Answering = 4,
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "waiting for a commit",
            Self::ReadingLog => "reading the log",
            Self::Executing => "carrying out an entry",
            Self::Writing => "writing to RocksDB",
            Self::Answering => "handing replies to the gate",
        })
    }
}

/// A round that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// What the thread is in.
    pub activity: Activity,
    /// At which entry.
    pub seq: Seq,
    /// Since the applied position last moved, or since there was something to apply again.
    pub since: Duration,
}

/// Written by the thread, read by anyone. The fields are looked at one by one: what is read is
/// for people.
#[derive(Debug, Default)]
pub(super) struct Progress {
    activity: AtomicU8,
    seq: AtomicU64,
    /// When the round under way began, on the monotonic clock.
    round_began_us: AtomicU64,
}

impl Progress {
    pub(super) fn begin_round(&self) {
        self.round_began_us.store(clock::now().0, Ordering::Relaxed);
    }

    pub(super) fn enter(&self, activity: Activity) {
        self.activity.store(activity as u8, Ordering::Relaxed);
    }

    pub(super) fn at(&self, seq: Seq) {
        self.seq.store(seq.0, Ordering::Relaxed);
    }

    pub(super) fn busy(&self) -> Option<Busy> {
        let activity = match self.activity.load(Ordering::Relaxed) {
            1 => Activity::ReadingLog,
            2 => Activity::Executing,
            3 => Activity::Writing,
            4 => Activity::Answering,
            _ => return None,
        };
        let began_us = self.round_began_us.load(Ordering::Relaxed);
        Some(Busy {
            activity,
            seq: Seq(self.seq.load(Ordering::Relaxed)),
            since: Duration::from_micros(clock::now().0.saturating_sub(began_us)),
        })
    }
}
