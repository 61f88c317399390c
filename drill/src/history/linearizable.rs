//! Linearizability of one register: is there one order of all operations, in keeping with real
//! time, in which every read returns the latest write?
//!
//! The search is Wing and Gong's with Lowe's memory of visited states: operations that no other
//! one wholly precedes are tried in turn, and a pair of (operations already ordered, value) that
//! was visited once is not visited again. An operation of unknown outcome has no end: it may take
//! effect at any time after it began, or never. Every written value is unique, so that in a
//! history of plain writes and reads a write of unknown outcome whose value nobody read may be
//! left out without changing the answer.
//!
//! Who knows an order that should do, such as the log's, names it with each operation: where it
//! does, nothing else is tried, and the search takes one step for each operation.
//!
//! Keys are independent, so each has a history of its own (Herlihy and Wing: a history is
//! linearizable if and only if its part on every object is).

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;

/// States after which the search gives up: minutes of work, and more memory than a test may take.
const STATES_MAX: usize = 20_000_000;

/// What was done to the register. Values are unique among writes, and increments don't lead from
/// one to another; `None` is the absent key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Stored this value.
    Write(u64),
    /// Returned this value.
    Read(Option<u64>),
    /// Added one, to 0 where there was no value, and returned the sum, where that is known.
    Increment(Option<u64>),
    /// Stored a value where the condition held; returned whether it did, where that is known.
    WriteIf(Condition, u64, Option<bool>),
    /// Removed the value; returned whether there was one, where that is known.
    Delete(Option<bool>),
}

/// When a conditional write stores its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key is absent.
    Absent,
    /// The key is present.
    Present,
    /// The key holds this value.
    Equals(u64),
}

impl Condition {
    fn holds(self, value: Option<u64>) -> bool {
        match self {
            Self::Absent => value.is_none(),
            Self::Present => value.is_some(),
            Self::Equals(wanted) => value == Some(wanted),
        }
    }
}

/// The operation could not have returned there what it returned.
struct Disagrees;

impl Operation {
    /// The value after the operation on a register that held `value`.
    fn after(self, value: Option<u64>) -> Result<Option<u64>, Disagrees> {
        let agrees = |returned: Option<bool>, truth: bool| returned.is_none_or(|r| r == truth);
        let (after, agrees) = match self {
            Self::Write(new) => (Some(new), true),
            Self::Read(returned) => (value, returned == value),
            Self::Increment(returned) => {
                let sum = value.unwrap_or(0) + 1;
                (Some(sum), returned.is_none_or(|returned| returned == sum))
            }
            Self::WriteIf(condition, new, returned) => {
                let holds = condition.holds(value);
                (if holds { Some(new) } else { value }, agrees(returned, holds))
            }
            Self::Delete(returned) => (None, agrees(returned, value.is_some())),
        };
        if agrees { Ok(after) } else { Err(Disagrees) }
    }
}

/// One operation with the times between which it took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    operation: Operation,
    /// Microseconds; when the client sent it.
    began: u64,
    /// Microseconds; when the client had the answer, `u64::MAX` if it never had one.
    ended: u64,
    /// Operations are tried in this order.
    place: u64,
}

impl Record {
    fn is_answered(&self) -> bool {
        self.ended != u64::MAX
    }
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
    /// Whether all orders were tried.
    decided: bool,
}

