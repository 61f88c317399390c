//! Which waiting replies may leave, and which can't be known any more.
//!
//! Replies wait for a whole `EntryId`, in the log's numbering: never for a position alone, which
//! another tenure may fill with another entry, and never for a counter of this process's own,
//! which would open the gate early after a restart.
//!
//! A reply leaves only when its entry is applied here *and* the policy in force is met at its
//! position. The queue is sorted by entry, so what may leave is always a prefix.

use std::collections::{BTreeSet, VecDeque};

use thiserror::Error;

use super::waits::{Crossings, Met, Wait};
use crate::types::{EntryId, Epoch, Seq};

/// Why an outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoubtReason {
    /// The deadline passed while the entry waited for its copies.
    Deadline,
    /// The node stopped being primary.
    LeadershipLost,
    /// The node is stopping.
    Shutdown,
}

/// Waiting replies, oldest entry first. `W` is who waits, `R` one command's reply, `T` a moment.
#[derive(Debug)]
pub struct Queue<W, R, T> {
    /// Sorted by `id`; all of one epoch.
    waiting: VecDeque<Entry<W, R, T>>,
    /// The earliest deadline of each waiting entry.
    deadlines: BTreeSet<(T, EntryId)>,
    /// Position at which the policy is met, as last said by the primary of `epoch`.
    acknowledgeable: Seq,
    /// The newest tenure that was heard of.
    epoch: Epoch,
    /// Whether that tenure is known to be over.
    ended: bool,
    /// Batches that wait, in all entries.
    batches: usize,
}

/// One batch that waits.
#[derive(Debug)]
pub struct Held<W, T> {
    /// Position of its first command within the entry.
    pub index: u32,
    /// Number of its commands.
    pub count: u32,
    /// After this moment the answer is in doubt.
    pub deadline: T,
    /// Who waits.
    pub waiter: W,
}

/// An answer that leaves the gate.
#[derive(Debug, PartialEq, Eq)]
pub enum Release<W, R, T> {
    /// Committed in this tenure, under the policy, and applied.
    Done {
        /// Who waited.
        waiter: W,
        /// The entry.
        id: EntryId,
        /// Position of the batch's first command within the entry.
        index: u32,
        /// One reply for each command of the batch, in order.
        replies: Vec<R>,
        /// What the entry waited for.
        wait: Wait<T>,
    },
    /// May have happened, now or later.
    InDoubt {
        /// Who waited.
        waiter: W,
        /// The entry.
        id: EntryId,
        /// Position of the batch's first command within the entry.
        index: u32,
        /// Why it isn't known.
        reason: DoubtReason,
    },
}

/// The sealer or the apply loop broke its contract: the node can't know what it may say.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum QueueError {
    /// An entry was registered at or below one that is already waiting.
    #[error("entry {id} was registered with the gate after {last}")]
    OutOfOrder {
        /// The entry.
        id: EntryId,
        /// The last one registered.
        last: EntryId,
    },
    /// The apply loop's replies don't cover the commands that wait.
    #[error("entry {id} has {got} replies, but its batches end at {want}")]
    RepliesMissing {
        /// The entry.
        id: EntryId,
        /// End of the last batch.
        want: usize,
        /// Replies that came.
        got: usize,
    },
}

#[derive(Debug)]
struct Entry<W, R, T> {
    id: EntryId,
    /// Since when, and for what.
    wait: Wait<T>,
    held: Vec<Held<W, T>>,
    /// The earliest deadline in `held`: the key in `deadlines`.
    deadline: T,
    /// Set once applied.
    replies: Option<Vec<R>>,
}

