//! The durability gate's decisions: when a reply may leave, and when its outcome can't be known
//! any more. Pure: time and waiters are its callers', so that a node and the simulator run the
//! same code.

//!
//! - `degradation`: what is said while the policy can't be met.
//! - `queue`: what waits, in the log's order.
//! - `queues`: one for each condition that sessions ask for.
//! - `waits`: what it waited for.

mod degradation;
mod queue;
mod queues;
mod waits;

pub use degradation::{Degradation, Look, Report};
pub use queue::{DoubtReason, Held, Queue, QueueError, Release};
pub use queues::{Asking, Queues};
pub use waits::{Crossings, Met, Wait, WaitedFor};

#[cfg(test)]
mod queue_test;
