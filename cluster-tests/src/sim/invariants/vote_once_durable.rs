use std::collections::BTreeMap;

use quorate_protocol::core::message::Message;
use quorate_protocol::types::{Epoch, NodeId};

use super::Invariant;
use crate::sim::ledger::{Fact, View};

/// S1 and S2: a node votes once in an epoch, through any number of crashes, and nothing reveals
/// an epoch or a vote that its disk does not hold.
#[derive(Default)]
pub(super) struct VoteOnceDurable {
    votes: BTreeMap<(usize, Epoch), NodeId>,
}

impl Invariant for VoteOnceDurable {
    fn name(&self) -> &'static str {
        "VoteOnceDurable"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        let (node, epoch, vote) = match fact {
            Fact::BecamePrimary { node, epoch } => (*node, *epoch, Some(view.nodes[*node].id)),
            Fact::Sent { from, to, message } => match message {
                // What a pre-vote asks for is no one's epoch yet.
                Message::PreVote(_) => return Ok(()),
                Message::PreVoteReply(reply) => (*from, reply.epoch, None),
                Message::Vote(request) => (*from, request.epoch, Some(view.nodes[*from].id)),
                Message::VoteReply(reply) => {
                    (*from, reply.epoch, reply.granted.then_some(view.nodes[*to].id))
                }
                Message::Append(append) => (*from, append.epoch, Some(view.nodes[*from].id)),
                Message::TimeoutNow(order) => (*from, order.epoch, Some(view.nodes[*from].id)),
                Message::SnapshotOffer(offer) => (*from, offer.epoch, Some(view.nodes[*from].id)),
                Message::AppendAck(ack) => (*from, ack.epoch, None),
            },
            _ => return Ok(()),
        };
        let disk = view.nodes[node].disk.hard;
        let durable = disk.epoch > epoch
            || disk.epoch == epoch && vote.is_none_or(|vote| disk.vote == Some(vote));
        if !durable {
            return Err(format!(
                "node {} reveals epoch {epoch}, vote {vote:?}; its disk holds {disk:?}",
                node + 1
            ));
        }
        let Some(vote) = vote else { return Ok(()) };
        let first = *self.votes.entry((node, epoch)).or_insert(vote);
        if first == vote {
            Ok(())
        } else {
            Err(format!("node {} voted for {first} and {vote} in epoch {epoch}", node + 1))
        }
    }
}
