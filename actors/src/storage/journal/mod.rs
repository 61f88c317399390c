//! The journal: the replicated log on this node's disk.
//!
//! One thread writes. It gathers everything that waits, writes it with one system call, publishes
//! *in memory*, syncs once, and publishes *persisted*. Nothing is retried: the first failed write
//! or sync ends the thread and is reported as fatal, because after a failed sync the kernel may
//! report success for pages that it dropped.
//!
//! What proves a sync is a *mark*, never the mere presence of bytes:
//!
//! - a sync mark frame at the start of a group, for the group before it;
//! - the same frame alone, synced, once the writer has been idle for a moment;
//! - a segment's trailer, and the header of the next segment: both are written only after all
//!   earlier entries are synced.
//!
//! So the window in which a synced entry isn't covered by a mark is the last group before a power
//! cut, if the cut comes within [`JournalOptions::idle_mark_after`]. A damaged record in that
//! window is taken for a torn write and cut; copies on other nodes are what protects it.
//!
//! A start reads the two newest segments whole; of older ones, which their trailers prove to be
//! synced, only header, trailer and index.
//!
//! At start the entries above the highest mark are written once more, to a new segment, and
//! synced before they count: their pages may be in the cache and nowhere else, even if a sync
//! of the old file reports success now.
//!
//! | module | holds |
//! |---|---|
//! | `queue` | commands on their way to the writer, bounded by bytes |
//! | `handle` | what others have of the journal; its thread's start and end |
//! | `writer` | the thread: group, write, sync, roll, mark |
//! | `segment` | one file being written |
//! | `cut` | truncation, restarting the log, trimming, `divergent/` |
//! | `scan` | walking one file frame by frame, judging what it finds |
//! | `survey` | reading all files and judging what they are, changing nothing |
//! | `recovery` | opening: survey, then repair |
//! | `witness` | how far the log was written, recorded outside the disk |
//! | `table`, `reader` | where entries are, and reading them from any thread |
//! | `progress` | what the writer has published |
//! | `inspect` | offline views for the command line |
//! | `divergent` | what was cut, for the command line |
//! | `follow` | the newest entries, read while another process writes |

mod cut;
mod divergent;
mod follow;
mod handle;
mod inspect;
mod options;
mod progress;
mod queue;
mod reader;
mod recovery;
mod scan;
mod segment;
mod survey;
mod table;
mod witness;
mod writer;

#[cfg(test)]
mod tests;

pub use cut::Reason as CutReason;
pub use divergent::{DivergentFile, TailSummary, divergent, divergent_file, read_entries};
pub use follow::Follower;
pub use handle::{Journal, JournalFault};
pub use inspect::{
    EntrySummary, Fault, Inspection, SegmentSummary, Verification, inspect, tail, verify,
};
pub use options::{Covered, GroupStats, JournalHooks, JournalOptions};
pub use progress::Progress;
pub use queue::{Rejected, RejectedWhy};
pub use reader::{JournalReader, ReadError};
pub use recovery::{Damage, OpenError, OpenJournal, Recovered, TornTail};
pub use witness::witnessed;
