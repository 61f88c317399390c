//! Tables and properties of the queue. Time is a number, waiters are numbers, replies are numbers.

use super::queue::{DoubtReason, Held, Queue, QueueError, Release};
use super::waits::{Crossings, Met, Wait, WaitedFor};
use crate::types::{EntryId, Epoch, NodeId, Seq};

type TestQueue = Queue<u32, u64, u64>;
type Out = Vec<Release<u32, u64, u64>>;

fn id(epoch: u64, seq: u64) -> EntryId {
    EntryId::new(Epoch(epoch), Seq(seq))
}

fn held(index: u32, count: u32, deadline: u64, waiter: u32) -> Held<u32, u64> {
    Held { index, count, deadline, waiter }
}

/// One batch of one command that waits for ever.
fn one(waiter: u32) -> Vec<Held<u32, u64>> {
    vec![held(0, 1, u64::MAX, waiter)]
}

fn done(waiter: u32, id: EntryId, index: u32, replies: &[u64]) -> Release<u32, u64, u64> {
    Release::Done { waiter, id, index, replies: replies.to_vec(), wait: Wait::new(0) }
}

fn in_doubt(waiter: u32, id: EntryId, reason: DoubtReason) -> Release<u32, u64, u64> {
    Release::InDoubt { waiter, id, index: 0, reason }
}

#[test]
fn a_reply_needs_both_its_entry_applied_and_the_policy_met() {
    for applied_first in [true, false] {
        let (mut queue, mut out) = (TestQueue::new(), Out::new());
        queue.sealed(id(3, 7), 0, one(1), &mut out).expect("in order");
        if applied_first {
            queue.applied(id(3, 7), vec![42]);
        } else {
            queue.acknowledge(Epoch(3), Seq(7), &mut out);
        }
        queue.release(&mut out).expect("replies");
        assert_eq!(out, [], "one condition alone (applied: {applied_first})");
        if applied_first {
            queue.acknowledge(Epoch(3), Seq(7), &mut out);
        } else {
            queue.applied(id(3, 7), vec![42]);
        }
        queue.release(&mut out).expect("replies");
        assert_eq!(out, [done(1, id(3, 7), 0, &[42])]);
        assert!(queue.is_empty() && queue.next_deadline().is_none());
    }
}

#[test]
fn the_exact_position_counts_not_one_past_it() {
    let (mut queue, mut out) = (TestQueue::new(), Out::new());
    queue.sealed(id(1, 5), 0, one(1), &mut out).expect("in order");
    queue.sealed(id(1, 6), 0, one(2), &mut out).expect("in order");
    queue.applied(id(1, 5), vec![5]);
    queue.applied(id(1, 6), vec![6]);
    queue.acknowledge(Epoch(1), Seq(4), &mut out);
    queue.release(&mut out).expect("replies");
    assert_eq!(out, []);
    queue.acknowledge(Epoch(1), Seq(5), &mut out);
    queue.release(&mut out).expect("replies");
    assert_eq!(out, [done(1, id(1, 5), 0, &[5])]);
}

#[test]
fn another_epoch_s_entry_at_the_same_position_opens_nothing() {
    let (mut queue, mut out) = (TestQueue::new(), Out::new());
    queue.sealed(id(4, 9), 0, one(1), &mut out).expect("in order");
    queue.applied(id(3, 9), vec![1]);
    queue.applied(id(5, 9), vec![2]);
    queue.acknowledge(Epoch(3), Seq(100), &mut out);
    queue.release(&mut out).expect("replies");
    assert_eq!(out, []);
    assert_eq!(queue.len(), 1);
}

#[test]
fn a_position_known_before_the_entry_was_sealed_belongs_to_an_older_tenure() {
    // A restarted primary must not open its gate by positions of its earlier life.
    let (mut queue, mut out) = (TestQueue::new(), Out::new());
    queue.acknowledge(Epoch(4), Seq(1_000), &mut out);
    queue.sealed(id(5, 10), 0, one(1), &mut out).expect("in order");
    queue.applied(id(5, 10), vec![1]);
    queue.release(&mut out).expect("replies");
    assert_eq!(out, []);
}

