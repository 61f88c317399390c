//! The node's health: errors of the storage and free space, judged in one place and published for
//! admission, readiness and the hand-over of leadership.
//!
//! - `latch`: when errors make a node unhealthy, and when it may take writes again. Pure.
//! - `disk`: the gate for writes when space runs out. Pure.
//! - `memory`: the gate for writes when memory runs out, and giving it back.
//! - `shared`: the one latch of a node, fed by readers and the monitor, and what it publishes.
//! - `monitor`: the actor that samples.

mod disk;
mod latch;
mod memory;
mod monitor;
mod shared;

pub use disk::{DiskGate, DiskOptions, Space};
pub use latch::{Input, Latch, LatchOptions, Severity, Transition, step};
pub use memory::{Budget, BudgetSource, MemoryGate, MemoryLook, MemoryWatch, MemoryWatchParts};
pub use monitor::{HealthMonitor, HealthOptions, HealthParts};
#[cfg(test)]
pub(crate) use shared::Sample;
pub use shared::{Health, HealthView};
