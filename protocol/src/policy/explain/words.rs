//! Combinations of failures as phrases.

use super::{Condition, Counts, FailureSet, PrimaryIn};

impl FailureSet {
    /// The combination as a phrase, such as "any 2 voters stop".
    #[must_use]
    pub fn phrase(&self, voters: usize) -> String {
        let Counts { stopped, power_cut, disks_lost } = self.counts;
        let mut kinds = [
            (disks_lost, Condition::DiskLost),
            (power_cut, Condition::PowerCut),
            (stopped, Condition::Stopped),
        ];
        let mut parts = Vec::new();
        let mut named = 0;
        if let Some(condition) = self.primary_alone() {
            parts.push(format!("the primary {}", verb(condition, true)));
            named = 1;
            for (count, _) in kinds.iter_mut().filter(|(_, kind)| *kind == condition) {
                *count -= 1;
            }
        }
        for (count, condition) in kinds.into_iter().filter(|(count, _)| *count > 0) {
            parts.push(format!("{} {}", who(count, named, voters), verb(condition, count == 1)));
            named += count;
        }
        if parts.is_empty() {
            return "nothing fails".to_owned();
        }
        let text = parts.join(" and ");
        match self.primary {
            PrimaryIn::Among if named > 1 => format!("{text}, the primary being one of them"),
            PrimaryIn::In(Condition::Up) => format!("{text}, the primary not being one of them"),
            PrimaryIn::Any | PrimaryIn::Among | PrimaryIn::In(_) => text,
        }
    }

    /// What happens to the primary, where that can be said apart from the others.
    fn primary_alone(&self) -> Option<Condition> {
        let Counts { stopped, power_cut, disks_lost } = self.counts;
        match (self.primary, stopped, power_cut, disks_lost) {
            (PrimaryIn::In(Condition::Up) | PrimaryIn::Any, ..) => None,
            (PrimaryIn::In(condition), ..) => Some(condition),
            (PrimaryIn::Among, 1, 0, 0) => Some(Condition::Stopped),
            (PrimaryIn::Among, 0, 1, 0) => Some(Condition::PowerCut),
            (PrimaryIn::Among, 0, 0, 1) => Some(Condition::DiskLost),
            (PrimaryIn::Among, ..) => None,
        }
    }
}

/// Who: so many of the voters that were not `named` yet.
fn who(count: usize, named: usize, voters: usize) -> String {
    let everyone = named + count == voters;
    match (count, named) {
        (count, 0) if everyone && count > 1 => format!("all {count} voters"),
        (1, 0) if everyone => "the only voter".to_owned(),
        (1, 0) => "any 1 voter".to_owned(),
        (count, 0) => format!("any {count} voters"),
        (1, _) if everyone => "the other".to_owned(),
        (count, _) if everyone => format!("all {count} others"),
        (1, _) => "1 other".to_owned(),
        (count, _) => format!("{count} others"),
    }
}

/// What happens to one, or to several.
fn verb(condition: Condition, one: bool) -> &'static str {
    match (condition, one) {
        (Condition::Up, true) => "stays up",
        (Condition::Up, false) => "stay up",
        (Condition::Stopped, true) => "stops",
        (Condition::Stopped, false) => "stop",
        (Condition::PowerCut, true) => "loses power",
        (Condition::PowerCut, false) => "lose power",
        (Condition::DiskLost, true) => "loses its disk",
        (Condition::DiskLost, false) => "lose their disks",
    }
}
