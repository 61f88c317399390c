//! Keeps a backup from taking disk and network from those who write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The longest sleep between two looks at whether the node stops.
const NAP: Duration = Duration::from_millis(50);

/// Lets so many bytes through in a second; all of them, without a rate, which may change at any time.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes that are through and were not allowed to be yet.
    ahead: f64,
    /// When that was so.
    at: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { ahead: 0.0, at: Instant::now() }
    }

    /// Sleeps until further bytes may follow these, or the node stops.
    pub(super) fn copied(
        &mut self,
        bytes: usize,
        rate: impl Fn() -> Option<u64>,
        stopping: &AtomicBool,
    ) {
        self.pass(rate());
        self.ahead += bytes as f64;
        while let Some(rate) = rate()
            && !stopping.load(Ordering::Relaxed)
        {
            self.pass(Some(rate));
            if self.ahead <= 0.0 {
                return;
            }
            std::thread::sleep(Duration::from_secs_f64(self.ahead / rate as f64).min(NAP));
        }
    }

    /// Time has gone by. What wasn't used is not made up for.
    fn pass(&mut self, rate: Option<u64>) {
        let passed = self.at.elapsed();
        self.at += passed;
        let allowed = rate.map_or(f64::INFINITY, |rate| rate as f64 * passed.as_secs_f64());
        self.ahead = (self.ahead - allowed).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time_unless_the_node_stops() {
        let (going, stopping) = (AtomicBool::new(false), AtomicBool::new(true));
        let began = Instant::now();
        let mut pace = Pace::new();
        // Each takes several naps.
        for _ in 0..2 {
            pace.copied(128 << 10, || Some(1 << 20), &going);
        }
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(250), "{took:?}");
        let began = Instant::now();
        pace.copied(1 << 30, || Some(1 << 20), &stopping);
        Pace::new().copied(1 << 30, || None, &going);
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_new_rate_holds_for_what_is_waited_for() {
        let began = Instant::now();
        let rate = || Some(if began.elapsed() < Duration::from_millis(200) { 1 } else { 1 << 30 });
        Pace::new().copied(1 << 20, rate, &AtomicBool::new(false));
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(10), "{took:?}");
    }
}
