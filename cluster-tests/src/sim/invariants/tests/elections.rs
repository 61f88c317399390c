use std::collections::BTreeMap;

use quorate_protocol::cluster::ClusterChange;
use quorate_protocol::core::message::{Message, VoteReply};
use quorate_protocol::core::{Event, HardState};
use quorate_protocol::policy::Policy;
use quorate_protocol::types::{EntryId, Epoch, NodeId, Seq};

use super::super::config_one_at_a_time::ConfigOneAtATime;
use super::super::election_safety::ElectionSafety;
use super::super::joint_rule::JointRule;
use super::super::lease_exclusive::LeaseExclusive;
use super::super::memory_loss_rule::MemoryLossRule;
use super::super::memory_loss_told::MemoryLossTold;
use super::super::monotone::Monotone;
use super::super::vote_once_durable::VoteOnceDurable;
use super::super::vote_quorum_safe::VoteQuorumSafe;
use super::super::vote_silence::VoteSilence;
use super::{accepts, epochs, id, primary, process, rejects, replica, world};
use crate::sim::ledger::{Fact, TenureRecord};
use crate::sim::world::World;

#[test]
fn election_safety_allows_one_primary_for_an_epoch() {
    let world = world("majority");
    let mut invariant = ElectionSafety::default();
    let won = |node, epoch| Fact::BecamePrimary { node, epoch: Epoch(epoch) };
    accepts(&mut invariant, &world, &won(0, 9));
    accepts(&mut invariant, &world, &won(0, 9));
    accepts(&mut invariant, &world, &won(1, 10));
    rejects(&mut invariant, &world, &won(1, 9), "lead epoch 9");
}

#[test]
fn a_vote_must_be_on_disk_and_the_only_one_of_its_epoch() {
    let mut world = world("majority");
    let mut invariant = VoteOnceDurable::default();
    let hard = |vote| HardState { epoch: Epoch(9), vote: Some(NodeId(vote)), memory_loss: false };
    let reply = VoteReply { round: 1, epoch: Epoch(9), granted: true, memory_loss: false };
    let message = Message::VoteReply(reply);
    let sent = |to| Fact::Sent { from: 0, to, message: &message };
    world.nodes[0].disk.hard = hard(2);
    accepts(&mut invariant, &world, &sent(1));
    rejects(&mut invariant, &world, &sent(2), "its disk holds");
    world.nodes[0].disk.hard = hard(3);
    rejects(&mut invariant, &world, &sent(2), "voted for 2 and 3");
}

#[test]
fn votes_with_memory_loss_do_not_count_against_copies_in_memory() {
    let mut world = world("memory");
    let (node, other) = (primary(&world), replica(&world));
    let won = Fact::BecamePrimary { node, epoch: Epoch(99) };
    rejects(&mut VoteQuorumSafe, &world, &won, "by votes");
    world.ledger.votes.insert(Epoch(99), BTreeMap::from([(other, false)]));
    accepts(&mut VoteQuorumSafe, &world, &won);
    world.ledger.votes.insert(Epoch(99), BTreeMap::from([(other, true)]));
    rejects(&mut VoteQuorumSafe, &world, &won, "by votes");
}

#[test]
fn a_node_grants_nothing_right_after_its_boot() {
    let mut world = world("majority");
    let node = replica(&world);
    let mut invariant = VoteSilence::default();
    accepts(&mut invariant, &world, &Fact::Stepped);
    let reply = VoteReply { round: 1, epoch: Epoch(9), granted: true, memory_loss: false };
    let refusal = Message::PreVoteReply(VoteReply { granted: false, ..reply });
    let (vote, pre_vote) = (Message::VoteReply(reply), Message::PreVoteReply(reply));
    let sent = |message| Fact::Sent { from: node, to: 0, message };
    rejects(&mut invariant, &world, &sent(&vote), "us after its boot");
    rejects(&mut invariant, &world, &sent(&pre_vote), "us after its boot");
    accepts(&mut invariant, &world, &sent(&refusal));
    world.run_until(world.now_us + 400_000);
    accepts(&mut invariant, &world, &sent(&vote));
}

#[test]
fn memory_loss_ends_only_with_what_the_primary_had_on_disk() {
    let mut world = world("majority");
    let node = replica(&world);
    let mut invariant = MemoryLossRule::default();
    world.crash(node, true);
    let lost = |world: &World| {
        let process = world.nodes[node].process.as_ref();
        process.map(|process| process.core.hard_state().memory_loss)
    };
    while lost(&world) != Some(true) {
        world.run_until(world.now_us + 1_000);
    }
    accepts(&mut invariant, &world, &Fact::Stepped);
    let had = world.ledger.tenures[&epochs(&world).0].log.last().seq;
    while lost(&world) != Some(false) {
        world.run_until(world.now_us + 1_000);
    }
    assert_eq!(world.outcome.violation, None, "it ended as it must");
    // As if the disk had lacked a part of that.
    let mut short = world.nodes[node].disk.clone();
    short.journal.cached.truncate(had);
    short.flushed = id(1, 1);
    std::mem::swap(&mut world.nodes[node].disk, &mut short);
    rejects(&mut invariant, &world, &Fact::Stepped, "has its memory back");
}

