use quorate_protocol::core::Role;

use super::Invariant;
use crate::sim::clients::{Answer, AttemptId};
use crate::sim::ledger::{Fact, View};

/// What a client is told is true: "done" only by the primary of the epoch in which the entry was
/// sealed, after its commit, and with what the committed log comes to; "did not happen" only of
/// commands that no entry ever held or will hold; "in doubt" with the entry that holds it. No
/// command is in two entries.
///
/// Why only of commands that were answered: one without an answer has promised nothing.
pub(super) struct ReplyTruth;

impl Invariant for ReplyTruth {
    fn name(&self) -> &'static str {
        "ReplyTruth"
    }

    fn check(&mut self, view: View<'_>, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Sealed { id, attempts } => {
                for attempt in *attempts {
                    let known = view.record.get(*attempt);
                    if let Some((before, _)) = known.sealed {
                        return Err(format!("{attempt} is in {before} and in {id}"));
                    }
                    if let Some(answer) = &known.answer {
                        return Err(format!(
                            "{attempt} goes into {id} after the answer {answer:?}"
                        ));
                    }
                }
                Ok(())
            }
            Fact::Answered { node, attempt, answer } => judge(view, *node, *attempt, answer),
            _ => Ok(()),
        }
    }
}

fn judge(view: View<'_>, node: usize, attempt: AttemptId, answer: &Answer) -> Result<(), String> {
    let name = node + 1;
    let known = view.record.get(attempt);
    if let Some(before) = &known.answer {
        return Err(format!("{attempt} is answered twice: {before:?}, {answer:?}"));
    }
    match answer {
        Answer::Done { id, index, reply } => {
            if known.sealed != Some((*id, *index)) {
                return Err(format!("{attempt}, in {:?}, is done in {id}", known.sealed));
            }
            if view.ledger.committed_at(id.seq) != Some(*id) {
                return Err(format!("node {name} says done for {id}, which is not committed"));
            }
            let leads = view.nodes[node].process.as_ref().is_some_and(|process| {
                process.core.role() == Role::Primary && process.core.epoch() == id.epoch
            });
            if !leads {
                return Err(format!("node {name} says done for {id}, whose tenure is over"));
            }
            let replies = view.ledger.reference.replies(id.seq).unwrap_or_default();
            if replies.get(*index as usize) != Some(reply) {
                return Err(format!("node {name} answers {attempt} in {id} with {reply:?}"));
            }
            Ok(())
        }
        Answer::InDoubt { id, index, .. } if known.sealed != Some((*id, *index)) => {
            Err(format!("{attempt}, in {:?}, is in doubt in {id}", known.sealed))
        }
        Answer::Refused(text) if known.sealed.is_some() => {
            Err(format!("{attempt}, in {:?}, is refused: {text}", known.sealed))
        }
        Answer::Read { .. } if known.ask.writes() => Err(format!("{attempt} writes by a read")),
        Answer::InDoubt { .. } | Answer::Refused(_) | Answer::Read { .. } => Ok(()),
    }
}
