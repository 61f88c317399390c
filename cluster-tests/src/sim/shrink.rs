//! Makes a failing run small: fewer classes of faults, fewer faults, less load.

use super::fault::{Fault, Kind};
use super::plan::Plan;
use super::report::Outcome;
use super::scenario::Scenario;

/// Runs that shrinking may take.
const RUNS_MAX: usize = 600;
/// Orders of the small things that are tried for each candidate.
const SALTS: u64 = 3;

/// Takes out of a failing run what its violation doesn't need. The same invariant must break; in
/// which way, and when, may change. `None` if the scenario doesn't fail.
pub fn shrink(scenario: &Scenario) -> Option<Outcome> {
    let failed = super::run(scenario);
    let invariant = failed.violation.as_ref()?.0.invariant.clone();
    let mut search = Search { smallest: failed, invariant, runs: 0 };
    search.drop_classes();
    search.drop_faults();
    search.drop_classes();
    search.lighten();
    Some(search.smallest)
}

struct Search {
    smallest: Outcome,
    invariant: String,
    runs: usize,
}

impl Search {
    /// Whether the candidate fails too; then it is the smallest so far.
    fn fails(&mut self, candidate: &Scenario) -> bool {
        let salts = std::iter::once(candidate.salt).chain(1..=SALTS);
        for salt in salts {
            if self.runs == RUNS_MAX {
                return false;
            }
            self.runs += 1;
            let outcome = super::run(&Scenario { salt, ..candidate.clone() });
            let same =
                outcome.violation.as_ref().is_some_and(|(v, _)| v.invariant == self.invariant);
            if same {
                self.smallest = outcome;
                return true;
            }
        }
        false
    }

    fn current(&self) -> Scenario {
        self.smallest.scenario.clone()
    }

    fn drop_classes(&mut self) {
        let drawn: Vec<Fault> = Plan::draw(&self.current()).faults.keys().copied().collect();
        let moments = |fault: &Fault| fault.kind() == Kind::Moment;
        // All at once first: many failures need none of a kind.
        for kind in [Kind::Always, Kind::Moment] {
            let mut candidate = self.current();
            candidate.without.extend(drawn.iter().copied().filter(|f| f.kind() == kind));
            self.fails(&candidate);
        }
        for fault in drawn
            .iter()
            .copied()
            .filter(|f| !moments(f))
            .chain(drawn.iter().copied().filter(moments))
        {
            let mut candidate = self.current();
            if candidate.without.insert(fault) {
                self.fails(&candidate);
            }
        }
    }

    /// Delta debugging (Zeller and Hildebrandt, 2002) over the faults that came.
    fn drop_faults(&mut self) {
        let at_us = self.smallest.violation.as_ref().map_or(0, |(_, at_us)| *at_us);
        let schedule = Plan::draw(&self.current()).schedule;
        let mut kept: Vec<u32> =
            schedule.iter().filter(|s| s.at_us <= at_us).map(|s| s.number).collect();
        let mut candidate = self.current();
        candidate.keep = Some(kept.iter().copied().collect());
        self.fails(&candidate);
        let mut parts = 2;
        while kept.len() >= 2 && self.runs < RUNS_MAX {
            let size = kept.len().div_ceil(parts);
            let mut starts = (0..kept.len()).step_by(size);
            let smaller = starts.find_map(|start| {
                let end = (start + size).min(kept.len());
                let rest: Vec<u32> = kept[..start].iter().chain(&kept[end..]).copied().collect();
                let mut candidate = self.current();
                candidate.keep = Some(rest.iter().copied().collect());
                self.fails(&candidate).then_some(rest)
            });
            match smaller {
                Some(rest) => (kept, parts) = (rest, (parts - 1).max(2)),
                None if size == 1 => return,
                None => parts = (parts * 2).min(kept.len()),
            }
        }
    }

    fn lighten(&mut self) {
        // With hardly any load there is hardly any progress.
        if self.invariant == "Converges" {
            return;
        }
        for load in [64, 16, 4] {
            let candidate = Scenario { load, ..self.current() };
            if self.fails(&candidate) {
                return;
            }
        }
    }
}
