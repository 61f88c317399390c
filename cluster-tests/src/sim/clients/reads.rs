//! Reads at a node: under a lease, which is looked at again after the state was read, or after a
//! heartbeat round that was sent after the read arrived (S11).

use quorate_protocol::command::{Command, Read};
use quorate_protocol::core::{Event, Role};
use quorate_protocol::resp::Reply;
use quorate_protocol::types::Seq;

use super::Action;
use super::front::Waiter;
use super::record::{Answer, AttemptId};
use crate::sim::ledger::Fact;
use crate::sim::world::{self, World};

/// Reads that share one look at the lease.
#[derive(Debug)]
pub(in crate::sim) struct PendingRead {
    connection: u64,
    asks: Vec<(AttemptId, Read)>,
    /// What clients had seen when it began.
    floor: Seq,
    pub(super) deadline_us: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// A heartbeat round must confirm it.
    Asked,
    /// Waits until the state reaches `at`.
    Wait { at: Seq, leased: bool },
    /// Has read the state at `at` under a lease, which it looks at again.
    Check { at: Seq, replies: Vec<Reply> },
}

impl World {
    pub(super) fn begin_read(
        &mut self,
        node: usize,
        connection: u64,
        commands: Vec<(AttemptId, Command)>,
    ) {
        let asks = commands.into_iter().filter_map(|(attempt, command)| match command {
            Command::Read(read) => Some((attempt, read)),
            Command::Write(_) | Command::Transaction(_) | Command::Connection(_) => None,
        });
        let deadline_us = self.now_us + self.random.between(100_000, 3_000_000);
        let read = PendingRead {
            connection,
            asks: asks.collect(),
            floor: self.ledger.seen,
            deadline_us,
            stage: Stage::Asked,
        };
        if let Some(text) = self.not_here(node) {
            return self.refuse_read(node, read, &text);
        }
        let now = self.nodes[node].clock.read(self.now_us);
        let lucky = self.random.percent(80);
        self.expire_later(node, deadline_us);
        let process = self.process(node);
        if lucky && process.core.lease_until(now).is_some_and(|until| now < until) {
            let stage = Stage::Wait { at: process.core.committed(), leased: true };
            let token = process.front.token();
            process.front.reads.insert(token, PendingRead { stage, ..read });
            self.read_later(node, token);
        } else {
            self.confirm(node, read);
        }
    }

    fn confirm(&mut self, node: usize, read: PendingRead) {
        let front = &mut self.process(node).front;
        let token = front.token();
        front.reads.insert(token, read);
        front.asked.insert(token);
        self.step(node, Event::Read { token });
    }

    /// The core answered: the state may be read from `at` on, or not at all.
    pub(in crate::sim) fn on_read_answer(&mut self, node: usize, token: u64, at: Option<Seq>) {
        let front = &mut self.process(node).front;
        if !front.asked.remove(&token) {
            return self.fail("ReadOnce", format!("read {token} is answered unasked"));
        }
        let Some(mut read) = front.reads.remove(&token) else {
            // Its deadline ended before.
            return;
        };
        if let Some(at) = at {
            read.stage = Stage::Wait { at, leased: false };
            front.reads.insert(token, read);
            self.read_later(node, token);
        } else {
            let text = self.not_here(node);
            let text = text.unwrap_or_else(|| "CLUSTERDOWN the read is not confirmed".to_owned());
            self.refuse_read(node, read, &text);
        }
    }

    fn read_later(&mut self, node: usize, token: u64) {
        let delay_us = self.random.latency(100);
        let life = self.nodes[node].life;
        let step = Action::ReadStep { node, life, token };
        self.after(delay_us, world::Action::Client(step));
    }

    pub(super) fn on_read_step(&mut self, node: usize, token: u64) {
        let now = self.nodes[node].clock.read(self.now_us);
        let process = self.process(node);
        let (applied, time) = (process.applied, process.core.time());
        let leads = process.core.role() == Role::Primary
            && process.core.lease_until(now).is_some_and(|until| now < until);
        let Some(mut read) = process.front.reads.remove(&token) else {
            return;
        };
        let look = |asks: &[(AttemptId, Read)]| -> Vec<Reply> {
            asks.iter().map(|(_, read)| process.state.read(read, time)).collect()
        };
        match read.stage {
            Stage::Wait { at, .. } if applied < at => {}
            Stage::Wait { leased: true, .. } => {
                read.stage = Stage::Check { at: applied, replies: look(&read.asks) };
            }
            Stage::Wait { leased: false, .. } => {
                let replies = look(&read.asks);
                self.outcome.mark("confirmed read");
                return self.served(node, read, applied, replies);
            }
            Stage::Check { at, replies } if leads => {
                read.stage = Stage::Asked;
                self.outcome.mark("leased read");
                return self.served(node, read, at, replies);
            }
            Stage::Check { .. } => {
                self.outcome.mark("read refused by the second check");
                read.stage = Stage::Asked;
                return match self.not_here(node) {
                    Some(text) => self.refuse_read(node, read, &text),
                    None => self.confirm(node, read),
                };
            }
            Stage::Asked => unreachable!("the core has not answered"),
        }
        self.process(node).front.reads.insert(token, read);
        self.read_later(node, token);
    }

    fn served(&mut self, node: usize, read: PendingRead, at: Seq, replies: Vec<Reply>) {
        self.observe(&Fact::Read { at, floor: read.floor, node });
        self.ledger.seen = self.ledger.seen.max(at);
        let answers = replies.into_iter().map(|reply| Answer::Read { at, reply }).collect();
        self.answer(node, read.into_waiter(), answers);
    }

    pub(super) fn refuse_read(&mut self, node: usize, read: PendingRead, text: &str) {
        self.refuse(node, read.into_waiter(), text);
    }
}

impl PendingRead {
    fn into_waiter(self) -> Waiter {
        let attempts = self.asks.into_iter().map(|(attempt, _)| attempt).collect();
        Waiter { connection: self.connection, attempts }
    }
}
