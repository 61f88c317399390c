//! Requests from a buffer that grows as bytes arrive.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::Reply;
use super::inline;
use crate::command::number::parse_i64;

/// Longest line: of an inline request, and of a count or length with its newline missing.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Space that [`RequestParser::wanted`] asks for at most, so that a length which is only announced
/// takes no memory.
const WANTED_MAX: usize = 64 << 10;
/// As Redis before authentication.
const UNAUTHENTICATED_ARGUMENTS_MAX: i64 = 10;
const UNAUTHENTICATED_BULK_BYTES_MAX: i64 = 16 << 10;

/// What a request may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most arguments, the name included.
    pub arguments_max: usize,
    /// Longest argument, in bytes.
    pub bulk_bytes_max: usize,
    /// Longest request, in bytes, with its counts and lengths.
    pub request_bytes_max: usize,
}

impl Default for Limits {
    /// 1 Mi arguments, 16 MiB each, 32 MiB together: a request stays well below what an entry of
    /// the log can hold.
    fn default() -> Self {
        Self {
            arguments_max: 1 << 20,
            bulk_bytes_max: crate::command::VALUE_BYTES_MAX,
            request_bytes_max: 32 << 20,
        }
    }
}

/// Bytes that aren't a request. The connection must be closed after the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// The number of arguments is none, or too large.
    #[error("Protocol error: invalid multibulk length")]
    MultibulkLength,
    /// Too many arguments before authentication.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    /// The number of arguments has no end.
    #[error("Protocol error: too big mbulk count string")]
    MultibulkLine,
    /// An argument doesn't begin with its length.
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    ExpectedBulk(u8),
    /// An argument's length is none, or too large.
    #[error("Protocol error: invalid bulk length")]
    BulkLength,
    /// Too long an argument before authentication.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// An argument's length has no end.
    #[error("Protocol error: too big bulk count string")]
    BulkLine,
    /// An inline request has no end.
    #[error("Protocol error: too big inline request")]
    InlineTooLong,
    /// An inline request with a quote that isn't closed.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// The arguments together are too long.
    #[error("Protocol error: too big request")]
    RequestTooLong,
}

impl ProtocolError {
    /// What the client is told before its connection is closed.
    #[must_use]
    pub fn to_reply(self) -> Reply {
        Reply::error(format!("ERR {self}"))
    }
}

/// Takes requests from the front of a buffer. Remembers how far it got, so that bytes which
/// arrived earlier are not looked at again.
///
/// ```
/// # use quorate_protocol::resp::{Limits, RequestParser};
/// let mut parser = RequestParser::new(Limits::default());
/// let mut input = bytes::BytesMut::from(&b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n*1\r\n$4\r\nPI"[..]);
/// let mut argv = Vec::new();
/// assert_eq!(parser.parse(&mut input, &mut argv), Ok(true));
/// assert_eq!(argv, ["ECHO", "hi"]);
/// assert_eq!(parser.parse(&mut input, &mut argv), Ok(false));
/// input.extend_from_slice(b"NG\r\n");
/// assert_eq!(parser.parse(&mut input, &mut argv), Ok(true));
/// assert_eq!(argv, ["PING"]);
/// ```
#[derive(Debug)]
pub struct RequestParser {
    limits: Limits,
    authenticated: bool,
    /// First byte of the input that isn't understood yet.
    at: usize,
    /// From here on the newline of an unfinished line is looked for.
    searched: usize,
    /// Arguments that are still missing; `None` between requests.
    missing: Option<usize>,
    /// Length of the argument that `at` stands in front of.
    bulk: Option<usize>,
    /// Start and length of the arguments that are whole.
    arguments: Vec<(usize, usize)>,
}

