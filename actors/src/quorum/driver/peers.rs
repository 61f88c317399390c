//! What peers say, and what is said to them.

use quorate_protocol::core::message::Message;
use quorate_protocol::core::{Command, Event};
use quorate_protocol::types::{MonoTime, NodeId};
use quorate_protocol::wire::AppendHeader;

use super::super::ports::Fatal;
use super::Driver;
use crate::replication::{PeerEvent, SendEntries, Session};

impl Driver {
    pub(super) fn take_peer_events(&mut self, now: MonoTime) -> Result<(), Fatal> {
        let mut events = std::mem::take(&mut self.events);
        if self.ports.journal_has_room() {
            self.ports.peers.drain(&mut events);
        } else {
            self.ports.peers.drain_control(&mut events);
        }
        for event in events.drain(..) {
            self.on_peer_event(now, event)?;
        }
        self.events = events;
        Ok(())
    }

    fn on_peer_event(&mut self, now: MonoTime, event: PeerEvent) -> Result<(), Fatal> {
        match event {
            PeerEvent::Connected { peer, session, hello } => {
                self.sessions.insert(peer, session);
                self.membership.greeted(&hello);
                let connected = Event::Connected {
                    peer,
                    session: session.0,
                    disk: hello.disk,
                    incarnation: hello.incarnation,
                    generation: hello.generation,
                    version_max: hello.cluster_version_max,
                };
                self.view_due = now;
                self.ports.offer_first_entry(peer, session, &hello);
                self.step(now, connected, Vec::new())
            }
            PeerEvent::Greeted { peer, session, hello } => {
                self.membership.greeted(&hello);
                self.ports.offer_first_entry(peer, session, &hello);
                Ok(())
            }
            PeerEvent::Disconnected { peer, session } => {
                if self.sessions.get(&peer) == Some(&session) {
                    self.sessions.remove(&peer);
                }
                self.view_due = now;
                self.step(now, Event::Disconnected { peer, session: session.0 }, Vec::new())
            }
            PeerEvent::Refused { peer, reason } => self.ports.refused(peer, &reason),
            PeerEvent::Message { message, .. } if self.declines(&message) => Ok(()),
            PeerEvent::Message { peer, message, entries, .. } => {
                self.step(now, Event::Received { from: peer, message }, entries)
            }
            // This node has its log; only nodes without one listen.
            PeerEvent::Formation { .. } => Ok(()),
            PeerEvent::Sent { peer, session, through, bytes } => {
                let sent = Event::Sent { peer, session: session.0, through: Some(through), bytes };
                self.step(now, sent, Vec::new())
            }
            PeerEvent::Unavailable { peer, session, .. } => {
                let sent = Event::Sent { peer, session: session.0, through: None, bytes: 0 };
                self.step(now, sent, Vec::new())
            }
        }
    }

    pub(super) fn send_entries(&mut self, command: &Command) {
        let Command::SendEntries {
            to,
            session,
            epoch,
            prev,
            first,
            last: _,
            bytes_max,
            commit,
            round,
            recover,
        } = *command
        else {
            return;
        };
        let time = self.time();
        let header = AppendHeader { epoch, prev, commit, round, time, recover };
        let request = SendEntries {
            session: Session(session),
            header,
            first,
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
        };
        self.ports.send_entries(to, request);
    }

    pub(super) fn send(&mut self, to: NodeId, mut message: Message) {
        if let Message::Append(append) = &mut message {
            append.time = self.time();
        }
        if let Some(session) = self.sessions.get(&to) {
            self.ports.send(to, *session, message);
        }
    }
}
