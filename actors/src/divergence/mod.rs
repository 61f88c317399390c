//! Whether all nodes hold the same log.
//!
//! The chain behind an entry is a hash over the whole log up to it, so two nodes hold the same log
//! if their chains at one position are equal. Every record carries it, and a replica takes none
//! that doesn't continue its own (`quorum`). Besides, each node compares itself from time to time
//! with all voters, at a position that all of them know to be committed:
//!
//! ```text
//!  this node ── 'C' seq ──► each voter: id and chain there, or at its own commit position
//!      │
//!      ├─ it is one of most: who differs is named in the log, in metrics and in `/status`
//!      └─ most hold something else: `SUSPECT` is written, and the node restarts
//! ```
//!
//! A start that finds `SUSPECT`, or a journal and a state that differ, takes no part in anything:
//! it asks the voters first which of the two is right, and gives up what isn't
//! (`docs/adr/0035-divergent-replicas-and-damaged-state.md`).
//!
//! - `compare`: what most hold, and who doesn't. Pure.
//! - `suspicion`: the mark, and a running node's way to make it.
//! - `chains`: where a node looks its own chain up.
//! - `watch`: asks, and draws the conclusion.

mod chains;
mod compare;
mod suspicion;
mod watch;

pub(crate) use chains::Chains;
pub use compare::{ChainPoint, ChainReport, Divergence, NodeChain};
pub use suspicion::Suspicion;
pub(crate) use suspicion::{Finding, Suspect};
pub(crate) use watch::{ChainWatch, Doubt};
