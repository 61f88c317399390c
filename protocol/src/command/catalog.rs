//! What clients ask about commands: `COMMAND …`, `ACL CAT`, `… HELP`.

use bytes::Bytes;

use super::connection::{CommandFilter, CommandQuery};
use super::error::{CommandError, printable};
use super::spec::{self, Flags, Keys, Spec};
use super::{find, glob};
use crate::resp::Reply;

/// Answers a question about commands.
#[must_use]
pub fn answer(query: &CommandQuery) -> Reply {
    match query {
        CommandQuery::All => Reply::Array(spec::all().map(info).collect()),
        CommandQuery::Count => Reply::Integer(spec::all().count() as i64),
        CommandQuery::List { filter } => list(filter.as_ref()),
        CommandQuery::Info { names } if names.is_empty() => answer(&CommandQuery::All),
        CommandQuery::Info { names } => Reply::Array(
            names.iter().map(|name| find_full(name).map_or(Reply::NullArray, info)).collect(),
        ),
        CommandQuery::Docs { names } if names.is_empty() => {
            Reply::Map(spec::all().map(docs).collect())
        }
        CommandQuery::Docs { names } => {
            Reply::Map(names.iter().filter_map(|name| find_full(name)).map(docs).collect())
        }
        CommandQuery::GetKeys { keys } => {
            Reply::Array(keys.iter().map(|key| Reply::Bulk(key.clone())).collect())
        }
        CommandQuery::GetKeysAndFlags { keys } => Reply::Array(
            keys.iter()
                .map(|(key, flags)| Reply::Array(vec![Reply::Bulk(key.clone()), status_set(flags)]))
                .collect(),
        ),
    }
}

/// Answers `ACL CAT`.
#[must_use]
pub fn categories(category: Option<&[u8]>) -> Reply {
    let Some(category) = category else {
        return Reply::Array(CATEGORIES.iter().map(|name| bulk(name)).collect());
    };
    let Some(name) = CATEGORIES.iter().find(|name| name.as_bytes().eq_ignore_ascii_case(category))
    else {
        return Reply::error(format!("ERR Unknown category '{}'", printable(category)));
    };
    let commands = spec::all().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands));
    Reply::Array(commands.filter(|spec| has_category(spec, name)).map(|s| bulk(s.name)).collect())
}

/// Answers `<container> HELP`.
#[must_use]
pub fn help(container: &str) -> Reply {
    let name = container.to_ascii_uppercase();
    let mut lines =
        vec![format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")];
    for spec in find(container.as_bytes()).map_or(&[][..], |spec| spec.subcommands) {
        let (_, subcommand) = spec.name.split_once('|').unwrap_or_default();
        lines.push(subcommand.to_ascii_uppercase());
        lines.push(format!("    {}", spec.summary));
    }
    Reply::Array(lines.into_iter().map(Reply::simple).collect())
}

/// The keys of a command line, and what the command does with each.
///
/// # Errors
/// As `COMMAND GETKEYS`.
pub fn keys_of(argv: &[Bytes]) -> Result<Vec<(Bytes, &'static [&'static str])>, CommandError> {
    let spec = argv.first().and_then(|name| find(name)).and_then(|spec| match argv.get(1) {
        Some(name) if !spec.subcommands.is_empty() => spec::find_subcommand(spec, name),
        Some(_) | None => Some(spec),
    });
    let Some(spec) = spec else {
        return Err(CommandError::Other("ERR Invalid command specified"));
    };
    if spec.keys.is_empty() {
        return Err(CommandError::Other("ERR The command has no key arguments"));
    }
    if !spec.accepts(argv.len()) {
        return Err(CommandError::Other("ERR Invalid number of arguments specified for command"));
    }
    let keys = spec
        .keys
        .iter()
        .flat_map(|keys| keys.indexes(argv.len()).map(|index| (argv[index].clone(), keys.access)));
    Ok(keys.collect())
}

