//! A node's clock: its own rate, its own zero, jumps ahead within the drift bound.

use quorate_protocol::types::MonoTime;

/// Maps true time to what a node reads. Rises with true time.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    base_us: u64,
    since_us: u64,
    /// Deviation from true time in parts per million.
    rate_ppm: i64,
}

impl Clock {
    /// A clock that reads `base_us` at true time `now_us`.
    pub(super) fn new(now_us: u64, base_us: u64, rate_ppm: i64) -> Self {
        assert!(rate_ppm.abs() < 1_000_000, "a clock runs forward");
        Self { base_us, since_us: now_us, rate_ppm }
    }

    /// What the clock reads at true time `now_us`.
    pub(super) fn read(&self, now_us: u64) -> MonoTime {
        let true_us = i128::from(now_us - self.since_us);
        let own_us = true_us * i128::from(1_000_000 + self.rate_ppm) / 1_000_000;
        MonoTime(self.base_us + own_us as u64)
    }

    /// The first true time, from `now_us` on, at which the clock reads `at` or more.
    pub(super) fn when(&self, at: MonoTime, now_us: u64) -> u64 {
        let Some(own_us) = at.0.checked_sub(self.base_us) else {
            return now_us;
        };
        let scale = i128::from(1_000_000 + self.rate_ppm);
        let true_us = (i128::from(own_us) * 1_000_000 + scale - 1) / scale;
        now_us.max(self.since_us + true_us as u64)
    }

    /// Goes ahead by `by_us` and continues at another rate.
    pub(super) fn jump(&mut self, now_us: u64, by_us: u64, rate_ppm: i64) {
        *self = Self::new(now_us, self.read(now_us).0 + by_us, rate_ppm);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_reads_what_it_promised_and_no_earlier() {
        for rate_ppm in [-20_000, -7, 0, 13, 20_000] {
            let mut clock = Clock::new(1_000, 77, rate_ppm);
            for at in [77, 78, 1_000, 123_456_789] {
                let when = clock.when(MonoTime(at), 1_000);
                assert!(clock.read(when) >= MonoTime(at), "{rate_ppm} {at}");
                assert!(when == 1_000 || clock.read(when - 1) < MonoTime(at), "{rate_ppm} {at}");
            }
            let before = clock.read(5_000);
            clock.jump(5_000, 10, 0);
            assert_eq!(clock.read(5_000), before.plus(10));
        }
    }
}
