//! Keeps a backup from taking disk and network from those who write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The longest sleep between two looks at whether the node stops.
const NAP: Duration = Duration::from_millis(50);

/// Lets so many bytes through in a second; all of them, without a limit.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: Option<u64>,
    /// When all bytes so far were allowed to be through.
    due: Instant,
}

impl Pace {
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, due: Instant::now() }
    }

    /// Sleeps until further bytes may follow these, or the node stops.
    pub(super) fn copied(&mut self, bytes: usize, stopping: &AtomicBool) {
        let Some(rate) = self.bytes_per_second else { return };
        let now = Instant::now();
        // What wasn't used is not made up for.
        self.due = self.due.max(now) + Duration::from_secs_f64(bytes as f64 / rate as f64);
        while !stopping.load(Ordering::Relaxed) {
            let left = self.due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(NAP));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time_unless_the_node_stops() {
        let (going, stopping) = (AtomicBool::new(false), AtomicBool::new(true));
        let began = Instant::now();
        let mut pace = Pace::new(Some(1 << 20));
        for _ in 0..4 {
            pace.copied(32 << 10, &going);
        }
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(125), "{took:?}");
        let began = Instant::now();
        pace.copied(1 << 30, &stopping);
        Pace::new(None).copied(1 << 30, &going);
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