impl<W, R, T: Copy + Ord> Default for Queue<W, R, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<W, R, T: Copy + Ord> Queue<W, R, T> {
    /// Nothing waits, and no position is known to meet the policy.
    #[must_use]
    pub fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            deadlines: BTreeSet::new(),
            acknowledgeable: Seq::ZERO,
            epoch: Epoch::ZERO,
            ended: false,
            batches: 0,
        }
    }

    /// Batches of a sealed entry wait from now on. Whatever waits for an older epoch is answered
    /// first: the tenure that sealed it is over.
    ///
    /// # Errors
    /// Entries of one epoch must come in order.
    ///
    /// # Panics
    /// When the batches of the entry overlap or aren't sorted.
    pub fn sealed(
        &mut self,
        id: EntryId,
        since: T,
        held: Vec<Held<W, T>>,
        out: &mut Vec<Release<W, R, T>>,
    ) -> Result<(), QueueError> {
        assert!(
            held.windows(2).all(|pair| pair[0].index + pair[0].count <= pair[1].index),
            "the batches of an entry follow each other"
        );
        if self.is_over(id.epoch) {
            answer_in_doubt(id, held, DoubtReason::LeadershipLost, out);
            return Ok(());
        }
        self.enter(id.epoch, out);
        if let Some(last) = self.waiting.back()
            && last.id >= id
        {
            return Err(QueueError::OutOfOrder { id, last: last.id });
        }
        let Some(deadline) = held.iter().map(|batch| batch.deadline).min() else {
            return Ok(());
        };
        self.batches += held.len();
        self.deadlines.insert((deadline, id));
        let wait = Wait::new(since);
        self.waiting.push_back(Entry { id, wait, held, deadline, replies: None });
        Ok(())
    }

    /// The state now holds this entry. An entry that nothing waits for is ignored: its batches
    /// were answered already, or another tenure sealed it.
    pub fn applied(&mut self, id: EntryId, replies: Vec<R>) {
        if let Ok(at) = self.waiting.binary_search_by(|entry| entry.id.cmp(&id)) {
            self.waiting[at].replies = Some(replies);
        }
    }

    /// The policy in force is met through this position, in this tenure. What an older tenure
    /// says is ignored; a newer one ends all that waits. A lower position than before takes
    /// nothing back, and later replies wait for it again.
    pub fn acknowledge(&mut self, epoch: Epoch, through: Seq, out: &mut Vec<Release<W, R, T>>) {
        if self.is_over(epoch) {
            return;
        }
        self.enter(epoch, out);
        self.acknowledgeable = through;
    }

    /// Notes, for what has just become acknowledgeable, what it waited for. Changes nothing else.
    pub fn met(&mut self, met: &Met<T>) {
        let first = self.waiting.partition_point(|entry| entry.wait.met.is_some());
        for entry in self.waiting.range_mut(first..) {
            if entry.id.seq > self.acknowledgeable {
                break;
            }
            let own = entry.wait.own.or_else(|| met.own.of(entry.id.seq));
            entry.wait = Wait { own, met: Some(met.at), by: met.by, ..entry.wait };
        }
    }

    /// Moves out every reply that may leave, in the log's order.
    ///
    /// # Errors
    /// Every command that waits needs a reply.
    pub fn release(&mut self, out: &mut Vec<Release<W, R, T>>) -> Result<(), QueueError> {
        while let Some(front) = self.waiting.front() {
            let open = front.id.epoch == self.epoch && front.id.seq <= self.acknowledgeable;
            if !open || front.replies.is_none() {
                break;
            }
            let Some(entry) = self.waiting.pop_front() else { break };
            self.forget(&entry);
            answer_done(entry, out)?;
        }
        Ok(())
    }

    /// Answers the batches whose deadline is at or before `now`. The write itself goes on.
    pub fn expire(&mut self, now: T, out: &mut Vec<Release<W, R, T>>) {
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            let Ok(at) = self.waiting.binary_search_by(|entry| entry.id.cmp(&id)) else {
                continue;
            };
            let entry = &mut self.waiting[at];
            let due: Vec<_> = entry.held.extract_if(.., |held| held.deadline <= now).collect();
            self.batches -= due.len();
            match entry.held.iter().map(|held| held.deadline).min() {
                Some(next) => {
                    entry.deadline = next;
                    self.deadlines.insert((next, id));
                }
                None => {
                    self.waiting.remove(at);
                }
            }
            answer_in_doubt(id, due, DoubtReason::Deadline, out);
        }
    }

    /// The tenure ended: everything that waits is in doubt, at once, also what is applied already
    /// but was not acknowledgeable. Nothing of this tenure waits or is released any more.
    pub fn depose(&mut self, reason: DoubtReason, out: &mut Vec<Release<W, R, T>>) {
        self.ended = true;
        self.deadlines.clear();
        self.batches = 0;
        self.acknowledgeable = Seq::ZERO;
        for entry in self.waiting.drain(..) {
            answer_in_doubt(entry.id, entry.held, reason, out);
        }
    }

    /// When `expire` must be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<T> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Batches that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batches
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Since when the oldest entry waits.
    #[must_use]
    pub fn oldest(&self) -> Option<T> {
        self.waiting.front().map(|entry| entry.wait.sealed)
    }

    /// Notes where this node's own cursor is, for entries that wait for others' still.
    pub fn reached(&mut self, own: &Crossings<T>) {
        for entry in &mut self.waiting {
            entry.wait.own = entry.wait.own.or_else(|| own.of(entry.id.seq));
        }
    }

    /// Whether batches of this entry wait.
    #[must_use]
    pub fn holds(&self, id: EntryId) -> bool {
        self.waiting.binary_search_by(|entry| entry.id.cmp(&id)).is_ok()
    }

    /// A tenure has begun, unless it is known already: a newer one ends all that waits.
    pub fn begin(&mut self, epoch: Epoch, out: &mut Vec<Release<W, R, T>>) {
        self.enter(epoch, out);
    }

    /// An empty queue that knows what this one knows of tenures.
    #[must_use]
    pub fn successor(&self) -> Self {
        Self { epoch: self.epoch, ended: self.ended, ..Self::new() }
    }

    fn enter(&mut self, epoch: Epoch, out: &mut Vec<Release<W, R, T>>) {
        if epoch > self.epoch {
            self.depose(DoubtReason::LeadershipLost, out);
            self.epoch = epoch;
            self.ended = false;
        }
    }

    fn is_over(&self, epoch: Epoch) -> bool {
        epoch < self.epoch || (epoch == self.epoch && self.ended)
    }

    fn forget(&mut self, entry: &Entry<W, R, T>) {
        self.deadlines.remove(&(entry.deadline, entry.id));
        self.batches -= entry.held.len();
    }
}

