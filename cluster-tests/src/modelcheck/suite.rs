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
    POLICIES
        .into_iter()
        .flat_map(|policy| match size {
            Size::Small => small(policy),
            Size::Full => full(policy),
        })
        .collect()
}

/// One more election, one write, and one crash or one change.
fn small(policy: Policy) -> Vec<Scope> {
    vec![crashes(policy), policy_changes(policy), joins(policy), leaves(policy)]
}

/// What more of everything finds: crashes, elections, writes, late acknowledgements, and crashes
/// in the middle of changes.
///
/// Nodes 2 and 3 are alike, so what one of them does as a candidate the other does too. That node 3
/// never stands leaves out only that both do at once, which nodes 1 and 2 do.
fn full(policy: Policy) -> Vec<Scope> {
    let two_stand = |scope| Scope { last_candidate: NodeId(2), ..scope };
    let one_cut =
        |name, scope| two_stand(Scope { name, power_cuts: true, crashes_max: 1, ..scope });
    let mut scopes = vec![
        two_stand(Scope { name: "two crashes", crashes_max: 2, ..crashes(policy) }),
        two_stand(Scope {
            name: "two writes",
            entries_max: 4,
            prefixes: true,
            kills: false,
            ..crashes(policy)
        }),
        two_stand(Scope {
            name: "stepping down",
            step_down: true,
            prefixes: true,
            ..crashes(policy)
        }),
        two_stand(Scope { name: "two elections", epoch_max: 4, kills: false, ..crashes(policy) }),
        two_stand(Scope {
            name: "late answers",
            delayed_acks: true,
            kills: false,
            ..crashes(policy)
        }),
    ];
    scopes.extend(policy_changes(policy).changes[0].iter().map(|change| Scope {
        changes: vec![vec![change.clone()]],
        ..one_cut("policy change, crash", policy_changes(policy))
    }));
    scopes.extend([
        one_cut("voter joins, crash", joins(policy)),
        one_cut("voter leaves, crash", leaves(policy)),
        // Nodes 3 and 4 are alike, too.
        two_stand(Scope {
            voters: 4,
            entries_max: 1,
            changes: [4, 3].map(|node| vec![ClusterChange::Remove(NodeId(node))]).to_vec(),
            ..Scope { name: "two changes", ..leaves(policy) }
        }),
    ]);
    if policy == Policy::MAJORITY {
        scopes.push(Scope { last_candidate: NodeId(3), ..figure_8() });
    }
    scopes
}

fn crashes(policy: Policy) -> Scope {
    Scope { kills: true, power_cuts: true, crashes_max: 1, ..Scope::new("one crash", policy) }
}

fn policy_changes(policy: Policy) -> Scope {
    let others = POLICIES.into_iter().filter(|other| *other != policy);
    Scope {
        changes: vec![others.map(ClusterChange::SetPolicy).collect()],
        commits: true,
        ..Scope::new("policy change", policy)
    }
}

fn joins(policy: Policy) -> Scope {
    Scope {
        learners: 1,
        entries_max: 2,
        changes: vec![vec![ClusterChange::Promote(NodeId(4))]],
        commits: true,
        ..Scope::new("voter joins", policy)
    }
}

fn leaves(policy: Policy) -> Scope {
    Scope {
        changes: vec![vec![ClusterChange::Remove(NodeId(3))]],
        commits: true,
        ..Scope::new("voter leaves", policy)
    }
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
        hunt("R1", Mutant::ElectByMajorityAlone, Scope::new("local", Policy::LOCAL)),
        hunt("R2", Mutant::RecoverAtCommit, power_cut("hybrid", Policy::HYBRID)),
        hunt(
            "R3",
            Mutant::InForceByNewAlone,
            Scope {
                learners: 1,
                ..change("a voter joins", Policy::HYBRID, ClusterChange::Promote(NodeId(4)))
            },
        ),
        hunt(
            "R4",
            Mutant::JudgeByNewest,
            change("majority to local", Policy::MAJORITY, ClusterChange::SetPolicy(Policy::LOCAL)),
        ),
        hunt("one vote in an epoch", Mutant::VoteTwice, Scope::new("majority", Policy::MAJORITY)),
        hunt("Raft's Figure 8", Mutant::Figure8Commit, figure_8()),
        hunt("single-server change", Mutant::ThesisSingleServer, two_removals()),
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
        changes: vec![
            vec![ClusterChange::Remove(NodeId(4))],
            vec![ClusterChange::Remove(NodeId(3))],
        ],
        judge_rules: false,
        ..Scope::new("two removals", Policy::MAJORITY)
    }
}
