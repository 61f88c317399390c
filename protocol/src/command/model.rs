//! Commands as types. The outer variant is the routing class: who answers it, and from what.

use bytes::Bytes;

use super::connection::Connection;
use crate::types::Seq;

/// One parsed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Reads the keyspace; changes nothing.
    Read(Read),
    /// May change the keyspace, so it goes through the log.
    Write(Write),
    /// Builds or ends a transaction on its connection.
    Transaction(Transaction),
    /// Answered by the connection from its own state or the node's view. Boxed: it is rare, and
    /// a `Command` is moved once per request.
    Connection(Box<Connection>),
}

/// Reads of the keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are the arguments of the command that the variant names")]
pub enum Read {
    /// `GET`
    Get { key: Bytes },
    /// `MGET`
    MGet { keys: Vec<Bytes> },
    /// `STRLEN`
    StrLen { key: Bytes },
    /// `GETRANGE`, `SUBSTR`: negative positions count from the end, both ends are inclusive.
    GetRange { key: Bytes, start: i64, end: i64 },
    /// `EXISTS`, `TOUCH`: a key named twice counts twice.
    Exists { keys: Vec<Bytes> },
    /// `TYPE`
    Type { key: Bytes },
    /// `TTL`, `PTTL`, `EXPIRETIME`, `PEXPIRETIME`
    Ttl { key: Bytes, form: TtlForm },
    /// `OBJECT ENCODING|REFCOUNT|IDLETIME|FREQ`
    Object { key: Bytes, property: ObjectProperty },
    /// `MEMORY USAGE`
    MemoryUsage { key: Bytes },
    /// `DBSIZE`
    DbSize,
    /// `GETBIT`
    GetBit { key: Bytes, offset: u32 },
    /// `BITCOUNT`
    BitCount { key: Bytes, range: Option<BitRange> },
    /// `BITPOS`
    BitPos { key: Bytes, bit: bool, range: Option<BitRange>, end_given: bool },
    /// `LCS`
    Lcs(Lcs),
    /// Reads that visit many keys: a connection runs them, they never ride in a batch.
    Walk(Walk),
}

/// Reads that walk over the keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are the arguments of the command that the variant names")]
pub enum Walk {
    /// `SCAN`: see [`crate::command::execute::execute_walk`] for what a cursor is.
    Scan { cursor: u64, pattern: Option<Bytes>, count: u64, strings: bool },
    /// `KEYS`
    Keys { pattern: Bytes },
    /// `RANDOMKEY`
    RandomKey,
    /// `CLUSTER COUNTKEYSINSLOT`
    CountKeysInSlot { slot: u16 },
    /// `CLUSTER GETKEYSINSLOT`
    GetKeysInSlot { slot: u16, count: u64 },
}

/// What a time-to-live question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlForm {
    /// `TTL`: seconds left, rounded.
    Seconds,
    /// `PTTL`: milliseconds left.
    Millis,
    /// `EXPIRETIME`: seconds since 1970, rounded.
    AtSeconds,
    /// `PEXPIRETIME`: milliseconds since 1970.
    AtMillis,
}

/// What `OBJECT` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectProperty {
    /// `int`, `embstr` or `raw`, as Redis would store it.
    Encoding,
    /// Always 1.
    RefCount,
    /// Not tracked: always 0.
    IdleTime,
    /// Not tracked: Redis's error for a server without an LFU policy.
    Frequency,
}

/// A range of `BITCOUNT` and `BITPOS`; negative positions count from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitRange {
    /// First position.
    pub start: i64,
    /// Last position, inclusive.
    pub end: i64,
    /// Whether positions count bits, not bytes.
    pub bits: bool,
}

/// `LCS`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lcs {
    /// First key.
    pub first: Bytes,
    /// Second key.
    pub second: Bytes,
    /// Answer the length only.
    pub len: bool,
    /// Answer the matching ranges.
    pub idx: bool,
    /// Leave out shorter matches.
    pub min_match_len: i64,
    /// Answer each match's length too.
    pub with_match_len: bool,
}

