//! Messages on their way, and what links do to them.

use quorate_protocol::core::message::{Append, EntryMeta, Message};
use quorate_protocol::core::{Command, Event};
use quorate_protocol::entry::Entry;

use super::fault::Fault;
use super::ledger::Fact;
use super::wire;
use super::world::{Action, World};

impl World {
    pub(super) fn send(&mut self, node: usize, to: usize, message: Message) {
        self.observe(&Fact::Sent { from: node, to, message: &message });
        let cuts = self.plan.strength(Fault::Partition) > 0 && !self.calm;
        if matches!(message, Message::TimeoutNow(_)) && cuts && self.random.percent(30) {
            // Whoever hands over is out of touch just then.
            let cut = self.pairs(|a, b| (a == node) != (b == node));
            let for_us = self.random.between(20_000, 1_000_000);
            let after_us = self.random.below(4 * self.plan.link_us);
            self.after(after_us, Action::Cut { fault: Fault::Partition, cut, for_us });
        }
        let session = self.nodes[node].process.as_ref().and_then(|process| process.sessions[to]);
        let Some(session) = session.filter(|session| session.up) else {
            return;
        };
        if let Err(what) = self.pass_wire(&message) {
            return self.fail("WireRoundTrip", what);
        }
        if self.plan.strength(Fault::Replay) > 0 {
            self.record_and_replay(node, to, &message);
        }
        if !self.network.is_open(node, to) {
            return;
        }
        let large = matches!(&message, Message::Append(append) if !append.entries.is_empty());
        if large && !self.calm && !self.network.carries_large(node, to, self.now_us) {
            return;
        }
        let lossy = !self.calm && self.random.below(400) < self.plan.strength(Fault::Loss);
        if lossy {
            self.outcome.fault(Fault::Loss);
            return;
        }
        let twice = !self.calm && self.random.below(300) < self.plan.strength(Fault::Duplication);
        if twice {
            self.outcome.fault(Fault::Duplication);
            self.transmit(node, to, Some(session.connection), message.clone());
        }
        self.transmit(node, to, Some(session.connection), message);
    }

    fn pass_wire(&self, message: &Message) -> Result<(), String> {
        let metas = match message {
            Message::Append(append) => append.entries.as_slice(),
            _ => &[],
        };
        let entries: Vec<Entry> =
            metas.iter().map(|meta| self.ledger.entry(meta.id).clone()).collect();
        wire::pass(message, &entries)
    }

    fn record_and_replay(&mut self, from: usize, to: usize, message: &Message) {
        const RECORDED_MAX: usize = 512;
        if self.recorded.len() == RECORDED_MAX {
            self.recorded.pop_front();
        }
        self.recorded.push_back((from, to, message.clone()));
        let strength = self.plan.strength(Fault::Replay);
        if !self.calm && self.random.below(1_000) < strength {
            let index = self.random.index(self.recorded.len());
            let (from, to, message) = self.recorded[index].clone();
            if self.network.is_open(from, to) {
                self.outcome.fault(Fault::Replay);
                self.transmit(from, to, None, message);
            }
        }
    }

    pub(super) fn transmit(
        &mut self,
        from: usize,
        to: usize,
        connection: Option<u64>,
        message: Message,
    ) {
        let slow = if self.calm { 0 } else { self.plan.strength(Fault::Delay) };
        let mut delay_us = self.random.latency(self.plan.link_us);
        if self.random.below(200) < slow {
            self.outcome.fault(Fault::Delay);
            delay_us += self.random.latency(slow * 2_000);
        }
        if self.plan.strength(Fault::Reorder) > 0 {
            self.outcome.fault(Fault::Reorder);
        } else if connection.is_some() {
            let entries = matches!(&message, Message::Append(append) if !append.entries.is_empty());
            let lane = &mut self.lanes[from][to][usize::from(entries)];
            *lane = (*lane).max(self.now_us + delay_us);
            delay_us = *lane - self.now_us;
        }
        let capacity = self.plan.strength(Fault::Capacity);
        let full = self.in_flight[from][to] >= 2 + capacity / 4;
        if capacity > 0 && full && !self.calm {
            self.outcome.fault(Fault::Capacity);
            return;
        }
        self.in_flight[from][to] += 1;
        self.after(delay_us, Action::Deliver { from, to, connection, message });
    }

    /// A sender gets to what it was told to send, and reads the log as it is by then.
    pub(super) fn on_send_entries(&mut self, node: usize, command: &Command) {
        if self.plan.strength(Fault::SlowSender) > 0 {
            self.outcome.fault(Fault::SlowSender);
        }
        let Command::SendEntries {
            to,
            session,
            epoch,
            prev,
            first,
            last,
            bytes_max,
            commit,
            round,
            recover,
        } = command
        else {
            return;
        };
        let peer = to.0 as usize - 1;
        let process = self.nodes[node].process.as_ref().expect("lives");
        let current =
            process.sessions[peer].is_some_and(|known| known.up && known.number == *session);
        let intact = *first > process.log.preceding().seq && process.log.at(*first).is_some();
        let mut entries: Vec<EntryMeta> = Vec::new();
        let mut bytes = 0;
        for id in process.log.range(*first, *last).iter().filter(|_| current && intact) {
            let meta = self.ledger.meta(*id);
            let fits = entries.is_empty() || bytes + u64::from(meta.bytes) <= *bytes_max;
            // The log may have been cut since: no frame carries what a later primary sent instead.
            if !fits || id.epoch > *epoch {
                break;
            }
            bytes += u64::from(meta.bytes);
            entries.push(meta);
        }
        let through = entries.last().map(|entry| entry.id.seq);
        let time = process.core.time();
        if through.is_some() {
            let append = Append {
                epoch: *epoch,
                prev: *prev,
                commit: *commit,
                round: *round,
                time,
                recover: *recover,
                entries,
            };
            self.send(node, peer, Message::Append(append));
        }
        self.step(node, Event::Sent { peer: *to, session: *session, through, bytes });
    }

    pub(super) fn deliver(
        &mut self,
        from: usize,
        to: usize,
        connection: Option<u64>,
        message: Message,
    ) {
        self.in_flight[from][to] -= 1;
        if self.nodes[to].asleep_until_us > self.now_us {
            return;
        }
        let Some(process) = self.nodes[to].process.as_ref() else {
            return;
        };
        let session = process.sessions[from];
        let current = session.is_some_and(|s| s.up && Some(s.connection) == connection);
        if connection.is_some() && !current || !self.network.is_open(from, to) {
            return;
        }
        if let Message::PreVoteReply(reply) = &message
            && reply.granted
        {
            let votes = self.ledger.pre_votes.entry((to, reply.round)).or_default();
            *votes.entry(from).or_insert(true) &= reply.memory_loss;
        }
        if let Message::VoteReply(reply) = &message
            && reply.granted
        {
            let votes = self.ledger.votes.entry(reply.epoch).or_default();
            *votes.entry(from).or_insert(true) &= reply.memory_loss;
            if reply.memory_loss {
                self.outcome.mark("vote with memory loss");
            }
        }
        let from = self.nodes[from].id;
        self.step(to, Event::Received { from, message });
    }
}
