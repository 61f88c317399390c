//! Commands that a connection answers by itself, from its session and the node's view.

mod clients;
mod config;
mod durability;
mod greeting;
mod info;
mod insight;
mod replication;
mod topology;

use std::borrow::Cow;

use bytes::Bytes;
use quorate_protocol::command::{
    Connection, ReadLevel, Session as SessionCommand, TOKEN_BYTES_MAX, catalog,
};
use quorate_protocol::resp::Reply;

use super::refusal::error;
use super::registry::Client;
use super::session::{Mode, Session};
use super::shared::Shared;

pub(super) use greeting::NO_AUTH;
pub(super) use replication::{Wanted, wait};
pub(super) use topology::{current, names_primary};

/// What a command may look at and change.
pub(super) struct Control<'a> {
    pub shared: &'a Shared,
    pub session: &'a mut Session,
    pub client: &'a Client,
}

impl Control<'_> {
    /// Answers a command. `WAIT` and `WAITAOF` say what is there now, as inside a transaction;
    /// outside of one [`wait`] answers them.
    pub(super) fn answer(&mut self, command: Connection) -> Reply {
        match command {
            Connection::Ping { message: Some(message) } | Connection::Echo { message } => {
                Reply::Bulk(message)
            }
            Connection::Ping { message: None } => simple("PONG"),
            Connection::Hello(hello) => self.hello(&hello),
            Connection::Auth { user, password } => self.auth(user.as_deref(), &password),
            Connection::Select { database } => self.select(database),
            Connection::Quit => {
                self.session.closing = true;
                Reply::OK
            }
            Connection::Reset => self.reset(),
            Connection::Client(command) => self.client(command),
            Connection::Command(query) => catalog::answer(&query),
            Connection::Info { sections } => info::info(self.shared, self.session.mode, &sections),
            Connection::Config(command) => config::config(self.shared, command),
            Connection::Role => topology::role(self.shared),
            Connection::ReadOnly => self.read_only(true),
            Connection::ReadWrite => self.read_only(false),
            Connection::Asking => Reply::OK,
            Connection::Time => self.time(),
            Connection::Cluster(query) => match self.session.mode {
                Mode::Cluster => topology::cluster(self.shared, &query),
                Mode::Plain => error("ERR This instance has cluster support disabled"),
            },
            Connection::Wait { replicas, timeout_ms } => {
                self.counts_now(&Wanted { local: None, replicas, timeout_ms })
            }
            Connection::WaitAof { local, replicas, timeout_ms } => {
                self.counts_now(&Wanted { local: Some(local), replicas, timeout_ms })
            }
            Connection::Session(command) => self.set_session(command),
            Connection::Quorate(query) => self.quorate(&query),
            Connection::SlowLog(command) => insight::slowlog(self.shared, command),
            Connection::Latency(command) => insight::latency(&command),
            Connection::Memory(command) => insight::memory(self.shared, command),
            Connection::ModuleList => Reply::Array(Vec::new()),
            Connection::Acl(query) => insight::acl(&query),
            Connection::Help { container } => catalog::help(container),
            Connection::DebugSleep { .. } => {
                error("ERR DEBUG command not allowed. It is off on this node.")
            }
            Connection::Shutdown { .. } => {
                error("ERR SHUTDOWN command not allowed. Stop the node by its own command line.")
            }
            Connection::Subscribe { .. }
            | Connection::PSubscribe { .. }
            | Connection::Unsubscribe { .. }
            | Connection::PUnsubscribe { .. } => {
                error("ERR Publish and subscribe are not available on this listener")
            }
            Connection::Sentinel(_) => error("ERR SENTINEL is not available on this listener"),
        }
    }

    fn select(&self, database: i64) -> Reply {
        match (database, self.session.mode) {
            (0, _) => Reply::OK,
            (1.., Mode::Cluster) => error("ERR SELECT is not allowed in cluster mode"),
            (_, _) => error("ERR DB index is out of range"),
        }
    }

    fn read_only(&mut self, on: bool) -> Reply {
        self.session.read_only = on;
        self.client.details.lock().read_only = on;
        Reply::OK
    }

    fn time(&self) -> Reply {
        let ms = self.shared.now_ms();
        let micros = (ms % 1_000) * 1_000;
        Reply::Array(vec![text((ms / 1_000).to_string()), text(micros.to_string())])
    }

    fn set_session(&mut self, command: SessionCommand) -> Reply {
        match command {
            SessionCommand::Deadline { millis: 0 } => self.session.deadline = None,
            SessionCommand::Deadline { millis } => {
                self.session.deadline = Some(std::time::Duration::from_millis(millis));
            }
            SessionCommand::Read { level, max_lag_ms } => {
                self.session.read_level = level;
                self.session.max_lag = max_lag_ms
                    .filter(|_| level == ReadLevel::Local)
                    .map(std::time::Duration::from_millis);
            }
            SessionCommand::Durability { policy } => return self.set_durability(&policy),
            SessionCommand::Token { token } => {
                if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
                    return error("ERR a token has 1 to 128 bytes");
                }
                // Not as part of the buffer that it came in.
                self.session.token = Some(Bytes::copy_from_slice(&token));
            }
        }
        Reply::OK
    }
}

fn simple(text: &'static str) -> Reply {
    Reply::Simple(Cow::Borrowed(text))
}

fn bulk(text: &'static str) -> Reply {
    Reply::Bulk(Bytes::from_static(text.as_bytes()))
}

fn text(text: String) -> Reply {
    Reply::Bulk(Bytes::from(text))
}

/// Text for people: a bulk string in RESP2.
fn verbatim(text: String) -> Reply {
    Reply::Verbatim("txt", Bytes::from(text))
}
