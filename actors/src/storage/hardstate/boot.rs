//! What a node concludes about its last life when it starts.

use quorate_protocol::types::Incarnation;

use super::slot::{BootId, NodeHardState};

/// What the machine and the journal say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootEvidence {
    /// The machine's boot.
    pub boot: BootId,
    /// Whether the journal is shorter than its own marks say.
    pub tail_short: bool,
    /// Whether entries that were written and not synced are still there.
    pub memory: MemoryTail,
}

/// Whether the journal still holds everything that the last life may have acknowledged from
/// memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryTail {
    /// It does: a record outside the disk says how far that went, and the log goes as far.
    Covered,
    /// Nothing says so.
    Unknown,
}

/// The hard state to write for this boot, before any message: the incarnation goes up, the clean
/// mark goes away, and the memory-loss flag is set where the last life may have lost entries that
/// it acknowledged from memory (S5). A flag that is set already stays: only the exit condition
/// clears it, not another start.
///
/// A life that ended in order has synced everything. After any other end, entries above the last
/// sync are safe only if the machine kept running *and* the kernel didn't drop their pages, which
/// it may do after a failed write back even if the process never learnt of the failure. The
/// record of [`MemoryTail`] is what tells; without one the answer is the careful one.
#[must_use]
pub fn decide_boot(last: &NodeHardState, evidence: &BootEvidence) -> NodeHardState {
    let kept = last.clean
        || (last.boot == evidence.boot && !last.io_error && evidence.memory == MemoryTail::Covered);
    let mut next = *last;
    next.core.memory_loss = last.core.memory_loss || evidence.tail_short || !kept;
    next.incarnation = Incarnation(last.incarnation.0 + 1);
    next.boot = evidence.boot;
    next.clean = false;
    next.io_error = false;
    next
}

#[cfg(test)]
mod tests {
    use super::super::slot::sample;
    use super::*;

    /// Every combination: flag before, clean, same boot, I/O error, memory covered, tail short.
    #[test]
    fn memory_loss_over_all_cases() {
        for bits in 0..64u32 {
            let is = |bit: u32| bits & (1 << bit) != 0;
            let (flag, clean, same, io_error) = (is(0), is(1), is(2), is(3));
            let (covered, short) = (is(4), is(5));
            let mut last = sample();
            last.core.memory_loss = flag;
            last.clean = clean;
            last.io_error = io_error;
            let boot = if same { last.boot } else { BootId(1) };
            let memory = if covered { MemoryTail::Covered } else { MemoryTail::Unknown };
            let evidence = BootEvidence { boot, tail_short: short, memory };
            let next = decide_boot(&last, &evidence);
            let survived_a_kill = same && covered && !io_error;
            let expected = flag || short || !(clean || survived_a_kill);
            assert_eq!(next.core.memory_loss, expected, "{last:?} {evidence:?}");
            assert_eq!(next.incarnation.0, last.incarnation.0 + 1);
            assert_eq!((next.boot, next.clean, next.io_error), (boot, false, false));
            assert_eq!((next.core.epoch, next.core.vote), (last.core.epoch, last.core.vote));
        }
    }

    #[test]
    fn a_second_plain_restart_does_not_hide_a_power_cut() {
        let mut state = sample();
        state.core.memory_loss = false;
        let cut = BootEvidence { boot: BootId(1), tail_short: false, memory: MemoryTail::Unknown };
        let after_cut = decide_boot(&state, &cut);
        assert!(after_cut.core.memory_loss);
        let again = BootEvidence { memory: MemoryTail::Covered, ..cut };
        assert!(decide_boot(&after_cut, &again).core.memory_loss);
        let in_order = NodeHardState { clean: true, ..after_cut };
        assert!(decide_boot(&in_order, &again).core.memory_loss);
    }
}
