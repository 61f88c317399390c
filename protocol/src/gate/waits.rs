//! What an entry waited for: times and the cursor that was the last to cross.

use crate::types::{NodeId, Seq};

/// The cursor that was the last one an entry's policy waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitedFor {
    /// This node's own copy.
    Journal,
    /// A replica's copy in memory.
    ReplicaMemory(NodeId),
    /// A replica's copy on disk.
    ReplicaDisk(NodeId),
}

/// How many crossings of the own cursor are told apart; the latest ones share the last place.
const CROSSINGS_MAX: usize = 4;

/// When this node's own cursor crossed which positions. Fixed size, so that it can be handed over
/// with each message for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossings<T> {
    /// Rising positions, each with the moment when it was reached.
    reached: [Option<(Seq, T)>; CROSSINGS_MAX],
}

/// The policy is met at more positions than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met<T> {
    /// When.
    pub at: T,
    /// The cursor that made it so; `None` where it was none, but a change of policy or view.
    pub by: Option<WaitedFor>,
    /// The own cursor until then.
    pub own: Crossings<T>,
}

/// One entry's way through the gate. A cursor counts only if it crossed after the entry was
/// sealed, and with its first crossing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait<T> {
    /// When it was sealed.
    pub sealed: T,
    /// When this node's own cursor crossed it, if that was noticed.
    pub own: Option<T>,
    /// When its policy was met; `None` if that isn't known.
    pub met: Option<T>,
    /// The last cursor that it waited for.
    pub by: Option<WaitedFor>,
}

impl<T> Default for Crossings<T> {
    fn default() -> Self {
        Self { reached: [const { None }; CROSSINGS_MAX] }
    }
}

impl<T: Copy> Crossings<T> {
    /// The own cursor reached `seq`. Where all places are taken, the last one gives way: what it
    /// stood for then seems to have crossed a little later than it did.
    pub fn reached(&mut self, seq: Seq, at: T) {
        let free = self.reached.iter().position(Option::is_none).unwrap_or(CROSSINGS_MAX - 1);
        self.reached[free] = Some((seq, at));
    }

    /// When the position was crossed, if it is among those that are remembered.
    #[must_use]
    pub fn of(&self, seq: Seq) -> Option<T> {
        let reached = self.reached.iter().flatten();
        reached.into_iter().find(|(through, _)| *through >= seq).map(|(_, at)| *at)
    }

    /// Forgets what is needed for no position above `through`.
    pub fn forget(&mut self, through: Seq) {
        let kept = self.reached.iter().flatten().filter(|(seq, _)| *seq > through);
        let mut rest = Self::default();
        for (place, reached) in rest.reached.iter_mut().zip(kept) {
            *place = Some(*reached);
        }
        *self = rest;
    }
}

impl<T> Wait<T> {
    /// An entry that was sealed just now.
    pub(super) fn new(sealed: T) -> Self {
        Self { sealed, own: None, met: None, by: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crossings_are_found_until_they_are_forgotten() {
        let mut own = Crossings::default();
        assert_eq!(own.of(Seq(1)), None);
        own.reached(Seq(3), 30);
        own.reached(Seq(5), 50);
        assert_eq!(
            [1, 3, 4, 5, 6].map(|seq| own.of(Seq(seq))),
            [Some(30), Some(30), Some(50), Some(50), None]
        );
        own.forget(Seq(3));
        assert_eq!([3, 5].map(|seq| own.of(Seq(seq))), [Some(50), Some(50)]);
        own.forget(Seq(5));
        assert_eq!(own, Crossings::default());
    }

    #[test]
    fn more_crossings_than_places_keep_the_oldest_and_the_newest() {
        let mut own = Crossings::default();
        for seq in 1..=9 {
            own.reached(Seq(seq), 10 * seq);
        }
        assert_eq!(
            [1, 3, 4, 9].map(|seq| own.of(Seq(seq))),
            [Some(10), Some(30), Some(90), Some(90)]
        );
    }
}
