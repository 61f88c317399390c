//! Clients: writes to whoever leads, reads under a lease or confirmed by a round.

use quorate_protocol::core::{Event, Role};
use quorate_protocol::types::ClusterTime;

use super::ledger::Fact;
use super::world::{Action, ReadStep, World};

/// Entries that may wait for their commit; a node admits no more.
const UNCOMMITTED_MAX: u64 = 100;

impl World {
    pub(super) fn propose(&mut self) {
        let next_us = self.random.latency(self.plan.propose_every_us);
        self.after(next_us, Action::Propose);
        if !self.load || self.now_us < self.silent_until_us {
            return;
        }
        let time = ClusterTime(self.now_us / 1_000);
        for node in self.primaries() {
            let burst = if self.random.percent(5) { 20 } else { 1 };
            for _ in 0..burst {
                let core = &self.nodes[node].process.as_ref().expect("leads").core;
                if core.log().last().seq.0 > core.committed().0 + UNCOMMITTED_MAX {
                    break;
                }
                self.step(node, Event::Propose { bytes: 100, time });
            }
        }
    }

    pub(super) fn read(&mut self) {
        let next_us = self.random.latency(self.plan.read_every_us);
        self.after(next_us, Action::Read);
        let floor = self.ledger.seen;
        for node in self.primaries() {
            let now = self.nodes[node].clock.read(self.now_us);
            let process = self.nodes[node].process.as_mut().expect("leads");
            let leased = process.core.lease_until(now).is_some_and(|until| now < until);
            if leased && self.random.percent(80) {
                let at = process.core.committed();
                self.wait_for_state(node, ReadStep::Wait { floor, at, leased: true });
            } else {
                process.read_token += 1;
                let token = process.read_token;
                process.reads.insert(token, floor);
                self.step(node, Event::Read { token });
            }
        }
    }

    /// Every node that believes to lead: clients may still talk to an old one.
    fn primaries(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|node| {
                self.nodes[*node].is_primary() && self.nodes[*node].paused_until_us <= self.now_us
            })
            .collect()
    }

    pub(super) fn wait_for_state(&mut self, node: usize, step: ReadStep) {
        let delay_us = self.random.latency(100);
        let life = self.nodes[node].life;
        self.after(delay_us, Action::ReadStep { node, life, step });
    }

    pub(super) fn on_read_step(&mut self, node: usize, step: ReadStep) {
        let process = self.nodes[node].process.as_ref().expect("lives");
        match step {
            ReadStep::Wait { at, .. } if process.applied < at => self.wait_for_state(node, step),
            ReadStep::Wait { floor, leased: true, .. } => {
                let at = process.applied;
                self.wait_for_state(node, ReadStep::Check { floor, at });
            }
            ReadStep::Wait { floor, leased: false, .. } => {
                let at = process.applied;
                self.outcome.mark("confirmed read");
                self.served(node, floor, at);
            }
            ReadStep::Check { floor, at } => {
                let now = self.nodes[node].clock.read(self.now_us);
                let leads = process.core.role() == Role::Primary;
                if leads && process.core.lease_until(now).is_some_and(|until| now < until) {
                    self.outcome.mark("leased read");
                    self.served(node, floor, at);
                } else {
                    self.outcome.mark("read refused by the second check");
                }
            }
        }
    }

    fn served(
        &mut self,
        node: usize,
        floor: quorate_protocol::types::Seq,
        at: quorate_protocol::types::Seq,
    ) {
        self.observe(&Fact::Read { at, floor, node });
        self.ledger.seen = self.ledger.seen.max(at);
    }
}
