//! `CLIENT …`

use bytes::Bytes;

use super::super::connection::{
    Client, ClientAttribute, ClientFilters, ClientKill, ClientKind, ClientReply, Connection,
};
use super::super::error::printable;
use super::super::number::parse_u64;
use super::{ALWAYS, Args, CommandError, OPERATOR, Parsed, SESSION, Spec, connection, help};

const GROUP: &str = "connection";

const UNSTEADY: &[&str] = &["nondeterministic_output"];

pub(super) const SUBCOMMANDS: &[Spec] = &[
    Spec::new("client|getname", 2, |_| client(Client::GetName)).flags(SESSION).doc(
        GROUP,
        "2.6.9",
        "Answers the name of this connection.",
    ),
    Spec::new("client|getredir", 2, |_| client(Client::GetRedir)).flags(SESSION).doc(
        GROUP,
        "6.0.0",
        "Tracking is not offered: -1.",
    ),
    Spec::new("client|help", 2, help).flags(ALWAYS).doc(GROUP, "5.0.0", "Lists the subcommands."),
    Spec::new("client|id", 2, |_| client(Client::Id)).flags(SESSION).doc(
        GROUP,
        "5.0.0",
        "Answers the number of this connection.",
    ),
    Spec::new("client|info", 2, |_| client(Client::Info))
        .flags(SESSION)
        .doc(GROUP, "6.2.0", "Describes this connection.")
        .tips(UNSTEADY),
    Spec::new("client|kill", -3, parse_kill).flags(OPERATOR).doc(
        GROUP,
        "2.4.0",
        "Closes connections.",
    ),
    Spec::new("client|list", -2, parse_list)
        .flags(OPERATOR)
        .doc(GROUP, "2.4.0", "Lists connections.")
        .tips(UNSTEADY),
    Spec::new("client|no-evict", 3, |args| client(Client::NoEvict { on: parse_switch(args)? }))
        .flags(OPERATOR)
        .doc(GROUP, "7.0.0", "Protects this connection when memory is short."),
    Spec::new("client|no-touch", 3, |args| client(Client::NoTouch { on: parse_switch(args)? }))
        .flags(SESSION)
        .doc(GROUP, "7.2.0", "Lets reads leave no trace of use; none is kept."),
    Spec::new("client|pause", -3, parse_pause).flags(OPERATOR).doc(
        GROUP,
        "2.9.50",
        "Lets commands wait for a time.",
    ),
    Spec::new("client|reply", 3, parse_reply).flags(SESSION).doc(
        GROUP,
        "3.2.0",
        "Turns replies on or off.",
    ),
    Spec::new("client|setinfo", 4, parse_set_info).flags(SESSION).doc(
        GROUP,
        "7.2.0",
        "Tells which library the client uses.",
    ),
    Spec::new("client|setname", 3, |args| client(Client::SetName { name: parse_name(args)? }))
        .flags(SESSION)
        .doc(GROUP, "2.6.9", "Names this connection."),
    Spec::new("client|tracking", -3, |args| {
        let on = parse_switch(args)?;
        args.rest();
        client(Client::Tracking { on })
    })
    .flags(SESSION)
    .doc(GROUP, "6.0.0", "Tracking is not offered."),
    Spec::new("client|trackinginfo", 2, |_| client(Client::TrackingInfo)).flags(SESSION).doc(
        GROUP,
        "6.2.0",
        "Tracking is not offered: off.",
    ),
    Spec::new("client|unblock", -3, parse_unblock).flags(OPERATOR).doc(
        GROUP,
        "5.0.0",
        "Ends the waiting of a connection.",
    ),
    Spec::new("client|unpause", 2, |_| client(Client::Unpause)).flags(OPERATOR).doc(
        GROUP,
        "6.2.0",
        "Ends a pause.",
    ),
];

fn client(client: Client) -> Parsed {
    connection(Connection::Client(client))
}

/// A name that can stand in the lines of `CLIENT LIST`.
pub(super) fn parse_name(args: &mut Args<'_>) -> Result<Bytes, CommandError> {
    let name = args.take()?;
    if !is_printable(&name) {
        return Err(CommandError::Other(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ));
    }
    Ok(name)
}

fn parse_set_info(args: &mut Args<'_>) -> Parsed {
    let (option, value) = (args.take()?, args.take()?);
    let (attribute, name) = if option.eq_ignore_ascii_case(b"lib-name") {
        (ClientAttribute::LibraryName, "lib-name")
    } else if option.eq_ignore_ascii_case(b"lib-ver") {
        (ClientAttribute::LibraryVersion, "lib-ver")
    } else {
        let option = printable(&option);
        return Err(CommandError::Text(format!("ERR Unrecognized option '{option}'")));
    };
    if !is_printable(&value) {
        return Err(CommandError::Text(format!(
            "ERR {name} cannot contain spaces, newlines or special characters."
        )));
    }
    client(Client::SetInfo { attribute, value })
}

