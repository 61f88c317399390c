use quorate_protocol::core::Tuning;
use quorate_protocol::core::message::{Append, AppendAck, EntryMeta, Message};
use quorate_protocol::types::{ClusterTime, EntryKind, Incarnation, Seq};

use super::super::acked_is_real::AckedIsReal;
use super::super::commit_meets_policy::CommitMeetsPolicy;
use super::super::committed_immutable::CommittedImmutable;
use super::super::leader_completeness::LeaderCompleteness;
use super::super::log_matching::LogMatching;
use super::super::memory_bound::MemoryBound;
use super::{accepts, acknowledgeable, epochs, id, primary, process, rejects, replica, world};
use crate::sim::ledger::{Copies, Fact};
use crate::sim::world::World;

#[test]
fn an_entry_has_one_predecessor() {
    let world = world("majority");
    let mut invariant = LogMatching::default();
    let pushed = |id, previous| Fact::Pushed { id, previous };
    accepts(&mut invariant, &world, &pushed(id(5, 90), id(4, 89)));
    accepts(&mut invariant, &world, &pushed(id(5, 90), id(4, 89)));
    rejects(&mut invariant, &world, &pushed(id(5, 90), id(3, 89)), "follows");
    rejects(&mut invariant, &world, &pushed(id(6, 99), id(5, 97)), "follows");
}

#[test]
fn a_winner_holds_what_earlier_epochs_committed() {
    let mut world = world("majority");
    let (node, later) = (primary(&world), epochs(&world).1);
    let won = Fact::BecamePrimary { node, epoch: later };
    accepts(&mut LeaderCompleteness, &world, &won);
    let committed = world.ledger.committed_through();
    process(&mut world, node).log.truncate(committed);
    rejects(&mut LeaderCompleteness, &world, &won, "committed");
}

#[test]
fn what_is_committed_stays() {
    let mut world = world("majority");
    let (node, at) = (replica(&world), Seq(5));
    let committed = |from, to| Fact::Committed { node, from, to, acknowledgeable: Seq(0) };
    accepts(&mut CommittedImmutable, &world, &committed(at.prev(), at));
    rejects(&mut CommittedImmutable, &world, &committed(at, at.prev()), "from 5 to 4");
    process(&mut world, node).log.truncate(at);
    rejects(&mut CommittedImmutable, &world, &committed(at.prev(), at), "commits None");
}

#[test]
fn a_commit_has_the_copies_that_its_policy_asks_for() {
    let mut world = world("hybrid");
    let (node, at) = (primary(&world), acknowledgeable(&world));
    process(&mut world, node).acknowledgeable_before = Seq(0);
    let entry = process(&mut world, node).log.at(at).expect("held");
    let committed = Fact::Committed { node, from: at.prev(), to: at, acknowledgeable: at };
    accepts(&mut CommitMeetsPolicy, &world, &committed);
    let copies = world.ledger.copies.insert(entry, Copies::default()).expect("copies exist");
    rejects(&mut CommitMeetsPolicy, &world, &committed, "0 copies on disk");
    // In two memories and on no disk.
    world.ledger.copies.insert(entry, Copies { disk: [false; 9], ..copies });
    rejects(&mut CommitMeetsPolicy, &world, &committed, "0 copies on disk");
    // On one disk and in no other memory.
    let mut disk = [false; 9];
    disk[node] = true;
    world.ledger.copies.insert(entry, Copies { memory_in: [0; 9], disk });
    rejects(&mut CommitMeetsPolicy, &world, &committed, "1 in memory");
    // A copy of an earlier life does not count.
    let mut memory_in = [0; 9];
    memory_in[replica(&world)] = 1;
    let other = replica(&world);
    let session = &mut process(&mut world, node).sessions[other];
    session.as_mut().expect("connected").incarnation = Incarnation(2);
    world.ledger.copies.insert(entry, Copies { memory_in, disk });
    rejects(&mut CommitMeetsPolicy, &world, &committed, "1 in memory");
}

#[test]
fn an_acknowledgement_claims_what_memory_and_disk_hold() {
    let mut world = world("majority");
    let node = replica(&world);
    let (epoch, _) = epochs(&world);
    let synced = world.nodes[node].disk.journal.synced();
    let ack = AppendAck {
        epoch,
        incarnation: world.nodes[node].disk.incarnation,
        verified: synced,
        in_memory: synced,
        persisted: synced,
        applied: synced,
        round: 1,
        memory_loss: false,
        reach: 3,
        reject: None,
    };
    let mut invariant = AckedIsReal::default();
    let mut judge = |world: &World, ack: AppendAck, why: Option<&str>| {
        let message = Message::AppendAck(ack);
        let sent = Fact::Sent { from: node, to: primary(world), message: &message };
        match why {
            None => accepts(&mut invariant, world, &sent),
            Some(why) => rejects(&mut invariant, world, &sent, why),
        }
    };
    // More than once: some are tried on a copy of the disk.
    for _ in 0..64 {
        judge(&world, ack, None);
    }
    let persisted = synced.next();
    judge(&world, AppendAck { persisted, ..ack }, Some("has synced through"));
    let in_memory = Seq(synced.0 + 1_000);
    judge(&world, AppendAck { in_memory, ..ack }, Some("has not written"));
    judge(&world, AppendAck { verified: in_memory, ..ack }, Some("calls verified what differs"));
    let incarnation = Incarnation(77);
    judge(&world, AppendAck { incarnation, ..ack }, Some("in a life"));
    // In an epoch that nobody has won only what is committed may be claimed.
    let tenure = world.ledger.tenures.remove(&ack.epoch).expect("it was won");
    let verified = world.ledger.committed_through();
    judge(&world, AppendAck { verified, ..ack }, None);
    judge(&world, AppendAck { verified: in_memory, ..ack }, Some("never was"));
    world.ledger.tenures.insert(ack.epoch, tenure);
    // The journal says one thing and has another.
    world.nodes[node].disk.journal.cached.truncate(synced);
    judge(&world, ack, Some("has not written"));
}

#[test]
fn what_a_node_keeps_is_bounded() {
    let mut world = world("majority");
    let tuning = Tuning { window_bytes: 500, reads_max: 1, ..Tuning::default() };
    let mut invariant = MemoryBound::of(tuning);
    accepts(&mut invariant, &world, &Fact::Stepped);
    let append = |bytes: u32| {
        let meta =
            |seq| EntryMeta { id: id(1, seq), kind: EntryKind::Commands, bytes, cluster: None };
        Message::Append(Append {
            epoch: epochs(&world).0,
            prev: id(1, 1),
            commit: Seq(1),
            round: 1,
            time: ClusterTime(0),
            recover: None,
            entries: vec![meta(2), meta(3)],
        })
    };
    let (fits, too_much) = (append(250), append(251));
    let sent = |message| Fact::Sent { from: 0, to: 1, message };
    accepts(&mut invariant, &world, &sent(&fits));
    rejects(&mut invariant, &world, &sent(&too_much), "502 bytes at once");
    let node = replica(&world);
    for _ in 0..1_000 {
        let last = process(&mut world, node).log.last();
        process(&mut world, node).log.push(id(last.epoch.0, last.seq.0 + 1));
    }
    rejects(&mut invariant, &world, &Fact::Stepped, "wait for the journal");
}
