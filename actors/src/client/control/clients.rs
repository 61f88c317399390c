//! `CLIENT …`

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use quorate_protocol::command::{
    Client as ClientCommand, ClientAttribute, ClientFilters, ClientKill, ClientKind, ClientReply,
};
use quorate_protocol::resp::Reply;

use super::greeting::is_printable;
use super::{Control, bulk, text, verbatim};
use crate::client::refusal::error;
use crate::client::registry::Client;
use crate::client::session::Replies;

impl Control<'_> {
    pub(super) fn client(&mut self, command: ClientCommand) -> Reply {
        match command {
            ClientCommand::Id => Reply::Integer(self.client.id as i64),
            ClientCommand::GetName => match self.client.details.lock().name.as_str() {
                "" => Reply::Null,
                name => text(name.to_owned()),
            },
            ClientCommand::SetName { name } => match self.set_name(&name) {
                Ok(()) => Reply::OK,
                Err(refused) => refused,
            },
            ClientCommand::SetInfo { attribute, value } => self.set_info(attribute, &value),
            ClientCommand::Info => verbatim(line(self.client) + "\n"),
            ClientCommand::List { kind, ids } => self.list(kind, &ids),
            ClientCommand::Kill(ClientKill::Address(address)) => {
                let filters = ClientFilters { address: Some(address), ..ClientFilters::default() };
                match self.kill(&filters) {
                    0 => error("ERR No such client"),
                    _ => Reply::OK,
                }
            }
            ClientCommand::Kill(ClientKill::Filters(filters)) => {
                Reply::Integer(self.kill(&filters))
            }
            ClientCommand::NoEvict { on } => {
                self.client.details.lock().no_evict = on;
                Reply::OK
            }
            ClientCommand::NoTouch { on } => {
                self.client.details.lock().no_touch = on;
                Reply::OK
            }
            ClientCommand::Reply(ClientReply::On) => {
                self.session.replies = Replies::On;
                Reply::OK
            }
            // The caller sees by the session that these two aren't answered themselves.
            ClientCommand::Reply(ClientReply::Off) => {
                self.session.replies = Replies::Off;
                Reply::OK
            }
            ClientCommand::Reply(ClientReply::Skip) => {
                if self.session.replies == Replies::On {
                    self.session.replies = Replies::SkipNext;
                }
                Reply::OK
            }
            ClientCommand::Pause { timeout_ms, writes_only } => {
                // A pause without end would be a way to stop the node.
                let timeout = Duration::from_millis(timeout_ms.min(3_600_000));
                self.shared.pause(Instant::now() + timeout, writes_only);
                Reply::OK
            }
            ClientCommand::Unpause => {
                self.shared.unpause();
                Reply::OK
            }
            ClientCommand::GetRedir => Reply::Integer(-1),
            ClientCommand::Tracking { on: false } => Reply::OK,
            ClientCommand::Tracking { on: true } => {
                error("ERR Client tracking is not available on this node")
            }
            ClientCommand::TrackingInfo => Reply::Map(vec![
                (bulk("flags"), Reply::Set(vec![bulk("off")])),
                (bulk("redirect"), Reply::Integer(-1)),
                (bulk("prefixes"), Reply::Array(Vec::new())),
            ]),
            // No command blocks in a way that another client may end.
            ClientCommand::Unblock { .. } => Reply::Integer(0),
        }
    }

    fn set_info(&self, attribute: ClientAttribute, value: &[u8]) -> Reply {
        if !is_printable(value) {
            return match attribute {
                ClientAttribute::LibraryName => {
                    error("ERR lib-name cannot contain spaces, newlines or special characters.")
                }
                ClientAttribute::LibraryVersion => {
                    error("ERR lib-ver cannot contain spaces, newlines or special characters.")
                }
            };
        }
        let value = String::from_utf8_lossy(value).into_owned();
        let mut details = self.client.details.lock();
        match attribute {
            ClientAttribute::LibraryName => details.library = value,
            ClientAttribute::LibraryVersion => details.library_version = value,
        }
        Reply::OK
    }

    fn list(&self, kind: Option<ClientKind>, ids: &[u64]) -> Reply {
        let mut lines = String::new();
        for client in self.shared.registry.all() {
            if is_of_kind(kind) && (ids.is_empty() || ids.contains(&client.id)) {
                lines.push_str(&line(&client));
                lines.push('\n');
            }
        }
        verbatim(lines)
    }

    /// Ends the connections that match; returns how many.
    fn kill(&mut self, filters: &ClientFilters) -> i64 {
        let mut killed = 0;
        for client in self.shared.registry.all() {
            if !matches(filters, &client) {
                continue;
            }
            if client.id == self.client.id {
                if filters.skip_me {
                    continue;
                }
                // Its own reply still leaves.
                self.session.closing = true;
            } else {
                client.end();
            }
            killed += 1;
        }
        killed
    }
}

/// Every connection is an ordinary client.
fn is_of_kind(kind: Option<ClientKind>) -> bool {
    match kind {
        None | Some(ClientKind::Normal) => true,
        Some(ClientKind::Replica | ClientKind::Master | ClientKind::PubSub) => false,
    }
}

fn matches(filters: &ClientFilters, client: &Client) -> bool {
    let text_is = |wanted: &Option<bytes::Bytes>, is: String| {
        wanted.as_ref().is_none_or(|wanted| wanted == is.as_bytes())
    };
    filters.id.is_none_or(|id| id == client.id)
        && is_of_kind(filters.kind)
        && text_is(&filters.user, "default".to_owned())
        && text_is(&filters.address, client.address.to_string())
        && text_is(&filters.local_address, client.local.to_string())
}

/// One line of `CLIENT LIST`, with Redis's fields.
fn line(client: &Client) -> String {
    let details = client.details.lock();
    let mut flags = String::new();
    if details.queued >= 0 {
        flags.push('x');
    }
    if details.read_only {
        flags.push('r');
    }
    if details.no_evict {
        flags.push('e');
    }
    if details.no_touch {
        flags.push('T');
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let mut line = String::new();
    // Writing to a string can't fail.
    let _ = write!(
        line,
        "id={} addr={} laddr={} fd=0 name={} age={} idle={} flags={flags} db=0 sub=0 psub=0 \
         ssub=0 multi={} watch={} qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 \
         oll=0 omem=0 tot-mem=0 events=r cmd=NULL user=default redir=-1 resp={} lib-name={} lib-ver={}",
        client.id,
        client.address,
        client.local,
        details.name,
        client.age().as_secs(),
        client.idle().as_secs(),
        details.queued,
        details.watched,
        details.protocol,
        details.library,
        details.library_version,
    );
    line
}