impl fmt::Display for NotLinearizable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.decided { "not linearizable" } else { "undecided" };
        writeln!(f, "{verdict}: {} operations explained, then one of", self.explained)?;
        for record in &self.context {
            let ended = if record.is_answered() {
                format!("{} us", record.ended)
            } else {
                "never answered".to_owned()
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
        self.completed_at(operation, began, ended, began);
    }

    /// Adds an operation that was answered, with its place in an order that should do.
    ///
    /// # Panics
    ///
    /// If it ended before it began.
    pub fn completed_at(&mut self, operation: Operation, began: u64, ended: u64, place: u64) {
        assert!(began <= ended, "time goes forward");
        self.records.push(Record { operation, began, ended, place });
    }

    /// Adds an operation, not a read, whose outcome nobody knows.
    pub fn unknown(&mut self, operation: Operation, began: u64) {
        self.records.push(Record { operation, began, ended: u64::MAX, place: began });
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
/// Where the longest order that could be built ends; also if the history has too much concurrency
/// to be decided.
pub fn check_register(history: &RegisterHistory) -> Result<(), NotLinearizable> {
    check_register_within(history, STATES_MAX)
}

/// Checks one register, and gives up after so many states.
///
/// # Errors
///
/// As [`check_register`].
pub fn check_register_within(
    history: &RegisterHistory,
    states_max: usize,
) -> Result<(), NotLinearizable> {
    let records = without_unread_unknowns(&history.records);
    Search::new(records).run(states_max)
}

fn without_unread_unknowns(records: &[Record]) -> Vec<Record> {
    let mut read = HashSet::new();
    for record in records {
        match record.operation {
            Operation::Read(value) => read.extend(value),
            Operation::Write(_) => {}
            // What it did may depend on a value that it doesn't name.
            Operation::Increment(_) | Operation::WriteIf(..) | Operation::Delete(_) => {
                return records.to_vec();
            }
        }
    }
    let keep = |record: &&Record| match record.operation {
        Operation::Write(value) => record.is_answered() || read.contains(&value),
        _ => true,
    };
    records.iter().filter(keep).copied().collect()
}

/// Records sorted by their beginning. Those that are not in the order yet form a linked list, so
/// that a step costs no more than the operations that overlap; position `records.len()` is its
/// head.
struct Search {
    records: Vec<Record>,
    /// Which of the records that may come now is tried first: by place, those without an answer
    /// last, so that they are tried only where nothing else leads on.
    ranks: Vec<usize>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Answered records that are not in the order yet.
    answered_left: usize,
    value: Option<u64>,
    /// What is in the order.
    taken: Taken,
    /// The order so far: record, and the value before it.
    order: Vec<(usize, Option<u64>)>,
    visited: HashMap<(u128, Option<u64>), Optional>,
    states: usize,
    longest: usize,
    stuck_at: usize,
}

/// A set of records.
#[derive(Clone, Copy, Default)]
struct Taken {
    /// XOR of [`mark`] over the records that must be ordered.
    required: u128,
    /// A bit for each of the first records that may stay out.
    optional: u128,
}

/// With which optional records one point of the search was visited. To come there with more of
/// them leads nowhere that it did not lead with fewer: what is left may still be taken.
struct Optional {
    first: u128,
    more: Vec<u128>,
}

impl Search {
    fn new(mut records: Vec<Record>) -> Self {
        records.sort_by_key(|record| record.began);
        let count = records.len();
        Self {
            next: (0..=count).map(|index| if index == count { 0 } else { index + 1 }).collect(),
            previous: (0..=count).map(|index| if index == 0 { count } else { index - 1 }).collect(),
            answered_left: records.iter().filter(|record| record.is_answered()).count(),
            ranks: ranks(&records),
            records,
            value: None,
            taken: Taken::default(),
            order: Vec::new(),
            visited: HashMap::new(),
            states: 0,
            longest: 0,
            stuck_at: 0,
        }
    }

    fn run(mut self, states_max: usize) -> Result<(), NotLinearizable> {
        let optional = optional_numbers(&self.records);
        let mut from = 0;
        // Operations that were never answered may stay out of the order.
        while self.answered_left > 0 {
            if self.states >= states_max {
                return Err(self.failure(false));
            }
            if let Some(index) = self.candidate(from) {
                from = if self.take(index, optional[index]) { 0 } else { self.ranks[index] + 1 };
            } else if let Some(undone) = self.undo(&optional) {
                from = self.ranks[undone] + 1;
            } else {
                return Err(self.failure(true));
            }
        }
        Ok(())
    }

    /// Of the records of this rank or a higher one that may come now, the lowest: no record that
    /// is left ended before it began.
    fn candidate(&self, from: usize) -> Option<usize> {
        let head = self.records.len();
        let mut horizon = u64::MAX;
        let mut best: Option<usize> = None;
        let mut index = self.next[head];
        while index != head && self.records[index].began <= horizon {
            let record = self.records[index];
            let rank = self.ranks[index];
            if rank >= from
                && best.is_none_or(|best| rank < self.ranks[best])
                && record.operation.after(self.value).is_ok()
            {
                best = Some(index);
            }
            horizon = horizon.min(record.ended);
            index = self.next[index];
        }
        best
    }

    /// Puts a record at the end of the order, unless that leads to a state known to fail.
    fn take(&mut self, index: usize, optional: Option<u32>) -> bool {
        let record = self.records[index];
        let Ok(after) = record.operation.after(self.value) else {
            return false;
        };
        let taken = self.taken.toggled(index, optional);
        if !self.is_new(taken, after) {
            return false;
        }
        self.states += 1;
        self.order.push((index, self.value));
        self.taken = taken;
        self.value = after;
        self.answered_left -= usize::from(record.is_answered());
        let (previous, next) = (self.previous[index], self.next[index]);
        self.next[previous] = next;
        self.previous[next] = previous;
        if self.order.len() > self.longest {
            self.longest = self.order.len();
            self.stuck_at = index;
        }
        true
    }

    fn is_new(&mut self, taken: Taken, value: Option<u64>) -> bool {
        match self.visited.entry((taken.required, value)) {
            Entry::Vacant(vacant) => {
                vacant.insert(Optional { first: taken.optional, more: Vec::new() });
                true
            }
            Entry::Occupied(mut occupied) => {
                let known = occupied.get_mut();
                let covers = |set: &u128| set & taken.optional == *set;
                if covers(&known.first) || known.more.iter().any(covers) {
                    return false;
                }
                known.more.push(taken.optional);
                true
            }
        }
    }

    /// Takes the last record out of the order again. Records come back in the reverse order of
    /// their leaving, so their neighbours are still the right ones.
    fn undo(&mut self, optional: &[Option<u32>]) -> Option<usize> {
        let (index, before) = self.order.pop()?;
        self.taken = self.taken.toggled(index, optional[index]);
        self.value = before;
        self.answered_left += usize::from(self.records[index].is_answered());
        let (previous, next) = (self.previous[index], self.next[index]);
        self.next[previous] = index;
        self.previous[next] = index;
        Some(index)
    }

    fn failure(&self, decided: bool) -> NotLinearizable {
        let from = self.stuck_at.saturating_sub(6);
        let to = (self.stuck_at + 10).min(self.records.len());
        let context = self.records[from..to].to_vec();
        NotLinearizable { context, explained: self.longest, decided }
    }
}

impl Taken {
    /// With a record put in or taken out.
    fn toggled(self, index: usize, optional: Option<u32>) -> Self {
        match optional {
            Some(number) => Self { optional: self.optional ^ (1 << number), ..self },
            None => Self { required: self.required ^ mark(index), ..self },
        }
    }
}

fn ranks(records: &[Record]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..records.len()).collect();
    order.sort_by_key(|index| (!records[*index].is_answered(), records[*index].place));
    let mut ranks = vec![0; records.len()];
    for (rank, index) in order.into_iter().enumerate() {
        ranks[index] = rank;
    }
    ranks
}

/// A number below 128 for as many unanswered records as there are such numbers.
fn optional_numbers(records: &[Record]) -> Vec<Option<u32>> {
    let mut numbers = 0..u128::BITS;
    let number = |record: &Record| if record.is_answered() { None } else { numbers.next() };
    records.iter().map(number).collect()
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
