//! What would hold with given nodes failed: by the policy's words, and by where the cursors are.

use super::{
    Blocker, Condition, Consequences, Counts, Cursors, Evaluation, Failures, Policy, Unmet,
};
use crate::types::{NodeId, Seq};

/// A cluster to which something happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Every voter with what becomes of it.
    pub voters: Vec<(NodeId, Condition)>,
    /// Who leads before; `None` if nobody does.
    pub primary: Option<NodeId>,
    /// Where the cursors of the voters are that can be seen now: the primary's view.
    pub cursors: Vec<Cursors>,
    /// Highest position that was acknowledged.
    pub acknowledged: Seq,
}

/// What would hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// By counting voters, for writes with as few copies as the policy allows.
    pub after: Consequences,
    /// The clause that the voters left are too few for.
    pub degraded: Option<Unmet>,
    /// By the cursors: the highest position at which the policy is met among those left.
    pub met_through: Option<Seq>,
    /// By the cursors: whose keeps it from being higher.
    pub blocker: Option<Blocker>,
    /// By the cursors: what was acknowledged and no visible voter would hold any more.
    pub lost: Option<Lost>,
}

/// Acknowledged positions of which no copy is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The first.
    pub first: Seq,
    /// The last.
    pub last: Seq,
}

impl Policy {
    /// What would hold under this policy.
    #[must_use]
    pub fn simulate(&self, scenario: &Scenario) -> Forecast {
        let voters = scenario.voters.len();
        let mut after = self.normal_form(voters).after(&scenario.failures());
        after.primary_stays &= scenario.primary.is_some();
        let (met_through, blocker, degraded) = match self.evaluate(voters, &scenario.view()) {
            Evaluation::Met { position, blocker } => (Some(position), Some(blocker), None),
            Evaluation::Degraded(unmet) => (None, None, Some(unmet)),
        };
        let seen = !scenario.cursors.is_empty();
        Forecast {
            after,
            degraded: if seen { degraded } else { self.unmet(scenario) },
            met_through: met_through.filter(|_| seen),
            blocker: blocker.filter(|_| seen),
            lost: scenario.lost().filter(|_| seen),
        }
    }

    /// The clause that the voters that are up are too few for, whatever their cursors.
    fn unmet(self, scenario: &Scenario) -> Option<Unmet> {
        let view: Vec<Cursors> = scenario
            .voters
            .iter()
            .filter(|(_, condition)| answers(*condition))
            .map(|(node, _)| Cursors { node: *node, in_memory: Seq::ZERO, persisted: Seq::ZERO })
            .collect();
        match self.evaluate(scenario.voters.len(), &view) {
            Evaluation::Met { .. } => None,
            Evaluation::Degraded(unmet) => Some(unmet),
        }
    }
}

impl Scenario {
    /// The failures by count. Without a primary, one that is up is as good as none: an election
    /// is needed then in any case.
    #[must_use]
    pub fn failures(&self) -> Failures {
        let primary = self.primary.map_or(Condition::Up, |node| self.condition(node));
        let others = match self.primary {
            Some(primary) => self.counts(|node| node != primary),
            None => self.counts(|_| true),
        };
        Failures { primary, others }
    }

    fn counts(&self, chosen: impl Fn(NodeId) -> bool) -> Counts {
        self.voters
            .iter()
            .filter(|(node, _)| chosen(*node))
            .fold(Counts::default(), |counts, (_, condition)| counts.with(*condition))
    }

    fn condition(&self, node: NodeId) -> Condition {
        let voter = self.voters.iter().find(|(voter, _)| *voter == node);
        voter.map_or(Condition::Stopped, |(_, condition)| *condition)
    }

    /// The cursors of those that still answer.
    fn view(&self) -> Vec<Cursors> {
        let mut view = self.cursors.clone();
        view.retain(|cursors| answers(self.condition(cursors.node)));
        for cursors in &mut view {
            if self.condition(cursors.node) == Condition::PowerCut {
                cursors.in_memory = cursors.persisted;
            }
        }
        view
    }

