//! Applying committed entries to the state: one named thread, deterministic, never cancelled.
//!
//! It is told how far the log is committed and takes what is new in rounds: the entries of a
//! round are carried out over the state as the round left it, written as one batch together with
//! their position, published, and answered. The entry's time is its only clock.
//!
//! A round ends only between entries, so that everyone else sees each entry whole or not at all.

mod handle;
mod pause;
mod progress;
mod signal;
mod thread;

pub use handle::{Apply, ApplyHandle, ApplyHooks, ApplyOptions, ApplyParts};
pub use progress::{Activity, Busy};
pub(crate) use thread::apply_entry;
pub use thread::{ApplyFault, EXPIRED_PER_ENTRY_MAX, RoundStats};

#[cfg(test)]
mod tests;
