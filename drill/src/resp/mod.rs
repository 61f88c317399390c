//! A small blocking client of the Redis protocol, for tests: every wait has a deadline, and
//! every reply is kept as the server sent it, so that replies of two servers can be compared.

mod client;
mod value;

pub use client::{Client, ClientError};
pub use value::{MalformedReply, Value, parse};
