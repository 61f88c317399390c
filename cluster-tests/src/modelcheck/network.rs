//! Messages on their way: a lossy network without order.
//!
//! A message may arrive at any later time, or never. To keep the states few, a newer message of
//! one kind, sender, receiver and epoch takes the older one's place: what it says is later
//! news of the same. Entries that follow each other are joined instead, and any prefix of them
//! may arrive on its own, as if each had been sent alone. What can have no effect any more is
//! forgotten.

use std::sync::Arc;

use quorate_protocol::core::message::{Append, Message};
use quorate_protocol::core::{Event, Role};
use quorate_protocol::types::{Epoch, Incarnation, MonoTime, NodeId};

use super::node::{Effects, FAR, NOW, Node};

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Envelope {
    /// Who sent it.
    pub(super) from: NodeId,
    /// To whom.
    pub(super) to: NodeId,
    /// The life in which it was sent.
    pub(super) incarnation: Incarnation,
    /// What it says.
    pub(super) message: Message,
}

impl std::fmt::Display for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {}: ", self.from, self.to)?;
        match &self.message {
            Message::Append(append) => {
                write!(f, "append of epoch {} after {}:", append.epoch, append.prev)?;
                append.entries.iter().try_for_each(|e| write!(f, " {} {:?}", e.id, e.kind))
            }
            other => write!(f, "{other:?}"),
        }
    }
}

/// All of them, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Network(Vec<Envelope>);

impl Network {
    /// The messages, in an order that depends on nothing but them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Envelope> {
        self.0.iter()
    }

    /// The message at an index of [`Network::iter`].
    pub(super) fn get(&self, index: usize) -> Option<&Envelope> {
        self.0.get(index)
    }

    /// Puts a message on its way.
    pub(super) fn send(&mut self, envelope: Envelope) {
        let key = key(&envelope);
        let older = self.0.iter().position(|older| self::key(older) == key);
        let envelope = match older.map(|index| self.0.remove(index)) {
            Some(older) => join(older, envelope),
            None => envelope,
        };
        let index = self.0.partition_point(|other| *other < envelope);
        self.0.insert(index, envelope);
    }

    /// Takes the message at an index, or of an append its first `entries`; the rest of them stays
    /// on its way.
    pub(super) fn take(&mut self, index: usize, entries: usize) -> Envelope {
        let mut taken = self.0.remove(index);
        if let Message::Append(append) = &mut taken.message
            && entries < append.entries.len()
        {
            let rest = append.entries.split_off(entries);
            let prev = append.entries.last().expect("at least one is taken").id;
            let rest = Append { prev, entries: rest, ..append.clone() };
            let rest = Envelope { message: Message::Append(rest), ..taken.clone() };
            self.send(rest);
        }
        taken
    }

    /// The process of this node ended: what was sent to it is lost.
    pub(super) fn lose_all_to(&mut self, node: NodeId) {
        self.0.retain(|envelope| envelope.to != node);
    }

    /// Forgets what can have no effect any more, now or later.
    pub(super) fn forget_dead(&mut self, nodes: &[Arc<Node>]) {
        self.0.retain(|envelope| {
            let to = &nodes[envelope.to.0 as usize - 1];
            !is_outdated(envelope, to) || has_effect(envelope, to)
        });
    }
}

fn kind(message: &Message) -> u8 {
    match message {
        Message::PreVote(_) => 0,
        Message::PreVoteReply(_) => 1,
        Message::Vote(_) => 2,
        Message::VoteReply(_) => 3,
        Message::Append(_) => 4,
        Message::AppendAck(_) => 5,
        Message::TimeoutNow(_) => 6,
        Message::SnapshotOffer(_) => 7,
    }
}

fn epoch(message: &Message) -> Epoch {
    match message {
        Message::PreVote(request) | Message::Vote(request) => request.epoch,
        Message::PreVoteReply(reply) | Message::VoteReply(reply) => reply.epoch,
        Message::Append(append) => append.epoch,
        Message::AppendAck(ack) => ack.epoch,
        Message::TimeoutNow(order) => order.epoch,
        Message::SnapshotOffer(offer) => offer.epoch,
    }
}

fn key(envelope: &Envelope) -> (NodeId, NodeId, u8, Epoch, Incarnation) {
    let Envelope { from, to, incarnation, message } = envelope;
    (*from, *to, kind(message), epoch(message), *incarnation)
}

/// The newer message, with the older one's entries before its own where they meet.
fn join(older: Envelope, newer: Envelope) -> Envelope {
    let (Message::Append(first), Message::Append(second)) = (&older.message, &newer.message) else {
        return newer;
    };
    let end = first.entries.last().map_or(first.prev, |entry| entry.id);
    if first.prev.seq > second.prev.seq || end.seq < second.prev.seq {
        return newer;
    }
    let kept = (second.prev.seq.0 - first.prev.seq.0) as usize;
    let entries = first.entries[..kept].iter().chain(&second.entries).cloned().collect();
    let joined = Append { prev: first.prev, entries, ..second.clone() };
    Envelope { message: Message::Append(joined), ..newer }
}

/// Whether a message should have no effect on its receiver, now or later, but an answer that
/// tells its sender of a higher epoch, which a vote request of that epoch tells as well.
fn is_outdated(envelope: &Envelope, to: &Node) -> bool {
    let own = to.core.epoch();
    match &envelope.message {
        Message::Vote(request) => {
            let spent = to.core.hard_state().vote.is_some();
            request.epoch < own || request.epoch == own && spent
        }
        Message::VoteReply(reply) => {
            !reply.granted || reply.epoch != own || to.core.role() != Role::Candidate
        }
        Message::Append(append) => append.epoch < own,
        Message::AppendAck(ack) => ack.epoch < own || to.core.role() != Role::Primary,
        Message::PreVote(_)
        | Message::PreVoteReply(_)
        | Message::TimeoutNow(_)
        | Message::SnapshotOffer(_) => true,
    }
}

/// Whether an outdated message has an effect nevertheless.
fn has_effect(envelope: &Envelope, to: &Node) -> bool {
    let mut node = to.clone();
    let mut effects = Effects::default();
    let (from, message) = (envelope.from, envelope.message.clone());
    let asked = epoch(&message);
    node.step(arrival(&message), Event::Received { from, message }, &mut effects);
    node != *to
        || effects.sent.iter().any(|(_, answer)| match answer {
            Message::VoteReply(reply) => reply.granted,
            answer => epoch(answer) <= asked,
        })
}

/// When a message arrives: a vote is asked for after any silence; for all else time stands still.
pub(super) fn arrival(message: &Message) -> MonoTime {
    if matches!(message, Message::Vote(_)) { FAR } else { NOW }
}

/// How many entries a message carries.
pub(super) fn entries_in(message: &Message) -> usize {
    match message {
        Message::Append(append) => append.entries.len(),
        _ => 0,
    }
}
