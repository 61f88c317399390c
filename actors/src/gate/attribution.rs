//! The switch of what it costs to know what a write waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether it is noted what each write waits for. Shared by all who take part in that.
#[derive(Clone, Debug)]
pub struct Attribution(Arc<AtomicBool>);

impl Default for Attribution {
    /// It is.
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Attribution {
    /// Whether it is noted now.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// From now on it is, or isn't. What waits already is told as far as it was noted.
    pub fn set(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }
}
