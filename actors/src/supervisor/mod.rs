//! The lifecycle supervisor: phases, and what ends the node.
//!
//! Every actor is linked to it. A failed actor ends the process: a half-dead node is worse than a
//! dead one, because the others keep counting on it.

mod actor;
mod lifecycle;
mod phase;
mod spawn;

pub use actor::{ExitReason, Supervisor, SupervisorMessage};
pub use lifecycle::{ColdStep, Lifecycle};
pub use phase::Phase;
pub(crate) use spawn::spawn;
