//! Why a command was refused before it was carried out, in Redis's words.

use std::borrow::Cow;

use bytes::Bytes;
use thiserror::Error;

use crate::resp::Reply;

/// A command that is not carried out. Its `Display` is the error line without the dash.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommandError {
    /// No command has this name.
    #[error("ERR unknown command '{name}', with args beginning with: {args}")]
    UnknownCommand {
        /// The name, cut to 128 bytes, printable.
        name: String,
        /// The first arguments, quoted, about 128 bytes.
        args: String,
    },
    /// A container command has no such subcommand.
    #[error("ERR unknown subcommand '{name}'. Try {container} HELP.")]
    UnknownSubcommand {
        /// What was asked for, cut to 128 bytes, printable.
        name: String,
        /// The container, upper case.
        container: String,
    },
    /// Too few or too many arguments.
    #[error("ERR wrong number of arguments for '{name}' command")]
    WrongArity {
        /// The command, lower case; `container|subcommand` for a subcommand.
        name: String,
    },
    /// Arguments that don't fit together.
    #[error("ERR syntax error")]
    Syntax,
    /// A number that isn't one.
    #[error("ERR value is not an integer or out of range")]
    NotAnInteger,
    /// A decimal number that isn't one.
    #[error("ERR value is not a valid float")]
    NotAFloat,
    /// An expiry that isn't positive, or beyond the end of time.
    #[error("ERR invalid expire time in '{name}' command")]
    InvalidExpireTime {
        /// The command, lower case.
        name: &'static str,
    },
    /// A key longer than [`super::KEY_BYTES_MAX`].
    #[error("ERR key is too long: {bytes} bytes, at most {max} are allowed", max = super::KEY_BYTES_MAX)]
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// One of Redis's other texts, with its code.
    #[error("{0}")]
    Other(&'static str),
    /// As `Other`, for texts that repeat an argument.
    #[error("{0}")]
    Text(String),
}

impl CommandError {
    /// Whether the command can't even be queued in a transaction, so that `EXEC` will refuse it
    /// as a whole. Other errors are the reply of their own step.
    #[must_use]
    pub fn aborts_transaction(&self) -> bool {
        match self {
            Self::UnknownCommand { .. }
            | Self::UnknownSubcommand { .. }
            | Self::WrongArity { .. } => true,
            Self::Syntax
            | Self::NotAnInteger
            | Self::NotAFloat
            | Self::InvalidExpireTime { .. }
            | Self::KeyTooLong { .. }
            | Self::Other(_)
            | Self::Text(_) => false,
        }
    }

    /// The error as a reply.
    #[must_use]
    pub fn to_reply(&self) -> Reply {
        match self {
            Self::Syntax => Reply::Error(Cow::Borrowed("ERR syntax error")),
            Self::Other(text) => Reply::Error(Cow::Borrowed(text)),
            error => Reply::Error(Cow::Owned(error.to_string())),
        }
    }

    /// For an argv whose first element names no command.
    #[must_use]
    pub(super) fn unknown_command(argv: &[Bytes]) -> Self {
        let mut args = String::new();
        for arg in argv.iter().skip(1) {
            if args.len() >= SHOWN_BYTES {
                break;
            }
            let room = SHOWN_BYTES - args.len();
            args.push('\'');
            args.push_str(&printable(&arg[..arg.len().min(room)]));
            args.push_str("' ");
        }
        Self::UnknownCommand { name: shown(&argv[0]), args }
    }

    /// For a container whose subcommand is unknown.
    #[must_use]
    pub(super) fn unknown_subcommand(container: &str, name: &[u8]) -> Self {
        Self::UnknownSubcommand { name: shown(name), container: container.to_ascii_uppercase() }
    }
}

/// Bytes of an argument that an error repeats.
const SHOWN_BYTES: usize = 128;

fn shown(bytes: &[u8]) -> String {
    printable(&bytes[..bytes.len().min(SHOWN_BYTES)])
}

/// Text that can't break the protocol's framing.
pub(super) fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if matches!(c, '\r' | '\n' | '\0') { ' ' } else { c })
        .collect()
}
