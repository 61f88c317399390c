//! When the copies of entries were there: what the latency under any policy is predicted from.
//!
//! A primary watches some of its entries from when they are sealed until every voter that answers
//! has them on its disk, and keeps what it saw for a minute. How long each voter takes is kept entry
//! by entry, as a policy waits for the count-th copy of each.
//!
//! Voters report copies in memory only where the policy in force needs them. So that other
//! policies can be predicted too, all nodes do so in short windows of cluster time, which they
//! find without a word to each other ([`window`]).
//!
//! - `sampler`: the quorum actor's side: which entries are watched, and what of them is seen.
//! - `board`: the last minute, for whoever asks.
//! - `window`: when copies in memory are reported whatever the policy.

mod board;
mod sampler;
pub(super) mod window;

pub use board::{CopyTimesBoard, NodeMedians, Prediction};
pub(super) use sampler::{CopySampler, Seen};
