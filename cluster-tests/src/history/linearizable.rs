//! Linearizability of one register: is there one order of all operations, in keeping with real
//! time, in which every read returns the latest write?
//!
//! The search is Wing and Gong's with Lowe's memory of visited states: operations that no other
//! one wholly precedes are tried in turn, and a pair of (operations already ordered, value) that
//! was visited once is not visited again. A write of unknown outcome has no end: it may take
//! effect at any time after it began, or never. Every written value is unique, so that a write
//! of unknown outcome whose value nobody read may be left out without changing the answer.

use std::collections::HashSet;
use std::fmt;

/// States after which the search gives up: minutes of work, and more memory than a test may take.
const STATES_MAX: usize = 20_000_000;

/// What was done to the register. Values are unique among writes; `None` is the absent key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Stored this value.
    Write(u64),
    /// Returned this value.
    Read(Option<u64>),
}

/// One operation with the times between which it took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    operation: Operation,
    /// Microseconds; when the client sent it.
    began: u64,
    /// Microseconds; when the client had the answer, `u64::MAX` if it never had one.
    ended: u64,
}

/// What clients did to one register that was absent at first.
#[derive(Clone, Debug, Default)]
pub struct RegisterHistory {
    records: Vec<Record>,
}

/// No order of these operations explains what was read.
#[derive(Clone, Debug)]
pub struct NotLinearizable {
    /// The operations around the point that the best order reached.
    context: Vec<Record>,
    /// How many operations the best order explains.
    explained: usize,
}

impl fmt::Display for NotLinearizable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "not linearizable: {} operations explained, then one of", self.explained)?;
        for record in &self.context {
            let ended = if record.ended == u64::MAX {
                "never answered".to_owned()
            } else {
                format!("{} us", record.ended)
            };
            writeln!(f, "  {:?} from {} us to {ended}", record.operation, record.began)?;
        }
        Ok(())
    }
}

impl RegisterHistory {
    /// Adds an operation that was answered.
    ///
    /// # Panics
    ///
    /// If it ended before it began.
    pub fn completed(&mut self, operation: Operation, began: u64, ended: u64) {
        assert!(began <= ended, "time goes forward");
        self.records.push(Record { operation, began, ended });
    }

    /// Adds a write whose outcome nobody knows.
    pub fn unknown_write(&mut self, value: u64, began: u64) {
        self.records.push(Record { operation: Operation::Write(value), began, ended: u64::MAX });
    }

    /// How many operations it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

/// Checks one register.
///
/// # Errors
///
/// Where the longest order that could be built ends.
///
/// # Panics
///
/// If the history has too much concurrency to be decided.
pub fn check_register(history: &RegisterHistory) -> Result<(), NotLinearizable> {
    let records = without_unread_unknowns(&history.records);
    Search::new(records).run()
}

fn without_unread_unknowns(records: &[Record]) -> Vec<Record> {
    let read: HashSet<u64> = records
        .iter()
        .filter_map(|record| match record.operation {
            Operation::Read(value) => value,
            Operation::Write(_) => None,
        })
        .collect();
    let keep = |record: &&Record| match record.operation {
        Operation::Write(value) => record.ended != u64::MAX || read.contains(&value),
        Operation::Read(_) => true,
    };
    records.iter().filter(keep).copied().collect()
}

/// Records sorted by their beginning. Those that are not in the order yet form a linked list, so
/// that a step costs no more than the operations that overlap; position `records.len()` is its
/// head.
struct Search {
    records: Vec<Record>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Answered records that are not in the order yet.
    answered_left: usize,
    value: Option<u64>,
    /// XOR of [`mark`] over the records in the order.
    taken: u128,
    /// The order so far: record, and the value before it.
    order: Vec<(usize, Option<u64>)>,
    visited: HashSet<(u128, Option<u64>)>,
    longest: usize,
    stuck_at: usize,
}

impl Search {
    fn new(mut records: Vec<Record>) -> Self {
        records.sort_by_key(|record| record.began);
        let count = records.len();
        Self {
            next: (0..=count).map(|index| if index == count { 0 } else { index + 1 }).collect(),
            previous: (0..=count).map(|index| if index == 0 { count } else { index - 1 }).collect(),
            answered_left: records.iter().filter(|record| record.ended != u64::MAX).count(),
            records,
            value: None,
            taken: 0,
            order: Vec::new(),
            visited: HashSet::new(),
            longest: 0,
            stuck_at: 0,
        }
    }

