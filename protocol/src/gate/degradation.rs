//! When to say that the policy can't be met. Pure; whoever looks at the policy says when.
//!
//! What holds now is for gauges. A log must not follow each flap of a replica: a change counts
//! once it has lasted, and what lasts is said again from time to time.

use crate::policy::Policy;
use crate::types::MonoTime;

/// How long a change lasts before it is said.
const LASTING_US: u64 = 1_000_000;

/// How often what still holds is said again.
const REPEAT_US: u64 = 5_000_000;

/// What a look at the policy finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// This node doesn't lead: nothing is known, and the next tenure begins anew.
    Away,
    /// Not known yet.
    Unknown,
    /// The voters that answer can meet it.
    Met,
    /// They can't.
    Degraded,
}

/// What is to be said. Times are in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The policy can't be met, since then.
    Degraded {
        /// How long it hasn't been.
        for_us: u64,
        /// Whether that was said before.
        again: bool,
    },
    /// It is met again.
    Met {
        /// How long it wasn't.
        after_us: u64,
    },
}

/// What was found, and what was said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Degradation {
    /// The policy that was looked at; `None` before the first look of a tenure.
    policy: Option<Policy>,
    /// What holds, and since when.
    degraded: bool,
    since: MonoTime,
    /// What was said last.
    said: bool,
    said_at: MonoTime,
    /// When that which was said to be degraded began.
    began: MonoTime,
    /// The last look.
    looked: MonoTime,
    /// Time spent degraded, as found.
    degraded_us: u64,
}

impl Degradation {
    /// Takes a look at `policy`, and returns what is to be said now. A node that is degraded from
    /// its first look on says so at once, and so does one whose policy has changed.
    pub fn step(&mut self, now: MonoTime, look: Look, policy: Policy) -> Option<Report> {
        if self.degraded {
            self.degraded_us += now.since(self.looked);
        }
        self.looked = now;
        let degraded = match look {
            Look::Away => {
                *self = Self { degraded_us: self.degraded_us, ..Self::default() };
                return None;
            }
            Look::Unknown => return None,
            Look::Met => false,
            Look::Degraded => true,
        };
        if degraded != self.degraded {
            (self.degraded, self.since) = (degraded, now);
        }
        let lasting = if self.policy.replace(policy) == Some(policy) { LASTING_US } else { 0 };
        if self.degraded != self.said {
            return (now.since(self.since) >= lasting).then(|| self.say(now));
        }
        let due = degraded && now.since(self.said_at) >= REPEAT_US;
        due.then(|| {
            self.said_at = now;
            Report::Degraded { for_us: now.since(self.began), again: true }
        })
    }

    /// Time spent degraded so far, in microseconds.
    #[must_use]
    pub fn degraded_us(&self) -> u64 {
        self.degraded_us
    }

    fn say(&mut self, now: MonoTime) -> Report {
        (self.said, self.said_at) = (self.degraded, now);
        if self.degraded {
            self.began = self.since;
            Report::Degraded { for_us: now.since(self.since), again: false }
        } else {
            Report::Met { after_us: self.since.since(self.began) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENTH_US: u64 = 100_000;

    /// One character for each tenth of a second: what is found, and which policy if it changes.
    fn said(looks: &str) -> Vec<(u64, &'static str, u64)> {
        let mut degradation = Degradation::default();
        let mut policy = Policy::MAJORITY;
        let mut said = Vec::new();
        let mut tenths = 0;
        for look in looks.chars() {
            let look = match look {
                '.' => Look::Met,
                'D' => Look::Degraded,
                '-' => Look::Away,
                '?' => Look::Unknown,
                'P' => {
                    policy = if policy == Policy::ALL { Policy::MAJORITY } else { Policy::ALL };
                    continue;
                }
                _ => panic!("{look}"),
            };
            match degradation.step(MonoTime(tenths * TENTH_US), look, policy) {
                Some(Report::Degraded { for_us, again: false }) => {
                    said.push((tenths, "degraded", for_us / TENTH_US));
                }
                Some(Report::Degraded { for_us, again: true }) => {
                    said.push((tenths, "still", for_us / TENTH_US));
                }
                Some(Report::Met { after_us }) => said.push((tenths, "met", after_us / TENTH_US)),
                None => {}
            }
            tenths += 1;
        }
        said
    }

    /// When a line is said, which, and how long the change has lasted.
    type Lines<'a> = &'a [(u64, &'a str, u64)];

    #[test]
    fn a_change_is_said_once_it_has_lasted_and_what_lasts_is_said_again() {
        let (long, second) = ("D".repeat(100), "D".repeat(10));
        let table: [(String, Lines<'_>); 12] = [
            ("....".into(), &[]),
            (format!("..{second}."), &[]),
            (format!("..{second}D"), &[(12, "degraded", 10)]),
            (format!("..{second}DD{}", ".".repeat(11)), &[(12, "degraded", 10), (24, "met", 12)]),
            (format!(".{long}"), &[(11, "degraded", 10), (61, "still", 60)]),
            // Ten flaps a second.
            (".D".repeat(300), &[]),
            (".".to_owned() + &"DDDDD.".repeat(50), &[]),
            // Degraded when it starts, or starts to lead.
            ("DD".into(), &[(0, "degraded", 0)]),
            ("???D".into(), &[(3, "degraded", 0)]),
            ("-----D....".into(), &[(5, "degraded", 0)]),
            // Who leads no more has nothing to say, and begins anew.
            ("D--D--.".into(), &[(0, "degraded", 0), (3, "degraded", 0)]),
            // Another policy is judged at once.
            ("D...P.P....D".into(), &[(0, "degraded", 0), (4, "met", 1)]),
        ];
        for (looks, expected) in table {
            assert_eq!(said(&looks), expected, "{looks}");
        }
        assert_eq!(said("...PDPD"), [(3, "degraded", 0)], "a stronger policy that can't be met");
    }

    #[test]
    fn a_flapping_replica_repeats_no_more_often_than_a_lost_one() {
        let lines = said(&("D".repeat(12) + &"D.".repeat(150)));
        assert!(lines.len() <= 1 + 31_usize.div_ceil(5), "{lines:?}");
    }

    #[test]
    fn time_is_counted_as_found() {
        let mut degradation = Degradation::default();
        for (at_us, look) in [(0, Look::Met), (5, Look::Degraded), (9, Look::Degraded)] {
            degradation.step(MonoTime(at_us), look, Policy::ALL);
        }
        assert_eq!(degradation.degraded_us(), 4);
        degradation.step(MonoTime(11), Look::Away, Policy::ALL);
        degradation.step(MonoTime(90), Look::Met, Policy::ALL);
        assert_eq!(degradation.degraded_us(), 6);
    }
}
