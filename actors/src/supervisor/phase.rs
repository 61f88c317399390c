//! The phases of a node's life, forward only.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Local recovery is not done, or listeners are not bound.
    Starting = 0,
    /// Running. Whether it can serve depends on the cluster, not on the phase.
    Ready = 1,
    /// Takes no new writes; what is under way ends.
    Draining = 2,
    /// Stops its parts, in order.
    ShuttingDown = 3,
    /// Everything is flushed and closed.
    Stopped = 4,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::ShuttingDown => "shutting_down",
            Self::Stopped => "stopped",
        })
    }
}

/// The current phase.
#[derive(Debug, Default)]
pub(super) struct PhaseCell(AtomicU8);

impl PhaseCell {
    /// The phase now.
    pub(super) fn get(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            2 => Phase::Draining,
            3 => Phase::ShuttingDown,
            _ => Phase::Stopped,
        }
    }

    /// Moves forward; a phase that lies behind is ignored.
    pub(super) fn advance(&self, phase: Phase) {
        self.0.fetch_max(phase as u8, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_never_go_back() {
        let cell = PhaseCell::default();
        assert_eq!(cell.get(), Phase::Starting);
        cell.advance(Phase::ShuttingDown);
        cell.advance(Phase::Ready);
        assert_eq!(cell.get().to_string(), "shutting_down");
    }
}