#[test]
fn a_node_that_lost_something_says_so() {
    let mut world = world("majority");
    let node = replica(&world);
    accepts(&mut MemoryLossTold::default(), &world, &Fact::Stepped);
    process(&mut world, node).log.truncate(Seq(5));
    rejects(&mut MemoryLossTold::default(), &world, &Fact::Stepped, "doesn't tell");
    world.nodes[node].disk.hard.memory_loss = true;
    accepts(&mut MemoryLossTold::default(), &world, &Fact::Stepped);
}

#[test]
fn a_lease_excludes_commits_of_later_epochs() {
    let mut world = world("majority");
    let now = world.nodes[primary(&world)].clock.read(world.now_us);
    let node = primary(&world);
    assert!(process(&mut world, node).core.lease_until(now).is_some_and(|until| now < until));
    accepts(&mut LeaseExclusive, &world, &Fact::Stepped);
    world.ledger.epoch_committed = epochs(&world).1;
    rejects(&mut LeaseExclusive, &world, &Fact::Stepped, "holds a lease");
}

#[test]
fn epochs_and_positions_never_go_back() {
    let mut world = world("majority");
    let mut invariant = Monotone::default();
    accepts(&mut invariant, &world, &Fact::Stepped);
    accepts(&mut invariant, &world, &Fact::Stepped);
    let node = replica(&world);
    let applied = std::mem::replace(&mut process(&mut world, node).applied, Seq(u64::MAX));
    rejects(&mut invariant, &world, &Fact::Stepped, "applied");
    process(&mut world, node).applied = applied;
    accepts(&mut invariant, &world, &Fact::Stepped);
    world.nodes[node].disk.hard.epoch = Epoch(0);
    rejects(&mut invariant, &world, &Fact::Stepped, "disk goes back");
}

/// A world in which a second configuration is in force, and where it stands.
fn reconfigured() -> (World, EntryId) {
    let mut world = world("majority");
    let node = primary(&world);
    world.token += 1;
    let token = world.token;
    process(&mut world, node).asked.insert(token, "policy changed");
    let change = ClusterChange::SetPolicy(Policy::ALL);
    world.step(node, Event::Reconfigure { token, change });
    world.run_until(world.now_us + 1_000_000);
    assert_eq!(world.outcome.violation, None);
    let at = process(&mut world, node).core.configs().in_force_at();
    assert!(at.seq > Seq(1), "the change is in force");
    (world, at)
}

#[test]
fn a_configuration_in_force_is_on_enough_disks_and_never_missed() {
    let (mut world, at) = reconfigured();
    accepts(&mut JointRule::default(), &world, &Fact::Stepped);
    let (node, later) = (primary(&world), epochs(&world).1);
    let won = Fact::BecamePrimary { node, epoch: later };
    accepts(&mut JointRule::default(), &world, &won);
    let copies = world.ledger.copies.remove(&at).expect("it is somewhere");
    rejects(&mut JointRule::default(), &world, &Fact::Stepped, "is in force with 0");
    world.ledger.copies.insert(at, copies);
    process(&mut world, node).log.truncate(at.seq);
    rejects(&mut JointRule::default(), &world, &won, "without configuration");
}

#[test]
fn configurations_come_one_at_a_time_and_after_an_entry_of_the_epoch() {
    let (mut world, at) = reconfigured();
    let pushed = |id: EntryId| Fact::Pushed { id, previous: EntryId::new(id.epoch, id.seq.prev()) };
    accepts(&mut ConfigOneAtATime::default(), &world, &pushed(at));
    let next = EntryId::new(at.epoch, Seq(at.seq.0 + 1_000));
    let config = world.ledger.clusters[&at].clone();
    world.ledger.clusters.insert(next, config.clone());
    accepts(&mut ConfigOneAtATime::default(), &world, &pushed(next));
    world.ledger.copies.remove(&at);
    rejects(&mut ConfigOneAtATime::default(), &world, &pushed(next), "is proposed beside");

    let early = id(999, next.seq.0);
    let log = world.ledger.tenures[&at.epoch].log.clone();
    world.ledger.tenures.insert(early.epoch, TenureRecord { log });
    world.ledger.clusters.insert(early, config);
    let why = "before an entry of its epoch";
    rejects(&mut ConfigOneAtATime::default(), &world, &pushed(early), why);
}
