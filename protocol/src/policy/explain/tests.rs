//! The reasoning by counts against brute force over single voters and single copies.

use super::*;

/// What became of each voter, by index.
type Cluster = Vec<Condition>;

/// Every cluster of so many voters: 4 to the power of `voters`.
fn clusters(voters: usize) -> impl Iterator<Item = Cluster> {
    (0..4_usize.pow(voters as u32)).map(move |mut code| {
        (0..voters)
            .map(|_| {
                let condition = Condition::ALL[code % 4];
                code /= 4;
                condition
            })
            .collect()
    })
}

/// Every way in which copies may lie when a write is acknowledged: who has it, and who of them on
/// disk.
fn placements(form: NormalForm) -> Vec<(u32, u32)> {
    let sets = |count: usize| {
        (0..1_u32 << form.voters).filter(move |set| set.count_ones() as usize == count)
    };
    sets(form.copies)
        .flat_map(|held| {
            sets(form.persisted).filter(move |disk| disk & !held == 0).map(move |disk| (held, disk))
        })
        .collect()
}

/// The voters in any of these conditions.
fn those(cluster: &Cluster, conditions: &[Condition]) -> u32 {
    let bit = |(index, condition)| u32::from(conditions.contains(condition)) << index;
    cluster.iter().enumerate().map(bit).sum()
}

/// Whether some copy is still somewhere, on a node that is up or may be started again.
fn survives(cluster: &Cluster, (held, disk): (u32, u32)) -> bool {
    let memory = those(cluster, &[Condition::Up, Condition::Stopped]);
    let disks = memory | those(cluster, &[Condition::PowerCut]);
    held & memory != 0 || disk & disks != 0
}

/// Whether those that are up are a majority and see, among them, every write that may have been
/// acknowledged: their memory counts where they didn't lose it.
fn may_elect(cluster: &Cluster, form: NormalForm, placements: &[(u32, u32)]) -> bool {
    let whole = those(cluster, &[Condition::Up]);
    let voting = whole | those(cluster, &[Condition::PowerCut]);
    2 * voting.count_ones() as usize > form.voters
        && placements.iter().all(|(held, disk)| held & whole != 0 || disk & voting != 0)
}

/// Whether no electing set can form without the primary and those that it reaches: an old primary
/// may go on only then. By definition, instead of by `b`.
fn fenced_off(cluster: &Cluster, form: NormalForm) -> bool {
    let reached = those(cluster, &[Condition::Up, Condition::PowerCut]).count_ones() as usize;
    let beyond = form.voters - reached;
    !form.elects(beyond, beyond)
}

/// Every policy on so many voters, as counts: with and without copies in memory alone.
fn forms(voters: usize) -> impl Iterator<Item = NormalForm> {
    (1..=voters).flat_map(move |copies| {
        (0..=copies).map(move |persisted| NormalForm { voters, persisted, copies })
    })
}

/// For each policy, each combination of failures and each primary.
#[test]
fn consequences_equal_brute_force_over_every_combination_of_failures() {
    let mut cases = 0_u64;
    for form in (1..=7).flat_map(forms) {
        let placements = placements(form);
        let explained = Explanation::of(form);
        let mut lose = 0;
        for cluster in clusters(form.voters) {
            let up = those(&cluster, &[Condition::Up, Condition::PowerCut]).count_ones() as usize;
            let loses = !placements.iter().all(|placement| survives(&cluster, *placement));
            let elects = may_elect(&cluster, form, &placements);
            lose += u64::from(loses);
            let mut total = Counts::default();
            for condition in &cluster {
                total = total.with(*condition);
            }
            check_sets(&explained, total, loses, elects);
            for primary in 0..form.voters {
                let others = cluster.iter().enumerate().filter(|(index, _)| *index != primary);
                let others = others.fold(Counts::default(), |sum, (_, one)| sum.with(*one));
                let failures = Failures { primary: cluster[primary], others };
                let stays = cluster[primary] == Condition::Up && fenced_off(&cluster, form);
                let expected = Consequences {
                    loses_data: loses,
                    primary_stays: stays,
                    elects,
                    meets_policy: up >= form.copies,
                };
                assert_eq!(form.after(&failures), expected, "{form:?} {cluster:?} {primary}");
                check_blocking(&explained.blocks_writes, failures, !expected.writes());
                check_blocking(&explained.blocks_reads, failures, !expected.reads());
                cases += 1;
            }
        }
        assert_eq!(explained.combinations.total, 4_u64.pow(form.voters as u32));
        assert_eq!(explained.combinations.lose_data, lose);
    }
    assert!(cases > 4_000_000, "only {cases} cases");
}

