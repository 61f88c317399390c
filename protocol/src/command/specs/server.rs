//! The node and its tables.

use bytes::Bytes;

use super::super::catalog;
use super::super::connection::{
    Acl, CommandFilter, CommandQuery, Config, Connection, Latency, Memory, SlowLog,
};
use super::client::parse_timeout;
use super::{
    ALWAYS, ALWAYS_FAST, Args, CommandError, Flags, Keys, OPERATOR, Parsed, READ, Read, SESSION,
    Spec, connection, help, read,
};

const GROUP: &str = "server";
const LOOK: Flags = ALWAYS.and(Flags::ADMIN);

const OF_ALL_NODES: &[&str] =
    &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"];
const OF_ALL_SHARDS: &[&str] =
    &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"];
const ON_ALL_NODES: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];
const UNORDERED: &[&str] = &["nondeterministic_output_order"];

pub(super) const SPECS: &[Spec] = &[
    Spec::new("command", -1, |_| command(CommandQuery::All))
        .flags(ALWAYS)
        .doc(GROUP, "2.8.13", "Describes the commands.")
        .tips(&["nondeterministic_output_order"])
        .subcommands(COMMAND),
    Spec::new("info", -1, parse_info)
        .flags(ALWAYS)
        .doc(GROUP, "1.0.0", "Describes the node.")
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"]),
    Spec::container("config", CONFIG).doc(GROUP, "2.0.0", "Reads and changes settings."),
    Spec::new("role", 1, |_| connection(Connection::Role)).flags(SESSION.and(Flags::FAST)).doc(
        GROUP,
        "2.8.12",
        "Answers whether this node is the primary.",
    ),
    Spec::new("time", 1, |_| connection(Connection::Time))
        .flags(ALWAYS_FAST)
        .doc(GROUP, "2.6.0", "Answers the cluster's time.")
        .tips(&["nondeterministic_output"]),
    Spec::new("wait", 3, |args| {
        connection(Connection::Wait { replicas: args.integer()?, timeout_ms: parse_timeout(args)? })
    })
    .flags(Flags::NOSCRIPT)
    .doc("generic", "3.0.0", "Waits until replicas have this connection's writes in memory.")
    .tips(&["request_policy:all_shards", "response_policy:agg_min"]),
    Spec::new("waitaof", 4, parse_wait_aof)
        .flags(Flags::NOSCRIPT)
        .doc("generic", "7.2.0", "Waits until nodes have this connection's writes on disk.")
        .tips(&["request_policy:all_shards", "response_policy:agg_min"]),
    Spec::container("slowlog", SLOW_LOG).doc(GROUP, "2.2.12", "Reads the log of slow commands."),
    Spec::container("latency", LATENCY).doc(GROUP, "2.8.13", "Reads latencies."),
    Spec::container("memory", MEMORY).doc(GROUP, "4.0.0", "Reads the use of memory."),
    Spec::container("module", MODULE).doc(GROUP, "4.0.0", "Lists modules; there are none."),
    Spec::container("acl", ACL).doc(GROUP, "6.0.0", "Reads users and categories."),
    Spec::new("debug", -2, parse_debug).flags(OPERATOR).doc(
        GROUP,
        "1.0.0",
        "Lets a connection sleep.",
    ),
    Spec::new("shutdown", -1, parse_shutdown)
        .flags(OPERATOR.and(Flags::NO_MULTI).and(Flags::ALLOW_BUSY))
        .doc(GROUP, "1.0.0", "Stops the node."),
];

