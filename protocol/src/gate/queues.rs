//! One queue for each distinct condition, so that who asks for more never holds up who doesn't.
//!
//! What waits for the cluster's policy alone is in the base queue. A session's own policy is a
//! further condition: its batches wait in a queue of that policy, for the position at which both
//! are met. Order is kept within a queue; a connection has one batch on its way at a time, so that
//! is enough for its replies to keep their order.

use super::queue::{DoubtReason, Held, Queue, QueueError, Release};
use super::waits::Met;
use crate::policy::Policy;
use crate::types::{EntryId, Epoch, Seq};

/// Everything that waits in a gate.
#[derive(Debug)]
pub struct Queues<W, R, T> {
    base: Queue<W, R, T>,
    /// There are as many as policies over the voters can differ, at most; mostly none.
    further: Vec<(Policy, Queue<W, R, T>)>,
}

/// A batch, and what it asks for beyond the cluster's policy.
pub type Asking<W, T> = (Option<Policy>, Held<W, T>);

impl<W, R: Clone, T: Copy + Ord> Default for Queues<W, R, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<W, R: Clone, T: Copy + Ord> Queues<W, R, T> {
    /// Nothing waits.
    #[must_use]
    pub fn new() -> Self {
        Self { base: Queue::new(), further: Vec::new() }
    }

    /// As [`Queue::sealed`].
    ///
    /// # Errors
    /// As [`Queue::sealed`].
    pub fn sealed(
        &mut self,
        id: EntryId,
        since: T,
        batches: Vec<Asking<W, T>>,
        out: &mut Vec<Release<W, R, T>>,
    ) -> Result<(), QueueError> {
        let mut base = Vec::with_capacity(batches.len());
        let mut further: Vec<(Policy, Vec<Held<W, T>>)> = Vec::new();
        for (policy, held) in batches {
            let Some(policy) = policy else {
                base.push(held);
                continue;
            };
            match further.iter_mut().find(|(other, _)| *other == policy) {
                Some((_, batches)) => batches.push(held),
                None => further.push((policy, vec![held])),
            }
        }
        for (policy, held) in further {
            self.queue(policy, id.epoch, out).sealed(id, since, held, out)?;
        }
        self.base.sealed(id, since, base, out)
    }

    /// As [`Queue::applied`].
    pub fn applied(&mut self, id: EntryId, replies: Vec<R>) {
        for (_, queue) in &mut self.further {
            if queue.holds(id) {
                queue.applied(id, replies.clone());
            }
        }
        self.base.applied(id, replies);
    }

    /// The cluster's policy is met through here; see [`Queue::acknowledge`].
    pub fn acknowledge(
        &mut self,
        epoch: Epoch,
        through: Seq,
        met: &Met<T>,
        out: &mut Vec<Release<W, R, T>>,
    ) {
        self.base.acknowledge(epoch, through, out);
        self.base.met(met);
        for (_, queue) in &mut self.further {
            queue.begin(epoch, out);
            queue.reached(&met.own);
        }
    }

    /// The cluster's policy and this one are met through here. Without anyone who waits for that,
    /// it says nothing.
    pub fn acknowledge_further(
        &mut self,
        policy: Policy,
        epoch: Epoch,
        through: Seq,
        met: &Met<T>,
        out: &mut Vec<Release<W, R, T>>,
    ) {
        let known = self.further.iter_mut().find(|(other, _)| *other == policy);
        if let Some((_, queue)) = known {
            queue.acknowledge(epoch, through, out);
            queue.met(met);
        }
    }

    /// As [`Queue::release`], queue by queue.
    ///
    /// # Errors
    /// As [`Queue::release`].
    pub fn release(&mut self, out: &mut Vec<Release<W, R, T>>) -> Result<(), QueueError> {
        self.base.release(out)?;
        for (_, queue) in &mut self.further {
            queue.release(out)?;
        }
        self.further.retain(|(_, queue)| !queue.is_empty());
        Ok(())
    }

    /// As [`Queue::expire`].
    pub fn expire(&mut self, now: T, out: &mut Vec<Release<W, R, T>>) {
        self.queues_mut().for_each(|queue| queue.expire(now, out));
    }

    /// As [`Queue::depose`].
    pub fn depose(&mut self, reason: DoubtReason, out: &mut Vec<Release<W, R, T>>) {
        self.queues_mut().for_each(|queue| queue.depose(reason, out));
    }

