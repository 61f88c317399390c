//! Commands of clients: from arguments to a typed [`Command`], into a batch of the log, and
//! carried out on a [`Keyspace`]. Pure and deterministic: time comes with the entry.
//!
//! The way of a command:
//!
//! 1. [`parse`] turns an argument list into a [`Command`], or into a [`CommandError`] whose text
//!    is Redis's. The variant is the routing class.
//! 2. [`Command::Connection`] and [`Command::Transaction`] are the connection's own business;
//!    what stands between `MULTI` and `EXEC` becomes one [`Exec`].
//! 3. [`Command::Read`] is answered by [`execute::execute_read`] from a [`Lookup`], or, for the
//!    [`Walk`]s in it, by [`execute::execute_walk`] from a [`Visit`].
//! 4. [`Command::Write`], and reads behind it, become [`Unit`]s, which [`batch::Encoder`] puts
//!    into a batch. Every node applies the entry that it is in by [`execute::apply_payload`].
//!
//! - `model`, `connection`, `error`: the types.
//! - `spec`, `specs`, `args`: the table of commands and the parser that it drives.
//! - `argv`: writes as a client sends them.
//! - `catalog`: answers to `COMMAND` and `ACL CAT`.
//! - `keyspace`, `position`, `memory`: what the state must offer, the order of keys, and a model
//!   of it in memory.
//! - `batch`: commands in the log.
//! - `token`: what is remembered of writes that carry a token.
//! - `execute`: what commands do.
//! - `number`, `decimal`, `glob`: texts as Redis reads them.

mod args;
mod argv;
pub mod batch;
pub mod catalog;
mod connection;
mod decimal;
mod error;
pub mod execute;
pub mod glob;
mod keyspace;
mod memory;
mod model;
pub(crate) mod number;
mod position;
mod spec;
mod specs;
mod token;

pub use connection::{
    Acl, Client, ClientAttribute, ClientFilters, ClientKill, ClientKind, ClientReply, Cluster,
    CommandFilter, CommandQuery, Config, Connection, Hello, Latency, Memory, Quorate, ReadLevel,
    Sentinel, Session, SlowLog,
};
pub use error::CommandError;
pub use keyspace::{Head, Keyspace, Lookup, Value, Visit};
pub use memory::MemoryKeyspace;
pub use model::{
    BitOperation, BitRange, Command, Exec, ExpireConditions, GetExExpiry, Lcs, ObjectProperty,
    Once, Read, Seen, Set, SetCondition, SetExpiry, Step, Transaction, TtlForm, Unit, Walk,
    Watched, When, Write,
};
pub use position::{Position, SLOTS, slot};
pub use spec::{Flags, Keys, Spec, all, find, parse};
pub use token::{TOKEN_BYTES_MAX, TOKEN_LIFE_MS, TOKENS_MAX, TokenRecord};

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// Longest value that a command may build, in bytes. It is the same on every node, because
/// applying must come to the same result everywhere; a node may accept less from its clients.
pub const VALUE_BYTES_MAX: usize = 16 << 20;
