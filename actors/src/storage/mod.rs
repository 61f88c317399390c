//! The node's storage: the journal, which alone is synced on the write path, and the state.

pub mod apply;
pub mod cache;
pub mod durable;
pub mod hardstate;
pub mod identity;
pub mod journal;
pub mod options;
pub mod state;

#[cfg(test)]
pub(crate) mod scratch;
