//! The node's clocks, read through libc so that fault shims reach them.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use quorate_protocol::types::{ClusterTime, MonoTime};

/// Now on the monotonic clock that includes suspend: a lease must not outlive a laptop's lid (S11).
#[must_use]
pub fn now() -> MonoTime {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has CLOCK_BOOTTIME");
    MonoTime(time.tv_sec() as u64 * 1_000_000 + time.tv_nsec() as u64 / 1_000)
}

/// The wall clock in milliseconds since 1970; 0 before it.
#[must_use]
pub fn wall() -> ClusterTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ClusterTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// When `at` will be reached, for timers of the runtime.
#[must_use]
pub fn instant_at(at: MonoTime) -> Instant {
    Instant::now() + std::time::Duration::from_micros(at.since(now()))
}
