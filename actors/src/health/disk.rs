//! The gate for writes when the disk runs out of space.

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

/// How much must stay free. `None`: a tenth of the file system, but at most 1 GiB and 10,000
/// inodes.
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

impl DiskGate {
    /// The gate after a look at the file system.
    #[must_use]
    pub fn step(self, space: Space, options: &DiskOptions) -> Self {
        let bytes = Limit {
            free: space.free_bytes,
            min: options
                .min_free_bytes
                .unwrap_or_else(|| (space.total_bytes / 10).min(MIN_FREE_BYTES_MAX)),
        };
        let inodes = Limit {
            free: space.free_inodes,
            min: options
                .min_free_inodes
                .unwrap_or_else(|| (space.total_inodes / 10).min(MIN_FREE_INODES_MAX)),
        };
        let counted = space.total_inodes > 0;
        let full = if self.full {
            !(bytes.is_comfortable() && (!counted || inodes.is_comfortable()))
        } else {
            bytes.is_short() || (counted && inodes.is_short())
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

    fn space(free_bytes: u64, free_inodes: u64) -> Space {
        Space { free_bytes, total_bytes: 100_000, free_inodes, total_inodes: 1_000 }
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
            gate = gate.step(space(free_bytes, free_inodes), &options);
            assert_eq!(gate.is_full(), full, "{free_bytes} bytes, {free_inodes} inodes");
        }
    }

    #[test]
    fn the_limit_can_be_set_and_is_bounded_on_large_disks() {
        let options = DiskOptions { min_free_bytes: Some(5), min_free_inodes: Some(0) };
        assert!(!DiskGate::default().step(space(5, 0), &options).is_full());
        assert!(DiskGate::default().step(space(4, 0), &options).is_full());
        let large = Space { total_bytes: 1 << 40, free_bytes: 1 << 30, ..Space::default() };
        assert!(!DiskGate::default().step(large, &DiskOptions::default()).is_full());
    }

    #[test]
    fn a_file_system_without_inodes_is_judged_by_bytes() {
        let space = Space { total_inodes: 0, ..space(20_000, 0) };
        assert!(!DiskGate::default().step(space, &DiskOptions::default()).is_full());
    }
}
