//! What a primary knows of one other member: cursors, and what may be sent to it.

use std::collections::VecDeque;

use super::message::RecoverTarget;
use crate::types::{DiskId, EntryId, Incarnation, MonoTime, Seq};

/// A session with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Session {
    /// Unique for this node's life.
    pub number: u64,
    /// The peer's data directory.
    pub disk: DiskId,
    /// The peer's current life.
    pub incarnation: Incarnation,
    /// Highest cluster version that the peer's binary follows.
    pub version_max: u32,
    /// Whether it is up; its facts are kept beyond its end.
    pub up: bool,
}

/// How entries flow to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Flow {
    /// Where the logs agree isn't known: heartbeats ask for the entry before `next`.
    Probe,
    /// Entries are sent ahead of acknowledgements, within a byte window.
    Pipeline,
    /// The peer needs entries that the journal no longer has.
    BelowJournal,
}

/// One peer's progress in this primary's tenure.
///
/// Invariants: `persisted <= in_memory <= verified < next`, all within the primary's log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Progress {
    /// How entries flow.
    pub flow: Flow,
    /// The next position to send.
    pub next: Seq,
    /// Up to here both logs are the same.
    pub verified: Seq,
    /// Copy in memory, as acknowledged by the current incarnation.
    pub in_memory: Seq,
    /// Copy on disk, as acknowledged by the current incarnation.
    pub persisted: Seq,
    /// The peer's state.
    pub applied: Seq,
    /// Highest heartbeat round that it answered.
    pub round: u64,
    /// When it last answered in this session; `None` before the first answer: not in the view.
    pub answered: Option<MonoTime>,
    /// When `verified` last moved, or sending last started from rest.
    pub moved: MonoTime,
    /// Entries sent and not yet in the peer's memory: last position and bytes of each send.
    inflight: VecDeque<(Seq, u64)>,
    inflight_bytes: u64,
    /// Whether the runtime is busy with a `SendEntries`.
    pub sending: bool,
    /// How the peer may leave the set with memory loss (S5).
    pub recover: Option<RecoverTarget>,
    /// Whether it had memory loss when it last answered.
    pub memory_loss: bool,
    /// How many voters it has live sessions with, itself included.
    pub reach: u8,
    /// Since when its disk has been close to the log's end; `None` while it isn't.
    pub close_since: Option<MonoTime>,
}

impl Progress {
    /// A peer of which nothing is known, in a log that ends at `last`.
    pub(super) fn new(last: EntryId, now: MonoTime) -> Self {
        Self {
            flow: Flow::Probe,
            next: last.seq.next(),
            verified: Seq::ZERO,
            in_memory: Seq::ZERO,
            persisted: Seq::ZERO,
            applied: Seq::ZERO,
            round: 0,
            answered: None,
            moved: now,
            inflight: VecDeque::new(),
            inflight_bytes: 0,
            sending: false,
            recover: None,
            memory_loss: false,
            reach: 0,
            close_since: None,
        }
    }

    /// A new session: the peer leaves the view until it answers. Its cursors are kept only for
    /// the same incarnation; the rounds it answered always count.
    pub(super) fn on_session(&mut self, same_life: bool, last: EntryId, now: MonoTime) {
        let round = self.round;
        let kept = if same_life { self.clone() } else { Self::new(last, now) };
        *self = Self {
            flow: Flow::Probe,
            next: if kept.verified > Seq::ZERO { kept.verified.next() } else { last.seq.next() },
            answered: None,
            moved: now,
            inflight: VecDeque::new(),
            inflight_bytes: 0,
            sending: false,
            close_since: None,
            round,
            ..kept
        };
    }

    /// Bytes that may be sent now.
    pub(super) fn window(&self, window_bytes: u64) -> u64 {
        window_bytes.saturating_sub(self.inflight_bytes)
    }

    /// Whether anything sent is still on its way to the peer's memory.
    pub(super) fn is_idle(&self) -> bool {
        self.inflight.is_empty() && !self.sending
    }

    /// Entries went out.
    pub(super) fn on_sent(&mut self, through: Seq, bytes: u64) {
        self.next = self.next.max(through.next());
        self.inflight.push_back((through, bytes));
        self.inflight_bytes += bytes;
    }

    /// The peer's cursors, clamped to this log; they never go back within an incarnation.
    pub(super) fn on_cursors(
        &mut self,
        verified: Seq,
        in_memory: Seq,
        persisted: Seq,
        now: MonoTime,
    ) {
        if verified > self.verified {
            self.verified = verified;
            self.moved = now;
        }
        self.persisted = self.persisted.max(persisted.min(self.verified));
        self.in_memory = self.in_memory.max(in_memory.min(self.verified)).max(self.persisted);
        self.next = self.next.max(self.verified.next());
        while let Some((through, bytes)) = self.inflight.front().copied() {
            if through > self.in_memory {
                break;
            }
            self.inflight.pop_front();
            self.inflight_bytes -= bytes;
        }
    }

    /// Whether the peer's disk is close to the log's end, and since when.
    pub(super) fn note_distance(&mut self, last: Seq, lag_max: u64, now: MonoTime) {
        let close = last.0 - self.persisted.0 <= lag_max;
        self.close_since = close.then(|| self.close_since.unwrap_or(now));
    }

    /// Starts to look for the point of agreement anew, from `next`.
    pub(super) fn probe_from(&mut self, next: Seq, now: MonoTime) {
        self.flow = Flow::Probe;
        self.next = next.max(self.verified.next());
        // What the peer has received may still wait for its disk, and goes on counting: otherwise
        // each search would send another window to a peer whose disk stands still.
        self.inflight.retain(|(through, _)| *through <= self.verified);
        self.inflight_bytes = self.inflight.iter().map(|(_, bytes)| bytes).sum();
        self.moved = now;
    }

    /// See [`Core::forget_time`](super::Core::forget_time). Windows are forgotten too.
    pub(super) fn forget_time(&mut self, now: MonoTime) {
        self.round = 0;
        self.applied = Seq::ZERO;
        self.answered = self.answered.map(|_| now);
        self.close_since = self.close_since.map(|_| now);
        self.moved = now;
        self.inflight.clear();
        self.inflight_bytes = 0;
    }
}
