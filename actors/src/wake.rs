//! One coalesced wake in front of an actor's mailbox: bulk data moves through bounded queues, and
//! the mailbox sees at most one message for all that has arrived since the owner last looked.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

/// Wakes the owner of a queue, at most once until the owner calls [`Wake::clear`].
pub struct Wake {
    pending: AtomicBool,
    notify: Box<dyn Fn() + Send + Sync>,
}

impl Wake {
    /// `notify` puts one message into the owner's mailbox. It must not block.
    pub fn new(notify: impl Fn() + Send + Sync + 'static) -> Self {
        Self { pending: AtomicBool::new(false), notify: Box::new(notify) }
    }

    /// For producers, *after* they put something into the queue.
    pub fn wake(&self) {
        // SeqCst, so that either this swap sees the owner's clear or the owner's look at the
        // queue, which follows that clear, sees what was put there before this call.
        if !self.pending.swap(true, Ordering::SeqCst) {
            (self.notify)();
        }
    }

    /// For the owner, *before* it looks at the queue.
    pub fn clear(&self) {
        self.pending.swap(false, Ordering::SeqCst);
    }
}

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wake").field("pending", &self.pending).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn wakes_once_until_cleared() {
        let count = Arc::new(AtomicUsize::new(0));
        let seen = count.clone();
        let wake = Wake::new(move || {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        wake.wake();
        wake.wake();
        assert_eq!(count.load(Ordering::Relaxed), 1);
        wake.clear();
        wake.wake();
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
}
