//! Replies as values; encoded for RESP2 or RESP3 only when they leave.

use std::borrow::Cow;

use bytes::Bytes;

/// A reply to one command. Types that RESP2 lacks are written as their RESP2 stand-ins.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// `+OK` and its kind.
    Simple(Cow<'static, str>),
    /// `-CODE message`, without the dash.
    Error(Cow<'static, str>),
    /// `:n`
    Integer(i64),
    /// `$len` bytes.
    Bulk(Bytes),
    /// No value: `$-1` in RESP2, `_` in RESP3.
    Null,
    /// No array: `*-1` in RESP2, `_` in RESP3.
    NullArray,
    /// `*n`
    Array(Vec<Reply>),
    /// A map: a flat array in RESP2.
    Map(Vec<(Reply, Reply)>),
    /// A set: an array in RESP2.
    Set(Vec<Reply>),
    /// A double: a bulk string in RESP2.
    Double(f64),
    /// A boolean: 1 or 0 in RESP2.
    Boolean(bool),
    /// Text with a three-letter format: a bulk string in RESP2.
    Verbatim(&'static str, Bytes),
    /// An out-of-band message: an array in RESP2.
    Push(Vec<Reply>),
}

impl Reply {
    /// `+OK`
    pub const OK: Self = Self::Simple(Cow::Borrowed("OK"));
    /// `+QUEUED`
    pub const QUEUED: Self = Self::Simple(Cow::Borrowed("QUEUED"));

    /// A simple string.
    #[must_use]
    pub fn simple(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Simple(text.into())
    }

    /// An error; its first word is the code.
    #[must_use]
    pub fn error(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Error(text.into())
    }

    /// A bulk string.
    #[must_use]
    pub fn bulk(data: impl Into<Bytes>) -> Self {
        Self::Bulk(data.into())
    }
}
