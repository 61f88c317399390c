//! The health latch: a pure step from state, input and time to the next state.
//!
//! An error that puts the stored data in doubt latches at once. Others latch only when trouble
//! lasts. Once latched, the node stays so until both counts of errors have been still for long
//! enough; then they are the new baseline, and only growth beyond them counts again.
//!
//! Errors that came while the disk was full are a matter of space: nothing is in doubt, and where
//! there were no others it ends with the first space, without waiting for calm.

use std::time::Duration;

use quorate_protocol::types::MonoTime;

/// How long trouble must last, and calm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatchOptions {
    /// Continuous trouble of this length latches.
    pub latch_after: Duration,
    /// Calm of this length unlatches.
    pub unlatch_after: Duration,
    /// Whether it unlatches at all without a restart.
    pub may_unlatch: bool,
}

impl Default for LatchOptions {
    /// 15 s, 5 min, yes.
    fn default() -> Self {
        Self {
            latch_after: Duration::from_secs(15),
            unlatch_after: Duration::from_mins(5),
            may_unlatch: true,
        }
    }
}

/// How bad an error of a foreground operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The stored data is in doubt: corruption, or the disk fails.
    Damage,
    /// Anything else, such as a deadline that backpressure used up.
    Soft,
}

/// What the latch learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A foreground operation failed.
    Error {
        /// How bad it is.
        severity: Severity,
        /// What failed.
        what: String,
    },
    /// RocksDB's count of background errors was read.
    Sample {
        /// Errors since the store was opened.
        background_errors: u64,
    },
    /// The disk was looked at.
    Disk {
        /// Whether writes that need space are refused.
        full: bool,
        /// As in a sample.
        background_errors: u64,
    },
}

/// The latch's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latch {
    condition: Condition,
    /// Errors of foreground operations so far.
    foreground: u64,
    /// `foreground` when it was last sampled.
    foreground_sampled: u64,
    /// The last count of background errors; `None` before the first sample.
    background: Option<u64>,
    /// Only background errors beyond this are trouble.
    background_baseline: u64,
    /// What failed last.
    last_error: String,
    /// Whether the disk was full at the last look.
    disk_full: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Condition {
    #[default]
    Healthy,
    /// Not latched yet.
    Troubled {
        since: MonoTime,
        /// Whether all of it came while the disk was full.
        for_space: bool,
    },
    Latched {
        reason: String,
        calm_since: MonoTime,
        for_space: bool,
    },
}

/// What changed, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Writes are refused from now on.
    Latched {
        /// Why.
        reason: String,
    },
    /// Writes are taken again.
    Unlatched,
    /// More errors, without a change of the latch.
    Grew {
        /// `foreground` or `background`.
        which: &'static str,
        /// The count before.
        from: u64,
        /// The count now.
        to: u64,
    },
}

impl Latch {
    /// Why writes are refused; `None` where they aren't.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match &self.condition {
            Condition::Latched { reason, .. } => Some(reason),
            Condition::Healthy | Condition::Troubled { .. } => None,
        }
    }

    /// Errors of foreground operations so far.
    #[must_use]
    pub fn foreground_errors(&self) -> u64 {
        self.foreground
    }
}

/// The latch after `input` at `now`, and what is worth a line in the log.
#[must_use]
pub fn step(
    mut latch: Latch,
    input: &Input,
    now: MonoTime,
    options: &LatchOptions,
) -> (Latch, Vec<Transition>) {
    let mut transitions = Vec::new();
    match input {
        Input::Error { severity, what } => {
            latch.foreground += 1;
            latch.last_error.clone_from(what);
            let for_error = latch.disk_full && *severity == Severity::Soft;
            match &mut latch.condition {
                Condition::Latched { calm_since, for_space, .. } => {
                    *calm_since = now;
                    *for_space &= for_error;
                }
                Condition::Healthy | Condition::Troubled { .. }
                    if *severity == Severity::Damage =>
                {
                    transitions.push(latch.set(what.clone(), now, false));
                }
                Condition::Troubled { for_space, .. } => *for_space &= for_error,
                Condition::Healthy => {}
            }
        }
        Input::Sample { background_errors } => {
            latch.sample(*background_errors, now, options, &mut transitions);
        }
        Input::Disk { full, background_errors } => {
            let space = latch.disk_full && !full;
            // Growth up to here is of the time when it was full.
            if space {
                latch.sample(*background_errors, now, options, &mut transitions);
                latch.get_over_lack_of_space(&mut transitions);
            }
            latch.disk_full = *full;
        }
    }
    (latch, transitions)
}

