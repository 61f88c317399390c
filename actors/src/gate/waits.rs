//! What a release waited for, from moments to durations.

use std::time::{Duration, Instant};

use quorate_protocol::gate::{Wait, WaitedFor};

use crate::submit::Waits;

/// Where the time of a batch went that was accepted and is released at these moments.
pub(super) fn split(accepted: Instant, wait: &Wait<Instant>, released: Instant) -> Waits {
    let met = wait.met.unwrap_or(released);
    // Where the own copy came last, or later than it was needed, the other one isn't waited for.
    let own = match (wait.by, wait.own) {
        (Some(WaitedFor::Journal), _) => met,
        (_, Some(own)) if own <= met => own.max(wait.sealed),
        (_, _) => wait.sealed,
    };
    Waits {
        queue_us: us(accepted, wait.sealed),
        journal_us: us(wait.sealed, own),
        replica_us: us(own, met),
        apply_us: us(met, released),
        by: wait.by,
    }
}

fn us(from: Instant, to: Instant) -> u32 {
    to.saturating_duration_since(from).min(Duration::from_micros(u32::MAX.into())).as_micros()
        as u32
}

#[cfg(test)]
mod tests {
    use quorate_protocol::types::NodeId;

    use super::*;

    #[test]
    fn times_follow_each_other_and_add_up() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let disk = Some(WaitedFor::ReplicaDisk(NodeId(3)));
        let journal = Some(WaitedFor::Journal);
        // Own crossing, policy met, by, and the parts between 0, seal at 1, and release at 10.
        let table = [
            (Some(4), Some(7), disk, [1, 3, 3, 3], "replica 3 disk 3.0"),
            (Some(7), Some(7), journal, [1, 6, 0, 3], "journal 6.0, apply 3.0"),
            (None, Some(7), disk, [1, 0, 6, 3], "replica 3 disk 6.0"),
            (Some(9), Some(7), disk, [1, 0, 6, 3], "replica 3 disk 6.0"),
            (Some(4), Some(7), None, [1, 3, 3, 3], "policy 3.0"),
            (None, None, None, [1, 0, 9, 0], "policy 9.0"),
        ];
        for (own, met, by, parts, shown) in table {
            let wait = Wait { sealed: at(1), own: own.map(at), met: met.map(at), by };
            let waits = split(start, &wait, at(10));
            let found = [waits.queue_us, waits.journal_us, waits.replica_us, waits.apply_us];
            assert_eq!(found, parts.map(|ms| ms * 1_000), "{wait:?}");
            assert_eq!(waits.total_us(), 10_000);
            assert!(waits.to_string().contains(shown), "{waits}");
        }
    }
}