    fn run(mut self) -> Result<(), NotLinearizable> {
        let mut from = 0;
        // Writes that were never answered may stay out of the order.
        while self.answered_left > 0 {
            if let Some(index) = self.candidate(from) {
                from = if self.take(index) { 0 } else { index + 1 };
            } else if let Some(undone) = self.undo() {
                from = undone + 1;
            } else {
                return Err(self.failure());
            }
        }
        Ok(())
    }

    /// The first record from `from` on that may come now: no record that is left ended before
    /// this one began.
    fn candidate(&self, from: usize) -> Option<usize> {
        let head = self.records.len();
        let mut horizon = u64::MAX;
        let mut index = self.next[head];
        while index != head {
            let record = self.records[index];
            if record.began > horizon {
                return None;
            }
            if index >= from && self.allowed(record.operation) {
                return Some(index);
            }
            horizon = horizon.min(record.ended);
            index = self.next[index];
        }
        None
    }

    fn allowed(&self, operation: Operation) -> bool {
        match operation {
            Operation::Write(_) => true,
            Operation::Read(value) => value == self.value,
        }
    }

    /// Puts a record at the end of the order, unless that leads to a state known to fail.
    fn take(&mut self, index: usize) -> bool {
        let record = self.records[index];
        let after = match record.operation {
            Operation::Write(value) => Some(value),
            Operation::Read(_) => self.value,
        };
        if !self.visited.insert((self.taken ^ mark(index), after)) {
            return false;
        }
        assert!(self.visited.len() < STATES_MAX, "undecided after {STATES_MAX} states");
        self.order.push((index, self.value));
        self.taken ^= mark(index);
        self.value = after;
        self.answered_left -= usize::from(record.ended != u64::MAX);
        let (previous, next) = (self.previous[index], self.next[index]);
        self.next[previous] = next;
        self.previous[next] = previous;
        if self.order.len() > self.longest {
            self.longest = self.order.len();
            self.stuck_at = index;
        }
        true
    }

    /// Takes the last record out of the order again. Records come back in the reverse order of
    /// their leaving, so their neighbours are still the right ones.
    fn undo(&mut self) -> Option<usize> {
        let (index, before) = self.order.pop()?;
        self.taken ^= mark(index);
        self.value = before;
        self.answered_left += usize::from(self.records[index].ended != u64::MAX);
        let (previous, next) = (self.previous[index], self.next[index]);
        self.next[previous] = index;
        self.previous[next] = index;
        Some(index)
    }

