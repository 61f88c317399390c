//! Scrub: whether all nodes hold the same, and whether their files can be read.
//!
//! ```text
//!  POST /admin/scrub ──► asker: chooses a position, asks every voter ── 'H' seq ──► node
//!                                                                                    │ apply thread
//!                        compares range by range  ◄── hashes of 256 ranges of slots ─┘ pauses there
//! ```
//!
//! Nodes can be compared only at one position of the log. The asker names one at or a little ahead
//! of the log's end; each node has its apply thread pause there for as long as it takes to open a
//! RocksDB snapshot, and hashes that while everything goes on. A node that is beyond the position
//! already, or doesn't reach it in time, says so, and the asker names another one.
//!
//! Besides, each node reads its files through: a checkpoint of them is opened anew, so that no
//! block comes from the cache, and every key is visited with checksums verified.
//!
//! - `hashes`: what a node answers, and its bytes on the wire.
//! - `examine`: one node's part.
//! - `compare`: who differs, and where. Pure.
//! - `run`: the asker's part.

mod compare;
mod examine;
mod hashes;
mod run;

pub use compare::{Difference, compare};
pub(crate) use examine::{Examiner, NotHere};
pub(crate) use hashes::{EXAMINED_BYTES_MAX, Examined};
pub use hashes::{RangeHash, RangeHashes, SLOTS_PER_RANGE};
pub use run::{NodeScrub, ScrubError, ScrubReport, Scrubber};
pub(crate) use run::{ScrubOrder, ScrubReply, ScrubRun};