fn is_printable(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_graphic)
}

fn parse_switch(args: &mut Args<'_>) -> Result<bool, CommandError> {
    if args.take_word("ON") {
        return Ok(true);
    }
    if args.take_word("OFF") { Ok(false) } else { Err(CommandError::Syntax) }
}

fn parse_reply(args: &mut Args<'_>) -> Parsed {
    let reply = [("ON", ClientReply::On), ("OFF", ClientReply::Off), ("SKIP", ClientReply::Skip)]
        .into_iter()
        .find_map(|(word, reply)| args.take_word(word).then_some(reply))
        .ok_or(CommandError::Syntax)?;
    client(Client::Reply(reply))
}

fn parse_list(args: &mut Args<'_>) -> Parsed {
    let (mut kind, mut ids) = (None, Vec::new());
    if args.left() == 2 && args.take_word("TYPE") {
        kind = Some(parse_kind(args)?);
    } else if args.left() >= 2 && args.take_word("ID") {
        for id in args.rest() {
            let id = parse_u64(&id).filter(|&id| id > 0);
            ids.push(id.ok_or(CommandError::Other("ERR Invalid client ID"))?);
        }
    }
    args.end()?;
    client(Client::List { kind, ids })
}

fn parse_kind(args: &mut Args<'_>) -> Result<ClientKind, CommandError> {
    [
        ("NORMAL", ClientKind::Normal),
        ("SLAVE", ClientKind::Replica),
        ("REPLICA", ClientKind::Replica),
        ("MASTER", ClientKind::Master),
        ("PUBSUB", ClientKind::PubSub),
    ]
    .into_iter()
    .find_map(|(word, kind)| args.take_word(word).then_some(kind))
    .ok_or_else(|| {
        let word = args.peek().map(printable).unwrap_or_default();
        CommandError::Text(format!("ERR Unknown client type '{word}'"))
    })
}

fn parse_kill(args: &mut Args<'_>) -> Parsed {
    if args.left() == 1 {
        return client(Client::Kill(ClientKill::Address(args.take()?)));
    }
    let mut filters = ClientFilters { skip_me: true, ..ClientFilters::default() };
    while args.left() > 0 {
        if args.left() == 1 {
            return Err(CommandError::Syntax);
        }
        if args.take_word("ID") {
            let id = parse_u64(&args.take()?).filter(|&id| id > 0);
            filters.id =
                Some(id.ok_or(CommandError::Other("ERR client-id should be greater than 0"))?);
        } else if args.take_word("TYPE") {
            filters.kind = Some(parse_kind(args)?);
        } else if args.take_word("USER") {
            filters.user = Some(args.take()?);
        } else if args.take_word("ADDR") {
            filters.address = Some(args.take()?);
        } else if args.take_word("LADDR") {
            filters.local_address = Some(args.take()?);
        } else if args.take_word("SKIPME") {
            filters.skip_me = args.take_word("YES");
            if !filters.skip_me && !args.take_word("NO") {
                return Err(CommandError::Syntax);
            }
        } else {
            return Err(CommandError::Syntax);
        }
    }
    client(Client::Kill(ClientKill::Filters(filters)))
}

fn parse_pause(args: &mut Args<'_>) -> Parsed {
    let timeout_ms = parse_timeout(args)?;
    let writes_only = args.take_word("WRITE");
    if !writes_only && args.left() > 0 && !args.take_word("ALL") {
        return Err(CommandError::Other("ERR CLIENT PAUSE mode must be WRITE or ALL"));
    }
    args.end()?;
    client(Client::Pause { timeout_ms, writes_only })
}

/// A time to wait, in milliseconds.
pub(super) fn parse_timeout(args: &mut Args<'_>) -> Result<u64, CommandError> {
    let millis = args
        .integer()
        .map_err(|_| CommandError::Other("ERR timeout is not an integer or out of range"))?;
    u64::try_from(millis).map_err(|_| CommandError::Other("ERR timeout is negative"))
}

fn parse_unblock(args: &mut Args<'_>) -> Parsed {
    let id = args.integer()?.max(0) as u64;
    let error = args.take_word("ERROR");
    if !error && args.left() > 0 && !args.take_word("TIMEOUT") {
        return Err(CommandError::Other("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"));
    }
    args.end()?;
    client(Client::Unblock { id, error })
}
