//! When memory is given back, and when writes are refused for want of it.

/// Part of the budget from which on caches are dropped and memtables flushed.
const SHRINK_PERCENT: u64 = 75;

/// The hard limit, where writes are refused. Below the whole budget, at which the system ends the
/// process.
const REFUSE_PERCENT: u64 = 90;

/// Below this they are taken again.
const TAKE_PERCENT: u64 = 85;

/// What the process takes of what it may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryLook {
    /// Bytes in main memory.
    pub used_bytes: u64,
    /// The budget, in bytes.
    pub budget_bytes: u64,
}

/// Whether writes that need space are refused. Opens by itself, with hysteresis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryGate {
    full: bool,
}

impl MemoryLook {
    /// Whether memory should be given back.
    #[must_use]
    pub fn wants_shrink(&self) -> bool {
        self.is_at(SHRINK_PERCENT)
    }

    fn is_at(&self, percent: u64) -> bool {
        u128::from(self.used_bytes) * 100 >= u128::from(self.budget_bytes) * u128::from(percent)
    }
}

impl MemoryGate {
    /// The gate after a look at memory.
    #[must_use]
    pub fn step(self, look: &MemoryLook) -> Self {
        Self { full: look.is_at(if self.full { TAKE_PERCENT } else { REFUSE_PERCENT }) }
    }

    /// Whether writes that need space are refused now.
    #[must_use]
    pub fn is_full(self) -> bool {
        self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shrinks_at_three_quarters_refuses_at_the_limit_and_opens_below_it() {
        let mut gate = MemoryGate::default();
        for (used_bytes, shrink, full) in [
            (749, false, false),
            (750, true, false),
            (899, true, false),
            (900, true, true),
            (850, true, true),
            (849, true, false),
            (899, true, false),
            (2_000, true, true),
            (0, false, false),
        ] {
            let look = MemoryLook { used_bytes, budget_bytes: 1_000 };
            gate = gate.step(&look);
            assert_eq!((look.wants_shrink(), gate.is_full()), (shrink, full), "{used_bytes}");
        }
    }

    #[test]
    fn no_size_overflows() {
        let look = MemoryLook { used_bytes: u64::MAX - 1, budget_bytes: u64::MAX };
        assert!(MemoryGate::default().step(&look).is_full());
    }
}