impl Latch {
    fn sample(
        &mut self,
        background: u64,
        now: MonoTime,
        options: &LatchOptions,
        transitions: &mut Vec<Transition>,
    ) {
        // What RocksDB counted before this process looked for the first time isn't new.
        let before = *self.background.get_or_insert_with(|| {
            self.background_baseline = background;
            background
        });
        let mut grew = |which, from, to| {
            if to > from {
                transitions.push(Transition::Grew { which, from, to });
            }
            to > from
        };
        let foreground_grew = grew("foreground", self.foreground_sampled, self.foreground);
        let background_grew = grew("background", before, background);
        self.foreground_sampled = self.foreground;
        self.background = Some(background);
        if background_grew {
            self.last_error = format!("{background} background errors of RocksDB");
        }
        let troubled = foreground_grew || background > self.background_baseline;
        let grew = foreground_grew || background_grew;
        match self.condition {
            Condition::Healthy if troubled => {
                let for_space = self.disk_full;
                self.condition = Condition::Troubled { since: now, for_space };
            }
            Condition::Healthy => {}
            Condition::Troubled { .. } if !troubled => self.condition = Condition::Healthy,
            Condition::Troubled { since, ref mut for_space } => {
                *for_space &= self.disk_full || !grew;
                if now.since(since) >= micros(options.latch_after) {
                    let (reason, for_space) = (self.last_error.clone(), *for_space);
                    transitions.push(self.set(reason, now, for_space));
                }
            }
            Condition::Latched { ref mut calm_since, ref mut for_space, .. } => {
                if grew {
                    *calm_since = now;
                    *for_space &= self.disk_full;
                } else if options.may_unlatch
                    && now.since(*calm_since) >= micros(options.unlatch_after)
                {
                    self.condition = Condition::Healthy;
                    self.background_baseline = background;
                    transitions.push(Transition::Unlatched);
                }
            }
        }
    }

    /// What failed for lack of space, and nothing else, is forgotten.
    fn get_over_lack_of_space(&mut self, transitions: &mut Vec<Transition>) {
        match self.condition {
            Condition::Latched { for_space: true, .. } => transitions.push(Transition::Unlatched),
            Condition::Troubled { for_space: true, .. } => {}
            Condition::Healthy | Condition::Troubled { .. } | Condition::Latched { .. } => return,
        }
        self.condition = Condition::Healthy;
        self.foreground_sampled = self.foreground;
        self.background_baseline = self.background.unwrap_or_default();
    }

