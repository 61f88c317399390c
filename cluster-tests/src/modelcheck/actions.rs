//! What may happen next.

use quorate_protocol::core::message::Message;
use quorate_protocol::core::{Event, Role};
use quorate_protocol::types::{ClusterTime, Incarnation, MonoTime, NodeId, Seq};

use super::network::{Envelope, arrival, entries_in};
use super::node::{Effects, FAR, NOW, Node};
use super::scope::Scope;
use super::state::{Broken, State};

/// One step of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A node's election timeout passes, and its pre-vote is granted.
    Campaign(NodeId),
    /// A primary hears nothing for an election timeout.
    StepDown(NodeId),
    /// The message at this index arrives; of an append, its first entries, so many.
    Deliver(usize, usize),
    /// A primary's heartbeat is sent and arrives.
    Heartbeat(NodeId, NodeId),
    /// A client writes.
    Write(NodeId),
    /// An operator asks for the change at this index of the scope's choices.
    Change(NodeId, usize),
    /// A node's sync returns for all that it holds.
    Sync(NodeId),
    /// A process is killed and starts again.
    Kill(NodeId),
    /// A machine loses power and comes back.
    CutPower(NodeId),
}

/// Everything that the scope allows to happen next, in an order that depends on nothing else.
pub(super) fn enabled(scope: &Scope, state: &State, actions: &mut Vec<Action>) {
    if state.broken.is_some() {
        return;
    }
    for (index, envelope) in state.network.iter().enumerate() {
        let entries = entries_in(&envelope.message);
        if scope.prefixes {
            actions.extend((1..entries).map(|first| Action::Deliver(index, first)));
        }
        actions.push(Action::Deliver(index, entries));
    }
    for node in &state.nodes {
        of_node(scope, state, node, actions);
    }
}

fn of_node(scope: &Scope, state: &State, node: &Node, actions: &mut Vec<Action>) {
    let id = node.id;
    let log = node.core.log();
    if node.core.role() == Role::Primary {
        let peers = state.nodes.iter().filter(|peer| peer.id != id);
        let news = peers.filter(|peer| has_news(scope, node, peer));
        actions.extend(news.map(|peer| Action::Heartbeat(id, peer.id)));
        if log.last().seq.0 < scope.entries_max && node.core.admits(NOW).is_ok() {
            actions.push(Action::Write(id));
        }
        let ready = !scope.changes_wait || node.leads_committed();
        if let Some(choices) = scope.changes.get(usize::from(state.changes))
            && ready
        {
            actions.extend((0..choices.len()).map(|index| Action::Change(id, index)));
        }
        if scope.step_down {
            actions.push(Action::StepDown(id));
        }
    } else if id <= scope.last_candidate
        && node.core.epoch().0 < scope.epoch_max
        && node.core.is_voter()
    {
        actions.push(Action::Campaign(id));
    }
    if log.persisted() < log.last().seq {
        actions.push(Action::Sync(id));
    }
    if state.crashes < scope.crashes_max {
        if scope.kills {
            actions.push(Action::Kill(id));
        }
        if scope.power_cuts {
            actions.push(Action::CutPower(id));
        }
    }
}

/// Whether a heartbeat and its answer may change anything.
fn has_news(scope: &Scope, primary: &Node, peer: &Node) -> bool {
    let seen = primary.core.peers(NOW).into_iter().find(|seen| seen.node == peer.id);
    let known = seen.is_some_and(|seen| {
        let same = peer.core.log().last().seq <= primary.core.log().last().seq
            && peer.core.log().holds(primary.core.log().id_at(seen.in_memory).unwrap_or_default());
        seen.in_view
            && same
            && seen.in_memory == peer.core.log().in_memory()
            && seen.persisted == peer.core.log().persisted()
    });
    let follows = peer.core.primary() == Some(primary.id)
        && peer.core.epoch() == primary.core.epoch()
        && primary.known[peer.id.0 as usize - 1] == peer.incarnation;
    // A primary forgets that a peer had memory loss when the peer says so.
    let lost = scope.power_cuts && peer.incarnation > Incarnation(1);
    let uncommitted = scope.commits && peer.core.committed() < primary.core.committed();
    !(known && follows) || lost || uncommitted
}

