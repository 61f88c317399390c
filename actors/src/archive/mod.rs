//! The archive: backups of the journal's segments and of snapshots, outside the node.
//!
//! No target can be configured, so the archive is off. It says so, instead of being absent: who
//! looks at `/status` or at the metrics must not have to guess whether there are backups.
//!
//! - `actor`: the actor and its handle.

mod actor;

pub use actor::{Archive, ArchiveStatus};
