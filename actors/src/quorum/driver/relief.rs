//! A primary lets another voter lead while its own node drains, or is unhealthy: it then refuses
//! writes, and reads its state at the price of errors. So does one whose disk is full, if another
//! voter has room: where all are full, it makes no difference who leads.

use quorate_protocol::core::message::Message;
use quorate_protocol::core::{Event, HandoverOutcome, HandoverRefused};
use quorate_protocol::types::{MonoTime, NodeId};

use super::super::ports::Fatal;
use super::Driver;
use crate::supervisor::Phase;

/// Between two attempts: each one stops the sealing of batches while it lasts.
const RETRY_US: u64 = 2_000_000;

/// What the core knows these attempts by; orders of operators have others.
const TOKEN: u64 = 0;

/// Attempts to be rid of leadership.
#[derive(Debug, Default)]
pub(super) struct Relief {
    not_before: MonoTime,
    /// When to ask again who has room.
    ask_due: MonoTime,
    /// When to look again whether the state is lost.
    loss_due: MonoTime,
    /// The voter that did not take over last time: it may be unhealthy, too.
    unwilling: Option<NodeId>,
    /// Whether there was no one to hand over to.
    alone: bool,
}

impl Driver {
    /// Begins to hand over if this node leads and another should. Goes on trying: such a primary
    /// is of use only while there is no other.
    pub(super) fn hand_over_if_unfit(&mut self, now: MonoTime) -> Result<(), Fatal> {
        if !self.was_primary || now < self.relief.not_before {
            return Ok(());
        }
        if !self.is_unfit() {
            return self.hand_over_if_full(now);
        }
        self.relief.not_before = now.plus(RETRY_US);
        let to =
            self.relief.unwilling.take().and_then(|unwilling| self.voter_other_than(unwilling));
        self.step(now, Event::Transfer { token: TOKEN, to }, Vec::new())
    }

    /// The voters are asked first, and nothing happens unless one has room.
    fn hand_over_if_full(&mut self, now: MonoTime) -> Result<(), Fatal> {
        if !self.ports.health.view().disk_full {
            return Ok(());
        }
        let asked = now < self.relief.ask_due;
        let Some(to) = self.ports.snapshots.successor(!asked) else {
            if !asked {
                self.relief.ask_due = now.plus(RETRY_US);
            }
            return Ok(());
        };
        tracing::info!(%to, "this node's disk is full, and another's isn't");
        self.relief.not_before = now.plus(RETRY_US);
        self.step(now, Event::Transfer { token: TOKEN, to: Some(to) }, Vec::new())
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
        self.relief.alone = *outcome == HandoverOutcome::Refused(HandoverRefused::NoOther);
        tracing::debug!(?outcome, "this node should not lead and tried to hand leadership over");
        true
    }

    /// A node that should not lead doesn't take leadership over; the primary goes on, or asks
    /// another.
    pub(super) fn declines(&self, message: &Message) -> bool {
        matches!(message, Message::TimeoutNow(_)) && self.is_unfit()
    }

    /// Whether the node drains, and no other voter is there that writes could be sent to.
    pub(super) fn drains_alone(&self) -> bool {
        self.is_draining() && self.relief.alone
    }

    fn is_unfit(&self) -> bool {
        self.is_draining() || self.ports.health.is_unhealthy()
    }

    fn is_draining(&self) -> bool {
        self.ports.lifecycle.phase() >= Phase::Draining
    }

    fn voter_other_than(&self, unwilling: NodeId) -> Option<NodeId> {
        let config = self.core.configs().newest();
        config.voters().find(|voter| *voter != self.ports.node && *voter != unwilling)
    }
}
