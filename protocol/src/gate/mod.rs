//! The durability gate's decisions: when a reply may leave, and when its outcome can't be known
//! any more. Pure: time and waiters are its callers', so that a node and the simulator run the
//! same code.

mod queue;

pub use queue::{DoubtReason, Held, Queue, QueueError, Release};

#[cfg(test)]
mod queue_test;
