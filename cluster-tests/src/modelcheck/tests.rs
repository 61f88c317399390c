//! Tests of the checker's own parts.

use quorate_protocol::core::Event;
use quorate_protocol::core::message::{Append, EntryMeta, Message};
use quorate_protocol::policy::Policy;
use quorate_protocol::types::{ClusterTime, EntryId, EntryKind, Epoch, Incarnation, NodeId, Seq};

use super::network::{Envelope, Network};
use super::node::{Effects, NOW, Node};
use super::scope::Scope;
use super::state::{Broken, State};

fn entry(epoch: u64, seq: u64) -> EntryMeta {
    let id = EntryId::new(Epoch(epoch), Seq(seq));
    EntryMeta { id, kind: EntryKind::Commands, bytes: 1, cluster: None }
}

fn append(prev: EntryMeta, entries: Vec<EntryMeta>, commit: u64) -> Message {
    Message::Append(Append {
        epoch: Epoch(3),
        prev: prev.id,
        commit: Seq(commit),
        round: 0,
        time: ClusterTime(0),
        recover: None,
        entries,
    })
}

fn steady() -> State {
    Scope::new("steady", Policy::MAJORITY).first_state()
}

/// What is broken once node 2 got these messages from node 1.
fn after(messages: Vec<Message>) -> Option<Broken> {
    let mut state = steady();
    for message in messages {
        let mut node = state.node(NodeId(2)).clone();
        let mut effects = Effects::default();
        node.step(NOW, Event::Received { from: NodeId(1), message }, &mut effects);
        state.put(node, effects);
    }
    state.broken
}

#[test]
fn a_steady_cluster_is_sound_and_at_rest() {
    let state = steady();
    assert_eq!(state.broken, None);
    assert!(state.network.iter().next().is_none());
    assert!(state.nodes.iter().all(|node| node.core.log().persisted() == Seq(2)));
}

#[test]
fn a_commit_that_no_primary_made_is_seen() {
    let told = |commit| append(entry(2, 2), vec![entry(3, 3)], commit);
    // Twice: what the first message of an epoch commits is learnt from the next (S1).
    assert_eq!(after(vec![told(2), told(2)]), None);
    assert_eq!(after(vec![told(3), told(3)]), Some(Broken::CommitIsReal));
}

#[test]
fn a_node_that_stops_itself_is_seen() {
    // Position 2 is committed with epoch 2 everywhere.
    let mut state = steady();
    let mut node = state.node(NodeId(2)).clone();
    let mut effects = Effects::default();
    let committed = append(entry(2, 2), Vec::new(), 2);
    for message in [committed.clone(), committed] {
        node.step(NOW, Event::Received { from: NodeId(1), message }, &mut effects);
    }
    let first = node.entries[0].clone();
    let other = append(first, vec![entry(3, 2)], 1);
    node.step(NOW, Event::Received { from: NodeId(1), message: other }, &mut effects);
    state.put(node, effects);
    assert_eq!(state.broken, Some(Broken::NeverHalts));
}

#[test]
fn logs_that_agree_after_they_differ_are_seen() {
    let mut state = steady();
    let grown = |id: u64, entries: [EntryMeta; 2], state: &State| {
        let node: &Node = state.node(NodeId(id));
        let mut node = node.clone();
        node.entries.extend(entries);
        node
    };
    let node = grown(1, [entry(2, 3), entry(4, 4)], &state);
    state.put(node, Effects::default());
    assert_eq!(state.broken, None);
    let node = grown(2, [entry(3, 3), entry(4, 4)], &state);
    state.put(node, Effects::default());
    assert_eq!(state.broken, Some(Broken::LogMatching));
}

#[test]
fn entries_on_their_way_are_joined_and_arrive_in_part() {
    let mut network = Network::default();
    let envelope =
        |message| Envelope { from: NodeId(1), to: NodeId(2), incarnation: Incarnation(1), message };
    network.send(envelope(append(entry(2, 2), vec![entry(3, 3)], 0)));
    network.send(envelope(append(entry(3, 3), vec![entry(3, 4)], 0)));
    let joined = append(entry(2, 2), vec![entry(3, 3), entry(3, 4)], 0);
    assert_eq!(network.get(0), Some(&envelope(joined)));
    let taken = network.take(0, 1);
    assert_eq!(taken, envelope(append(entry(2, 2), vec![entry(3, 3)], 0)));
    let rest = append(entry(3, 3), vec![entry(3, 4)], 0);
    assert_eq!(network.get(0), Some(&envelope(rest)));
    // What doesn't meet it takes its place.
    let other = append(entry(2, 2), vec![entry(3, 3)], 0);
    network.send(envelope(other.clone()));
    assert_eq!(network.iter().collect::<Vec<_>>(), [&envelope(other)]);
}