/// Commands that may change the keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are the arguments of the command that the variant names")]
pub enum Write {
    /// `SET`, `SETEX`, `PSETEX`, `GETSET`
    Set(Set),
    /// `SETNX`: answers 1 or 0.
    SetNx { key: Bytes, value: Bytes },
    /// `MSET`, and `MSETNX` with `only_if_none`.
    MSet { pairs: Vec<(Bytes, Bytes)>, only_if_none: bool },
    /// `GETDEL`
    GetDel { key: Bytes },
    /// `GETEX`
    GetEx { key: Bytes, expiry: GetExExpiry },
    /// `APPEND`
    Append { key: Bytes, value: Bytes },
    /// `SETRANGE`
    SetRange { key: Bytes, offset: u64, value: Bytes },
    /// `INCR`, `DECR`, `INCRBY`, `DECRBY`
    IncrBy { key: Bytes, delta: i64 },
    /// `INCRBYFLOAT`; the text of a number.
    IncrByFloat { key: Bytes, delta: Bytes },
    /// `DEL`, `UNLINK`
    Del { keys: Vec<Bytes> },
    /// `DELIFEQ`
    DelIfEq { key: Bytes, value: Bytes },
    /// `EXPIRE`, `PEXPIRE`, `EXPIREAT`, `PEXPIREAT`
    Expire { key: Bytes, when: When, condition: ExpireConditions },
    /// `PERSIST`
    Persist { key: Bytes },
    /// `FLUSHDB`, `FLUSHALL`
    FlushAll,
    /// `RENAME`, and `RENAMENX` with `only_if_none`.
    Rename { from: Bytes, to: Bytes, only_if_none: bool },
    /// `COPY`
    Copy { from: Bytes, to: Bytes, replace: bool },
    /// `SETBIT`
    SetBit { key: Bytes, offset: u32, bit: bool },
    /// `BITOP`
    BitOp { operation: BitOperation, to: Bytes, from: Vec<Bytes> },
}

/// `SET` and its relatives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// When to write at all.
    pub condition: SetCondition,
    /// The key's expiry afterwards.
    pub expiry: SetExpiry,
    /// Answer the old value in place of `OK`.
    pub get: bool,
}

/// When `SET` writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetCondition {
    /// Always.
    Always,
    /// `NX`: only where the key doesn't exist.
    IfNone,
    /// `XX`: only where it exists.
    IfSome,
    /// `IFEQ`: only where it holds this value.
    IfEqual(Bytes),
}

/// What `SET` does to the key's expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetExpiry {
    /// The key never expires.
    None,
    /// `KEEPTTL`
    Keep,
    /// `EX`, `PX`, `EXAT`, `PXAT`
    At(When),
}

/// What `GETEX` does to the key's expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetExExpiry {
    /// Nothing.
    Keep,
    /// `PERSIST`
    Remove,
    /// `EX`, `PX`, `EXAT`, `PXAT`
    At(When),
}

/// A moment: absolute, or counted from the time of the entry that the command is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Milliseconds after the entry's time.
    After(i64),
    /// Milliseconds since 1970.
    At(i64),
}

/// Conditions of `EXPIRE` and its relatives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpireConditions {
    /// Only where the key has no expiry.
    pub nx: bool,
    /// Only where it has one.
    pub xx: bool,
    /// Only where the new expiry is later; none at all is latest.
    pub gt: bool,
    /// Only where it is earlier.
    pub lt: bool,
}

/// What `BITOP` computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitOperation {
    /// `AND`
    And,
    /// `OR`
    Or,
    /// `XOR`
    Xor,
    /// `NOT`
    Not,
}

/// Commands that build or end a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are the arguments of the command that the variant names")]
pub enum Transaction {
    /// `MULTI`
    Multi,
    /// `EXEC`
    Exec,
    /// `DISCARD`
    Discard,
    /// `WATCH`
    Watch { keys: Vec<Bytes> },
    /// `UNWATCH`
    Unwatch,
}

/// What is applied as one and answered by one reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    /// One write.
    Write(Write),
    /// A read that follows writes of its connection; has no effect on the state.
    Read(Read),
    /// A transaction: all of it or nothing.
    Exec(Exec),
    /// A write or transaction that carries a token.
    Once(Once),
}

/// What is carried out only if no other write with the token was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// 1 to [`TOKEN_BYTES_MAX`](super::TOKEN_BYTES_MAX) bytes.
    pub token: Bytes,
    /// A write or a transaction.
    pub unit: Box<Unit>,
}

/// A transaction as it goes into the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// What must not have changed.
    pub watches: Vec<Watched>,
    /// Commands in order; each adds one element to the reply.
    pub steps: Vec<Step>,
}

/// One command of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A write.
    Write(Write),
    /// A read; sees the writes before it.
    Read(Read),
}

/// A key as `WATCH` saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The key.
    pub key: Bytes,
    /// How it was.
    pub seen: Seen,
}

/// What `WATCH` saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The key held a value that this entry wrote.
    Version(Seq),
    /// The key didn't exist in the state as of this position.
    Absent(Seq),
}

impl Set {
    /// `SET key value`
    #[must_use]
    pub fn plain(key: Bytes, value: Bytes) -> Self {
        Self { key, value, condition: SetCondition::Always, expiry: SetExpiry::None, get: false }
    }
}

impl Read {
    /// Whether it may be part of a batch or a transaction: everything but walks, which a store
    /// can't answer in the middle of an entry.
    #[must_use]
    pub fn rides(&self) -> bool {
        !matches!(self, Self::Walk(_))
    }
}

impl Write {
    /// Whether the command only removes data or expiries, so that it stays possible when the
    /// disk is full.
    #[must_use]
    pub fn frees_space(&self) -> bool {
        matches!(
            self,
            Self::Del { .. }
                | Self::GetDel { .. }
                | Self::DelIfEq { .. }
                | Self::FlushAll
                | Self::Expire { .. }
        )
    }
}
