//! The node's storage: the journal, which alone is synced on the write path, and the state.
//!
//! - [`journal`]: the replicated log on disk. [`cache`]: its newest entries in memory.
//! - [`state`]: keys and values, in RocksDB without a WAL. [`apply`]: the thread that brings it
//!   forward.
//! - [`hardstate`], [`identity`]: what a node must never forget, and whose directory it is.
//! - `hold`: keeps the journal for a replica that fetches a snapshot.
//! - `relief`: gives memory back.
//! - `actor`: flushes, trims and closes; `upkeep` decides when.

mod actor;
pub mod apply;
pub mod cache;
pub mod durable;
pub mod hardstate;
mod hold;
pub mod identity;
pub mod journal;
pub mod options;
mod relief;
pub mod state;
mod upkeep;

pub use actor::{StorageClosed, StorageError, StorageHandle, StorageMessage, StorageParts};
pub use hold::JournalHold;
pub use relief::{Freed, MemoryRelief};
pub use upkeep::UpkeepOptions;

#[cfg(test)]
pub(crate) mod scratch;
