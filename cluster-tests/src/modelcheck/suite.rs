//! The searches that are run, and the mistakes that they must find.

use quorate_protocol::cluster::ClusterChange;
use quorate_protocol::mutants::Mutant;
use quorate_protocol::policy::Policy;
use quorate_protocol::types::NodeId;

use super::scope::{Scope, Start};

/// How far to search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// What every change can afford.
    Small,
    /// What is run on demand.
    Full,
}

const POLICIES: [Policy; 4] = [Policy::LOCAL, Policy::MEMORY, Policy::HYBRID, Policy::MAJORITY];

/// All searches of a size; none may find anything.
#[must_use]
pub fn searches(size: Size) -> Vec<Scope> {
    POLICIES.into_iter().flat_map(|policy| of_policy(size, policy)).collect()
}

fn of_policy(size: Size, policy: Policy) -> Vec<Scope> {
    let small = size == Size::Small;
    let crashes = Scope {
        kills: true,
        power_cuts: true,
        crashes_max: if small { 1 } else { 2 },
        ..Scope::new("crashes", policy)
    };
    let change = Scope { commits: true, ..Scope::new("", policy) };
    let others = POLICIES.into_iter().filter(|other| *other != policy);
    let policies = Scope {
        name: "policy change",
        changes: vec![others.map(ClusterChange::SetPolicy).collect()],
        ..change.clone()
    };
    let joins = Scope {
        name: "a voter joins",
        learners: 1,
        entries_max: 2,
        changes: vec![vec![ClusterChange::Promote(NodeId(4))]],
        ..change.clone()
    };
    let leaves = Scope {
        name: "a voter leaves",
        changes: vec![vec![ClusterChange::Remove(NodeId(3))]],
        ..change
    };
    vec![crashes, policies, joins, leaves]
}

/// A rule that is switched off, and the search that must find what follows.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// Where the counter-example is described.
    pub known_as: &'static str,
    /// What is searched, with the mistake in it.
    pub scope: Scope,
}

/// Every counter-example that the bounds are chosen to contain.
#[must_use]
pub fn hunts() -> Vec<Hunt> {
    let power_cut =
        |name, policy| Scope { power_cuts: true, crashes_max: 1, ..Scope::new(name, policy) };
    let change = |name, policy, change| Scope {
        commits: true,
        changes: vec![vec![change]],
        judge_rules: false,
        ..Scope::new(name, policy)
    };
    let hunt =
        |known_as, mutant, scope| Hunt { known_as, scope: Scope { mutant: Some(mutant), ..scope } };
    vec![
        hunt("R1", Mutant::CountAmnesiacVoters, power_cut("hybrid", Policy::HYBRID)),
        hunt("R1", Mutant::CountAmnesiacVoters, power_cut("memory", Policy::MEMORY)),
        hunt("R1", Mutant::MajorityElects, Scope::new("local", Policy::LOCAL)),
        hunt("R2", Mutant::ClearMemoryLossAtCommit, power_cut("hybrid", Policy::HYBRID)),
        hunt(
            "R3",
            Mutant::NewConfigurationAlone,
            Scope {
                learners: 1,
                ..change("a voter joins", Policy::HYBRID, ClusterChange::Promote(NodeId(4)))
            },
        ),
        hunt(
            "R4",
            Mutant::PolicyAtAppend,
            change("majority to local", Policy::MAJORITY, ClusterChange::SetPolicy(Policy::LOCAL)),
        ),
        hunt("Raft's Figure 8", Mutant::CommitOlderEpoch, figure_8()),
        hunt("single-server change", Mutant::SingleServerErratum, two_removals()),
    ]
}

/// Three elections after the first one, and messages that arrive in part.
fn figure_8() -> Scope {
    Scope {
        start: Start::Formed,
        epoch_max: 5,
        last_candidate: NodeId(2),
        entries_max: 1,
        prefixes: true,
        ..Scope::new("three more elections", Policy::MAJORITY)
    }
}

/// Four voters, two elections after the first one, and two removals by different primaries.
fn two_removals() -> Scope {
    Scope {
        voters: 4,
        epoch_max: 4,
        last_candidate: NodeId(2),
        entries_max: 1,
        commits: true,
        changes: vec![
            vec![ClusterChange::Remove(NodeId(4))],
            vec![ClusterChange::Remove(NodeId(3))],
        ],
        judge_rules: false,
        ..Scope::new("two removals", Policy::MAJORITY)
    }
}
