use quorate_protocol::core::message::Message;
use quorate_protocol::types::{Incarnation, MonoTime};

use super::Invariant;
use crate::sim::ledger::{Fact, NODES_MAX, View};

/// S2 and S11: a node grants no vote and no pre-vote before a minimum election timeout has passed
/// since its boot: it may have promised a primary before that it would not.
///
/// Why only since boot: what it heard of a primary in this life only its core knows; a vote too
/// early after that shows in `LeaseExclusive`.
#[derive(Default)]
pub(super) struct VoteSilence {
    booted: [Option<(Incarnation, MonoTime)>; NODES_MAX],
}

impl Invariant for VoteSilence {
    fn name(&self) -> &'static str {
        "VoteSilence"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Stepped => {
                for (index, node) in view.nodes.iter().enumerate() {
                    let incarnation = node.disk.incarnation;
                    let known = self.booted[index].is_some_and(|(known, _)| known == incarnation);
                    if node.process.is_some() && !known {
                        let now = node.clock.read(view.now_us);
                        self.booted[index] = Some((incarnation, now));
                    }
                }
                Ok(())
            }
            Fact::Sent {
                from,
                message: Message::VoteReply(reply) | Message::PreVoteReply(reply),
                ..
            } if reply.granted => {
                let node = &view.nodes[*from];
                let (Some((_, booted)), Some(process)) = (self.booted[*from], &node.process) else {
                    return Ok(());
                };
                let timers = process.core.configs().newest().timers;
                let silent_us = node.clock.read(view.now_us).since(booted);
                if silent_us >= timers.election_timeout_min_us {
                    return Ok(());
                }
                Err(format!("node {} grants a vote {silent_us} us after its boot", from + 1))
            }
            _ => Ok(()),
        }
    }
}
