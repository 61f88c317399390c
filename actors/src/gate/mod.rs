//! The durability gate: owns every reply that must not leave yet, and is the only place that says
//! that a write is done.
//!
//! `queue` decides (pure: time and waiters are its callers'); `actor` runs it on the client
//! runtime: a task drains the input queue in batches, and the actor owns that task.

mod actor;
pub mod queue;

pub use actor::{
    DurabilityGate, GATE_INPUT_COUNT_MAX, GateArguments, GateHandle, GateMessage, GateState,
};

#[cfg(test)]
mod queue_test;
