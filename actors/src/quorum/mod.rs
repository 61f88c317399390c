//! The quorum policy actor: drives the replication core on the consensus thread.
//!
//! - `actor`: one coalesced message, a timer, and the phases.
//! - `forming`: the first boot, until this node has a first entry.
//! - `rebuilding`, `verifying`: a node whose state is lost, or whose log is in doubt.
//! - `driver`: events into the core, commands out of it.
//! - `sealing`: waiting batches to one entry's payload.
//! - `ports`: journal, cache, hard state, apply loop, gate and peers, as the actor sees them.
//! - `copies`: when copies of entries were there, to predict latencies from.
//! - `handle`: what the rest of the node may ask.
//! - `orders`: what operators may ask.

mod actor;
mod copies;
mod driver;
mod forming;
mod handle;
mod orders;
mod ports;
mod rebuilding;
mod sealing;
mod verifying;

pub(crate) use actor::{Phase, QuorumWake};
pub use copies::{CopyTimesBoard, NodeMedians, Prediction};
pub(crate) use driver::{Driver, DriverParts, Found};
pub(crate) use forming::FormingDriver;
pub use handle::{ConfirmedRead, QuorumHandle, QuorumQueues};
pub use orders::{ChangeError, TransferError};
pub use ports::Fatal;
pub(crate) use ports::{Ports, Seen};
pub(crate) use rebuilding::RebuildingDriver;
pub(crate) use verifying::VerifyingDriver;
