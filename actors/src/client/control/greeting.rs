//! `HELLO`, `AUTH` and `RESET`: how a connection begins.

use bytes::Bytes;
use quorate_protocol::command::Hello;
use quorate_protocol::resp::{Protocol, Reply};

use super::{Control, bulk, simple};
use crate::client::refusal::error;
use crate::client::session::Mode;
use crate::view::Role;

/// What clients take this server for.
pub(in crate::client) const REDIS_VERSION: &str = "7.2.4";

/// Commands before this one needed a password.
pub(in crate::client) const NO_AUTH: &str = "NOAUTH Authentication required.";

impl Control<'_> {
    pub(super) fn hello(&mut self, hello: &Hello) -> Reply {
        let protocol = match hello.version {
            None => self.session.protocol,
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return error("NOPROTO unsupported protocol version"),
        };
        if let Some((user, password)) = &hello.auth {
            let reply = self.auth(Some(user), password);
            if matches!(reply, Reply::Error(_)) {
                return reply;
            }
        }
        if !self.session.authenticated {
            return error(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise \
                 the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the \
                 client and select the RESP protocol version at the same time",
            );
        }
        if let Some(name) = &hello.name
            && let Err(refused) = self.set_name(name)
        {
            return refused;
        }
        self.session.protocol = protocol;
        let number = match protocol {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        };
        self.client.details.lock().protocol = number;
        let mode = match self.session.mode {
            Mode::Cluster => "cluster",
            Mode::Plain => "standalone",
        };
        let role = if self.shared.published.role() == Role::Primary { "master" } else { "replica" };
        Reply::Map(vec![
            (bulk("server"), bulk("redis")),
            (bulk("version"), bulk(REDIS_VERSION)),
            (bulk("proto"), Reply::Integer(i64::from(number))),
            (bulk("id"), Reply::Integer(self.client.id as i64)),
            (bulk("mode"), bulk(mode)),
            (bulk("role"), bulk(role)),
            (bulk("modules"), Reply::Array(Vec::new())),
        ])
    }

    pub(super) fn auth(&mut self, user: Option<&[u8]>, password: &[u8]) -> Reply {
        let live = self.shared.live();
        let Some(expected) = &live.settings.requirepass else {
            return if user.is_none_or(|user| user == b"default") {
                if user.is_some() {
                    return Reply::OK;
                }
                error(
                    "ERR AUTH <password> called without any password configured for the default \
                     user. Are you sure your configuration is correct?",
                )
            } else {
                wrong_pass()
            };
        };
        let known = user.is_none_or(|user| user == b"default");
        if !(known && equal_in_constant_time(expected.as_bytes(), password)) {
            self.shared.metrics.auth_failed();
            return wrong_pass();
        }
        self.session.authenticated = true;
        self.client.set_authenticated(true);
        Reply::OK
    }

    pub(super) fn reset(&mut self) -> Reply {
        let open = self.shared.live().settings.requirepass.is_none();
        self.session.reset(open);
        self.client.set_authenticated(open);
        let mut details = self.client.details.lock();
        details.protocol = 2;
        details.queued = -1;
        details.watched = 0;
        details.read_only = false;
        details.name.clear();
        simple("RESET")
    }

    /// Names the connection.
    ///
    /// # Errors
    /// The reply to a name that would break `CLIENT LIST`.
    pub(super) fn set_name(&mut self, name: &Bytes) -> Result<(), Reply> {
        if !is_printable(name) {
            return Err(error(
                "ERR Client names cannot contain spaces, newlines or special characters.",
            ));
        }
        self.client.details.lock().name = String::from_utf8_lossy(name).into_owned();
        Ok(())
    }
}

/// Whether a text has only characters that one line of `CLIENT LIST` can hold.
pub(super) fn is_printable(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_graphic)
}

fn wrong_pass() -> Reply {
    error("WRONGPASS invalid username-password pair or user is disabled.")
}

/// The time that this takes tells nothing but the guess's own length: both are hashed first.
fn equal_in_constant_time(expected: &[u8], given: &[u8]) -> bool {
    // Comparing `blake3::Hash` values takes the same time wherever they differ.
    blake3::hash(expected) == blake3::hash(given)
}
