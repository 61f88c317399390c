//! Tests that run the real binary, three nodes at a time.

mod common;
mod kills;
mod pauses;
mod quorum_loss;
mod steady;
mod torn_tail;
