//! The actor that owns the endpoint: accepts peers, and starts and stops their senders.

use std::collections::BTreeMap;
use std::sync::Arc;

use quinn::Incoming;
use quorate_protocol::types::NodeId;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;

use super::bulk::{Knock, Purpose, purpose};
use super::config::{HANDSHAKE_DEADLINE, HANDSHAKES_MAX, HANDSHAKES_WITHOUT_RETRY, IDLE_TIMEOUT};
use super::endpoint::Endpoint;
use super::greeting::{CloseCode, Greeted, SessionError, greet_accepted, peer_id};
use super::roster::Roster;
use super::sender::{ReplicationSender, SenderArguments, SenderMessage};
use super::shared::Shared;
use super::task::{Panicked, spawn_and_report};

/// Peers that are served at once: more than a cluster has members.
const SENDERS_MAX: usize = 64;

/// A node to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Its id, which its certificate must prove.
    pub node: NodeId,
    /// `host:port` where it may be reached, tried in turn; may be empty for a peer that dials.
    pub addresses: Vec<String>,
}

/// What the receiver is told.
#[derive(Debug)]
pub(super) enum ReceiverMessage {
    /// A peer dialled and was accepted.
    Accepted {
        /// As its certificate says.
        peer: NodeId,
        /// The connection.
        greeted: Box<Greeted>,
    },
    /// The peers from now on. The reply comes once their senders run.
    Roster(Box<Roster>, RpcReplyPort<()>),
    /// No more peers can be accepted: the endpoint is gone.
    AcceptingEnded(Result<(), Panicked>),
}

/// The actor.
pub(super) struct ReplicationReceiver;

/// What it starts with.
pub(super) struct ReceiverArguments {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) shared: Arc<Shared>,
    pub(super) bulk: Option<mpsc::Sender<Knock>>,
}

/// Its state.
pub(super) struct ReceiverState {
    endpoint: Arc<Endpoint>,
    shared: Arc<Shared>,
    senders: BTreeMap<NodeId, ActorRef<SenderMessage>>,
    accepting: AbortHandle,
}

impl Actor for ReplicationReceiver {
    type Msg = ReceiverMessage;
    type State = ReceiverState;
    type Arguments = ReceiverArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<ReceiverMessage>,
        arguments: ReceiverArguments,
    ) -> Result<ReceiverState, ActorProcessingErr> {
        let ReceiverArguments { endpoint, shared, bulk } = arguments;
        let door = Door { endpoint: Arc::clone(&endpoint), shared: Arc::clone(&shared), bulk };
        let work = door.accept_all(myself.clone());
        let accepting = spawn_and_report(work, move |result| {
            // Fails only where the actor has stopped.
            let _ = myself.send_message(ReceiverMessage::AcceptingEnded(result));
        });
        Ok(ReceiverState { endpoint, shared, senders: BTreeMap::new(), accepting })
    }

    async fn handle(
        &self,
        myself: ActorRef<ReceiverMessage>,
        message: ReceiverMessage,
        state: &mut ReceiverState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ReceiverMessage::Accepted { peer, greeted } => {
                state.accepted(myself.get_cell(), peer, greeted).await?;
            }
            ReceiverMessage::Roster(roster, reply) => {
                state.set_roster(myself.get_cell(), *roster).await?;
                // The caller may have stopped waiting.
                let _ = reply.send(());
            }
            ReceiverMessage::AcceptingEnded(result) => {
                result?;
                return Err("the QUIC endpoint is gone".into());
            }
        }
        Ok(())
    }

    /// A sender that was stopped is no fault; one that failed ends this actor and so the node.
    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<ReceiverMessage>,
        event: SupervisionEvent,
        _state: &mut ReceiverState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(_, error) => Err(error),
            SupervisionEvent::ActorStarted(_)
            | SupervisionEvent::ActorTerminated(..)
            | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
        }
    }

    async fn post_stop(
        &self,
        myself: ActorRef<ReceiverMessage>,
        state: &mut ReceiverState,
    ) -> Result<(), ActorProcessingErr> {
        state.accepting.abort();
        // Otherwise they would be killed, without their own goodbye.
        myself.stop_children_and_wait(None, Some(HANDSHAKE_DEADLINE)).await;
        state.endpoint.close(CloseCode::Goodbye.number(), b"");
        // Bounded by the transport itself; the deadline only guards against its faults.
        let _ = tokio::time::timeout(IDLE_TIMEOUT, state.endpoint.wait_idle()).await;
        Ok(())
    }
}

impl ReceiverState {
    async fn accepted(
        &mut self,
        myself: ActorCell,
        peer: NodeId,
        greeted: Box<Greeted>,
    ) -> Result<(), ActorProcessingErr> {
        if !self.senders.contains_key(&peer) {
            // A member of a configuration that has not arrived here. It knows where this node is.
            if !self.shared.takes_guests() || self.senders.len() >= SENDERS_MAX {
                CloseCode::Unknown.close(&greeted.connection);
                return Ok(());
            }
            self.start_sender(myself, peer, Vec::new()).await?;
        }
        if let Some(sender) = self.senders.get(&peer) {
            // Fails only where the sender is stopping: the connection is dropped with it.
            let _ = sender.send_message(SenderMessage::Accepted(greeted));
        }
        Ok(())
    }

