//! The listeners.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::connection;
use super::session::Mode;
use super::shared::{ClientOptions, ClientParts, Shared};
use crate::node::config::ClientSettings;

/// After so long without traffic the kernel asks whether the client is still there.
pub(super) const KEEPALIVE: Duration = Duration::from_mins(1);

/// Connections that the kernel holds while the accept loop is busy.
const BACKLOG: i32 = 1_024;

/// How often idle connections and late handshakes are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// Accepting fails for want of file descriptors, and succeeds again when some are free.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// The node's client listeners and their connections. Must be started on the client runtime.
pub struct ClientServer {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
    listen: SocketAddr,
    listen_plain: Option<SocketAddr>,
}

/// Changes settings while clients are served. Cheap to clone.
#[derive(Clone)]
pub struct ClientControl {
    shared: Arc<Shared>,
}

impl ClientControl {
    /// These from now on; the listeners stay where they are. What a connection may send and let
    /// wait is settled when it is accepted.
    pub fn set_settings(&self, settings: ClientSettings) {
        self.shared.set_settings(settings);
    }
}

/// A listener can't be opened.
#[derive(Debug, Error)]
#[error("can't listen for clients on {address}: {source}")]
pub struct ListenError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl ClientServer {
    /// Opens the listeners and serves connections until [`ClientServer::stop`].
    ///
    /// # Errors
    /// A listener can't be opened; the other one is closed again.
    pub fn start(options: ClientOptions, parts: ClientParts) -> Result<Self, ListenError> {
        let cluster = listen(options.settings.listen)?;
        let plain = options.settings.listen_plain.map(listen).transpose()?;
        let listen = address_of(&cluster, options.settings.listen)?;
        let listen_plain = match &plain {
            Some(plain) => Some(address_of(plain, options.settings.listen)?),
            None => None,
        };
        let shared = Shared::new(options, parts);
        let mut tasks = vec![
            tokio::spawn(accept(shared.clone(), cluster, Mode::Cluster)),
            tokio::spawn(sweep(shared.clone())),
        ];
        if let Some(plain) = plain {
            tasks.push(tokio::spawn(accept(shared.clone(), plain, Mode::Plain)));
        }
        Ok(Self { shared, tasks, listen, listen_plain })
    }

    /// Where cluster clients connect; useful where port 0 was asked for.
    #[must_use]
    pub fn listen_address(&self) -> SocketAddr {
        self.listen
    }

    /// Where plain clients connect.
    #[must_use]
    pub fn listen_plain_address(&self) -> Option<SocketAddr> {
        self.listen_plain
    }

    /// Connections now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.registry.count()
    }

    /// Changes the settings of a server that runs.
    #[must_use]
    pub fn control(&self) -> ClientControl {
        ClientControl { shared: self.shared.clone() }
    }

    /// Stops accepting, lets each connection finish its round and ends it. Returns whether all
    /// were gone within `timeout`.
    pub async fn stop(self, timeout: Duration) -> bool {
        for task in &self.tasks {
            task.abort();
        }
        for client in self.shared.registry.all() {
            client.end();
        }
        let gone = async {
            while self.shared.registry.count() > 0 {
                // Whoever was accepted last may have missed the first call.
                for client in self.shared.registry.all() {
                    client.end();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(timeout, gone).await.is_ok()
    }
}

impl Drop for ClientServer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    open(address).map_err(|source| ListenError { address, source })
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted node must not wait for the connections of its earlier life to fade.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn address_of(listener: &TcpListener, asked: SocketAddr) -> Result<SocketAddr, ListenError> {
    listener.local_addr().map_err(|source| ListenError { address: asked, source })
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, mode: Mode) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => admit(&shared, stream, address, mode),
            Err(error) => {
                tracing::warn!(%error, "can't accept a client");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

fn admit(shared: &Arc<Shared>, stream: TcpStream, address: SocketAddr, mode: Mode) {
    if let Err(error) = prepare(&stream) {
        tracing::debug!(%error, "a client left before it was accepted");
        return;
    }
    let local = stream.local_addr().unwrap_or(shared.live().settings.listen);
    let limit = shared.live().settings.maxclients;
    let Some(client) = shared.registry.enter(address, local, limit) else {
        shared.metrics.rejected();
        // A courtesy: the client is cut whether it fits or not.
        let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
        return;
    };
    shared.metrics.connected();
    tokio::spawn(connection::serve(shared.clone(), client, stream, mode));
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Ends connections that are idle too long, where that is asked for, and those that don't
/// authenticate. One task for all, so that a command costs no timer.
async fn sweep(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(SWEEP);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let idle = Duration::from_secs(shared.idle_timeout_s.load(Ordering::Relaxed));
        if idle.is_zero() && shared.live().settings.requirepass.is_none() {
            continue;
        }
        for client in shared.registry.all() {
            let late =
                !client.is_authenticated() && client.age() > shared.options.handshake_deadline;
            if late || (!idle.is_zero() && client.idle() > idle) {
                client.end();
            }
        }
    }
}