/// The state after an action.
pub(super) fn apply(scope: &Scope, state: &State, action: Action) -> State {
    let mut run = Run { scope, state: state.clone() };
    match action {
        Action::Campaign(id) => {
            let mut effects = Effects::default();
            let mut node = state.node(id).clone();
            node.campaign(&mut effects);
            run.put(node, effects);
        }
        Action::StepDown(id) => run.step(id, Event::Tick, FAR),
        Action::Deliver(index, entries) => {
            let envelope = run.state.network.take(index, entries);
            run.deliver(envelope);
        }
        Action::Heartbeat(from, to) => run.heartbeat(from, to),
        Action::Write(id) => {
            run.step(id, Event::Propose { time: ClusterTime(0) }, NOW);
        }
        Action::Change(id, index) => {
            let change = scope.changes[usize::from(state.changes)][index].clone();
            let before = state.node(id).core.log().last();
            run.step(id, Event::Reconfigure { token: 0, change }, NOW);
            run.state.changes += u8::from(run.state.node(id).core.log().last() != before);
        }
        Action::Sync(id) => {
            let log = state.node(id).core.log();
            let event = Event::Persisted { branch: log.branch(), id: log.last() };
            run.step(id, event, NOW);
        }
        Action::Kill(id) => run.reboot(id, Node::kill),
        Action::CutPower(id) => run.reboot(id, Node::cut_power),
    }
    if !scope.judge_rules && run.state.broken == Some(Broken::JointRule) {
        run.state.broken = None;
    }
    run.state.settle();
    run.state
}

/// An action under way.
struct Run<'a> {
    scope: &'a Scope,
    state: State,
}

impl Run<'_> {
    fn step(&mut self, id: NodeId, event: Event, now: MonoTime) {
        let mut effects = Effects::default();
        let mut node = self.state.node(id).clone();
        node.step(now, event, &mut effects);
        self.put(node, effects);
    }

    /// Replaces a node and sends what it sent.
    fn put(&mut self, node: Node, mut effects: Effects) {
        let (from, incarnation) = (node.id, node.incarnation);
        let sent = std::mem::take(&mut effects.sent);
        self.state.put(node, effects);
        for (to, mut message) in sent {
            if let Message::Append(append) = &mut message {
                append.commit = Seq::ZERO;
            }
            let envelope = Envelope { from, to, incarnation, message };
            match &envelope.message {
                Message::AppendAck(_) if !self.scope.delayed_acks => self.deliver(envelope),
                // Heartbeats are actions of their own.
                Message::Append(append) if append.entries.is_empty() => {}
                _ => self.state.network.send(envelope),
            }
        }
    }

    /// A message arrives. A session with the sender's life is up by then; an older life's
    /// messages may still come out of a buffer.
    fn deliver(&mut self, envelope: Envelope) {
        let Envelope { from, to, incarnation, message } = envelope;
        self.meet(to, from, incarnation);
        let now = arrival(&message);
        self.step(to, Event::Received { from, message }, now);
    }

    /// Connects `node` to a later life of `peer`. What it sends then is lost: a heartbeat may be
    /// sent at any time.
    fn meet(&mut self, node: NodeId, peer: NodeId, life: Incarnation) {
        if self.state.node(node).known[peer.0 as usize - 1] < life {
            let mut node = self.state.node(node).clone();
            node.connect(peer, life, &mut Effects::default());
            self.put(node, Effects::default());
        }
    }

    /// A heartbeat round of which one message arrives, at once: an old one says nothing that an
    /// old append doesn't. Where it finds that the logs part, the search for where goes on.
    fn heartbeat(&mut self, from: NodeId, to: NodeId) {
        let life = self.state.node(to).incarnation;
        self.meet(from, to, life);
        loop {
            let before = self.state.node(from).clone();
            let mut effects = Effects::default();
            let mut primary = before.clone();
            primary.step(NOW, Event::Tick, &mut effects);
            let incarnation = primary.incarnation;
            let (mut others, mut ours) = (Vec::new(), Vec::new());
            for (receiver, mut message) in effects.sent.drain(..) {
                let Message::Append(append) = &mut message else { continue };
                if !append.entries.is_empty() {
                    others.push((receiver, message));
                } else if receiver == to {
                    if !self.scope.commits {
                        append.commit = Seq::ZERO;
                    }
                    ours.push(Envelope { from, to, incarnation, message });
                }
            }
            effects.sent = others;
            self.put(primary, effects);
            for envelope in ours {
                self.deliver(envelope);
            }
            if self.scope.delayed_acks || *self.state.node(from) == before {
                return;
            }
        }
    }

    fn reboot(&mut self, id: NodeId, how: fn(&Node, Vec<Incarnation>) -> Node) {
        let known = self.state.nodes.iter().map(|node| node.incarnation).collect();
        let node = how(self.state.node(id), known);
        self.state.crashes += 1;
        self.state.network.lose_all_to(id);
        self.put(node, Effects::default());
    }
}
