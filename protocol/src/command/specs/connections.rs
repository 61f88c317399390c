//! The connection itself.

use super::super::connection::{Connection, Hello};
use super::super::error::printable;
use super::{ALWAYS_FAST, Args, CommandError, Flags, Parsed, SESSION, Spec, client, connection};

const GROUP: &str = "connection";
const OPEN: Flags = SESSION.and(Flags::FAST).and(Flags::NO_AUTH).and(Flags::ALLOW_BUSY);

pub(super) const SPECS: &[Spec] = &[
    Spec::new("ping", -1, parse_ping)
        .flags(Flags::FAST)
        .doc(GROUP, "1.0.0", "Answers PONG, or its argument.")
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    Spec::new("echo", 2, |args| connection(Connection::Echo { message: args.take()? }))
        .flags(ALWAYS_FAST)
        .doc(GROUP, "1.0.0", "Answers its argument."),
    Spec::new("hello", -1, parse_hello).flags(OPEN).doc(
        GROUP,
        "6.0.0",
        "Chooses the protocol, and may authenticate.",
    ),
    Spec::new("auth", -2, parse_auth).flags(OPEN).doc(GROUP, "1.0.0", "Authenticates."),
    Spec::new("select", 2, |args| connection(Connection::Select { database: args.integer()? }))
        .flags(ALWAYS_FAST)
        .doc(GROUP, "1.0.0", "Chooses a database: there is only 0."),
    Spec::new("quit", -1, |_| connection(Connection::Quit)).flags(OPEN).doc(
        GROUP,
        "1.0.0",
        "Closes the connection.",
    ),
    Spec::new("reset", 1, |_| connection(Connection::Reset)).flags(OPEN).doc(
        GROUP,
        "6.2.0",
        "Makes the connection as if it were new.",
    ),
    Spec::container("client", client::SUBCOMMANDS).doc(
        GROUP,
        "2.4.0",
        "Looks at connections and changes them.",
    ),
];

fn parse_ping(args: &mut Args<'_>) -> Parsed {
    let message = if args.left() > 0 { Some(args.take()?) } else { None };
    if args.left() > 0 {
        return Err(CommandError::WrongArity { name: "ping".to_owned() });
    }
    connection(Connection::Ping { message })
}

fn parse_auth(args: &mut Args<'_>) -> Parsed {
    let first = args.take()?;
    let (user, password) =
        if args.left() == 0 { (None, first) } else { (Some(first), args.take()?) };
    args.end()?;
    connection(Connection::Auth { user, password })
}

fn parse_hello(args: &mut Args<'_>) -> Parsed {
    let mut hello = Hello::default();
    if args.left() > 0 {
        let version = args.integer().map_err(|_| {
            CommandError::Other("ERR Protocol version is not an integer or out of range")
        })?;
        hello.version = match version {
            2 => Some(2),
            3 => Some(3),
            _ => return Err(CommandError::Other("NOPROTO unsupported protocol version")),
        };
    }
    while let Some(option) = args.peek().map(printable) {
        if args.left() >= 3 && args.take_word("AUTH") {
            hello.auth = Some((args.take()?, args.take()?));
        } else if args.left() >= 2 && args.take_word("SETNAME") {
            hello.name = Some(client::parse_name(args)?);
        } else {
            return Err(CommandError::Text(format!("ERR Syntax error in HELLO option '{option}'")));
        }
    }
    connection(Connection::Hello(hello))
}