    async fn start_sender(
        &mut self,
        myself: ActorCell,
        peer: NodeId,
        addresses: Vec<String>,
    ) -> Result<(), ActorProcessingErr> {
        let arguments = SenderArguments {
            peer,
            addresses,
            endpoint: Arc::clone(&self.endpoint),
            shared: Arc::clone(&self.shared),
        };
        let (sender, _) =
            ReplicationSender::spawn_linked(None, ReplicationSender, arguments, myself).await?;
        self.senders.insert(peer, sender);
        Ok(())
    }

    async fn set_roster(
        &mut self,
        myself: ActorCell,
        mut roster: Roster,
    ) -> Result<(), ActorProcessingErr> {
        let ours = self.shared.hello().node;
        roster.peers.retain(|peer| peer.node != ours);
        let wanted: BTreeMap<_, _> =
            roster.peers.iter().map(|peer| (peer.node, peer.addresses.clone())).collect();
        self.shared.set_roster(roster);
        self.senders.retain(|peer, sender| {
            let keep = wanted.contains_key(peer);
            if !keep {
                sender.stop(Some("no longer a peer".to_owned()));
            }
            keep
        });
        for (peer, addresses) in wanted {
            if let Some(sender) = self.senders.get(&peer) {
                sender.send_message(SenderMessage::Addresses(addresses))?;
                continue;
            }
            self.start_sender(myself.clone(), peer, addresses).await?;
        }
        Ok(())
    }
}

/// Where attempts to connect arrive.
struct Door {
    endpoint: Arc<Endpoint>,
    shared: Arc<Shared>,
    bulk: Option<mpsc::Sender<Knock>>,
}

impl Door {
    async fn accept_all(self, receiver: ActorRef<ReceiverMessage>) {
        let slots = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        while let Some(incoming) = self.endpoint.incoming().await {
            let Some((incoming, slot)) = admit(incoming, &slots) else { continue };
            if let Some(purpose) = purpose(&incoming) {
                self.pass_on(incoming, purpose);
                continue;
            }
            let greeting = Greeting {
                endpoint: Arc::clone(&self.endpoint),
                shared: Arc::clone(&self.shared),
                receiver: receiver.clone(),
                peer: None,
                _slot: slot,
            };
            tokio::spawn(greeting.run(incoming));
        }
    }

    /// Bulk is for another thread. Where too much waits there, or nobody, the dialler is refused
    /// by dropping its attempt.
    fn pass_on(&self, incoming: Incoming, purpose: Purpose) {
        let Some(bulk) = &self.bulk else { return };
        let server = self.endpoint.config_for(purpose, incoming.remote_address());
        let joins = purpose == Purpose::Join;
        let shared = Arc::clone(&self.shared);
        let _ = bulk.try_send(Knock { incoming, server, shared, joins });
    }
}

/// Under load a stranger must prove its address first; beyond the limit it is turned away.
fn admit(incoming: Incoming, slots: &Arc<Semaphore>) -> Option<(Incoming, OwnedSemaphorePermit)> {
    let taken = HANDSHAKES_MAX - slots.available_permits();
    if taken >= HANDSHAKES_WITHOUT_RETRY && incoming.may_retry() {
        // `may_retry` is what it fails for.
        let _ = incoming.retry();
        return None;
    }
    if let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
        Some((incoming, slot))
    } else {
        incoming.refuse();
        None
    }
}

/// One handshake from outside.
struct Greeting {
    endpoint: Arc<Endpoint>,
    shared: Arc<Shared>,
    receiver: ActorRef<ReceiverMessage>,
    /// Set as soon as its certificate was verified.
    peer: Option<NodeId>,
    _slot: OwnedSemaphorePermit,
}

impl Greeting {
    async fn run(mut self, incoming: Incoming) {
        let remote = incoming.remote_address();
        let result = tokio::time::timeout(HANDSHAKE_DEADLINE, self.greet(incoming))
            .await
            .unwrap_or(Err(SessionError::Deadline(HANDSHAKE_DEADLINE)));
        match (result, self.peer) {
            (Ok(greeted), Some(peer)) => {
                let greeted = Box::new(greeted);
                // Fails only where the receiver has stopped.
                let _ = self.receiver.send_message(ReceiverMessage::Accepted { peer, greeted });
            }
            (Ok(_), None) => {}
            (Err(error), peer) => {
                tracing::debug!(%remote, ?peer, %error, "a connection was not accepted");
                if let (Some(peer), Some(refusal)) = (peer, error.refusal())
                    && self.shared.is_known(peer)
                {
                    self.shared.events.refused(peer, refusal);
                }
            }
        }
    }

    async fn greet(&mut self, incoming: Incoming) -> Result<Greeted, SessionError> {
        let connection = self.endpoint.accept(incoming)?.await?;
        self.peer = peer_id(&connection, &self.shared.hello().cluster_name).ok();
        greet_accepted(connection, &self.shared).await
    }
}