const COMMAND: &[Spec] = &[
    Spec::new("command|count", 2, |_| command(CommandQuery::Count)).flags(ALWAYS).doc(
        GROUP,
        "2.8.13",
        "Counts the commands.",
    ),
    Spec::new("command|docs", -2, |args| command(CommandQuery::Docs { names: args.rest() }))
        .flags(ALWAYS)
        .doc(GROUP, "7.0.0", "Explains commands.")
        .tips(UNORDERED),
    Spec::new("command|getkeys", -4, |args| {
        let keys = catalog::keys_of(&args.rest())?.into_iter().map(|(key, _)| key).collect();
        command(CommandQuery::GetKeys { keys })
    })
    .flags(ALWAYS)
    .doc(GROUP, "2.8.13", "Finds the keys of a command."),
    Spec::new("command|getkeysandflags", -4, |args| {
        command(CommandQuery::GetKeysAndFlags { keys: catalog::keys_of(&args.rest())? })
    })
    .flags(ALWAYS)
    .doc(GROUP, "7.0.0", "Finds the keys of a command and what it does with them."),
    Spec::new("command|help", 2, help).flags(ALWAYS).doc(GROUP, "5.0.0", "Lists the subcommands."),
    Spec::new("command|info", -2, |args| command(CommandQuery::Info { names: args.rest() }))
        .flags(ALWAYS)
        .doc(GROUP, "2.8.13", "Describes commands.")
        .tips(UNORDERED),
    Spec::new("command|list", -2, parse_command_list)
        .flags(ALWAYS)
        .doc(GROUP, "7.0.0", "Lists the names of commands.")
        .tips(UNORDERED),
];

const CONFIG: &[Spec] = &[
    Spec::new("config|get", -3, |args| config(Config::Get { patterns: args.rest() }))
        .flags(OPERATOR)
        .doc(GROUP, "2.0.0", "Answers settings."),
    Spec::new("config|help", 2, help).flags(ALWAYS).doc(GROUP, "5.0.0", "Lists the subcommands."),
    Spec::new("config|resetstat", 2, |_| config(Config::ResetStat)).flags(OPERATOR).doc(
        GROUP,
        "2.0.0",
        "Sets counters to zero.",
    ),
    Spec::new("config|rewrite", 2, |_| config(Config::Rewrite)).flags(OPERATOR).doc(
        GROUP,
        "2.8.0",
        "The settings file is never written by the node.",
    ),
    Spec::new("config|set", -4, parse_config_set)
        .flags(OPERATOR)
        .doc(GROUP, "2.0.0", "Changes settings.")
        .tips(ON_ALL_NODES),
];

const SLOW_LOG: &[Spec] = &[
    Spec::new("slowlog|get", -2, parse_slow_log_get)
        .flags(LOOK)
        .doc(GROUP, "2.2.12", "Answers entries, the newest first.")
        .tips(&["request_policy:all_nodes", "nondeterministic_output"]),
    Spec::new("slowlog|help", 2, help).flags(ALWAYS).doc(GROUP, "6.2.0", "Lists the subcommands."),
    Spec::new("slowlog|len", 2, |_| connection(Connection::SlowLog(SlowLog::Len)))
        .flags(LOOK)
        .doc(GROUP, "2.2.12", "Counts the entries.")
        .tips(&["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"]),
    Spec::new("slowlog|reset", 2, |_| connection(Connection::SlowLog(SlowLog::Reset)))
        .flags(LOOK)
        .doc(GROUP, "2.2.12", "Removes the entries.")
        .tips(ON_ALL_NODES),
];

const LATENCY: &[Spec] = &[
    Spec::new("latency|doctor", 2, |_| latency(Latency::Doctor))
        .flags(OPERATOR)
        .doc(GROUP, "2.8.13", "Explains latencies in words.")
        .tips(OF_ALL_NODES),
    Spec::new("latency|graph", 3, |args| latency(Latency::Graph { event: args.take()? }))
        .flags(OPERATOR)
        .doc(GROUP, "2.8.13", "Draws the latencies of an event.")
        .tips(OF_ALL_NODES),
    Spec::new("latency|help", 2, help).flags(ALWAYS).doc(GROUP, "2.8.13", "Lists the subcommands."),
    Spec::new("latency|histogram", -2, |args| {
        latency(Latency::Histogram { commands: args.rest() })
    })
    .flags(OPERATOR)
    .doc(GROUP, "7.0.0", "Answers how latencies are distributed.")
    .tips(OF_ALL_NODES),
    Spec::new("latency|history", 3, |args| latency(Latency::History { event: args.take()? }))
        .flags(OPERATOR)
        .doc(GROUP, "2.8.13", "Answers the latencies of an event over time.")
        .tips(OF_ALL_NODES),
    Spec::new("latency|latest", 2, |_| latency(Latency::Latest))
        .flags(OPERATOR)
        .doc(GROUP, "2.8.13", "Answers the latest latency of each event.")
        .tips(OF_ALL_NODES),
    Spec::new("latency|reset", -2, |args| latency(Latency::Reset { events: args.rest() }))
        .flags(OPERATOR)
        .doc(GROUP, "2.8.13", "Removes recorded latencies.")
        .tips(ON_ALL_NODES),
];

