//! The typed handle of the transport.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_protocol::core::message::Message;
use quorate_protocol::types::NodeId;
use quorate_protocol::wire::{ControlFrame, Formation, Hello};
use ractor::{Actor, ActorCell, ActorRef, SpawnErr};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::bulk::Knock;
use super::endpoint::{Endpoint, EndpointError};
use super::entries::{EntrySource, SendEntries};
use super::events::{PeerEvents, Session};
use super::greeting::CloseCode;
use super::receiver::{ReceiverArguments, ReceiverMessage, ReplicationReceiver};
use super::roster::{Candidates, Roster};
use super::shared::{PeerStats, Shared};
use super::tls::{TlsError, TlsMaterial};

/// How long a change of peers may take to be taken up.
const PEERS_DEADLINE: Duration = Duration::from_secs(5);

/// How long stopping may take: goodbyes to every peer.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// What the transport is started with.
pub struct ReplicationOptions {
    /// Address of the UDP socket. Port 0 picks a free one.
    pub bind: SocketAddr,
    /// This node's certificate and the cluster's authorities.
    pub tls: TlsMaterial,
    /// Who this node is; its id and cluster name must be the certificate's.
    pub hello: Hello,
    /// Where what peers say goes.
    pub events: Arc<PeerEvents>,
    /// Where entries to send come from.
    pub source: Arc<dyn EntrySource>,
    /// Where nodes are noted that call and are not members yet.
    pub candidates: Arc<Candidates>,
    /// Where connections for bulk go; without it they are refused.
    pub bulk: Option<mpsc::Sender<Knock>>,
}

/// Why the transport didn't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Socket or certificates.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The actor didn't start.
    #[error("the receiver didn't start: {0}")]
    Spawn(#[from] Box<SpawnErr>),
}

/// The receiver doesn't answer: it has failed or stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the transport has stopped")]
pub struct Stopped;

/// Talks to peers. Cheap to clone.
///
/// Sending never waits: what doesn't fit is dropped and counted, which is harmless by the
/// protocol's design. Everything that is sent names the session that it was decided for, so
/// that nothing reaches a later life of a peer by accident.
#[derive(Clone)]
pub struct Replication {
    shared: Arc<Shared>,
    endpoint: Arc<Endpoint>,
    receiver: ActorRef<ReceiverMessage>,
}

impl Replication {
    /// Binds the socket and starts to accept. Must be called on the consensus thread's runtime.
    /// The task ends with the receiver. A failure inside reaches `supervisor`.
    pub async fn start(
        options: ReplicationOptions,
        supervisor: Option<ActorCell>,
    ) -> Result<(Self, JoinHandle<()>), StartError> {
        let ReplicationOptions { bind, tls, hello, events, source, candidates, bulk } = options;
        let endpoint = Endpoint::bind(bind, hello.node, &hello.cluster_name, &tls)?;
        let endpoint = Arc::new(endpoint);
        let shared = Shared::new(hello, events, source, candidates);
        let (door, sockets) = (Arc::clone(&endpoint), Arc::clone(&shared));
        let arguments = ReceiverArguments { endpoint: door, shared: sockets, bulk };
        let spawned = match supervisor {
            Some(supervisor) => {
                Actor::spawn_linked(None, ReplicationReceiver, arguments, supervisor).await
            }
            None => Actor::spawn(None, ReplicationReceiver, arguments).await,
        };
        let (receiver, task) = spawned.map_err(Box::new)?;
        let handle = Self { shared, endpoint, receiver };
        Ok((handle, task))
    }

    /// The socket's address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Who to talk to from now on. A peer that is no longer among them is let go. Returns once it is
    /// in effect.
    pub async fn set_roster(&self, roster: Roster) -> Result<(), Stopped> {
        let message = |reply| ReceiverMessage::Roster(Box::new(roster), reply);
        match self.receiver.call(message, Some(PEERS_DEADLINE)).await {
            Ok(result) if result.is_success() => Ok(()),
            Ok(_) | Err(_) => Err(Stopped),
        }
    }

    /// The same on a node that knows no configuration.
    #[cfg(test)]
    pub async fn set_peers(&self, peers: Vec<super::PeerAddress>) -> Result<(), Stopped> {
        self.set_roster(Roster { peers, ..Roster::default() }).await
    }

    /// As [`Replication::set_roster`], without waiting: for use inside a message handler.
    pub fn request_roster(&self, roster: Roster) -> Result<(), Stopped> {
        let (reply, _) = tokio::sync::oneshot::channel();
        let message = ReceiverMessage::Roster(Box::new(roster), reply.into());
        self.receiver.send_message(message).map_err(|_| Stopped)
    }

    /// Replaces this node's greeting and sends it to every connected peer. A connected peer that
    /// it no longer fits to (another cluster or generation) is let go.
    pub fn announce(&self, hello: Hello) {
        self.shared.announce(hello);
    }

    /// Sends a core message; an append must carry no entries. Dropped where the session is over
    /// or too much waits already.
    pub fn send(&self, peer: NodeId, session: Session, message: Message) {
        if let Some(live) = self.shared.session(peer, session) {
            live.send(&ControlFrame::Core(message));
        }
    }

    /// Sends a message of the first boot. May be lost like any other.
    pub fn send_formation(&self, peer: NodeId, session: Session, message: Formation) {
        if let Some(live) = self.shared.session(peer, session) {
            live.send(&ControlFrame::Formation(message));
        }
    }

    /// Sends an append with entries. Answered by `PeerEvent::Sent` or `PeerEvent::Unavailable`
    /// unless the session ends first; ask again only then.
    pub fn send_entries(&self, peer: NodeId, request: SendEntries) {
        if let Some(live) = self.shared.session(peer, request.session) {
            live.request(request);
        }
    }

    /// Where the peer of a session listens: it uses one socket for everything.
    #[must_use]
    pub fn address_of(&self, peer: NodeId, session: Session) -> Option<SocketAddr> {
        self.shared.session(peer, session).map(|live| live.connection.remote_address())
    }

    /// Ends a session; either side dials anew.
    pub fn disconnect(&self, peer: NodeId, session: Session) {
        if let Some(live) = self.shared.session(peer, session) {
            live.close(CloseCode::Goodbye);
        }
    }

    /// Certificates for connections from now on; existing ones stay.
    pub fn reload(&self, tls: &TlsMaterial) -> Result<(), TlsError> {
        self.endpoint.reload(self.shared.hello().node, tls)
    }

    /// Figures of all peers, for metrics.
    #[must_use]
    pub fn stats(&self) -> Vec<PeerStats> {
        self.shared.stats()
    }

    /// Says goodbye to all peers and stops. A second call does nothing.
    pub async fn stop(&self) {
        // An error means that it has stopped already.
        let _ = self.receiver.stop_and_wait(None, Some(STOP_DEADLINE)).await;
    }
}
