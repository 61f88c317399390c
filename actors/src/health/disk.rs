//! The gate for writes when the disk runs out of space.
//!
//! What is judged isn't what the file system calls free but what would be left of it once the
//! reserve is back in place and everything that memory holds is on disk. So neither giving the
//! reserve up nor a flush moves the gate by itself.

use std::time::Duration;

/// What a file system has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this process may still use.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Inodes that this process may still use.
    pub free_inodes: u64,
    /// Inodes in all; 0 on file systems that don't count them.
    pub total_inodes: u64,
}

/// One look at the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskLook {
    /// What the file system has, without the reserve file where that is held.
    pub space: Space,
    /// Bytes that the reserve lacks.
    pub reserve_missing_bytes: u64,
    /// Bytes in memory that go to disk without being asked for: memtables.
    pub unflushed_bytes: u64,
}

/// How much must stay free. `None`: a tenth of the file system, but at most 1 GiB and 10,000
/// inodes. 0 switches a limit off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskOptions {
    /// Bytes.
    pub min_free_bytes: Option<u64>,
    /// Inodes.
    pub min_free_inodes: Option<u64>,
}

/// Whether writes are refused. Clears by itself, with hysteresis, so that it doesn't flap at the
/// limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskGate {
    full: bool,
}

const MIN_FREE_BYTES_MAX: u64 = 1 << 30;
const MIN_FREE_INODES_MAX: u64 = 10_000;

/// No disk is filled faster than this by all that a node writes: journal, flushes and compactions.
const FILL_BYTES_PER_SECOND: u64 = 1 << 30;

/// Between two looks, far from the limit and at it.
pub(super) const LOOK_EVERY_MAX: Duration = Duration::from_secs(5);
const LOOK_EVERY_MIN: Duration = Duration::from_millis(50);

/// Between two looks while writes are refused: so long may it take until they are taken again.
const LOOK_EVERY_FULL: Duration = Duration::from_millis(250);

impl DiskLook {
    /// What a node may count on.
    #[must_use]
    pub fn available_bytes(&self) -> u64 {
        let owed = self.reserve_missing_bytes.saturating_add(self.unflushed_bytes);
        self.space.free_bytes.saturating_sub(owed)
    }
}

impl DiskOptions {
    /// Bytes that must stay free on such a file system.
    #[must_use]
    pub fn min_free_bytes(&self, space: &Space) -> u64 {
        self.min_free_bytes.unwrap_or_else(|| (space.total_bytes / 10).min(MIN_FREE_BYTES_MAX))
    }

    /// Inodes that must stay free there; 0 where the file system doesn't count them.
    #[must_use]
    pub fn min_free_inodes(&self, space: &Space) -> u64 {
        if space.total_inodes == 0 {
            return 0;
        }
        self.min_free_inodes.unwrap_or_else(|| (space.total_inodes / 10).min(MIN_FREE_INODES_MAX))
    }

    /// Whether there is clearly more than must stay free. `false` before the first look.
    #[must_use]
    pub fn is_comfortable(&self, look: &DiskLook) -> bool {
        look.space.total_bytes > 0 && self.limits(look).iter().all(Limit::is_comfortable)
    }

    fn limits(&self, look: &DiskLook) -> [Limit; 2] {
        [
            Limit { free: look.available_bytes(), min: self.min_free_bytes(&look.space) },
            Limit { free: look.space.free_inodes, min: self.min_free_inodes(&look.space) },
        ]
    }

    /// When to look again: before a fast writer can have used up what is above the limit.
    #[must_use]
    pub fn next_look(&self, gate: DiskGate, look: &DiskLook) -> Duration {
        if gate.is_full() {
            return LOOK_EVERY_FULL;
        }
        let min = self.min_free_bytes(&look.space);
        let above = look.available_bytes().saturating_sub(min) as f64;
        Duration::from_secs_f64(above / FILL_BYTES_PER_SECOND as f64)
            .clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX)
    }
}