const MEMORY: &[Spec] = &[
    Spec::new("memory|doctor", 2, |_| memory(Memory::Doctor))
        .doc(GROUP, "4.0.0", "Explains the use of memory in words.")
        .tips(OF_ALL_SHARDS),
    Spec::new("memory|help", 2, help).flags(ALWAYS).doc(GROUP, "4.0.0", "Lists the subcommands."),
    Spec::new("memory|malloc-stats", 2, |_| memory(Memory::MallocStats))
        .doc(GROUP, "4.0.0", "Answers figures of the allocator.")
        .tips(OF_ALL_SHARDS),
    Spec::new("memory|purge", 2, |_| memory(Memory::Purge))
        .doc(GROUP, "4.0.0", "Gives memory back to the system.")
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    Spec::new("memory|stats", 2, |_| memory(Memory::Stats))
        .doc(GROUP, "4.0.0", "Answers figures on the use of memory.")
        .tips(OF_ALL_SHARDS),
    Spec::new("memory|usage", -3, parse_memory_usage)
        .flags(READ)
        .keys(&[Keys::new(2, 2, 1, &["RO"])])
        .doc(GROUP, "4.0.0", "Answers how many bytes a key takes."),
];

const MODULE: &[Spec] = &[
    Spec::new("module|help", 2, help).flags(ALWAYS).doc(GROUP, "5.0.0", "Lists the subcommands."),
    Spec::new("module|list", 2, |_| connection(Connection::ModuleList))
        .flags(Flags::ADMIN.and(Flags::NOSCRIPT))
        .doc(GROUP, "4.0.0", "Lists modules; there are none.")
        .tips(UNORDERED),
];

const ACL: &[Spec] = &[
    Spec::new("acl|cat", -2, parse_acl_cat).flags(SESSION).doc(
        GROUP,
        "6.0.0",
        "Lists categories, or the commands of one.",
    ),
    Spec::new("acl|getuser", 3, |args| acl(Acl::GetUser { user: args.take()? }))
        .flags(OPERATOR)
        .doc(GROUP, "6.0.0", "Describes a user."),
    Spec::new("acl|help", 2, help).flags(ALWAYS).doc(GROUP, "6.0.0", "Lists the subcommands."),
    Spec::new("acl|list", 2, |_| acl(Acl::List)).flags(OPERATOR).doc(
        GROUP,
        "6.0.0",
        "Lists users and what they may do.",
    ),
    Spec::new("acl|users", 2, |_| acl(Acl::Users)).flags(OPERATOR).doc(
        GROUP,
        "6.0.0",
        "Lists the names of users.",
    ),
    Spec::new("acl|whoami", 2, |_| acl(Acl::WhoAmI)).flags(SESSION).doc(
        GROUP,
        "6.0.0",
        "Answers this connection's user.",
    ),
];

fn command(query: CommandQuery) -> Parsed {
    connection(Connection::Command(query))
}

fn config(config: Config) -> Parsed {
    connection(Connection::Config(config))
}

fn latency(latency: Latency) -> Parsed {
    connection(Connection::Latency(latency))
}

fn memory(memory: Memory) -> Parsed {
    connection(Connection::Memory(memory))
}

fn acl(acl: Acl) -> Parsed {
    connection(Connection::Acl(acl))
}

fn parse_info(args: &mut Args<'_>) -> Parsed {
    let sections = args
        .rest()
        .iter()
        .map(|section| String::from_utf8_lossy(section).to_ascii_lowercase())
        .collect();
    connection(Connection::Info { sections })
}

