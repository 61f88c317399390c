//! The quorum policy actor: drives the replication core.

mod handle;

pub use handle::{ConfirmedRead, QuorumHandle};
