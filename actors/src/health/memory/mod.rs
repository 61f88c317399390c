//! Memory: how much the node may take, how much it takes, and what follows.
//!
//! - `budget`: what the system allows, and what the process has.
//! - `gate`: when to shrink, and when to refuse writes. Pure.
//! - `watch`: the actor that looks and shrinks.

mod budget;
mod gate;
mod watch;

pub use budget::{Budget, BudgetSource};
pub use gate::{MemoryGate, MemoryLook};
pub use watch::{MemoryWatch, MemoryWatchParts};
