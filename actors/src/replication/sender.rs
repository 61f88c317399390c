//! One actor for each peer: owns the connection with it, and dials while there is none.
//!
//! Only the coming and going of sessions passes through its mailbox. What is sent goes into the
//! session's bounded buffers directly.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use quorate_protocol::types::NodeId;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::AbortHandle;

use super::config::{BACKOFF_MAX, BACKOFF_MIN, DIAL_DEADLINE, DISMISSED_DELAY, HIGHER_ID_DELAY};
use super::endpoint::Endpoint;
use super::events::{Refusal, Session};
use super::greeting::{Greeted, SessionError, greet_dialled};
use super::session::LiveSession;
use super::shared::Shared;
use super::task::{Panicked, spawn_and_report};

/// What a sender is told.
#[derive(Debug)]
pub(super) enum SenderMessage {
    /// Dial, unless connected.
    Dial,
    /// A dial ended.
    Dialled(Box<Result<Result<Greeted, SessionError>, Panicked>>),
    /// The peer dialled and was accepted.
    Accepted(Box<Greeted>),
    /// A session ended.
    Ended {
        /// Which.
        session: Session,
        /// Why.
        result: Result<SessionError, Panicked>,
    },
    /// Where the peer can be dialled from now on.
    Addresses(Vec<String>),
}

/// What a sender starts with.
#[derive(Clone)]
pub(super) struct SenderArguments {
    pub(super) peer: NodeId,
    pub(super) addresses: Vec<String>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) shared: Arc<Shared>,
}

/// The actor.
pub(super) struct ReplicationSender;

/// Its state.
pub(super) struct SenderState {
    peer: NodeId,
    endpoint: Arc<Endpoint>,
    shared: Arc<Shared>,
    /// `host:port`, tried in turn.
    addresses: Vec<String>,
    attempts: usize,
    backoff: Backoff,
    /// The dial under way, or the timer before the next one.
    dial: Option<AbortHandle>,
    live: Option<Arc<LiveSession>>,
}

impl Actor for ReplicationSender {
    type Msg = SenderMessage;
    type State = SenderState;
    type Arguments = SenderArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<SenderMessage>,
        arguments: SenderArguments,
    ) -> Result<SenderState, ActorProcessingErr> {
        let SenderArguments { peer, addresses, endpoint, shared } = arguments;
        let mut state = SenderState {
            peer,
            endpoint,
            shared,
            addresses,
            attempts: 0,
            backoff: Backoff::new(),
            dial: None,
            live: None,
        };
        if state.is_dialler() {
            myself.send_message(SenderMessage::Dial)?;
        } else {
            state.dial_later(&myself);
        }
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<SenderMessage>,
        message: SenderMessage,
        state: &mut SenderState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SenderMessage::Dial => state.dial(&myself),
            SenderMessage::Dialled(result) => state.dialled(&myself, (*result)?),
            SenderMessage::Accepted(greeted) => {
                // Its attempt has succeeded; an own one would only replace it.
                if let Some(dial) = state.dial.take() {
                    dial.abort();
                }
                state.begin(&myself, *greeted);
            }
            SenderMessage::Ended { session, result } => state.ended(&myself, session, &result?),
            SenderMessage::Addresses(addresses) => state.addresses = addresses,
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<SenderMessage>,
        state: &mut SenderState,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(dial) = state.dial.take() {
            dial.abort();
        }
        if let Some(live) = state.live.take() {
            live.close(state.shared.farewell(state.peer));
            state.shared.end(&live);
        }
        Ok(())
    }
}

impl SenderState {
    /// The lower id dials at once; the higher one only if nothing comes of that: the other side may
    /// not know yet where this node is.
    fn is_dialler(&self) -> bool {
        self.shared.hello().node < self.peer
    }

    fn dial(&mut self, myself: &ActorRef<SenderMessage>) {
        // The timer that led here has done its part.
        self.dial = None;
        if self.live.is_some() {
            return;
        }
        let Some(address) = self.addresses.get(self.attempts % self.addresses.len().max(1)) else {
            return self.dial_later(myself);
        };
        let attempt = Dial {
            peer: self.peer,
            address: address.clone(),
            attempt: self.attempts,
            endpoint: Arc::clone(&self.endpoint),
            shared: Arc::clone(&self.shared),
        };
        self.attempts = self.attempts.wrapping_add(1);
        let myself = myself.clone();
        let work = async move {
            tokio::time::timeout(DIAL_DEADLINE, attempt.run())
                .await
                .unwrap_or(Err(SessionError::Deadline(DIAL_DEADLINE)))
        };
        self.dial = Some(spawn_and_report(work, move |result| {
            // Fails only where the actor has stopped.
            let _ = myself.send_message(SenderMessage::Dialled(Box::new(result)));
        }));
    }