const CATEGORIES: &[&str] = &[
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// Commands that Redis puts into categories beyond what their flags and group say.
const CONNECTION_COMMANDS: &[&str] =
    &["wait", "waitaof", "command", "readonly", "readwrite", "asking"];
const DANGEROUS_COMMANDS: &[&str] = &["keys", "flushdb", "flushall", "info", "role"];

fn has_category(spec: &Spec, category: &str) -> bool {
    let container = spec.name.split('|').next().unwrap_or_default();
    let is_container = !spec.subcommands.is_empty() && spec.arity == -2;
    match category {
        "keyspace" => {
            spec.group == "generic" && !is_container && !CONNECTION_COMMANDS.contains(&container)
                || matches!(container, "dbsize" | "flushdb" | "flushall")
        }
        "read" => spec.flags.has(Flags::READONLY),
        "write" => spec.flags.has(Flags::WRITE),
        "string" => spec.group == "string",
        "bitmap" => spec.group == "bitmap",
        "pubsub" => spec.flags.has(Flags::PUBSUB),
        "admin" => spec.flags.has(Flags::ADMIN) || container == "role",
        "fast" => spec.flags.has(Flags::FAST),
        "slow" => !spec.flags.has(Flags::FAST),
        "dangerous" => spec.flags.has(Flags::ADMIN) || DANGEROUS_COMMANDS.contains(&container),
        "connection" => {
            !is_container
                && (spec.group == "connection" || CONNECTION_COMMANDS.contains(&container))
        }
        "transaction" => spec.group == "transactions",
        _ => false,
    }
}

/// A command, or `container|subcommand`.
fn find_full(name: &[u8]) -> Option<&'static Spec> {
    match name.iter().position(|&byte| byte == b'|') {
        None => find(name),
        Some(at) => spec::find_subcommand(find(&name[..at])?, &name[at + 1..]),
    }
}

fn list(filter: Option<&CommandFilter>) -> Reply {
    let matches = |spec: &&Spec| match filter {
        None => true,
        Some(CommandFilter::Module(_)) => false,
        Some(CommandFilter::AclCategory(category)) => CATEGORIES
            .iter()
            .find(|name| name.as_bytes().eq_ignore_ascii_case(category))
            .is_some_and(|name| has_category(spec, name)),
        Some(CommandFilter::Pattern(pattern)) => {
            glob::matches(&pattern.to_ascii_lowercase(), spec.name.as_bytes())
        }
    };
    Reply::Array(spec::all().filter(matches).map(|spec| bulk(spec.name)).collect())
}

/// The ten elements of `COMMAND INFO`.
fn info(spec: &Spec) -> Reply {
    let first = spec.keys.first();
    let last = spec.keys.last();
    let integer = |value: Option<i32>| Reply::Integer(value.unwrap_or(0).into());
    let categories = CATEGORIES.iter().filter(|category| has_category(spec, category));
    Reply::Array(vec![
        bulk(spec.name),
        Reply::Integer(spec.arity.into()),
        Reply::Set(spec.flags.names().map(Reply::simple).collect()),
        integer(first.map(|keys| keys.first)),
        integer(last.map(|keys| keys.last)),
        integer(first.map(|keys| keys.step)),
        Reply::Set(categories.map(|category| Reply::simple(format!("@{category}"))).collect()),
        Reply::Array(spec.tips.iter().map(|tip| bulk(tip)).collect()),
        Reply::Array(spec.keys.iter().map(|keys| key_spec(*keys)).collect()),
        Reply::Array(spec.subcommands.iter().map(info).collect()),
    ])
}

fn key_spec(keys: Keys) -> Reply {
    let last = if keys.last < 0 { keys.last } else { keys.last - keys.first };
    let map = |pairs: Vec<(&'static str, Reply)>| {
        Reply::Map(pairs.into_iter().map(|(name, value)| (bulk(name), value)).collect())
    };
    map(vec![
        ("flags", status_set(keys.access)),
        (
            "begin_search",
            map(vec![
                ("type", bulk("index")),
                ("spec", map(vec![("index", Reply::Integer(keys.first.into()))])),
            ]),
        ),
        (
            "find_keys",
            map(vec![
                ("type", bulk("range")),
                (
                    "spec",
                    map(vec![
                        ("lastkey", Reply::Integer(last.into())),
                        ("keystep", Reply::Integer(keys.step.into())),
                        ("limit", Reply::Integer(0)),
                    ]),
                ),
            ]),
        ),
    ])
}

fn docs(spec: &'static Spec) -> (Reply, Reply) {
    let mut pairs = vec![
        (bulk("summary"), bulk(spec.summary)),
        (bulk("since"), bulk(spec.since)),
        (bulk("group"), bulk(spec.group)),
    ];
    if !spec.subcommands.is_empty() {
        let subcommands = Reply::Map(spec.subcommands.iter().map(docs).collect());
        pairs.push((bulk("subcommands"), subcommands));
    }
    (bulk(spec.name), Reply::Map(pairs))
}

fn status_set(names: &'static [&'static str]) -> Reply {
    Reply::Set(names.iter().map(|name| Reply::simple(*name)).collect())
}

fn bulk(text: &'static str) -> Reply {
    Reply::bulk(Bytes::from_static(text.as_bytes()))
}
