//! Snapshots: how a replica catches up that needs entries which no journal has any more.
//!
//! ```text
//!  source                                    receiver
//!  checkpoint of the state  ◄──── 'M' ─────  asks (core: `FetchSnapshot`)
//!  manifest: position, files ────────────►   snapshots/receiving/manifest
//!  file by file, from an offset ─────────►   snapshots/receiving/files/: hashed, synced
//!                                            core: `SnapshotFetched`, `InstallSnapshot`
//!                                            files become state/<next>, CURRENT names them: commit
//!                                            restart: the boot path opens what CURRENT names
//! ```
//!
//! One thread with its own runtime does all of it, over connections of its own: the consensus
//! thread neither encrypts nor waits for bulk.
//!
//! | module | holds |
//! |---|---|
//! | `service` | the thread, and what others have of it |
//! | `worker` | what the thread does |
//! | `source`, `serve` | making a snapshot, sending it |
//! | `fetch`, `receiving` | receiving one: the network, the disk |
//! | `manifest`, `wire` | the formats |
//! | `successor` | asking who would lead, over the same connections |
//! | `stats` | figures |

mod fetch;
mod manifest;
mod receiving;
mod serve;
mod service;
mod source;
mod stats;
mod successor;
mod wire;
mod worker;

#[cfg(test)]
mod tests;

pub(crate) use fetch::{Dialled, chain_remotely, connect, examine_remotely, rebuild_remotely};
pub(crate) use service::{
    DivergenceParts, SnapshotHandle, SnapshotParts, SnapshotService, remove_leftovers,
};
pub use stats::{SnapshotProgress, SnapshotSending, SnapshotStats};
pub(crate) use wire::encode_order;