/// A combination loses data, or blocks elections, exactly if a listed one is within it; it keeps
/// all data exactly if it is within a listed one.
fn check_sets(explained: &Explanation, total: Counts, loses: bool, elects: bool) {
    let covers = |sets: &[FailureSet]| sets.iter().any(|set| set.counts.is_within(total));
    assert_eq!(covers(&explained.loses), loses, "{explained:?} {total:?}");
    assert_eq!(covers(&explained.blocks_elections), !elects, "{explained:?} {total:?}");
    let destroyed = Counts { stopped: 0, ..total };
    let kept = explained.keeps.iter().any(|set| destroyed.is_within(set.counts));
    assert_eq!(kept, !loses, "{explained:?} {total:?}");
}

/// A combination does harm exactly if a listed one is within it, with the primary in its place.
fn check_blocking(sets: &[FailureSet], failures: Failures, blocks: bool) {
    let covered = sets.iter().any(|set| match set.primary {
        PrimaryIn::Any => set.counts.is_within(failures.total()),
        PrimaryIn::In(condition) => covers_with(set.counts, condition, failures),
        PrimaryIn::Among => Condition::ALL[1..]
            .iter()
            .any(|condition| covers_with(set.counts, *condition, failures)),
    });
    assert_eq!(covered, blocks, "{sets:?} {failures:?}");
}

fn covers_with(counts: Counts, primary: Condition, failures: Failures) -> bool {
    let one = Counts::default().with(primary);
    let others = Counts {
        stopped: counts.stopped.wrapping_sub(one.stopped),
        power_cut: counts.power_cut.wrapping_sub(one.power_cut),
        disks_lost: counts.disks_lost.wrapping_sub(one.disks_lost),
    };
    let there = counts.stopped >= one.stopped
        && counts.power_cut >= one.power_cut
        && counts.disks_lost >= one.disks_lost;
    there && primary.is_within(failures.primary) && others.is_within(failures.others)
}

fn phrases(sets: &[FailureSet], voters: usize) -> Vec<String> {
    sets.iter().map(|set| set.phrase(voters)).collect()
}

/// What a person reads: the table of presets, derived instead of remembered.
#[test]
fn presets_on_three_voters_in_words() {
    let explain = |policy: Policy| policy.explain(3);
    let cases = [
        (Policy::LOCAL, &["all 3 voters lose power"][..], &["any 1 voter loses its disk"][..]),
        (Policy::MEMORY, &["any 1 voter loses its disk"], &["any 2 voters lose power"]),
        (
            Policy::HYBRID,
            &["any 1 voter loses its disk", "all 3 voters lose power"],
            &["any 1 voter loses its disk and 1 other loses power"],
        ),
        (
            Policy::MAJORITY,
            &["any 1 voter loses its disk and all 2 others lose power"],
            &["any 2 voters lose their disks"],
        ),
        (
            Policy::ALL,
            &["any 2 voters lose their disks and the other loses power"],
            &["all 3 voters lose their disks"],
        ),
    ];
    for (policy, keeps, loses) in cases {
        let explained = explain(policy);
        assert_eq!(phrases(&explained.keeps, 3), keeps, "{policy}");
        assert_eq!(phrases(&explained.loses, 3), loses, "{policy}");
    }
    let writes = |policy: Policy| phrases(&explain(policy).blocks_writes, 3);
    assert_eq!(
        writes(Policy::LOCAL),
        ["the primary stops", "the primary loses power and 1 other stops"]
    );
    assert_eq!(writes(Policy::MAJORITY), ["any 2 voters stop"]);
    assert_eq!(writes(Policy::ALL), ["any 1 voter stops"]);
    assert_eq!(
        writes(Policy::HYBRID),
        [
            "any 2 voters stop",
            "any 1 voter loses power and 1 other stops, the primary being one of them"
        ]
    );
    let elections = |policy: Policy| phrases(&explain(policy).blocks_elections, 3);
    assert_eq!(elections(Policy::LOCAL), ["any 1 voter stops"]);
    assert_eq!(elections(Policy::ALL), ["any 2 voters stop"]);
    assert_eq!(
        elections(Policy::MEMORY),
        [
            "any 2 voters lose power",
            "any 2 voters stop",
            "any 1 voter loses power and 1 other stops"
        ]
    );
}

#[test]
fn weak_are_policies_that_one_node_or_one_power_cut_defeats() {
    assert_eq!(Policy::LOCAL.weakness(3), Some(Weakness::OneVoter));
    assert_eq!(Policy::LOCAL.weakness(1), None, "nothing stronger is to be had");
    assert_eq!(Policy::MEMORY.weakness(3), Some(Weakness::PowerCut { voters: 2 }));
    for policy in [Policy::HYBRID, Policy::MAJORITY, Policy::ALL] {
        assert_eq!(policy.weakness(3), None);
    }
}