#[test]
fn the_end_of_a_tenure_answers_all_before_anything_newer() {
    let (mut queue, mut out) = (TestQueue::new(), Out::new());
    queue.sealed(id(1, 1), 0, one(1), &mut out).expect("in order");
    queue.sealed(id(1, 2), 0, one(2), &mut out).expect("in order");
    queue.applied(id(1, 1), vec![1]);
    queue.depose(DoubtReason::LeadershipLost, &mut out);
    let lost = DoubtReason::LeadershipLost;
    assert_eq!(out, [in_doubt(1, id(1, 1), lost), in_doubt(2, id(1, 2), lost)]);
    assert_eq!((queue.len(), queue.next_deadline()), (0, None));

    out.clear();
    queue.acknowledge(Epoch(1), Seq(2), &mut out);
    queue.sealed(id(1, 3), 0, one(3), &mut out).expect("in order");
    assert_eq!(out, [in_doubt(3, id(1, 3), lost)], "a tenure that ended stays ended");
}

#[test]
fn a_newer_epoch_answers_what_waits_for_the_older_one_even_unannounced() {
    let (mut queue, mut out) = (TestQueue::new(), Out::new());
    queue.sealed(id(1, 1), 0, one(1), &mut out).expect("in order");
    queue.sealed(id(3, 1), 0, one(2), &mut out).expect("in order");
    assert_eq!(out, [in_doubt(1, id(1, 1), DoubtReason::LeadershipLost)]);
    out.clear();
    queue.sealed(id(2, 5), 0, one(3), &mut out).expect("in order");
    assert_eq!(out, [in_doubt(3, id(2, 5), DoubtReason::LeadershipLost)]);
    assert_eq!(queue.len(), 1);
}

#[test]
fn deadlines_answer_single_batches_and_keep_the_rest_in_place() {
    let (mut queue, mut out) = (TestQueue::new(), Out::new());
    let batches = vec![held(0, 2, 50, 1), held(2, 1, 10, 2), held(3, 3, 60, 3)];
    queue.sealed(id(1, 1), 0, batches, &mut out).expect("in order");
    assert_eq!(queue.next_deadline(), Some(10));
    queue.expire(9, &mut out);
    assert_eq!(out, []);
    queue.expire(10, &mut out);
    let expected =
        Release::InDoubt { waiter: 2, id: id(1, 1), index: 2, reason: DoubtReason::Deadline };
    assert_eq!(out, [expected]);
    assert_eq!((queue.next_deadline(), queue.len()), (Some(50), 2));

    out.clear();
    queue.applied(id(1, 1), vec![0, 1, 2, 3, 4, 5]);
    queue.acknowledge(Epoch(1), Seq(1), &mut out);
    queue.release(&mut out).expect("replies");
    assert_eq!(out, [done(1, id(1, 1), 0, &[0, 1]), done(3, id(1, 1), 3, &[3, 4, 5])]);
    assert_eq!(queue.next_deadline(), None);
}

#[test]
fn an_entry_whose_batches_all_expired_holds_nothing_up() {
    let (mut queue, mut out) = (TestQueue::new(), Out::new());
    queue.sealed(id(1, 1), 0, vec![held(0, 1, 5, 1)], &mut out).expect("in order");
    queue.sealed(id(1, 2), 0, one(2), &mut out).expect("in order");
    queue.expire(5, &mut out);
    out.clear();
    queue.applied(id(1, 1), vec![1]);
    queue.applied(id(1, 2), vec![2]);
    queue.acknowledge(Epoch(1), Seq(2), &mut out);
    queue.release(&mut out).expect("replies");
    assert_eq!(out, [done(2, id(1, 2), 0, &[2])]);
}

#[test]
fn a_lower_position_takes_nothing_back_and_later_replies_wait() {
    let (mut queue, mut out) = (TestQueue::new(), Out::new());
    for seq in 1..=3 {
        queue.sealed(id(1, seq), 0, one(seq as u32), &mut out).expect("in order");
        queue.applied(id(1, seq), vec![seq]);
    }
    queue.acknowledge(Epoch(1), Seq(2), &mut out);
    queue.release(&mut out).expect("replies");
    assert_eq!(out.len(), 2);
    queue.acknowledge(Epoch(1), Seq(1), &mut out);
    queue.release(&mut out).expect("replies");
    assert_eq!(out.len(), 2);
    queue.acknowledge(Epoch(1), Seq(3), &mut out);
    queue.release(&mut out).expect("replies");
    assert_eq!(out.len(), 3);
}

