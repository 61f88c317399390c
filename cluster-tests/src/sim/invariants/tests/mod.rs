//! Every invariant accepts a world in which all is right, and rejects hand-made ones in which one
//! thing is wrong: one that never fires proves nothing.

mod clients;
mod elections;
mod logs;
mod states;

use quorate_protocol::types::{EntryId, Epoch, Seq};

use super::super::fault::Fault;
use super::super::ledger::{Fact, View};
use super::super::node::Process;
use super::super::scenario::Scenario;
use super::super::world::World;
use super::Invariant;

/// Three nodes under load, without any fault, long enough to have committed something.
fn world(policy: &str) -> World {
    let without: std::collections::BTreeSet<Fault> = Fault::ALL.iter().copied().collect();
    for seed in 0..1_000 {
        let scenario = Scenario { without: without.clone(), ..Scenario::of(seed) };
        let mut world = World::new(&scenario, false);
        if world.plan.nodes == 3 && world.plan.policy_name == policy {
            world.run_until(3_000_000);
            assert_eq!(world.outcome.violation, None, "the simulator itself accepts it");
            assert!(world.ledger.committed_through() > Seq(10), "something is committed");
            return world;
        }
    }
    panic!("no seed draws three nodes under {policy}");
}

/// The same, with clients gone and nothing under way.
fn world_at_rest(policy: &str) -> World {
    let mut world = world(policy);
    world.load = false;
    world.run_until(12_000_000);
    world
}

fn view(world: &World) -> View<'_> {
    let (ledger, record) = (&world.ledger, &world.clients.record);
    View { nodes: &world.nodes, ledger, record, now_us: world.now_us }
}

fn accepts(invariant: &mut dyn Invariant, world: &World, fact: &Fact<'_>) {
    let name = invariant.name();
    invariant.check(view(world), fact).unwrap_or_else(|what| panic!("{name}: {what}"));
}

fn rejects(invariant: &mut dyn Invariant, world: &World, fact: &Fact<'_>, why: &str) {
    let what = invariant.check(view(world), fact).expect_err("one thing is wrong");
    assert!(what.contains(why), "{}: {what}", invariant.name());
}

fn primary(world: &World) -> usize {
    (0..world.nodes.len()).find(|node| world.nodes[*node].is_primary()).expect("one leads")
}

fn replica(world: &World) -> usize {
    (0..world.nodes.len()).find(|node| !world.nodes[*node].is_primary()).expect("others follow")
}

fn process(world: &mut World, node: usize) -> &mut Process {
    world.nodes[node].process.as_mut().expect("runs")
}

/// The epoch of the primary, and the one after it.
fn epochs(world: &World) -> (Epoch, Epoch) {
    let epoch = world.nodes[primary(world)].disk.hard.epoch;
    (epoch, epoch.next())
}

/// The last position that the primary holds to be acknowledgeable.
fn acknowledgeable(world: &World) -> Seq {
    world.nodes[primary(world)].process.as_ref().expect("runs").core.acknowledgeable()
}

fn id(epoch: u64, seq: u64) -> EntryId {
    EntryId::new(Epoch(epoch), Seq(seq))
}

#[test]
fn every_invariant_has_a_name_of_its_own() {
    let all = super::all(quorate_protocol::core::Tuning::default());
    let names: std::collections::BTreeSet<_> = all.iter().map(|one| one.name()).collect();
    assert_eq!(names.len(), all.len());
}
