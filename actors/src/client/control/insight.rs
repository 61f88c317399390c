//! `SLOWLOG`, `LATENCY`, `MEMORY` and `ACL`: what tools ask for.

use quorate_protocol::command::{Acl, Latency, Memory, SlowLog, catalog};
use quorate_protocol::resp::Reply;

use super::{bulk, text};
use crate::client::refusal::error;
use crate::client::shared::Shared;

/// Entries of `SLOWLOG GET` without a count.
const SLOWLOG_COUNT: usize = 10;

pub(super) fn slowlog(shared: &Shared, command: SlowLog) -> Reply {
    match command {
        SlowLog::Get { count } => {
            let count = count.map_or(SLOWLOG_COUNT, |count| count.try_into().unwrap_or(usize::MAX));
            shared.slowlog.get(count)
        }
        SlowLog::Len => Reply::Integer(shared.slowlog.len() as i64),
        SlowLog::Reset => {
            shared.slowlog.reset();
            Reply::OK
        }
    }
}

/// No event is recorded: the waits of a write are metrics of their own.
pub(super) fn latency(command: &Latency) -> Reply {
    match command {
        Latency::Latest | Latency::History { .. } => Reply::Array(Vec::new()),
        Latency::Reset { .. } => Reply::Integer(0),
        Latency::Doctor => Reply::Verbatim(
            "txt",
            "Latency events aren't recorded here. The histograms at /metrics say what writes \
             waited for."
                .into(),
        ),
        Latency::Graph { .. } => error("ERR No samples available for event"),
        Latency::Histogram { .. } => Reply::Map(Vec::new()),
    }
}

pub(super) fn memory(shared: &Shared, command: Memory) -> Reply {
    match command {
        Memory::Stats => {
            let resident = super::info::resident_bytes() as i64;
            let keys = shared.state.count().unwrap_or_default() as i64;
            Reply::Map(vec![
                (bulk("total.allocated"), Reply::Integer(resident)),
                (bulk("keys.count"), Reply::Integer(keys)),
                (bulk("clients.normal"), Reply::Integer(shared.registry.count() as i64)),
            ])
        }
        Memory::Doctor => Reply::Verbatim(
            "txt",
            "Data lives on disk here; memory holds caches and what is on its way.".into(),
        ),
        Memory::Purge => Reply::OK,
        Memory::MallocStats => text(String::new()),
    }
}

/// One user exists, who may run every command.
pub(super) fn acl(query: &Acl) -> Reply {
    match query {
        Acl::WhoAmI => bulk("default"),
        Acl::List => Reply::Array(vec![bulk("user default on ~* &* +@all")]),
        Acl::Users => Reply::Array(vec![bulk("default")]),
        Acl::Cat { category } => catalog::categories(category.as_deref()),
        Acl::GetUser { user } if user == "default" => Reply::Map(vec![
            (bulk("flags"), Reply::Set(vec![bulk("on")])),
            (bulk("passwords"), Reply::Array(Vec::new())),
            (bulk("commands"), bulk("+@all")),
            (bulk("keys"), bulk("~*")),
            (bulk("channels"), bulk("&*")),
            (bulk("selectors"), Reply::Array(Vec::new())),
        ]),
        Acl::GetUser { .. } => Reply::Null,
    }
}
