//! The node's health: errors of the storage and free space, judged in one place and published for
//! admission, readiness and the hand-over of leadership.
//!
//! - `latch`: when errors make a node unhealthy, and when it may take writes again. Pure.
//! - `disk`: the gate for writes when space runs out. Pure.
//! - `reserve`: looking at a disk, and the file that keeps some of it for deletes.
//! - `watch`: the actor that looks at the disk.
//! - `memory`: the gate for writes when memory runs out, and giving it back.
//! - `shared`: the one latch of a node, fed by readers and the monitor, and what it publishes.
//! - `monitor`: the actor that samples the storage.

mod disk;
mod latch;
mod memory;
mod monitor;
mod reserve;
mod shared;
mod watch;

pub use disk::{DiskGate, DiskLook, DiskOptions, Space};
pub use latch::{Input, Latch, LatchOptions, Severity, Transition, step};
pub use memory::{Budget, BudgetSource, MemoryGate, MemoryLook, MemoryWatch, MemoryWatchParts};
pub use monitor::{HealthMonitor, HealthOptions, HealthParts};
pub use reserve::Disk;
pub use shared::{Health, HealthView};
pub use watch::{DiskWatch, DiskWatchParts};
