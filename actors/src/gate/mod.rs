//! The durability gate: owns every reply that must not leave yet, and is the only place that says
//! that a write is done.
//!
//! [`quorate_protocol::gate`] decides; `actor` runs it on the client runtime: a task drains the
//! input queue in batches, and the actor owns that task. `waits` says what each reply waited for, as long
//! as `attribution` is on.

mod actor;
mod attribution;
mod waits;

pub use actor::{
    DurabilityGate, GATE_INPUT_COUNT_MAX, GateArguments, GateHandle, GateMessage, GateState,
};
pub use attribution::Attribution;