    fn set(&mut self, reason: String, now: MonoTime, for_space: bool) -> Transition {
        self.condition = Condition::Latched { reason: reason.clone(), calm_since: now, for_space };
        Transition::Latched { reason }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOFT: Severity = Severity::Soft;
    const DAMAGE: Severity = Severity::Damage;

    /// One row: at this second, this happens, and afterwards the latch is so.
    enum Row {
        Error(u64, Severity, bool),
        Sample(u64, u64, bool),
        Full(u64, u64, bool),
        Space(u64, u64, bool),
    }
    use Row::{Error, Full, Sample, Space};

    /// Plays the rows with 15 s and 300 s and gives all transitions.
    fn play(rows: &[Row], may_unlatch: bool) -> Vec<Transition> {
        let options = LatchOptions { may_unlatch, ..LatchOptions::default() };
        let (mut latch, mut all) = (Latch::default(), Vec::new());
        for row in rows {
            let (second, input, latched) = match row {
                Error(second, severity, latched) => {
                    let what = format!("error at {second}");
                    (second, Input::Error { severity: *severity, what }, latched)
                }
                Sample(second, background_errors, latched) => {
                    (second, Input::Sample { background_errors: *background_errors }, latched)
                }
                Full(second, background_errors, latched) => {
                    let background_errors = *background_errors;
                    (second, Input::Disk { full: true, background_errors }, latched)
                }
                Space(second, background_errors, latched) => {
                    let background_errors = *background_errors;
                    (second, Input::Disk { full: false, background_errors }, latched)
                }
            };
            let (next, transitions) = step(latch, &input, MonoTime(second * 1_000_000), &options);
            latch = next;
            all.extend(transitions);
            assert_eq!(latch.reason().is_some(), *latched, "at {second} s: {latch:?}");
        }
        all
    }

    fn latched(reason: &str) -> Transition {
        Transition::Latched { reason: reason.to_owned() }
    }

    #[test]
    fn damage_latches_at_once_and_is_told_once() {
        let rows = [Sample(0, 0, false), Error(1, DAMAGE, true), Error(2, DAMAGE, true)];
        assert_eq!(play(&rows, true), [latched("error at 1")]);
    }

    #[test]
    fn soft_errors_latch_only_when_they_go_on() {
        let rows = [
            Sample(0, 0, false),
            Error(4, SOFT, false),
            Sample(5, 0, false),
            Error(9, SOFT, false),
            Sample(10, 0, false),
            Error(14, SOFT, false),
            Sample(15, 0, false),
            Error(19, SOFT, false),
            Sample(20, 0, true),
        ];
        let transitions = play(&rows, true);
        assert_eq!(transitions.last(), Some(&latched("error at 19")));
        let grew = Transition::Grew { which: "foreground", from: 2, to: 3 };
        assert!(transitions.contains(&grew), "{transitions:?}");
    }

    #[test]
    fn one_healthy_sample_starts_the_window_anew() {
        play(
            &[
                Sample(0, 0, false),
                Error(4, SOFT, false),
                Sample(5, 0, false),
                Sample(10, 0, false),
                Error(14, SOFT, false),
                Sample(15, 0, false),
                Error(24, SOFT, false),
                Sample(25, 0, false),
                Error(29, SOFT, false),
                Sample(30, 0, true),
            ],
            true,
        );
    }

    #[test]
    fn background_errors_beyond_those_at_start_are_lasting_trouble() {
        play(&[Sample(0, 7, false), Sample(5, 7, false), Sample(500, 7, false)], true);
        let rows =
            [Sample(0, 7, false), Sample(5, 8, false), Sample(19, 8, false), Sample(20, 8, true)];
        let transitions = play(&rows, true);
        let grew = Transition::Grew { which: "background", from: 7, to: 8 };
        assert_eq!(transitions, [grew, latched("8 background errors of RocksDB")]);
    }

    #[test]
    fn calm_unlatches_and_only_new_growth_latches_again() {
        let rows = [
            Sample(0, 0, false),
            Sample(5, 1, false),
            Sample(20, 1, true),
            Sample(319, 1, true),
            Sample(320, 1, false),
            Sample(325, 1, false),
            Sample(400, 1, false),
            Sample(405, 2, false),
            Sample(420, 2, true),
        ];
        assert!(play(&rows, true).contains(&Transition::Unlatched));
    }

    #[test]
    fn an_error_while_latched_defers_the_end() {
        play(
            &[
                Error(0, DAMAGE, true),
                Sample(5, 0, true),
                Error(299, SOFT, true),
                // Its growth is seen by this sample, and counts from here.
                Sample(300, 0, true),
                Sample(599, 0, true),
                Sample(600, 0, false),
            ],
            true,
        );
        play(
            &[
                Error(0, DAMAGE, true),
                Sample(5, 0, true),
                Sample(200, 1, true),
                Sample(304, 1, true),
                Sample(499, 1, true),
                Sample(500, 1, false),
            ],
            true,
        );
    }

    #[test]
    fn what_only_lacked_space_ends_with_the_first_space() {
        let rows = [
            Sample(0, 0, false),
            Full(4, 0, false),
            Sample(5, 1, false),
            Sample(20, 3, true),
            Error(21, SOFT, true),
            Full(22, 3, true),
            // One more since the last sample: it failed for want of space, too.
            Space(23, 4, false),
            Sample(25, 4, false),
            Sample(100, 4, false),
            // Beyond that it counts like any other.
            Sample(105, 5, false),
            Sample(120, 5, true),
            Space(121, 5, true),
        ];
        let transitions = play(&rows, false);
        assert!(transitions.contains(&Transition::Unlatched), "{transitions:?}");
        // Before it latched at all.
        play(
            &[
                Sample(0, 0, false),
                Full(1, 0, false),
                Sample(5, 1, false),
                Space(6, 1, false),
                Sample(60, 1, false),
            ],
            true,
        );
    }

    #[test]
    fn other_trouble_waits_for_calm_though_the_disk_was_full_as_well() {
        // Before, after and beside.
        play(
            &[
                Sample(0, 0, false),
                Sample(5, 1, false),
                Full(6, 1, false),
                Sample(20, 2, true),
                Space(21, 2, true),
            ],
            true,
        );
        play(
            &[
                Sample(0, 0, false),
                Full(1, 0, false),
                Sample(5, 1, false),
                Sample(20, 2, true),
                Error(21, DAMAGE, true),
                Space(22, 2, true),
            ],
            true,
        );
        play(
            &[Full(0, 0, false), Error(1, DAMAGE, true), Space(2, 0, true), Sample(5, 0, true)],
            true,
        );
    }

    #[test]
    fn where_it_may_not_unlatch_it_stays() {
        play(&[Error(0, DAMAGE, true), Sample(5, 0, true), Sample(1_000_000, 0, true)], false);
    }
}
