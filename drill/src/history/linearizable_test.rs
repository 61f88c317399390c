//! Histories that are linearizable, and histories that are not.

use super::linearizable::{Condition, Operation, RegisterHistory, check_register};
use Condition::{Absent, Equals, Present};
use Operation::{Delete, Increment, Read, Write, WriteIf};

fn history(completed: &[(Operation, u64, u64)], unknown: &[(u64, u64)]) -> RegisterHistory {
    let mut history = RegisterHistory::default();
    for (operation, began, ended) in completed {
        history.completed(*operation, *began, *ended);
    }
    for (value, began) in unknown {
        history.unknown(Write(*value), *began);
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
    bad(&[(Write(1), 0, 1), (Write(2), 2, 20), (Read(Some(2)), 3, 4), (Read(Some(1)), 5, 6)], &[]);
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
        &[(Write(1), 0, 1), (Read(Some(2)), 10, 11), (Write(4), 12, 13), (Read(Some(2)), 14, 15)],
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

#[test]
fn increments_count_each_other() {
    good(&[(Increment(Some(1)), 0, 1), (Increment(Some(2)), 2, 3), (Read(Some(2)), 4, 5)], &[]);
    // Twice the same answer: one of them is lost.
    bad(&[(Increment(Some(1)), 0, 9), (Increment(Some(1)), 0, 9)], &[]);
    // An answer that skips one: one was carried out twice.
    bad(&[(Increment(Some(1)), 0, 1), (Increment(Some(3)), 2, 3)], &[]);
    good(&[(Write(100), 0, 1), (Increment(Some(101)), 2, 3), (Read(Some(101)), 4, 5)], &[]);
}

#[test]
fn an_unknown_increment_counts_once_or_never() {
    let with_unknown = |last: u64| {
        let mut history = history(&[(Increment(Some(1)), 0, 1), (Read(Some(last)), 10, 11)], &[]);
        history.unknown(Increment(None), 2);
        check_register(&history)
    };
    with_unknown(1).expect("it did not happen");
    with_unknown(2).expect("it happened");
    with_unknown(3).expect_err("it happened twice");
}

#[test]
fn conditional_writes_tell_whether_their_condition_held() {
    let absent = |value, stored| WriteIf(Absent, value, Some(stored));
    good(&[(absent(1, true), 0, 1), (absent(2, false), 2, 3)], &[]);
    // Two clients can't both find the key absent.
    bad(&[(absent(1, true), 0, 9), (absent(2, true), 0, 9)], &[]);
    good(
        &[
            (Write(1), 0, 1),
            (WriteIf(Equals(1), 2, Some(true)), 2, 3),
            (WriteIf(Equals(1), 3, Some(false)), 4, 5),
            (WriteIf(Present, 4, Some(true)), 6, 7),
            (Delete(Some(true)), 8, 9),
            (Delete(Some(false)), 10, 11),
            (WriteIf(Present, 5, Some(false)), 12, 13),
            (Read(None), 14, 15),
        ],
        &[],
    );
    bad(&[(Write(1), 0, 1), (WriteIf(Equals(1), 2, Some(false)), 2, 3)], &[]);
    bad(&[(Write(1), 0, 1), (Delete(Some(false)), 2, 3)], &[]);
    bad(&[(Write(1), 0, 1), (Delete(Some(true)), 2, 3), (Read(Some(1)), 4, 5)], &[]);
}

/// Runs random clients against a register that is atomic by construction; then against the
/// same histories with one read changed to a value that was overwritten long before.
#[test]
fn random_histories_of_an_atomic_register_are_accepted_and_stale_ones_not() {
    for seed in 1..60_u64 {
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
            let written = 1_000 * step;
            match random(8) {
                0 => {
                    value = Some(written);
                    history.completed(Write(written), began, ended);
                }
                2 => {
                    value = Some(value.unwrap_or(0) + 1);
                    history.completed(Increment(value), began, ended);
                }
                3 => {
                    let held = value.is_none();
                    value = if held { Some(written) } else { value };
                    history.completed(WriteIf(Absent, written, Some(held)), began, ended);
                }
                4 => {
                    history.completed(Delete(Some(value.is_some())), began, ended);
                    value = None;
                }
                1 if random(8) == 0 => {
                    if random(2) == 0 {
                        value = Some(written);
                    }
                    history.unknown(Write(written), began);
                }
                _ => history.completed(Read(value), began, ended),
            }
        }
        check_register(&history).expect("atomic by construction");
        history.completed(Write(999_000), 40_900, 40_901);
        history.completed(Write(1_000_000), 41_000, 41_001);
        history.completed(Read(Some(999_000)), 41_002, 41_003);
        check_register(&history).expect_err("the last read is stale");
    }
}

#[test]
fn a_long_history_with_open_writes_is_checked_quickly() {
    let mut history = RegisterHistory::default();
    for step in 0..50_000_u64 {
        let at = 10 * step;
        if step % 5_000 == 7 {
            history.unknown(Write(step), at);
        } else if step % 2 == 0 {
            history.completed(Write(step), at, at + 25);
        } else {
            // The write just before ends after this read: both values are right.
            history.completed(Read(Some(step - 1)), at, at + 5);
        }
    }
    check_register(&history).expect("linearizable");
}
