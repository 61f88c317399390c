//! The Redis protocol.

mod reply;

pub use reply::Reply;
