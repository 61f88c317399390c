//! How many stores, loads and removes may be under way at once, where the operator limits that.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::session::Deadline;
use crate::node::config::ConcurrencyLimits;
use crate::submit::Refusal;

/// What a connection is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// A batch with a write that needs space.
    Store,
    /// Reads from the state, as many as one look at the lease covers.
    Load,
    /// A batch whose writes only remove.
    Remove,
}

/// One queue for each kind of work; none where it isn't limited.
#[derive(Debug)]
pub(super) struct Limits {
    stores: Option<Arc<Semaphore>>,
    loads: Option<Arc<Semaphore>>,
    removes: Option<Arc<Semaphore>>,
}

impl Limits {
    pub(super) fn new(limits: &ConcurrencyLimits) -> Self {
        let queue = |limit: Option<usize>| {
            limit.map(|limit| Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))))
        };
        Self {
            stores: queue(limits.stores),
            loads: queue(limits.loads),
            removes: queue(limits.removes),
        }
    }

    /// Waits for its turn, first come, first served. Hold what is returned while it works.
    ///
    /// # Errors
    /// The deadline ended first; nothing was done.
    pub(super) async fn turn(
        &self,
        work: Work,
        deadline: Deadline,
    ) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        let queue = match work {
            Work::Store => &self.stores,
            Work::Load => &self.loads,
            Work::Remove => &self.removes,
        };
        let Some(queue) = queue else { return Ok(None) };
        match tokio::time::timeout_at(deadline.at.into(), queue.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            // It is never closed.
            Ok(Err(_)) => Err(Refusal::Draining),
            Err(_) => Err(Refusal::Timeout { caller: deadline.caller }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn within(ms: u64, caller: bool) -> Deadline {
        Deadline { at: Instant::now() + Duration::from_millis(ms), caller }
    }

    #[tokio::test]
    async fn the_deadline_ends_a_wait_and_the_refusal_says_whose_it_was() {
        let limits = Limits::new(&ConcurrencyLimits { stores: Some(1), ..Default::default() });
        let first = limits.turn(Work::Store, within(1_000, false)).await.unwrap();
        assert!(first.is_some());
        for caller in [true, false] {
            let refused = limits.turn(Work::Store, within(20, caller)).await;
            assert_eq!(refused.unwrap_err(), Refusal::Timeout { caller });
        }
        // The others have queues of their own, or none.
        assert!(limits.turn(Work::Load, within(20, false)).await.unwrap().is_none());
        assert!(limits.turn(Work::Remove, within(20, false)).await.unwrap().is_none());
        drop(first);
        assert!(limits.turn(Work::Store, within(20, false)).await.unwrap().is_some());
    }
}
