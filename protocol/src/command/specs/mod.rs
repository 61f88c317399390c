//! The commands: for each its entry in the table and how its arguments are read.

mod bitmaps;
mod client;
mod cluster;
mod connections;
mod keys;
mod own;
mod pubsub;
mod server;
mod strings;
mod transactions;

use bytes::Bytes;

use super::args::Args;
use super::connection::Connection;
use super::error::CommandError;
use super::model::{Command, Read, When, Write};
use super::number::parse_i64;
use super::spec::{Flags, Keys, Spec};

/// All commands.
pub(super) const GROUPS: &[&[Spec]] = &[
    strings::SPECS,
    keys::SPECS,
    bitmaps::SPECS,
    transactions::SPECS,
    connections::SPECS,
    server::SPECS,
    cluster::SPECS,
    pubsub::SPECS,
    own::SPECS,
];

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE;
const WRITE_FAST: Flags = Flags::WRITE.and(Flags::FAST);
const GROW: Flags = Flags::WRITE.and(Flags::DENYOOM);
const GROW_FAST: Flags = GROW.and(Flags::FAST);
/// Works on a node that has no primary yet.
const ALWAYS: Flags = Flags::LOADING.and(Flags::STALE);
const ALWAYS_FAST: Flags = ALWAYS.and(Flags::FAST);
const SESSION: Flags = ALWAYS.and(Flags::NOSCRIPT);
const OPERATOR: Flags = SESSION.and(Flags::ADMIN);

const fn one_key(access: &'static [&'static str]) -> Keys {
    Keys::new(1, 1, 1, access)
}

const KEY_READ: &[Keys] = &[one_key(&["RO", "access"])];
const KEY_TOUCHED: &[Keys] = &[one_key(&["RO"])];
const KEY_UPDATED: &[Keys] = &[one_key(&["RW", "update"])];
const KEY_READ_AND_UPDATED: &[Keys] = &[one_key(&["RW", "access", "update"])];
const KEYS_READ: &[Keys] = &[Keys::new(1, -1, 1, &["RO", "access"])];
const KEYS_TOUCHED: &[Keys] = &[Keys::new(1, -1, 1, &["RO"])];
const KEYS_DELETED: &[Keys] = &[Keys::new(1, -1, 1, &["RM", "delete"])];

type Parsed = Result<Command, CommandError>;

#[expect(clippy::unnecessary_wraps, reason = "the result of a parse function")]
fn read(read: Read) -> Parsed {
    Ok(Command::Read(read))
}

#[expect(clippy::unnecessary_wraps, reason = "the result of a parse function")]
fn write(write: Write) -> Parsed {
    Ok(Command::Write(write))
}

#[expect(clippy::unnecessary_wraps, reason = "the result of a parse function")]
fn connection(connection: Connection) -> Parsed {
    Ok(Command::Connection(Box::new(connection)))
}

/// `<container> HELP`
fn help(args: &mut Args<'_>) -> Parsed {
    let container = args.spec().name.split('|').next().unwrap_or_default();
    connection(Connection::Help { container })
}

/// Latest cluster time that an expiry may be counted from, in milliseconds: the year 3084. What
/// lies beyond the end of time for it is refused, whatever the time will be when it is applied.
const NOW_MS_MAX: i64 = 1 << 45;

/// How the number of an expiry counts.
#[derive(Clone, Copy, PartialEq, Eq)]
struct ExpiryUnit {
    millis: i64,
    absolute: bool,
}

impl ExpiryUnit {
    const SECONDS: Self = Self { millis: 1000, absolute: false };
    const MILLIS: Self = Self { millis: 1, absolute: false };
    const AT_SECONDS: Self = Self { millis: 1000, absolute: true };
    const AT_MILLIS: Self = Self { millis: 1, absolute: true };

    /// The moment; `None` if it is beyond the end of time.
    fn when(self, number: i64) -> Option<When> {
        let millis = number.checked_mul(self.millis)?;
        if self.absolute {
            return Some(When::At(millis));
        }
        (millis <= i64::MAX - NOW_MS_MAX).then_some(When::After(millis))
    }

    /// As [`ExpiryUnit::when`] for a text that must be a positive number.
    fn positive(self, text: &Bytes, name: &'static str) -> Result<When, CommandError> {
        let number = parse_i64(text).ok_or(CommandError::NotAnInteger)?;
        Some(number)
            .filter(|&number| number > 0)
            .and_then(|number| self.when(number))
            .ok_or(CommandError::InvalidExpireTime { name })
    }
}