#[test]
fn what_an_entry_waited_for_is_noted_once_when_its_policy_is_met() {
    let (mut queue, mut out) = (TestQueue::new(), Out::new());
    for seq in 1..=3 {
        queue.sealed(id(1, seq), seq, one(seq as u32), &mut out).expect("in order");
    }
    let mut own = Crossings::default();
    own.reached(Seq(2), 20);
    queue.acknowledge(Epoch(1), Seq(2), &mut out);
    let replica = Some(WaitedFor::ReplicaDisk(NodeId(3)));
    queue.met(&Met { at: 25, by: replica, own });
    own.reached(Seq(3), 30);
    queue.acknowledge(Epoch(1), Seq(3), &mut out);
    queue.met(&Met { at: 30, by: Some(WaitedFor::Journal), own });
    for seq in 1..=3 {
        queue.applied(id(1, seq), vec![seq]);
    }
    queue.release(&mut out).expect("replies");
    let waits: Vec<_> = out
        .iter()
        .map(|release| match release {
            Release::Done { wait, .. } => *wait,
            Release::InDoubt { .. } => panic!("{release:?}"),
        })
        .collect();
    let first = Wait { sealed: 1, own: Some(20), met: Some(25), by: replica };
    let last = Wait { sealed: 3, own: Some(30), met: Some(30), by: Some(WaitedFor::Journal) };
    assert_eq!(waits, [first, Wait { sealed: 2, ..first }, last]);
}

#[test]
fn broken_contracts_are_errors_not_guesses() {
    let (mut queue, mut out) = (TestQueue::new(), Out::new());
    queue.sealed(id(1, 2), 0, one(1), &mut out).expect("in order");
    let again = queue.sealed(id(1, 2), 0, one(1), &mut out);
    assert_eq!(again, Err(QueueError::OutOfOrder { id: id(1, 2), last: id(1, 2) }));
    queue.applied(id(1, 2), vec![]);
    queue.acknowledge(Epoch(1), Seq(2), &mut out);
    let missing = QueueError::RepliesMissing { id: id(1, 2), want: 1, got: 0 };
    assert_eq!(queue.release(&mut out), Err(missing));
}

/// A random walk against the rule itself: whoever is answered is answered once; done exactly if
/// its entry was applied and covered within a living tenure; and in the order of the log.
#[test]
fn every_waiter_is_answered_once_and_done_only_when_it_may_be() {
    for seed in 1..=500_u64 {
        walk(seed);
    }
}

fn walk(seed: u64) {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut random = move |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    let (mut queue, mut out) = (TestQueue::new(), Out::new());
    let (mut epoch, mut last, mut applied, mut acknowledged) = (1, 0_u64, 0_u64, 0_u64);
    let (mut waiters, mut now) = (0_u32, 0_u64);
    let mut answered = std::collections::BTreeSet::new();
    let mut last_done = EntryId::ZERO;
    for _ in 0..200 {
        match random(7) {
            0 | 1 => {
                last += 1;
                let mut index = 0;
                let mut batches = Vec::new();
                for _ in 0..=random(3) {
                    let count = 1 + random(3) as u32;
                    batches.push(held(index, count, now + random(40), waiters));
                    index += count;
                    waiters += 1;
                }
                queue.sealed(id(epoch, last), now, batches, &mut out).expect("in order");
            }
            2 | 3 if applied < last => {
                applied += 1;
                queue.applied(id(epoch, applied), vec![applied; 12]);
            }
            4 => {
                acknowledged = random(last + 1);
                queue.acknowledge(Epoch(epoch), Seq(acknowledged), &mut out);
            }
            5 => {
                now += random(10);
                queue.expire(now, &mut out);
            }
            6 if random(10) == 0 => {
                queue.depose(DoubtReason::LeadershipLost, &mut out);
                assert_eq!(queue.len(), 0);
                (epoch, acknowledged) = (epoch + 1, 0);
                applied = last;
            }
            _ => queue.release(&mut out).expect("replies"),
        }
        for release in out.drain(..) {
            let waiter = match release {
                Release::Done { waiter, id, replies, .. } => {
                    assert!(id.epoch == Epoch(epoch) && id.seq.0 <= applied.min(acknowledged));
                    assert!(id >= last_done, "in the log's order");
                    assert!(replies.iter().all(|reply| *reply == id.seq.0));
                    last_done = id;
                    waiter
                }
                Release::InDoubt { waiter, .. } => waiter,
            };
            assert!(answered.insert(waiter), "answered once (seed {seed})");
        }
        assert_eq!(answered.len() + queue.len(), waiters as usize, "nobody is forgotten");
    }
}
