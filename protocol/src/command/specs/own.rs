//! Quorate's own commands, and the questions of Sentinel clients.

use super::super::connection::{Connection, Quorate, ReadLevel, Sentinel, Session};
use super::{ALWAYS, Args, CommandError, Flags, Parsed, SESSION, Spec, connection, help};

const GROUP: &str = "quorate";
const SENTINEL_GROUP: &str = "sentinel";
const NOT_A_TIME: &str = "ERR value is not an integer or out of range";

pub(super) const SPECS: &[Spec] = &[
    Spec::container("session", SESSION_SUBCOMMANDS).doc(
        GROUP,
        "0.1.0",
        "Changes what this connection asks of reads and writes.",
    ),
    Spec::container("quorate", QUORATE_SUBCOMMANDS).doc(GROUP, "0.1.0", "Describes the node."),
    Spec::container("sentinel", SENTINEL_SUBCOMMANDS).doc(
        SENTINEL_GROUP,
        "2.8.4",
        "Answers who the primary is, as Redis Sentinel does.",
    ),
];

const SESSION_SUBCOMMANDS: &[Spec] = &[
    Spec::new("session|deadline", 3, |args| {
        session(Session::Deadline { millis: args.unsigned(NOT_A_TIME)? })
    })
    .flags(SESSION)
    .doc(GROUP, "0.1.0", "Bounds how long a command may take, in milliseconds."),
    Spec::new("session|durability", -3, parse_durability).flags(SESSION).doc(
        GROUP,
        "0.1.0",
        "Asks for a policy beside the cluster's.",
    ),
    Spec::new("session|help", 2, help).flags(ALWAYS).doc(GROUP, "0.1.0", "Lists the subcommands."),
    Spec::new("session|read", -3, parse_read_level).flags(SESSION).doc(
        GROUP,
        "0.1.0",
        "Chooses where reads come from.",
    ),
    Spec::new("session|token", 3, |args| session(Session::Token { token: args.take()? }))
        .flags(SESSION)
        .doc(GROUP, "0.1.0", "Names the next write, so that it is carried out once."),
];

const QUORATE_SUBCOMMANDS: &[Spec] = &[
    Spec::new("quorate|cursors", 2, |_| quorate(Quorate::Cursors)).flags(ALWAYS).doc(
        GROUP,
        "0.1.0",
        "Answers how far each node is.",
    ),
    Spec::new("quorate|help", 2, help).flags(ALWAYS).doc(GROUP, "0.1.0", "Lists the subcommands."),
    Spec::new("quorate|lastwrite", 2, |_| quorate(Quorate::LastWrite)).flags(ALWAYS).doc(
        GROUP,
        "0.1.0",
        "Answers where this connection's last write is in the log.",
    ),
    Spec::new("quorate|outcome", 4, parse_outcome).flags(ALWAYS).doc(
        GROUP,
        "0.1.0",
        "Answers what became of a write.",
    ),
    Spec::new("quorate|policy", 2, |_| quorate(Quorate::Policy)).flags(ALWAYS).doc(
        GROUP,
        "0.1.0",
        "Answers the policy in force.",
    ),
    Spec::new("quorate|status", 2, |_| quorate(Quorate::Status)).flags(ALWAYS).doc(
        GROUP,
        "0.1.0",
        "Describes node and cluster.",
    ),
];

const SENTINEL_SUBCOMMANDS: &[Spec] = &[
    Spec::new("sentinel|ckquorum", 3, |args| sentinel(Sentinel::CkQuorum { name: args.take()? }))
        .flags(FLAGS)
        .doc(SENTINEL_GROUP, "2.8.4", "Answers whether a primary can be elected."),
    Spec::new("sentinel|get-master-addr-by-name", 3, |args| {
        sentinel(Sentinel::GetMasterAddrByName { name: args.take()? })
    })
    .flags(FLAGS)
    .doc(SENTINEL_GROUP, "2.8.4", "Answers the primary's address."),
    Spec::new("sentinel|help", 2, help).flags(ALWAYS).doc(
        SENTINEL_GROUP,
        "6.2.0",
        "Lists the subcommands.",
    ),
    Spec::new("sentinel|master", 3, |args| sentinel(Sentinel::Master { name: args.take()? }))
        .flags(FLAGS)
        .doc(SENTINEL_GROUP, "2.8.4", "Describes the primary."),
    Spec::new("sentinel|masters", 2, |_| sentinel(Sentinel::Masters)).flags(FLAGS).doc(
        SENTINEL_GROUP,
        "2.8.4",
        "Describes the primary, in a list.",
    ),
    Spec::new("sentinel|myid", 2, |_| sentinel(Sentinel::MyId)).flags(FLAGS).doc(
        SENTINEL_GROUP,
        "6.2.0",
        "Answers the id of this node.",
    ),
    Spec::new("sentinel|replicas", 3, |args| sentinel(Sentinel::Replicas { name: args.take()? }))
        .flags(FLAGS)
        .doc(SENTINEL_GROUP, "5.0.0", "Describes the replicas."),
    Spec::new("sentinel|sentinels", 3, |args| sentinel(Sentinel::Sentinels { name: args.take()? }))
        .flags(FLAGS)
        .doc(SENTINEL_GROUP, "2.8.4", "Describes the other nodes."),
    Spec::new("sentinel|slaves", 3, |args| sentinel(Sentinel::Replicas { name: args.take()? }))
        .flags(FLAGS)
        .doc(SENTINEL_GROUP, "2.8.0", "Describes the replicas, as REPLICAS does."),
];

const FLAGS: Flags = SESSION.and(Flags::ADMIN);

fn session(session: Session) -> Parsed {
    connection(Connection::Session(session))
}

fn quorate(quorate: Quorate) -> Parsed {
    connection(Connection::Quorate(quorate))
}

fn sentinel(sentinel: Sentinel) -> Parsed {
    connection(Connection::Sentinel(sentinel))
}

/// The policy may be one argument or several.
fn parse_durability(args: &mut Args<'_>) -> Parsed {
    let policy = String::from_utf8(args.rest().join(&b' '))
        .map_err(|_| CommandError::Other("ERR a policy is text"))?;
    session(Session::Durability { policy })
}

fn parse_read_level(args: &mut Args<'_>) -> Parsed {
    let level = [
        ("LEASE", ReadLevel::Lease),
        ("CONFIRMED", ReadLevel::Confirmed),
        ("LOCAL", ReadLevel::Local),
    ]
    .into_iter()
    .find_map(|(word, level)| args.take_word(word).then_some(level))
    .ok_or(CommandError::Syntax)?;
    let max_lag_ms = if args.take_word("MAXLAG") { Some(args.unsigned(NOT_A_TIME)?) } else { None };
    args.end()?;
    session(Session::Read { level, max_lag_ms })
}

fn parse_outcome(args: &mut Args<'_>) -> Parsed {
    if args.take_word("TOKEN") {
        return quorate(Quorate::OutcomeOfToken { token: args.take()? });
    }
    let (epoch, seq) = (args.unsigned(NOT_A_TIME)?, args.unsigned(NOT_A_TIME)?);
    quorate(Quorate::Outcome { epoch, seq })
}
