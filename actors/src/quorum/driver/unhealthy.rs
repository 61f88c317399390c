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
