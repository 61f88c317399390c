//! Hard state: what a node must never forget and never take back (S1).
//!
//! It lives in two checksummed slots. A change is written and synced to one, then to the other,
//! and only then revealed to anyone. At start the highest valid slot wins and is copied; where
//! none is valid the disk is lost (S6), and no default ever stands in for it.
//!
//! It has a thread of its own, so that a stalled journal sync doesn't hold up votes.

mod boot;
mod file;
mod slot;
mod thread;

pub use boot::{BootEvidence, MemoryTail, decide_boot};
pub use file::{HardStateError, HardStateFile};
pub use slot::{BootId, NodeHardState};
pub use thread::{HardStateFault, HardStateHooks, HardStateWriter};
