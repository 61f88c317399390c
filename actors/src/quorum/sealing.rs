//! Puts waiting batches together to the payload of one entry.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::policy::{Policy, Unmet};
use quorate_protocol::wire::encode_cluster;

use super::ports::Fatal;
use crate::submit::{Batch, Outcome, Refusal, Waiting};

/// Payload and waiters of one entry.
#[derive(Debug, Default)]
pub(super) struct Payload {
    /// The batches' bytes, one after the other.
    pub bytes: Bytes,
    /// CRC32C of `bytes`.
    pub crc: u32,
    /// The batches' waiters, in the same order.
    pub waiting: Vec<Waiting>,
}

impl Payload {
    /// The payload of a `Cluster` entry, which nobody waits for at the gate.
    pub(super) fn of_cluster(config: &ClusterEntry) -> Result<Self, Fatal> {
        let bytes = encode_cluster(config).map_err(Fatal::Cluster)?;
        Ok(Self { crc: crc32c::crc32c(&bytes), bytes, waiting: Vec::new() })
    }
}

/// Refuses every batch whose deadline has passed. It was not sealed, so it certainly did not
/// happen.
pub(super) fn refuse_expired(queue: &mut VecDeque<Batch>, now: Instant) {
    if queue.iter().all(|batch| batch.deadline > now) {
        return;
    }
    let (expired, kept) = queue.drain(..).partition(|batch| batch.deadline <= now);
    *queue = kept;
    refuse(expired, &Refusal::Timeout { caller: false });
}

/// Refuses every batch whose session asks for more than the voters that are there can give.
pub(super) fn refuse_unmet(queue: &mut VecDeque<Batch>, unmet: impl Fn(&Policy) -> Option<Unmet>) {
    if queue.iter().all(|batch| batch.durability.is_none()) {
        return;
    }
    for batch in std::mem::take(queue) {
        match batch.durability.as_ref().and_then(&unmet) {
            Some(unmet) => {
                let clause = format!("this session's {unmet}");
                refuse([batch].into(), &Refusal::NoReplicas { clause });
            }
            None => queue.push_back(batch),
        }
    }
}

/// Answers all of them with this refusal.
pub(super) fn refuse(batches: VecDeque<Batch>, refusal: &Refusal) {
    for batch in batches {
        // A dropped receiver is a connection that is gone.
        let _ = batch.reply.send(Outcome::Refused(refusal.clone()));
    }
}

/// Takes batches off the front while they fit `bytes_max`, at least one. Their permits return to
/// the admission budget here: from now on the journal's and the senders' limits bound them.
pub(super) fn take_payload(queue: &mut VecDeque<Batch>, bytes_max: usize) -> Option<Payload> {
    let first = queue.pop_front()?;
    let mut size = first.body.len();
    let mut batches = vec![first];
    while let Some(next) = queue.front() {
        size += next.body.len();
        if size > bytes_max {
            break;
        }
        batches.extend(queue.pop_front());
    }
    let (bytes, crc) = join(&batches);
    let mut index = 0;
    let waiting = batches
        .into_iter()
        .map(|batch| {
            let waiting = Waiting {
                index,
                count: batch.count,
                accepted: batch.accepted,
                deadline: batch.deadline,
                durability: batch.durability,
                reply: batch.reply,
            };
            index += batch.count;
            waiting
        })
        .collect();
    Some(Payload { bytes, crc, waiting })
}

/// A single batch is used as it is; several are copied together, which costs less than a write
/// of many parts, and their checksum is taken anew, which costs less than combining.
fn join(batches: &[Batch]) -> (Bytes, u32) {
    if let [only] = batches {
        return (only.body.clone(), only.crc);
    }
    let mut joined = BytesMut::with_capacity(batches.iter().map(|batch| batch.body.len()).sum());
    for batch in batches {
        joined.extend_from_slice(&batch.body);
    }
    let crc = crc32c::crc32c(&joined);
    (joined.freeze(), crc)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::{Semaphore, oneshot};

    use super::*;

    fn batch(body: &'static [u8], count: u32) -> (Batch, oneshot::Receiver<Outcome>) {
        let (reply, outcome) = oneshot::channel();
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("free");
        let batch = Batch {
            body: Bytes::from_static(body),
            crc: crc32c::crc32c(body),
            count,
            accepted: Instant::now(),
            deadline: Instant::now() + Duration::from_secs(60),
            durability: None,
            permit,
            reply,
        };
        (batch, outcome)
    }

    #[test]
    fn joins_what_fits_and_numbers_the_commands() {
        let mut queue: VecDeque<Batch> =
            [batch(b"aa", 2), batch(b"bbb", 3), batch(b"cccc", 1)].map(|(b, _)| b).into();
        let payload = take_payload(&mut queue, 8).expect("three wait");
        assert_eq!((&payload.bytes[..], payload.crc), (&b"aabbb"[..], crc32c::crc32c(b"aabbb")));
        let indexes: Vec<u32> = payload.waiting.iter().map(|waiting| waiting.index).collect();
        assert_eq!(indexes, [0, 2]);
        let rest = take_payload(&mut queue, 1).expect("one is always taken");
        assert_eq!((&rest.bytes[..], queue.len()), (&b"cccc"[..], 0));
        assert!(take_payload(&mut queue, 1).is_none());
    }

    #[test]
    fn expired_batches_are_refused_and_the_others_keep_their_order() {
        let (mut old, mut outcome) = batch(b"a", 1);
        old.deadline = Instant::now();
        let mut queue: VecDeque<Batch> = [batch(b"b", 1).0, old, batch(b"c", 1).0].into();
        refuse_expired(&mut queue, Instant::now() + Duration::from_millis(1));
        let kept: Vec<&[u8]> = queue.iter().map(|batch| &batch.body[..]).collect();
        assert_eq!(kept, [b"b", b"c"]);
        let refusal = Refusal::Timeout { caller: false };
        assert_eq!(outcome.try_recv(), Ok(Outcome::Refused(refusal)));
    }
}
