use quorate_protocol::resp::Reply;
use quorate_protocol::types::{EntryId, Epoch};

use super::super::Invariant;
use super::super::linearizable::Linearizable;
use super::super::per_connection_order::PerConnectionOrder;
use super::super::reply_truth::ReplyTruth;
use super::{accepts, id, primary, rejects, replica, view, world};
use crate::history::Outcome;
use crate::resp::Value;
use crate::sim::clients::{Answer, Ask, AttemptId, Record};
use crate::sim::ledger::{Fact, View};
use crate::sim::world::World;

/// A connection that no client of the world has.
const CONNECTION: u64 = 900_000;

#[test]
fn replies_come_in_order_and_one_for_each_command() {
    let mut world = world("majority");
    let record = &mut world.clients.record;
    let [a, b] = [1, 2].map(|at| record.begin(CONNECTION, 0, Ask::Increment, at));
    let heard = |attempt| Fact::Heard { connection: CONNECTION, attempt };
    let mut invariant = PerConnectionOrder::default();
    accepts(&mut invariant, &world, &heard(a));
    accepts(&mut invariant, &world, &heard(b));
    rejects(&mut invariant, &world, &heard(b), "a reply to");
    rejects(&mut PerConnectionOrder::default(), &world, &heard(b), "a reply to");
}

#[test]
fn writes_of_a_connection_are_in_the_log_in_their_order() {
    let mut world = world("majority");
    let record = &mut world.clients.record;
    let [a, b] = [1, 2].map(|at| record.begin(CONNECTION, 0, Ask::Increment, at));
    let judge = |first: &[AttemptId], second: &[AttemptId]| {
        let mut invariant = PerConnectionOrder::default();
        accepts(&mut invariant, &world, &Fact::Sealed { id: id(9, 90), attempts: first });
        invariant.check(view(&world), &Fact::Sealed { id: id(9, 91), attempts: second })
    };
    judge(&[a], &[b]).expect("in order");
    judge(&[b], &[a]).expect_err("the wrong way round");
    judge(&[a], &[a]).expect_err("twice");
}

/// A command that was answered as done, with its answer taken back.
fn unanswered(world: &mut World) -> (AttemptId, EntryId, u32, Reply) {
    let epoch = world.nodes[primary(world)].disk.hard.epoch;
    let attempts = world.clients.record.attempts();
    let found = attempts.iter().position(
        |attempt| matches!(&attempt.answer, Some(Answer::Done { id, .. }) if id.epoch == epoch),
    );
    let attempt = AttemptId(found.expect("some write is done"));
    let answer = world.clients.record.get_mut(attempt).answer.take();
    let Some(Answer::Done { id, index, reply }) = answer else { unreachable!("just seen") };
    (attempt, id, index, reply)
}

#[test]
fn done_is_said_by_its_own_primary_of_what_is_committed() {
    let mut world = world("majority");
    let node = primary(&world);
    let (attempt, id, index, reply) = unanswered(&mut world);
    let judge = |world: &World, node, answer: Answer, why: Option<&str>| {
        let answered = Fact::Answered { node, attempt, answer: &answer };
        match why {
            None => accepts(&mut ReplyTruth, world, &answered),
            Some(why) => rejects(&mut ReplyTruth, world, &answered, why),
        }
    };
    let done = Answer::Done { id, index, reply: reply.clone() };
    judge(&world, node, done.clone(), None);
    judge(&world, replica(&world), done.clone(), Some("whose tenure is over"));
    let lie = Answer::Done { id, index, reply: Reply::simple("LIE") };
    judge(&world, node, lie, Some("LIE"));
    let elsewhere = EntryId::new(Epoch(99), id.seq);
    let reply_there = Answer::Done { id: elsewhere, index, reply: reply.clone() };
    judge(&world, node, reply_there.clone(), Some("is done in"));
    let refused = Answer::Refused("CLUSTERDOWN".to_owned());
    judge(&world, node, refused, Some("is refused"));
    let doubt = Answer::InDoubt { id: elsewhere, index, reason: "deadline" };
    judge(&world, node, doubt, Some("is in doubt in"));
    judge(&world, node, Answer::InDoubt { id, index, reason: "deadline" }, None);

    world.clients.record.get_mut(attempt).sealed = Some((elsewhere, index));
    judge(&world, node, reply_there, Some("which is not committed"));
    world.clients.record.get_mut(attempt).sealed = Some((id, index));
    world.clients.record.get_mut(attempt).answer = Some(done.clone());
    judge(&world, node, done, Some("is answered twice"));
}

#[test]
fn what_was_refused_is_never_sealed_and_nothing_twice() {
    let mut world = world("majority");
    let record = &mut world.clients.record;
    let attempt = record.begin(CONNECTION, 0, Ask::Increment, 1);
    let attempts = [attempt];
    let sealed = Fact::Sealed { id: id(9, 90), attempts: &attempts };
    accepts(&mut ReplyTruth, &world, &sealed);
    let known = world.clients.record.get_mut(attempt);
    known.answer = Some(Answer::Refused("TIMEOUT store".to_owned()));
    rejects(&mut ReplyTruth, &world, &sealed, "after the answer");
    let known = world.clients.record.get_mut(attempt);
    (known.answer, known.sealed) = (None, Some((id(9, 89), 0)));
    rejects(&mut ReplyTruth, &world, &sealed, "and in");
}

/// What the checker says of commands with replies, in sequence, on one key; `None` for a reply
/// that never came, with the entry that holds the command.
fn verdict(world: &World, steps: &[(Ask, Option<Value>, Option<EntryId>)]) -> Result<(), String> {
    let mut record = Record::default();
    for (at, (ask, reply, entry)) in (0..).zip(steps) {
        let attempt = record.begin(CONNECTION, 0, *ask, 10 * at);
        let known = record.get_mut(attempt);
        known.sealed = entry.map(|id| (id, 0));
        known.heard = reply.clone().map(|reply| (10 * at + 5, Outcome::Done(reply)));
    }
    let view = View { record: &record, ..view(world) };
    Linearizable.conclude(view, true)
}

#[test]
fn clients_see_one_order_of_what_they_did() {
    let world = world("majority");
    Linearizable.conclude(view(&world), true).expect("a healthy cluster");
    let ok = || Some(Value::Simple("OK".to_owned()));
    let bulk = |text: &str| Some(Value::Bulk(text.as_bytes().to_vec()));
    let committed = world.ledger.committed_at(world.ledger.committed_through());
    let set = |reply, entry| (Ask::Set(7), reply, entry);
    let get = |reply| (Ask::Get, reply, None);
    verdict(&world, &[set(ok(), None), get(bulk("7"))]).expect("right");
    verdict(&world, &[set(ok(), None), get(Some(Value::NullBulk))]).expect_err("a lost write");
    verdict(&world, &[get(bulk("7")), set(ok(), None)]).expect_err("a read from the future");
    let twice = (Ask::Increment, Some(Value::Integer(1)), None);
    verdict(&world, &[twice.clone(), twice]).expect_err("a lost increment");
    // The log says whether an unknown write happened.
    verdict(&world, &[set(None, committed), get(bulk("7"))]).expect("it happened");
    verdict(&world, &[set(None, committed), get(Some(Value::NullBulk))]).expect("not yet");
    verdict(&world, &[set(None, None), get(bulk("7"))]).expect_err("it never happened");
    verdict(&world, &[get(bulk("no number"))]).expect_err("no such value was ever written");
}
