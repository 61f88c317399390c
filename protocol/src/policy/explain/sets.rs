//! The smallest combinations that do harm, and the largest that do not.

use super::{Condition, Consequences, Counts, Failures};
use crate::policy::NormalForm;

/// Everything that follows from a policy on a number of voters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The policy, as counts.
    pub form: NormalForm,
    /// The largest combinations of power cuts and lost disks that lose no acknowledged write.
    /// Stops are left out: they destroy nothing.
    pub keeps: Vec<FailureSet>,
    /// The smallest combinations that may lose one.
    pub loses: Vec<FailureSet>,
    /// The smallest combinations after which no write is acknowledged.
    pub blocks_writes: Vec<FailureSet>,
    /// The smallest combinations after which no linearizable read is served.
    pub blocks_reads: Vec<FailureSet>,
    /// The smallest combinations after which no primary can be elected.
    pub blocks_elections: Vec<FailureSet>,
    /// How many of all combinations do what.
    pub combinations: Combinations,
}

/// A combination of failures that stands for all those that are worse (or milder).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FailureSet {
    /// How many voters fail, and how.
    pub counts: Counts,
    /// Whether the primary must be one of them.
    pub primary: PrimaryIn,
}

/// What became of the primary in a combination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PrimaryIn {
    /// It makes no difference which voters they are.
    Any,
    /// It is one of those that fail, in whichever way.
    Among,
    /// It is in this condition.
    In(Condition),
}

/// Of all combinations with a given primary, 4 to the power of the voters, how many do what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Combinations {
    /// All of them, the one without any failure included.
    pub total: u64,
    /// May lose an acknowledged write.
    pub lose_data: u64,
    /// Leave nobody who acknowledges writes.
    pub block_writes: u64,
    /// Leave nobody who serves linearizable reads.
    pub block_reads: u64,
    /// Leave too few voters for an election.
    pub block_elections: u64,
}

impl Explanation {
    pub(super) fn of(form: NormalForm) -> Self {
        let voters = form.voters;
        let destroyed: Vec<Counts> =
            Counts::all(voters).filter(|counts| counts.stopped == 0).collect();
        let (lost, kept): (Vec<_>, Vec<_>) =
            destroyed.into_iter().partition(|counts| form.loses(*counts));
        Self {
            form,
            keeps: any_voters(largest(kept, Counts::is_within)),
            loses: any_voters(smallest(lost, Counts::is_within)),
            blocks_writes: blocking(form, |after| !after.writes()),
            blocks_reads: blocking(form, |after| !after.reads()),
            blocks_elections: any_voters(smallest(
                Counts::all(voters).filter(|counts| !form.can_elect(*counts)).collect(),
                Counts::is_within,
            )),
            combinations: Combinations::of(form),
        }
    }
}

impl Combinations {
    fn of(form: NormalForm) -> Self {
        let mut sum = Self::default();
        for failures in Failures::all(form.voters) {
            let ways = failures.ways(form.voters);
            let after = form.after(&failures);
            let ways_if = |is: bool| if is { ways } else { 0 };
            sum.total += ways;
            sum.lose_data += ways_if(after.loses_data);
            sum.block_writes += ways_if(!after.writes());
            sum.block_reads += ways_if(!after.reads());
            sum.block_elections += ways_if(!after.elects);
        }
        sum
    }
}

/// The smallest combinations with this consequence. Those with the same counts are one, where they
/// leave open who of the voters the primary is.
fn blocking(form: NormalForm, harms: impl Fn(Consequences) -> bool) -> Vec<FailureSet> {
    let harmful = Failures::all(form.voters).filter(|failures| harms(form.after(failures)));
    let harmful = smallest(harmful.collect(), Failures::is_within);
    let mut counts: Vec<Counts> = harmful.iter().map(|failures| failures.total()).collect();
    counts.sort_unstable();
    counts.dedup();
    counts.sort_by_key(simplest_first);
    counts.into_iter().flat_map(|counts| merge(counts, &harmful, form.voters)).collect()
}

fn merge(counts: Counts, harmful: &[Failures], voters: usize) -> Vec<FailureSet> {
    let listed: Vec<Condition> = harmful
        .iter()
        .filter(|failures| failures.total() == counts)
        .map(|failures| failures.primary)
        .collect();
    let possible = primaries(counts, voters);
    let failing = possible.iter().copied().filter(|condition| *condition != Condition::Up);
    let primaries = if listed == possible {
        vec![PrimaryIn::Any]
    } else if failing.eq(listed.iter().copied()) {
        vec![PrimaryIn::Among]
    } else {
        listed.into_iter().map(PrimaryIn::In).collect()
    };
    primaries.into_iter().map(|primary| FailureSet { counts, primary }).collect()
}

/// What the primary can be where so many voters are in each condition.
fn primaries(counts: Counts, voters: usize) -> Vec<Condition> {
    let possible = |condition: &Condition| match condition {
        Condition::Up => counts.failed() < voters,
        Condition::Stopped => counts.stopped > 0,
        Condition::PowerCut => counts.power_cut > 0,
        Condition::DiskLost => counts.disks_lost > 0,
    };
    Condition::ALL.into_iter().filter(possible).collect()
}

/// For a reader: few failures before many, of one kind before several.
fn simplest_first(counts: &Counts) -> (usize, usize) {
    let kinds = [counts.stopped, counts.power_cut, counts.disks_lost];
    (counts.failed(), kinds.iter().filter(|count| **count > 0).count())
}

fn any_voters(mut counts: Vec<Counts>) -> Vec<FailureSet> {
    counts.sort_by_key(simplest_first);
    counts.into_iter().map(|counts| FailureSet { counts, primary: PrimaryIn::Any }).collect()
}

fn smallest<T: Copy + Ord>(items: Vec<T>, is_within: fn(T, T) -> bool) -> Vec<T> {
    extremes(items, |item, other| is_within(other, item))
}

fn largest<T: Copy + Ord>(items: Vec<T>, is_within: fn(T, T) -> bool) -> Vec<T> {
    extremes(items, is_within)
}

/// Those that no other one makes superfluous, each once.
fn extremes<T: Copy + Ord>(mut items: Vec<T>, yields_to: impl Fn(T, T) -> bool) -> Vec<T> {
    items.sort_unstable();
    items.dedup();
    let all = items.clone();
    items.retain(|item| !all.iter().any(|other| other != item && yields_to(*item, *other)));
    items
}
