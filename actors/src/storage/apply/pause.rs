//! Whoever wants to look at the state as it is after one entry has the thread pause there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quorate_protocol::types::Seq;

/// The longest pause: opening a snapshot of RocksDB takes microseconds.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// How often it is looked whether the thread has nothing to do.
const POLL: Duration = Duration::from_millis(20);

/// Where to pause; one caller at a time.
#[derive(Debug)]
pub(super) struct Pauses {
    /// `u64::MAX` while nobody asks: read for each entry.
    at: AtomicU64,
    wanted: Mutex<Option<Wanted>>,
}

#[derive(Debug)]
struct Wanted {
    reached: SyncSender<()>,
    /// Ends when the caller has what it wanted.
    go_on: Receiver<()>,
}

/// The thread rests for as long as this is held, within a limit.
#[derive(Debug)]
pub(crate) struct Paused<'a> {
    pauses: &'a Pauses,
    /// Dropped: the thread goes on.
    _go_on: Sender<()>,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { at: AtomicU64::new(u64::MAX), wanted: Mutex::new(None) }
    }
}

impl Pauses {
    /// Waits until the thread pauses right after `seq`. It may also be idle there, which `applied`
    /// tells; the caller looks where it is in any case.
    pub(super) fn pause_at(
        &self,
        seq: Seq,
        limit: Duration,
        applied: impl Fn() -> Seq,
    ) -> Paused<'_> {
        let (reached, at_last) = sync_channel(1);
        let (go_on, end) = channel();
        *self.wanted.lock() = Some(Wanted { reached, go_on: end });
        self.at.store(seq.0, Ordering::Release);
        let deadline = Instant::now() + limit;
        while applied() < seq && Instant::now() < deadline {
            match at_last.recv_timeout(POLL) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        Paused { pauses: self, _go_on: go_on }
    }

    /// For the thread: whether its round ends after this entry.
    pub(super) fn is_at(&self, seq: Seq) -> bool {
        self.at.load(Ordering::Acquire) == seq.0
    }

    /// For the thread, once `applied` is written.
    pub(super) fn rest(&self, applied: Seq) {
        if !self.is_at(applied) {
            return;
        }
        if let Some(wanted) = self.wanted.lock().take() {
            // Whoever asked may have given up.
            let _ = wanted.reached.send(());
            // Ends with the sender, or at the limit: then the caller finds the state elsewhere.
            let _ = wanted.go_on.recv_timeout(PAUSE_MAX);
        }
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.pauses.at.store(u64::MAX, Ordering::Release);
        *self.pauses.wanted.lock() = None;
    }
}