    /// When `expire` must be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<T> {
        self.queues().filter_map(Queue::next_deadline).min()
    }

    /// Batches that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queues().map(Queue::len).sum()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues().all(Queue::is_empty)
    }

    /// Since when the oldest entry waits.
    #[must_use]
    pub fn oldest(&self) -> Option<T> {
        self.queues().filter_map(Queue::oldest).min()
    }

    /// The queue of a policy. One that is made now takes part in no tenure that the others know
    /// to be over.
    fn queue(
        &mut self,
        policy: Policy,
        epoch: Epoch,
        out: &mut Vec<Release<W, R, T>>,
    ) -> &mut Queue<W, R, T> {
        let known = self.further.iter().position(|(other, _)| *other == policy);
        let at = known.unwrap_or_else(|| {
            self.further.push((policy, self.base.successor()));
            self.further.len() - 1
        });
        let queue = &mut self.further[at].1;
        queue.begin(epoch, out);
        queue
    }

    fn queues(&self) -> impl Iterator<Item = &Queue<W, R, T>> {
        std::iter::once(&self.base).chain(self.further.iter().map(|(_, queue)| queue))
    }

    fn queues_mut(&mut self) -> impl Iterator<Item = &mut Queue<W, R, T>> {
        std::iter::once(&mut self.base).chain(self.further.iter_mut().map(|(_, queue)| queue))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::waits::Crossings;

    type TestQueues = Queues<u32, u64, u64>;

    fn id(seq: u64) -> EntryId {
        EntryId::new(Epoch(3), Seq(seq))
    }

    fn held(index: u32, waiter: u32) -> Held<u32, u64> {
        Held { index, count: 1, deadline: 100 * u64::from(waiter), waiter }
    }

    fn met() -> Met<u64> {
        Met { at: 5, by: None, own: Crossings::default() }
    }

    fn waiters(out: &mut Vec<Release<u32, u64, u64>>) -> Vec<(u32, Vec<u64>)> {
        let of = |release| match release {
            Release::Done { waiter, replies, .. } => (waiter, replies),
            Release::InDoubt { waiter, .. } => (waiter, Vec::new()),
        };
        out.drain(..).map(of).collect()
    }

    /// Entries 1 and 2, each with batches of three kinds.
    fn two_entries() -> (TestQueues, Vec<Release<u32, u64, u64>>) {
        let (mut queues, mut out) = (TestQueues::new(), Vec::new());
        for seq in [1, 2] {
            let batches = vec![
                (Some(Policy::ALL), held(0, 10 * seq as u32)),
                (None, held(1, 10 * seq as u32 + 1)),
                (Some(Policy::MAJORITY), held(2, 10 * seq as u32 + 2)),
            ];
            queues.sealed(id(seq), 0, batches, &mut out).expect("in order");
            queues.applied(id(seq), vec![10 * seq, 10 * seq + 1, 10 * seq + 2]);
        }
        assert_eq!((queues.len(), queues.next_deadline()), (6, Some(1_000)));
        (queues, out)
    }

    #[test]
    fn who_asks_for_more_waits_longer_and_holds_nobody_up() {
        let (mut queues, mut out) = two_entries();
        queues.acknowledge(Epoch(3), Seq(2), &met(), &mut out);
        queues.release(&mut out).expect("replies");
        assert_eq!(waiters(&mut out), [(11, vec![11]), (21, vec![21])]);
        queues.acknowledge_further(Policy::MAJORITY, Epoch(3), Seq(1), &met(), &mut out);
        queues.release(&mut out).expect("replies");
        assert_eq!(waiters(&mut out), [(12, vec![12])]);
        queues.acknowledge_further(Policy::ALL, Epoch(3), Seq(2), &met(), &mut out);
        queues.acknowledge_further(Policy::HYBRID, Epoch(3), Seq(2), &met(), &mut out);
        queues.release(&mut out).expect("replies");
        assert_eq!(waiters(&mut out), [(10, vec![10]), (20, vec![20])]);
        queues.acknowledge_further(Policy::MAJORITY, Epoch(3), Seq(2), &met(), &mut out);
        queues.release(&mut out).expect("replies");
        assert_eq!(waiters(&mut out), [(22, vec![22])]);
        assert!(queues.is_empty() && queues.further.is_empty());
    }

    #[test]
    fn deadlines_and_the_end_of_a_tenure_reach_every_queue() {
        let (mut queues, mut out) = two_entries();
        queues.expire(1_200, &mut out);
        assert_eq!(waiters(&mut out).len(), 3);
        queues.depose(DoubtReason::LeadershipLost, &mut out);
        assert_eq!((waiters(&mut out).len(), queues.len()), (3, 0));
    }

    #[test]
    fn a_queue_that_is_made_late_knows_that_a_tenure_is_over() {
        let (mut queues, mut out) = (TestQueues::new(), Vec::new());
        queues.acknowledge(Epoch(3), Seq(1), &met(), &mut out);
        queues.depose(DoubtReason::LeadershipLost, &mut out);
        let late = vec![(Some(Policy::ALL), held(0, 1))];
        queues.sealed(id(2), 0, late, &mut out).expect("in order");
        assert_eq!(waiters(&mut out), [(1, vec![])], "in doubt at once");
        // A newer tenure ends what waits anywhere.
        let batches = vec![(Some(Policy::ALL), held(0, 2))];
        let next = EntryId::new(Epoch(4), Seq(3));
        queues.sealed(next, 0, batches, &mut out).expect("in order");
        assert_eq!((waiters(&mut out).len(), queues.len()), (0, 1));
        queues.acknowledge(Epoch(5), Seq(9), &met(), &mut out);
        assert_eq!(waiters(&mut out), [(2, vec![])]);
    }
}