fn parse_command_list(args: &mut Args<'_>) -> Parsed {
    if args.left() == 0 {
        return command(CommandQuery::List { filter: None });
    }
    if !args.take_word("FILTERBY") {
        return Err(CommandError::Syntax);
    }
    let filter: fn(Bytes) -> CommandFilter = if args.take_word("MODULE") {
        CommandFilter::Module
    } else if args.take_word("ACLCAT") {
        CommandFilter::AclCategory
    } else if args.take_word("PATTERN") {
        CommandFilter::Pattern
    } else {
        return Err(CommandError::Syntax);
    };
    let filter = Some(filter(args.take()?));
    args.end()?;
    command(CommandQuery::List { filter })
}

fn parse_config_set(args: &mut Args<'_>) -> Parsed {
    if args.left() % 2 == 1 {
        return Err(CommandError::Syntax);
    }
    let mut pairs = Vec::with_capacity(args.left() / 2);
    while args.left() > 0 {
        pairs.push((args.take()?, args.take()?));
    }
    config(Config::Set { pairs })
}

fn parse_wait_aof(args: &mut Args<'_>) -> Parsed {
    let local = args.integer()?;
    if !(0..=1).contains(&local) {
        return Err(CommandError::Other("ERR value is out of range, value must between 0 and 1"));
    }
    let replicas = args.integer()?;
    if replicas < 0 {
        return Err(CommandError::Other("ERR value is out of range, must be positive"));
    }
    connection(Connection::WaitAof { local, replicas, timeout_ms: parse_timeout(args)? })
}

fn parse_slow_log_get(args: &mut Args<'_>) -> Parsed {
    let mut count = Some(10);
    if args.left() > 0 {
        let number = args.integer().ok().filter(|&number| number >= -1);
        let number =
            number.ok_or(CommandError::Other("ERR count should be greater than or equal to -1"))?;
        count = u64::try_from(number).ok();
    }
    args.end()?;
    connection(Connection::SlowLog(SlowLog::Get { count }))
}

fn parse_memory_usage(args: &mut Args<'_>) -> Parsed {
    let key = args.key()?;
    if args.take_word("SAMPLES") {
        args.integer()?;
    }
    args.end()?;
    read(Read::MemoryUsage { key })
}

fn parse_acl_cat(args: &mut Args<'_>) -> Parsed {
    let category = if args.left() > 0 { Some(args.take()?) } else { None };
    if args.left() > 0 {
        return Err(CommandError::Other(
            "ERR unknown subcommand or wrong number of arguments for 'CAT'. Try ACL HELP.",
        ));
    }
    acl(Acl::Cat { category })
}

/// Only `DEBUG SLEEP seconds`.
fn parse_debug(args: &mut Args<'_>) -> Parsed {
    let name = args.peek().map(super::super::error::printable).unwrap_or_default();
    if !args.take_word("SLEEP") || args.left() != 1 {
        return Err(CommandError::Text(format!(
            "ERR unknown subcommand or wrong number of arguments for '{name}'. Try DEBUG HELP."
        )));
    }
    let seconds = std::str::from_utf8(&args.take()?)
        .ok()
        .and_then(|text| text.parse::<f64>().ok())
        .filter(|seconds| (0.0..=3600.0).contains(seconds))
        .ok_or(CommandError::NotAFloat)?;
    connection(Connection::DebugSleep { millis: (seconds * 1000.0) as u64 })
}

fn parse_shutdown(args: &mut Args<'_>) -> Parsed {
    let (mut save, mut now, mut force, mut abort) = (None, false, false, false);
    while args.left() > 0 {
        if save.is_none() && args.take_word("NOSAVE") {
            save = Some(false);
        } else if save.is_none() && args.take_word("SAVE") {
            save = Some(true);
        } else if args.take_word("NOW") {
            now = true;
        } else if args.take_word("FORCE") {
            force = true;
        } else if args.take_word("ABORT") {
            abort = true;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if abort && (save.is_some() || now || force) {
        return Err(CommandError::Syntax);
    }
    connection(Connection::Shutdown { save, now, force, abort })
}
