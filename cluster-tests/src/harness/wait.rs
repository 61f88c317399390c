//! Waiting for a condition, never for a length of time.

use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at a condition.
const INTERVAL: Duration = Duration::from_millis(10);

/// Looks until there is an answer; `None` once `limit` has passed.
pub fn try_poll<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = look() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(INTERVAL);
    }
}

/// Looks until there is an answer.
///
/// # Panics
///
/// Once `limit` has passed, naming what was waited for.
pub fn poll<T>(limit: Duration, what: &str, look: impl FnMut() -> Option<T>) -> T {
    try_poll(limit, look).unwrap_or_else(|| panic!("{what}: not within {limit:?}"))
}
