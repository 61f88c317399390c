//! The state: keys and values in RocksDB, together with the position of the log that they are
//! the work of.
//!
//! There is no WAL. A write batch holds data and position, and one column family is flushed
//! atomically, so whatever a restart finds is the state at one position; the log brings it
//! forward from there. What it takes to do that must stay in the journal: it is trimmed by
//! [`StateReader::flushed`], never by what is merely applied.
//!
//! | module | holds |
//! |---|---|
//! | `store` | opening, flushing |
//! | `reader` | look-ups and walks, from any thread |
//! | `writer` | the one writer: what a round changed, as one batch |
//! | `checkpoint` | a second copy of the files, as of one position |
//! | `compact` | compacting, and emptying the cache, on demand |
//! | `damage` | giving a state up that can't be trusted |
//! | `tokens` | the table of write tokens |
//! | `hash` | comparing nodes |
//! | `keys`, `value`, `meta` | the layout: every key and value in one place each |

mod checkpoint;
mod compact;
pub mod damage;
mod error;
mod hash;
mod heads;
pub(crate) mod keys;
mod meta;
mod reader;
mod stall;
mod store;
mod tokens;
pub(crate) mod value;
mod writer;

pub use checkpoint::position_in;
pub(crate) use checkpoint::verify_files;
pub use compact::{CompactError, CompactProgress, Compacted};
pub use error::{OpenError, Operation, StateError};
pub use meta::{Applied, StoredCluster};
pub use reader::{ContentHash, StateReader, StateSnapshot};
pub use store::State;
pub use value::BadValue;
pub use writer::{StateWriter, WriteStats};

#[cfg(test)]
pub(crate) mod tests;
