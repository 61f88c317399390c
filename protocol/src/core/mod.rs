//! The replication core: a pure state machine that decides, and does nothing itself.
//!
//! ```text
//!  Event ──► Core::step(now, random, event) ──► Command, Command, …
//!             │ election   votes, pre-votes, winning (S1–S3, S5)
//!             │ replica    appends, log matching, truncation, acks (S5, S8, S9)
//!             │ primary    sealing, flow control
//!             │ commit     what the policy says is committed (S4)
//!             │ reads      heartbeat rounds, lease, check-quorum, confirmed reads (S11)
//!             │ membership members, policy, version (S10); learners become voters
//!             │ transfer   leadership goes to another voter
//!             │ snapshot   log and state are replaced where no journal reaches back
//!             └ recovery   a survivor goes on alone, by an operator's act (S12)
//! ```
//!
//! The shape is Raft's (epoch = term, seq = index, primary = leader; Ongaro, 2014), with one
//! generalisation: the durability policy decides what is committed and which votes suffice to
//! lead. The core knows entries by id, kind and size; payloads stay with the runtime. Time and
//! randomness are arguments, and the state can be cloned, compared and hashed, so the same code
//! runs in a node, in the simulator and under a model checker.
//!
//! The rules are named S1 to S12 as in `docs/safety-rules.md`, at the place that keeps each.

mod commit;
mod configs;
mod election;
mod event;
mod log;
mod membership;
pub mod message;
mod primary;
mod progress;
mod reads;
mod recovery;
mod replica;
mod snapshot;
mod state;
mod timeless;
mod transfer;

pub use configs::{Config, Configs};
pub use event::{
    ChangeOutcome, ChangeRefused, Command, Event, HandoverOutcome, HandoverRefused, HardState,
    SnapshotRefused, Violation,
};
pub use log::Log;
pub use membership::{Outlook, Quorum};
pub use recovery::first_of_generation;
pub use snapshot::Snapshot;
pub use state::{Boot, Core, PeerStatus, Refused, Role, Tuning};