    fn failure(&self) -> NotLinearizable {
        let from = self.stuck_at.saturating_sub(6);
        let to = (self.stuck_at + 10).min(self.records.len());
        NotLinearizable { context: self.records[from..to].to_vec(), explained: self.longest }
    }
}

/// A number for a record; a set of records is known by the XOR of theirs. 128 bits make it
/// practically impossible that two sets share one.
fn mark(index: usize) -> u128 {
    let half = |seed: u64| {
        let mut state = (index as u64).wrapping_add(1).wrapping_mul(seed);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^ (state >> 31)
    };
    (u128::from(half(0x9e37_79b9_7f4a_7c15)) << 64) | u128::from(half(0xd1b5_4a32_d192_ed03))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Operation::{Read, Write};

    fn history(completed: &[(Operation, u64, u64)], unknown: &[(u64, u64)]) -> RegisterHistory {
        let mut history = RegisterHistory::default();
        for (operation, began, ended) in completed {
            history.completed(*operation, *began, *ended);
        }
        for (value, began) in unknown {
            history.unknown_write(*value, *began);
        }
        history
    }

    fn good(completed: &[(Operation, u64, u64)], unknown: &[(u64, u64)]) {
        check_register(&history(completed, unknown)).expect("linearizable");
    }

    fn bad(completed: &[(Operation, u64, u64)], unknown: &[(u64, u64)]) {
        check_register(&history(completed, unknown)).expect_err("not linearizable");
    }

    #[test]
    fn sequential_histories() {
        good(&[], &[]);
        good(&[(Read(None), 0, 1), (Write(1), 2, 3), (Read(Some(1)), 4, 5)], &[]);
        bad(&[(Read(Some(1)), 0, 1), (Write(1), 2, 3)], &[]);
        bad(&[(Write(1), 0, 1), (Read(None), 2, 3)], &[]);
    }

    #[test]
    fn a_stale_read_is_found() {
        bad(&[(Write(1), 0, 1), (Write(2), 2, 3), (Read(Some(1)), 4, 5)], &[]);
        // The same read is right while the second write is under way.
        good(&[(Write(1), 0, 1), (Write(2), 2, 6), (Read(Some(1)), 4, 5)], &[]);
    }

    #[test]
    fn reads_may_not_go_back() {
        bad(
            &[(Write(1), 0, 1), (Write(2), 2, 20), (Read(Some(2)), 3, 4), (Read(Some(1)), 5, 6)],
            &[],
        );
    }

    #[test]
    fn a_lost_acknowledged_write_is_found() {
        bad(&[(Write(1), 0, 1), (Write(2), 2, 3), (Read(Some(1)), 10, 11)], &[(3, 5)]);
    }

    #[test]
    fn an_unknown_write_may_take_effect_late_or_never_but_only_once() {
        good(&[(Write(1), 0, 1), (Read(Some(1)), 10, 11)], &[(2, 3)]);
        good(&[(Write(1), 0, 1), (Read(Some(1)), 10, 11), (Read(Some(2)), 12, 13)], &[(2, 3)]);
        bad(
            &[
                (Write(1), 0, 1),
                (Read(Some(2)), 10, 11),
                (Write(4), 12, 13),
                (Read(Some(2)), 14, 15),
            ],
            &[(2, 3)],
        );
        bad(&[(Read(Some(2)), 0, 1)], &[(2, 3)]);
    }

    #[test]
    fn concurrent_writes_need_a_search() {
        good(
            &[
                (Write(1), 0, 100),
                (Write(2), 0, 100),
                (Write(3), 0, 100),
                (Read(Some(3)), 10, 20),
                (Read(Some(1)), 30, 40),
                (Read(Some(2)), 50, 60),
            ],
            &[],
        );
        bad(
            &[
                (Write(1), 0, 100),
                (Write(2), 0, 100),
                (Read(Some(2)), 10, 20),
                (Read(Some(1)), 30, 40),
                (Read(Some(2)), 50, 60),
            ],
            &[],
        );
    }

    /// Runs random clients against a register that is atomic by construction; then against the
    /// same histories with one read changed to a value that was overwritten long before.
    #[test]
    fn random_histories_of_an_atomic_register_are_accepted_and_stale_ones_not() {
        for seed in 1..200_u64 {
            let mut state = seed;
            let mut random = |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            let mut history = RegisterHistory::default();
            let mut value = None;
            for step in 0..400_u64 {
                // Each operation takes effect at 100 * step, inside an interval around it.
                let (began, ended) =
                    ((100 * step).saturating_sub(random(300)), 100 * step + random(300));
                match random(4) {
                    0 => {
                        value = Some(step);
                        history.completed(Write(step), began, ended);
                    }
                    1 if random(8) == 0 => {
                        if random(2) == 0 {
                            value = Some(step);
                        }
                        history.unknown_write(step, began);
                    }
                    _ => history.completed(Read(value), began, ended),
                }
            }
            check_register(&history).expect("atomic by construction");
            history.completed(Write(999), 40_900, 40_901);
            history.completed(Write(1_000), 41_000, 41_001);
            history.completed(Read(Some(999)), 41_002, 41_003);
            check_register(&history).expect_err("the last read is stale");
        }
    }

    #[test]
    fn a_long_history_with_open_writes_is_checked_quickly() {
        let mut history = RegisterHistory::default();
        for step in 0..50_000_u64 {
            let at = 10 * step;
            if step % 5_000 == 7 {
                history.unknown_write(step, at);
            } else if step % 2 == 0 {
                history.completed(Write(step), at, at + 25);
            } else {
                // The write just before ends after this read: both values are right.
                history.completed(Read(Some(step - 1)), at, at + 5);
            }
        }
        check_register(&history).expect("linearizable");
    }
}