impl DiskGate {
    /// The gate after a look at the disk.
    #[must_use]
    pub fn step(self, look: &DiskLook, options: &DiskOptions) -> Self {
        let limits = options.limits(look);
        let full = if self.full {
            !limits.iter().all(Limit::is_comfortable)
        } else {
            limits.iter().any(Limit::is_short)
        };
        Self { full }
    }

    /// Whether writes that need space are refused now.
    #[must_use]
    pub fn is_full(self) -> bool {
        self.full
    }
}

struct Limit {
    free: u64,
    min: u64,
}

impl Limit {
    fn is_short(&self) -> bool {
        self.free < self.min
    }

    /// A quarter above the limit.
    fn is_comfortable(&self) -> bool {
        self.free >= self.min.saturating_add(self.min / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(free_bytes: u64, free_inodes: u64) -> DiskLook {
        let space = Space { free_bytes, total_bytes: 100_000, free_inodes, total_inodes: 1_000 };
        DiskLook { space, ..DiskLook::default() }
    }

    #[test]
    fn it_closes_below_a_tenth_and_opens_a_quarter_above() {
        let (mut gate, options) = (DiskGate::default(), DiskOptions::default());
        for (free_bytes, free_inodes, full) in [
            (10_000, 100, false),
            (9_999, 100, true),
            (10_000, 100, true),
            (12_499, 125, true),
            (12_500, 124, true),
            (12_500, 125, false),
            (50_000, 99, true),
        ] {
            gate = gate.step(&look(free_bytes, free_inodes), &options);
            assert_eq!(gate.is_full(), full, "{free_bytes} bytes, {free_inodes} inodes");
        }
    }

    #[test]
    fn the_limit_can_be_set_and_is_bounded_on_large_disks() {
        let options = DiskOptions { min_free_bytes: Some(5), min_free_inodes: Some(0) };
        assert!(!DiskGate::default().step(&look(5, 0), &options).is_full());
        assert!(DiskGate::default().step(&look(4, 0), &options).is_full());
        let large = Space { total_bytes: 1 << 40, free_bytes: 1 << 30, ..Space::default() };
        let large = DiskLook { space: large, ..DiskLook::default() };
        assert!(!DiskGate::default().step(&large, &DiskOptions::default()).is_full());
    }

    #[test]
    fn a_file_system_without_inodes_is_judged_by_bytes() {
        let mut look = look(20_000, 0);
        look.space.total_inodes = 0;
        assert!(!DiskGate::default().step(&look, &DiskOptions::default()).is_full());
    }

    #[test]
    fn giving_up_the_reserve_opens_nothing_and_what_memory_holds_counts() {
        let options = DiskOptions::default();
        let short = look(9_000, 500);
        let gate = DiskGate::default().step(&short, &options);
        assert!(gate.is_full());
        let mut given_up = look(9_000 + 20_000, 500);
        given_up.reserve_missing_bytes = 20_000;
        assert_eq!(given_up.available_bytes(), short.available_bytes());
        assert!(gate.step(&given_up, &options).is_full());
        let mut owing = look(12_000, 500);
        assert!(!DiskGate::default().step(&owing, &options).is_full());
        owing.unflushed_bytes = 2_001;
        assert!(DiskGate::default().step(&owing, &options).is_full());
    }

    #[test]
    fn the_nearer_the_limit_the_sooner_it_looks_again() {
        let options = DiskOptions { min_free_bytes: Some(1 << 30), min_free_inodes: None };
        let (open, full) = (DiskGate::default(), DiskGate { full: true });
        let at = |gate, free_gib_tenths: u64| {
            let look = look(free_gib_tenths * ((1 << 30) / 10), 0);
            options.next_look(gate, &look).as_millis()
        };
        assert_eq!(at(open, 1_000), 5_000);
        assert_eq!(at(open, 20), 999);
        assert_eq!(at(open, 10), 50);
        assert_eq!(at(open, 0), 50);
        assert_eq!(at(full, 0), 250);
    }
}
