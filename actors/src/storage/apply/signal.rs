//! What the apply thread is told: only the latest counts, so it is one slot, not a queue.

use parking_lot::{Condvar, Mutex};
use quorate_protocol::types::{Epoch, Seq};

/// How far to apply, and for whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    /// Everything through this position is committed.
    pub(super) committed: Seq,
    /// This node's own tenure: entries of this epoch have someone waiting for their replies.
    pub(super) tenure: Option<Epoch>,
    /// Finish what is committed so far, then end.
    pub(super) stop: bool,
}

/// The slot, and its wake-up.
#[derive(Debug, Default)]
pub(super) struct Signal {
    target: Mutex<Target>,
    changed: Condvar,
}

impl Signal {
    pub(super) fn set(&self, change: impl FnOnce(&mut Target)) {
        let mut target = self.target.lock();
        change(&mut target);
        drop(target);
        // Without a waiter this is one atomic load.
        self.changed.notify_one();
    }

    /// Waits until there is something to do beyond `applied`; says whether it had to wait.
    pub(super) fn wait_beyond(&self, applied: Seq) -> (Target, bool) {
        let mut target = self.target.lock();
        let idle = target.committed <= applied && !target.stop;
        while target.committed <= applied && !target.stop {
            self.changed.wait(&mut target);
        }
        (*target, idle)
    }
}
