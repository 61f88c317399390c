use quorate_protocol::resp::Reply;
use quorate_protocol::types::{EntryId, Epoch, Seq};

use super::super::Invariant;
use super::super::converges::Converges;
use super::super::durability_contract::DurabilityContract;
use super::super::ledger_zero_at_quiesce::LedgerZeroAtQuiesce;
use super::super::reads_linearizable::ReadsLinearizable;
use super::super::snapshot_equivalence::SnapshotEquivalence;
use super::super::state_machine_safety::StateMachineSafety;
use super::{accepts, process, rejects, replica, view, world, world_at_rest};
use crate::sim::ledger::{Damage, Fact};
use crate::sim::state::State;
use crate::sim::world::World;

fn conclude(invariant: &mut dyn Invariant, world: &World) -> Result<(), String> {
    invariant.conclude(view(world), true)
}

#[test]
fn every_node_comes_to_the_state_that_the_log_comes_to() {
    let world = world("majority");
    let at = Seq(world.ledger.committed_through().0 - 1);
    let id = world.ledger.committed_at(at).expect("committed");
    let digest = world.ledger.reference.digest(at).expect("committed");
    let replies = world.ledger.reference.replies(at).expect("committed");
    let applied = |id, digest, replies| Fact::Applied { node: 0, id, digest, replies };
    accepts(&mut StateMachineSafety, &world, &applied(id, digest, replies));
    rejects(&mut StateMachineSafety, &world, &applied(id, !digest, replies), "another state");
    let lie = [Reply::simple("LIE")];
    rejects(&mut StateMachineSafety, &world, &applied(id, digest, &lie), "LIE");
    let other = EntryId::new(Epoch(99), at);
    rejects(&mut StateMachineSafety, &world, &applied(other, digest, replies), "committed there");
}

#[test]
fn a_state_that_is_taken_over_is_the_one_at_its_position() {
    let world = world("majority");
    let at = world.ledger.committed_through();
    let id = world.ledger.committed_at(at).expect("committed");
    let digest = world.ledger.reference.digest(at).expect("committed");
    let taken = |through, digest| Fact::StateTaken { node: 0, through, digest };
    accepts(&mut SnapshotEquivalence, &world, &taken(id, digest));
    // One entry too few, and one too many.
    let before = world.ledger.committed_at(at.prev()).expect("committed");
    let empty = State::default().digest();
    assert_ne!(empty, digest, "clients wrote");
    rejects(&mut SnapshotEquivalence, &world, &taken(id, empty), "is not the one after");
    rejects(&mut SnapshotEquivalence, &world, &taken(before, !digest), "is not the one after");
    let beyond = EntryId::new(id.epoch, at.next());
    rejects(&mut SnapshotEquivalence, &world, &taken(beyond, digest), "committed there: None");
}

#[test]
fn reads_show_what_was_seen_and_nothing_that_is_not_committed() {
    let world = world("majority");
    let at = world.ledger.committed_through();
    let read = |at, floor| Fact::Read { at, floor, node: 0 };
    accepts(&mut ReadsLinearizable, &world, &read(at, at));
    rejects(&mut ReadsLinearizable, &world, &read(at.prev(), at), "clients had seen");
    rejects(&mut ReadsLinearizable, &world, &read(at.next(), at), "is not committed");
}

/// The last acknowledged entry is gone everywhere.
fn lose_the_last(world: &mut World) {
    let id = *world.ledger.acknowledged.last_key_value().expect("something is acknowledged").0;
    for node in &mut world.nodes {
        node.disk.journal.cached.truncate(id.seq);
        node.disk.flushed = EntryId::new(Epoch(1), Seq(1));
    }
}

#[test]
fn an_acknowledged_write_is_lost_only_with_as_many_copies_as_were_promised() {
    let mut world = world("memory");
    conclude(&mut DurabilityContract, &world).expect("everything is there");
    // Damage from before the acknowledgement is no excuse.
    let before = world.ledger.damage.len();
    assert_eq!(before, 0);
    lose_the_last(&mut world);
    let what = conclude(&mut DurabilityContract, &world).expect_err("nothing happened");
    assert!(what.contains("is nowhere"), "{what}");
    world.ledger.damage.push((0, Damage::Memory));
    world.ledger.damage.push((0, Damage::Memory));
    conclude(&mut DurabilityContract, &world).expect_err("one node, of two copies");
    world.ledger.damage.push((1, Damage::Memory));
    conclude(&mut DurabilityContract, &world).expect("two nodes: more than was promised");
}

#[test]
fn copies_on_disk_survive_every_power_cut() {
    let mut world = world("majority");
    lose_the_last(&mut world);
    world.ledger.damage = (0..3).map(|node| (node, Damage::Memory)).collect();
    conclude(&mut DurabilityContract, &world).expect_err("disks keep it");
    world.ledger.damage.extend([(0, Damage::Disk), (1, Damage::Disk)]);
    conclude(&mut DurabilityContract, &world).expect("two disks: more than was promised");
}

#[test]
fn at_rest_nothing_is_left_over_and_all_are_the_same() {
    let mut world = world_at_rest("majority");
    conclude(&mut LedgerZeroAtQuiesce, &world).expect("at rest");
    conclude(&mut Converges, &world).expect("at rest");
    let node = replica(&world);
    process(&mut world, node).state = State::default();
    conclude(&mut Converges, &world).expect_err("another state");
    Converges.conclude(view(&world), false).expect("only where the run settled");

    // Whoever looks while clients work finds commands under way.
    world.load = true;
    let busy = (0..10_000).any(|_| {
        world.run_until(world.now_us + 100);
        conclude(&mut LedgerZeroAtQuiesce, &world).is_err()
    });
    assert!(busy);
}
