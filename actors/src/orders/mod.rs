//! Orders from any node: admin ports never talk to each other, so what another node must do travels
//! over the peer connection, and is judged and recorded by the node that does it.
//!
//! ```text
//!  operator ─HTTP─► node 2 ── 'O' kind, body ──► node 1   certificate, member, cluster, generation
//!                     ◄────── code, body ──────           does it, records it
//! ```
//!
//! An order is for one node and is never passed on by it. Its body and its answer are JSON, which
//! this module doesn't read.
//!
//! - `desk`: asking another node, and taking what others ask.
//! - `wire`: the bytes, on a connection for bulk (`snapshot`).

mod desk;
mod wire;

pub(crate) use desk::{Ask, Reception, carry, receive};
pub use desk::{OrderDesk, OrderError, OrderInbox, Received, ReceivedOrder, RefusedOrder};
pub use wire::{BODY_BYTES_MAX, OrderAnswer, OrderKind};
pub(crate) use wire::{ORDER_BYTES_MAX, Order};