fn answer_done<W, R, T: Copy>(
    entry: Entry<W, R, T>,
    out: &mut Vec<Release<W, R, T>>,
) -> Result<(), QueueError> {
    let Entry { id, wait, .. } = entry;
    let mut replies = entry.replies.unwrap_or_default();
    let got = replies.len();
    let want = entry.held.last().map_or(0, |last| last.index as usize + last.count as usize);
    if want > got {
        return Err(QueueError::RepliesMissing { id, want, got });
    }
    // The common case, one batch in the entry, hands its vector on as it is.
    if let [only] = entry.held.as_slice()
        && only.index == 0
        && only.count as usize == got
    {
        for Held { index, waiter, .. } in entry.held {
            let replies = std::mem::take(&mut replies);
            out.push(Release::Done { waiter, id, index, replies, wait });
        }
        return Ok(());
    }
    let mut replies = replies.into_iter();
    let mut taken = 0;
    for Held { index, count, waiter, .. } in entry.held {
        // Batches that were answered at their deadline leave gaps.
        let mut rest = replies.by_ref().skip(index as usize - taken);
        let mine: Vec<R> = rest.by_ref().take(count as usize).collect();
        taken = index as usize + count as usize;
        out.push(Release::Done { waiter, id, index, replies: mine, wait });
    }
    Ok(())
}

fn answer_in_doubt<W, R, T>(
    id: EntryId,
    held: Vec<Held<W, T>>,
    reason: DoubtReason,
    out: &mut Vec<Release<W, R, T>>,
) {
    out.extend(held.into_iter().map(|Held { index, waiter, .. }| Release::InDoubt {
        waiter,
        id,
        index,
        reason,
    }));
}
