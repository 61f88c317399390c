//! Which cursor was the last that waiting replies waited for, noticed where cursors move.

use std::time::Instant;

use quorate_protocol::core::message::Message;
use quorate_protocol::core::{Core, Event};
use quorate_protocol::gate::{Crossings, Met, WaitedFor};
use quorate_protocol::policy::{Cursors, Level, Policy};
use quorate_protocol::types::{MonoTime, NodeId, Seq};

/// What is remembered of moving cursors during a tenure.
#[derive(Debug, Default)]
pub(super) struct Crossing {
    own: Crossings<Instant>,
    /// The member whose cursors the event under way may move, as they were before it.
    mover: Option<Cursors>,
}

impl Crossing {
    /// Before the core takes an event; `attributes` says whether any of this is noted.
    pub(super) fn before(&mut self, core: &Core, own: NodeId, event: &Event, attributes: bool) {
        self.mover = match event {
            _ if !attributes => None,
            Event::InMemory { .. } | Event::Persisted { .. } => core.cursors(own),
            Event::Received { from, message: Message::AppendAck(_) } => core.cursors(*from),
            _ => None,
        };
    }

    /// After the core has taken it: has the own cursor moved that the policy looks at?
    pub(super) fn after(&mut self, core: &Core, own: NodeId) {
        let Some(before) = self.mover.filter(|mover| mover.node == own) else { return };
        let Some(after) = core.cursors(own) else { return };
        let (from, to) = match core.configs().in_force().policy.persisted {
            Some(_) => (before.persisted, after.persisted),
            None => (before.in_memory, after.in_memory),
        };
        if to > from {
            self.own.reached(to, Instant::now());
        }
    }

    /// A policy is met through here: by what?
    pub(super) fn met(
        &self,
        core: &Core,
        own: NodeId,
        now: MonoTime,
        policy: Policy,
        through: Seq,
    ) -> Met<Instant> {
        let by = self.mover.and_then(|before| {
            let level = core.crossed(now, &policy, before, through)?;
            Some(match (before.node == own, level) {
                (true, Level::InMemory | Level::Persisted) => WaitedFor::Journal,
                (false, Level::InMemory) => WaitedFor::ReplicaMemory(before.node),
                (false, Level::Persisted) => WaitedFor::ReplicaDisk(before.node),
            })
        });
        Met { at: Instant::now(), by, own: self.own }
    }

    /// The gate was told of everything through here.
    pub(super) fn forget(&mut self, through: Seq) {
        self.own.forget(through);
    }
}
