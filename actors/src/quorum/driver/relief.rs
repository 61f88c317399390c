//! A primary whose own node is unhealthy lets a healthy one lead: it refuses writes, and reads its
//! state at the price of errors.

use quorate_protocol::core::message::Message;
use quorate_protocol::core::{Event, HandoverOutcome};
use quorate_protocol::types::{MonoTime, NodeId};

use super::super::ports::Fatal;
use super::Driver;

/// Between two attempts: each one stops the sealing of batches while it lasts.
const RETRY_US: u64 = 2_000_000;

/// What the core knows these attempts by; orders of operators have others.
const TOKEN: u64 = 0;

/// Attempts to be rid of leadership.
#[derive(Debug, Default)]
pub(super) struct Relief {
    not_before: MonoTime,
    /// When to look again whether the state is lost.
    loss_due: MonoTime,
    /// The voter that did not take over last time: it may be unhealthy, too.
    unwilling: Option<NodeId>,
}

impl Driver {
    /// Begins to hand over if this node leads and is unhealthy. Goes on trying: a primary that
    /// refuses writes is of use only while there is no other.
    pub(super) fn hand_over_if_unhealthy(&mut self, now: MonoTime) -> Result<(), Fatal> {
        let wanted = self.was_primary && self.ports.health.is_unhealthy();
        if !wanted || now < self.relief.not_before {
            return Ok(());
        }
        self.relief.not_before = now.plus(RETRY_US);
        let to =
            self.relief.unwilling.take().and_then(|unwilling| self.voter_other_than(unwilling));
        self.step(now, Event::Transfer { token: TOKEN, to }, Vec::new())
    }

    /// A replica whose state can't be read back rebuilds it, which ends in a restart. It neither
    /// votes nor counts meanwhile, so it waits until all other voters are there.
    pub(super) fn give_up_lost_state(&mut self, now: MonoTime) -> Result<(), Fatal> {
        if self.was_primary || now < self.relief.loss_due {
            return Ok(());
        }
        self.relief.loss_due = now.plus(RETRY_US);
        let view = self.ports.health.view();
        let Some(reason) = &view.loss else { return Ok(()) };
        let others = |voter: &NodeId| *voter != self.ports.node;
        let mut voters = self.core.configs().newest().voters().filter(others);
        if voters.all(|voter| self.sessions.contains_key(&voter)) && self.core.primary().is_some() {
            let stored = self.ports.loss.give_up(reason);
            stored.map_err(|e| Fatal::Store { what: "the mark", reason: e.to_string() })?;
        }
        Ok(())
    }

    /// Whether the outcome is of such an attempt; then it is noted.
    pub(super) fn note_relief(&mut self, token: Option<u64>, outcome: &HandoverOutcome) -> bool {
        if token != Some(TOKEN) {
            return false;
        }
        if let HandoverOutcome::TimedOut(to) = outcome {
            self.relief.unwilling = Some(*to);
        }
        tracing::debug!(?outcome, "this node is unhealthy and tried to hand leadership over");
        true
    }

    /// An unhealthy node doesn't take leadership over; the primary goes on, or asks another.
    pub(super) fn declines(&self, message: &Message) -> bool {
        matches!(message, Message::TimeoutNow(_)) && self.ports.health.is_unhealthy()
    }

    fn voter_other_than(&self, unwilling: NodeId) -> Option<NodeId> {
        let config = self.core.configs().newest();
        config.voters().find(|voter| *voter != self.ports.node && *voter != unwilling)
    }
}
