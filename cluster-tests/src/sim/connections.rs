//! Connections between nodes, and the sessions that each side makes of them.

use quorate_protocol::core::Event;
use quorate_protocol::core::message::Message;
use quorate_protocol::types::Incarnation;

use super::fault::Fault;
use super::node::PeerSession;
use super::world::{Action, World};

impl World {
    pub(super) fn connect_soon(&mut self, a: usize, b: usize) {
        let (a, b) = (a.min(b), a.max(b));
        if a == b || self.network.connecting[a][b] || self.network.connection(a, b) != 0 {
            return;
        }
        self.network.connecting[a][b] = true;
        let delay_us = self.random.between(1_000, 150_000);
        self.after(delay_us, Action::Connect { a, b });
    }

    pub(super) fn connect(&mut self, a: usize, b: usize) {
        self.network.connecting[a][b] = false;
        if self.network.connection(a, b) != 0 {
            return;
        }
        let runs = |node: usize| {
            self.nodes[node].process.is_some() && self.nodes[node].paused_until_us <= self.now_us
        };
        if !runs(a) || !runs(b) || !self.network.is_open_both_ways(a, b) {
            if !self.dead[a] && !self.dead[b] {
                self.connect_soon(a, b);
            }
            return;
        }
        let connection = self.network.connect(a, b);
        for (node, peer) in [(a, b), (b, a)] {
            let incarnation = self.nodes[peer].disk.incarnation;
            let life = self.nodes[node].life;
            let delay_us = self.random.latency(self.plan.link_us);
            self.after(delay_us, Action::SessionUp { node, life, peer, connection, incarnation });
        }
    }

    /// Ends the connection of a pair; each side notices within `notice_us`.
    pub(super) fn break_connection(&mut self, a: usize, b: usize, notice_us: u64) {
        let connection = self.network.connection(a, b);
        if a == b || connection == 0 {
            return;
        }
        self.network.disconnect(a, b);
        for (node, peer) in [(a, b), (b, a)] {
            let life = self.nodes[node].life;
            let delay_us = self.random.between(1, notice_us);
            self.after(delay_us, Action::SessionDown { node, life, peer, connection });
        }
        self.connect_soon(a, b);
    }

    /// A connection over a cut link ends when nothing came through for long enough.
    pub(super) fn on_idle(&mut self, a: usize, b: usize, connection: u64) {
        let same = connection != 0 && self.network.connection(a, b) == connection;
        if same && !self.network.is_open_both_ways(a, b) {
            self.break_connection(a, b, 1_000);
        }
    }

    pub(super) fn session_up(
        &mut self,
        node: usize,
        peer: usize,
        connection: u64,
        incarnation: Incarnation,
    ) {
        let (id, disk) = (self.nodes[peer].id, self.nodes[peer].disk_id);
        let process = self.nodes[node].process.as_mut().expect("lives");
        // A greeting that comes late, of a life that has ended: a node refuses it, and keeps the
        // session that it has.
        if process.sessions[peer].is_some_and(|known| known.incarnation > incarnation) {
            return;
        }
        process.session_number += 1;
        let session = process.session_number;
        process.sessions[peer] =
            Some(PeerSession { number: session, connection, incarnation, up: true });
        let version_max = self.nodes[peer].version;
        let generation = self.generation(peer);
        let connected =
            Event::Connected { peer: id, session, disk, incarnation, generation, version_max };
        self.step(node, connected);
        self.spring_on_session(node, peer);
        if self.plan.strength(Fault::Replay) > 0 && !self.calm && self.random.percent(50) {
            self.replay_last(peer, node);
        }
    }

    /// What was on its way in the connection before this one comes after all.
    fn replay_last(&mut self, from: usize, to: usize) {
        const LATE_MAX: usize = 6;
        let late: Vec<Message> = self
            .recorded
            .iter()
            .rev()
            .filter(|(f, t, _)| (*f, *t) == (from, to))
            .take(LATE_MAX)
            .map(|(_, _, message)| message.clone())
            .collect();
        for message in late {
            self.outcome.fault(Fault::Replay);
            self.transmit(from, to, None, message);
        }
    }

    pub(super) fn session_down(&mut self, node: usize, peer: usize, connection: u64) {
        let id = self.nodes[peer].id;
        let process = self.nodes[node].process.as_mut().expect("lives");
        let Some(session) = &mut process.sessions[peer] else {
            return;
        };
        if session.connection != connection || !session.up {
            return;
        }
        session.up = false;
        let session = session.number;
        self.step(node, Event::Disconnected { peer: id, session });
    }
}