    /// Acknowledged positions beyond every copy that is not destroyed.
    fn lost(&self) -> Option<Lost> {
        let held = self.cursors.iter().filter_map(|cursors| match self.condition(cursors.node) {
            Condition::Up | Condition::Stopped => Some(cursors.in_memory.max(cursors.persisted)),
            Condition::PowerCut => Some(cursors.persisted),
            Condition::DiskLost => None,
        });
        let through = held.max().unwrap_or(Seq::ZERO);
        (through < self.acknowledged)
            .then(|| Lost { first: through.next(), last: self.acknowledged })
    }
}

fn answers(condition: Condition) -> bool {
    match condition {
        Condition::Up | Condition::PowerCut => true,
        Condition::Stopped | Condition::DiskLost => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Level;

    fn cursors(node: u64, in_memory: u64, persisted: u64) -> Cursors {
        Cursors { node: NodeId(node), in_memory: Seq(in_memory), persisted: Seq(persisted) }
    }

    /// Node 1 leads; node 2 is quick, node 3 behind. 10 is acknowledged.
    fn scenario(conditions: [Condition; 3]) -> Scenario {
        Scenario {
            voters: (1..).map(NodeId).zip(conditions).collect(),
            primary: Some(NodeId(1)),
            cursors: vec![cursors(1, 12, 8), cursors(2, 11, 10), cursors(3, 5, 3)],
            acknowledged: Seq(10),
        }
    }

    #[test]
    fn the_blocker_is_the_one_that_is_left_and_slowest() {
        use Condition::{Stopped, Up};
        let forecast = Policy::HYBRID.simulate(&scenario([Up, Stopped, Up]));
        assert!(forecast.after.writes() && forecast.after.primary_stays);
        let blocker = Blocker { level: Level::InMemory, node: NodeId(3) };
        assert_eq!((forecast.met_through, forecast.blocker), (Some(Seq(5)), Some(blocker)));
        assert_eq!((forecast.degraded, forecast.lost), (None, None));
        let forecast = Policy::HYBRID.simulate(&scenario([Up, Stopped, Stopped]));
        assert!(!forecast.after.writes() && !forecast.after.reads());
        let unmet = forecast.degraded.expect("one is left");
        assert_eq!(unmet.to_string(), "in_memory>=2 needs 2 voters, 1 reachable");
    }

    #[test]
    fn what_only_the_damaged_held_is_lost() {
        use Condition::{DiskLost, PowerCut, Stopped, Up};
        let lost = |conditions| Policy::HYBRID.simulate(&scenario(conditions)).lost;
        let range = |first, last| Some(Lost { first: Seq(first), last: Seq(last) });
        assert_eq!(lost([Stopped, Stopped, Stopped]), None);
        assert_eq!(lost([PowerCut, PowerCut, PowerCut]), None);
        assert_eq!(lost([Up, DiskLost, Up]), None);
        assert_eq!(lost([PowerCut, DiskLost, Up]), range(9, 10));
        assert_eq!(lost([DiskLost, DiskLost, Up]), range(6, 10));
    }

    #[test]
    fn without_a_primary_or_cursors_voters_are_counted() {
        use Condition::{Stopped, Up};
        let blind =
            |conditions, primary| Scenario { primary, cursors: Vec::new(), ..scenario(conditions) };
        let local = Policy::LOCAL.simulate(&blind([Up, Up, Stopped], None));
        assert!(!local.after.reads(), "local needs all three to elect");
        assert_eq!((local.degraded, local.blocker, local.lost), (None, None, None));
        let local = Policy::LOCAL.simulate(&blind([Up, Stopped, Stopped], Some(NodeId(1))));
        assert!(local.after.writes());
        let all = Policy::ALL.simulate(&blind([Up, Up, Stopped], Some(NodeId(1))));
        assert!(all.after.reads() && !all.after.writes() && all.degraded.is_some());
    }
}