impl RequestParser {
    /// A parser for one connection, not authenticated.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            authenticated: false,
            at: 0,
            searched: 0,
            missing: None,
            bulk: None,
            arguments: Vec::new(),
        }
    }

    /// Until it is told so, the limits are 10 arguments of 16 KiB each.
    pub fn set_authenticated(&mut self, authenticated: bool) {
        self.authenticated = authenticated;
    }

    /// Takes the next request: its arguments, at least one, replace what is in `argv`. They
    /// share the memory of `input`. `false` if more bytes are needed first; until then bytes
    /// may only be appended to `input`.
    ///
    /// # Errors
    /// The bytes are no request; the parser and the input can't be used further.
    pub fn parse(
        &mut self,
        input: &mut BytesMut,
        argv: &mut Vec<Bytes>,
    ) -> Result<bool, ProtocolError> {
        argv.clear();
        loop {
            let whole = match (self.missing, input.first()) {
                (None, None) => false,
                (None, Some(b'*')) => self.read_count(input)?,
                (None, Some(_)) => match self.read_inline(input, argv)? {
                    Some(true) => return Ok(true),
                    Some(false) => true,
                    None => false,
                },
                (Some(_), _) => {
                    if self.read_arguments(input)? {
                        self.take(input, argv);
                        return Ok(true);
                    }
                    false
                }
            };
            if !whole {
                return Ok(false);
            }
        }
    }

    /// How many bytes more, at least, the request in progress needs, capped at 64 KiB: how much
    /// room to make before the next read. 0 if none is in progress or it isn't known.
    #[must_use]
    pub fn wanted(&self, input: &BytesMut) -> usize {
        let end = self.bulk.map_or(0, |len| self.at + len + 2);
        end.saturating_sub(input.len()).min(WANTED_MAX)
    }

    /// Reads `*count`. True if it was there; a count below 1 is no request at all.
    fn read_count(&mut self, input: &mut BytesMut) -> Result<bool, ProtocolError> {
        let Some((count, end)) = self.read_length(input, ProtocolError::MultibulkLine)? else {
            return Ok(false);
        };
        let count = count.ok_or(ProtocolError::MultibulkLength)?;
        if count > self.limits.arguments_max as i64 {
            return Err(ProtocolError::MultibulkLength);
        }
        if !self.authenticated && count > UNAUTHENTICATED_ARGUMENTS_MAX {
            return Err(ProtocolError::UnauthenticatedMultibulkLength);
        }
        if count <= 0 {
            bytes::Buf::advance(input, end);
            self.restart();
        } else {
            self.missing = Some(count as usize);
            self.at = end;
            self.searched = end;
        }
        Ok(true)
    }

    /// Reads arguments for as long as there are bytes. True if all were there.
    fn read_arguments(&mut self, input: &BytesMut) -> Result<bool, ProtocolError> {
        while self.missing.is_some_and(|missing| missing > 0) {
            let len = match self.bulk {
                Some(len) => len,
                None => match self.read_bulk_length(input)? {
                    Some(len) => len,
                    None => return Ok(false),
                },
            };
            let end = self.at + len + 2;
            if input.len() < end {
                return Ok(false);
            }
            self.arguments.push((self.at, len));
            self.bulk = None;
            self.missing = self.missing.map(|missing| missing - 1);
            self.at = end;
            self.searched = end;
        }
        Ok(true)
    }

    fn read_bulk_length(&mut self, input: &BytesMut) -> Result<Option<usize>, ProtocolError> {
        match input.get(self.at) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(&other) => return Err(ProtocolError::ExpectedBulk(other)),
        }
        let Some((len, end)) = self.read_length(input, ProtocolError::BulkLine)? else {
            return Ok(None);
        };
        let max = self.limits.bulk_bytes_max as i64;
        let len = len.filter(|&len| (0..=max).contains(&len)).ok_or(ProtocolError::BulkLength)?;
        if !self.authenticated && len > UNAUTHENTICATED_BULK_BYTES_MAX {
            return Err(ProtocolError::UnauthenticatedBulkLength);
        }
        let len = len as usize;
        if end + len + 2 > self.limits.request_bytes_max {
            return Err(ProtocolError::RequestTooLong);
        }
        self.at = end;
        self.bulk = Some(len);
        Ok(Some(len))
    }

    /// Reads the number between the byte at `at` and the next line break: the number, `None` if
    /// it isn't one, and where the line ends. `None` if the line isn't whole.
    fn read_length(
        &mut self,
        input: &BytesMut,
        too_long: ProtocolError,
    ) -> Result<Option<(Option<i64>, usize)>, ProtocolError> {
        let line = &input[self.at..];
        let from = self.searched.max(self.at) - self.at;
        let Some(end) = find(b'\r', line, from) else {
            if line.len() > LINE_BYTES_MAX {
                return Err(too_long);
            }
            self.searched = input.len();
            return Ok(None);
        };
        if line.len() < end + 2 {
            self.searched = self.at + end;
            return Ok(None);
        }
        Ok(Some((parse_i64(&line[1..end]), self.at + end + 2)))
    }

    /// Reads a line of words. Some(true) if it held any.
    fn read_inline(
        &mut self,
        input: &mut BytesMut,
        argv: &mut Vec<Bytes>,
    ) -> Result<Option<bool>, ProtocolError> {
        let Some(end) = find(b'\n', input, self.searched) else {
            if input.len() > LINE_BYTES_MAX {
                return Err(ProtocolError::InlineTooLong);
            }
            self.searched = input.len();
            return Ok(None);
        };
        let line = input.split_to(end + 1).freeze();
        self.restart();
        let line = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
        *argv = inline::split(line).ok_or(ProtocolError::UnbalancedQuotes)?;
        Ok(Some(!argv.is_empty()))
    }

    /// Cuts the whole request off the input.
    fn take(&mut self, input: &mut BytesMut, argv: &mut Vec<Bytes>) {
        let request = input.split_to(self.at).freeze();
        argv.extend(self.arguments.iter().map(|&(start, len)| request.slice(start..start + len)));
        self.restart();
    }

    fn restart(&mut self) {
        self.at = 0;
        self.searched = 0;
        self.missing = None;
        self.bulk = None;
        self.arguments.clear();
        // A request with very many arguments must not hold its memory for ever.
        self.arguments.shrink_to(1024);
    }
}

fn find(byte: u8, bytes: &[u8], from: usize) -> Option<usize> {
    bytes[from..].iter().position(|&other| other == byte).map(|at| from + at)
}