    fn dialled(&mut self, myself: &ActorRef<SenderMessage>, result: Result<Greeted, SessionError>) {
        self.dial = None;
        match result {
            Ok(greeted) => self.begin(myself, greeted),
            Err(error) => {
                tracing::debug!(peer = %self.peer, %error, "dial failed");
                if let Some(refusal) = error.refusal() {
                    if let Refusal::CandidateByPeer | Refusal::OtherDiskByPeer = refusal {
                        // Only an operator can change that.
                        self.backoff.delay = DISMISSED_DELAY;
                    }
                    self.shared.events.refused(self.peer, refusal);
                }
                self.dial_later(myself);
            }
        }
    }

    fn begin(&mut self, myself: &ActorRef<SenderMessage>, greeted: Greeted) {
        let live = match self.shared.begin(self.peer, &greeted) {
            Ok(live) => live,
            Err(refusal) => {
                tracing::info!(peer = %self.peer, %refusal, "connection refused");
                SessionError::Refused(refusal.clone()).close(&greeted.connection);
                self.shared.events.refused(self.peer, refusal);
                return self.dial_later(myself);
            }
        };
        self.backoff = Backoff::new();
        let remote = greeted.connection.remote_address();
        tracing::info!(peer = %self.peer, session = live.session.0, %remote, "connected");
        self.live = Some(Arc::clone(&live));
        let (shared, myself) = (Arc::clone(&self.shared), myself.clone());
        let session = live.session;
        let work = async move {
            let error = Arc::clone(&live).run(Arc::clone(&shared), greeted).await;
            shared.end(&live);
            error
        };
        spawn_and_report(work, move |result| {
            let _ = myself.send_message(SenderMessage::Ended { session, result });
        });
    }

    fn ended(&mut self, myself: &ActorRef<SenderMessage>, session: Session, error: &SessionError) {
        tracing::info!(peer = %self.peer, session = session.0, %error, "disconnected");
        if let Some(refusal) = error.refusal() {
            self.shared.events.refused(self.peer, refusal);
        }
        if self.live.take_if(|live| live.session == session).is_some() {
            self.dial_later(myself);
        }
    }

    fn dial_later(&mut self, myself: &ActorRef<SenderMessage>) {
        if self.dial.is_some() {
            return;
        }
        let patience = if self.is_dialler() { Duration::ZERO } else { HIGHER_ID_DELAY };
        let delay = patience + self.backoff.next();
        let myself = myself.clone();
        self.dial = Some(spawn_and_report(tokio::time::sleep(delay), move |_| {
            let _ = myself.send_message(SenderMessage::Dial);
        }));
    }
}

/// One attempt to reach a peer. The name is resolved anew each time: addresses change.
struct Dial {
    peer: NodeId,
    address: String,
    attempt: usize,
    endpoint: Arc<Endpoint>,
    shared: Arc<Shared>,
}

impl Dial {
    async fn run(self) -> Result<Greeted, SessionError> {
        let address = self.resolve().await?;
        let connection = self.endpoint.dial(self.peer, address)?.await?;
        greet_dialled(connection, self.peer, &self.shared).await
    }

    async fn resolve(&self) -> Result<std::net::SocketAddr, SessionError> {
        let unresolved =
            |reason: String| SessionError::Resolve { address: self.address.clone(), reason };
        let only_v4 = self.endpoint.is_v4();
        let found: Vec<_> = tokio::net::lookup_host(&self.address)
            .await
            .map_err(|error| unresolved(error.to_string()))?
            .filter(|address| address.is_ipv4() || !only_v4)
            .collect();
        match found.get(self.attempt % found.len().max(1)) {
            Some(address) => Ok(*address),
            None => Err(unresolved("no address of this socket's family".to_owned())),
        }
    }
}

/// Doubling delays with jitter, so that nodes that lost each other don't keep in step.
struct Backoff {
    delay: Duration,
}

impl Backoff {
    fn new() -> Self {
        Self { delay: BACKOFF_MIN }
    }

    fn next(&mut self) -> Duration {
        let base = self.delay;
        self.delay = (base * 2).min(BACKOFF_MAX.max(base));
        // Half to the whole of it. The standard library's hasher keys are random enough for this.
        let random = RandomState::new().hash_one(base) % 1000;
        base / 2 + base.mul_f64(random as f64 / 2000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_within_their_bounds_and_grow() {
        let mut backoff = Backoff::new();
        assert!((BACKOFF_MIN / 2..=BACKOFF_MIN).contains(&backoff.next()));
        for _ in 0..10 {
            assert!((BACKOFF_MIN / 2..=BACKOFF_MAX).contains(&backoff.next()));
        }
        assert!((BACKOFF_MAX / 2..=BACKOFF_MAX).contains(&backoff.next()));
    }
}
