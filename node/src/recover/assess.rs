//! What the copies that are left say: who should go on, and what may be lost by it. Pure.

use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::types::{EntryId, NodeId};

/// The log of one voter, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    /// Whose.
    pub(super) node: NodeId,
    /// Its last entry.
    pub(super) last: EntryId,
    /// Whether it may have lost what it acknowledged from memory (S5).
    pub(super) memory_loss: bool,
}

/// What follows from the copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assessment {
    /// The copy that holds the most: its node should go on.
    pub(super) best: Copy,
    /// Voters of which nothing is known.
    pub(super) unknown: Vec<NodeId>,
    /// Whether these nodes can elect a primary by themselves, which loses nothing.
    pub(super) can_elect: bool,
    /// Whether every acknowledged write is in the best copy.
    pub(super) holds_all: bool,
}

/// Judges by `configs`, the configurations that may be in force: more than one while a change is
/// not known to be. `None` where no copy is a voter's.
pub(super) fn assess(configs: &[&ClusterEntry], copies: &[Copy]) -> Option<Assessment> {
    let votes = |config: &ClusterEntry| {
        let voters: Vec<&Copy> = copies.iter().filter(|copy| config.is_voter(copy.node)).collect();
        let intact = voters.iter().filter(|copy| !copy.memory_loss).count();
        (config.policy.normal_form(config.voters().count()), voters.len(), intact)
    };
    let all = |judge: &dyn Fn(&ClusterEntry) -> bool| configs.iter().all(|config| judge(config));
    let is_voter = |node: NodeId| configs.iter().any(|config| config.is_voter(node));
    let best = copies.iter().copied().filter(|copy| is_voter(copy.node)).max_by_key(|copy| {
        // Of equals, the one with the lowest number.
        (copy.last, std::cmp::Reverse(copy.node))
    })?;
    let mut unknown: Vec<NodeId> = configs.iter().flat_map(|config| config.voters()).collect();
    unknown.retain(|node| copies.iter().all(|copy| copy.node != *node));
    unknown.sort_unstable();
    unknown.dedup();
    Some(Assessment {
        best,
        unknown,
        can_elect: all(&|config| {
            let (form, votes, intact) = votes(config);
            form.elects(votes, intact)
        }),
        // As S3 without its majority, which only keeps two nodes from leading at once.
        holds_all: all(&|config| {
            let (form, votes, intact) = votes(config);
            votes + form.persisted > form.voters || intact + form.copies > form.voters
        }),
    })
}

/// What is given up where `survivor` goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Risk {
    /// Entries that another copy holds and the survivor doesn't: `(first position, last entry)`.
    pub(super) known: Option<(u64, EntryId)>,
    /// Whether nodes of which nothing is known may hold acknowledged writes behind `best`.
    pub(super) beyond: Option<EntryId>,
}

pub(super) fn risk(assessment: &Assessment, survivor: &Copy) -> Risk {
    let best = assessment.best.last;
    Risk {
        known: (best > survivor.last).then_some((survivor.last.seq.0 + 1, best)),
        beyond: (!assessment.holds_all).then_some(best),
    }
}

#[cfg(test)]
mod tests {
    use quorate_protocol::cluster::{Member, MemberKind, SafetyTimers};
    use quorate_protocol::policy::Policy;
    use quorate_protocol::types::{ClusterId, DiskId, Epoch, Generation, Seq};

    use super::*;

    fn config(policy: Policy, voters: &[u64]) -> ClusterEntry {
        let member = |node: &u64| Member {
            node: NodeId(*node),
            disk: DiskId(u128::from(*node)),
            kind: MemberKind::Voter,
            peer_addr: String::new(),
            client_addr: String::new(),
            plain_addr: String::new(),
        };
        ClusterEntry {
            cluster: ClusterId(1),
            generation: Generation(0),
            version: 1,
            members: voters.iter().map(member).collect(),
            policy,
            timers: SafetyTimers::LAN,
            removed: Vec::new(),
            tokens: Vec::new(),
        }
    }

    fn copy(node: u64, epoch: u64, seq: u64) -> Copy {
        let last = EntryId::new(Epoch(epoch), Seq(seq));
        Copy { node: NodeId(node), last, memory_loss: false }
    }

    fn judged(policy: Policy, copies: &[Copy]) -> Assessment {
        assess(&[&config(policy, &[1, 2, 3])], copies).expect("a voter's copy")
    }

    #[test]
    fn the_survivor_is_the_one_with_the_last_entry_and_not_the_longest_log() {
        let judged = judged(Policy::LOCAL, &[copy(1, 2, 90), copy(2, 3, 70), copy(4, 9, 99)]);
        assert_eq!(judged.best, copy(2, 3, 70), "node 4 is no voter");
        assert_eq!(judged.unknown, [NodeId(3)]);
        let risk = risk(&judged, &copy(1, 2, 90));
        assert_eq!(risk.known, Some((91, EntryId::new(Epoch(3), Seq(70)))));
    }

    #[test]
    fn one_of_three_holds_all_only_where_every_node_had_to() {
        let one = [copy(2, 2, 9)];
        for (policy, holds_all) in [
            (Policy::LOCAL, false),
            (Policy::MEMORY, false),
            (Policy::HYBRID, false),
            (Policy::MAJORITY, false),
            (Policy::ALL, true),
        ] {
            let judged = judged(policy, &one);
            assert_eq!((judged.holds_all, judged.can_elect), (holds_all, false), "{policy}");
            let lost = risk(&judged, &one[0]);
            assert_eq!(lost.known, None);
            assert_eq!(lost.beyond.is_none(), holds_all);
        }
    }

    #[test]
    fn two_of_three_elect_unless_the_policy_or_lost_memory_forbids_it() {
        let two = [copy(1, 2, 9), copy(3, 2, 8)];
        assert!(judged(Policy::MAJORITY, &two).can_elect);
        assert!(judged(Policy::HYBRID, &two).can_elect);
        assert!(!judged(Policy::LOCAL, &two).can_elect);
        let lost = [two[0], Copy { memory_loss: true, ..two[1] }];
        assert!(!judged(Policy::HYBRID, &lost).can_elect);
        assert!(!judged(Policy::HYBRID, &lost).holds_all);
        assert!(judged(Policy::MAJORITY, &lost).can_elect);
    }

    #[test]
    fn while_a_change_is_under_way_both_configurations_are_asked() {
        let (old, new) = (config(Policy::MAJORITY, &[1, 2, 3]), config(Policy::MAJORITY, &[1, 2]));
        let copies = [copy(1, 2, 9), copy(3, 2, 9)];
        assert!(assess(&[&old], &copies).expect("voters").can_elect);
        let both = assess(&[&old, &new], &copies).expect("voters");
        assert!(!both.can_elect);
        assert_eq!(both.unknown, [NodeId(2)]);
        assert_eq!(assess(&[&new], &[copy(3, 2, 9)]), None);
    }
}
