//! `quorate storage`: orders for one node's storage.

use std::time::Duration;

use clap::Subcommand;

use crate::failure::Failure;
use crate::http::AdminUrl;
use crate::output::say;
use crate::progress::{self, Progress};

/// Flushing writes what memory holds.
const FLUSH_LIMIT: Duration = Duration::from_mins(5);

/// Compacting reads and writes everything.
const COMPACT_LIMIT: Duration = Duration::from_hours(24);

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum StorageVerb {
    /// Flush memtables, drop caches, and show what that freed
    Relieve,
    /// Rewrite all files without what was deleted and overwritten; waits until that is done
    Compact,
    /// Write what is applied to disk
    Flush,
}

/// How far a compaction is, by `/status`.
fn compacted(status: &serde_json::Value) -> Option<Progress> {
    let compacting = &status["compacting"];
    let number = |name: &str| compacting[name].as_u64();
    Some(Progress { done: number("done_bytes")?, total: number("total_bytes")? })
}

/// Does it and shows what came of it.
pub(crate) fn run(admin: &AdminUrl, verb: StorageVerb, as_json: bool) -> Result<(), Failure> {
    let (path, limit) = match verb {
        StorageVerb::Relieve => ("/admin/relieve", FLUSH_LIMIT),
        StorageVerb::Compact => ("/admin/compact", COMPACT_LIMIT),
        StorageVerb::Flush => ("/admin/flush", FLUSH_LIMIT),
    };
    let order = || admin.post(path, "{}", limit);
    let answer = match verb {
        StorageVerb::Relieve | StorageVerb::Flush => order(),
        StorageVerb::Compact => progress::shown(admin, "compacting", compacted, order),
    };
    let answer = answer?.json(admin)?;
    if as_json {
        say(answer);
        return Ok(());
    }
    let number = |name: &str| answer[name].as_u64().unwrap_or_default();
    let seconds = answer["seconds"].as_f64().unwrap_or_default();
    match verb {
        StorageVerb::Relieve => say(format_args!(
            "freed {} bytes (memtables {}, block cache {}, log cache {}) in {seconds:.1} s",
            number("freed_bytes"),
            number("memtable_bytes"),
            number("block_cache_bytes"),
            number("log_cache_bytes"),
        )),
        StorageVerb::Compact => say(format_args!(
            "{} bytes of files became {} in {seconds:.1} s",
            number("before_bytes"),
            number("after_bytes"),
        )),
        StorageVerb::Flush => {
            say(format_args!("flushed through entry {} in {seconds:.1} s", number("flushed_seq")));
        }
    }
    Ok(())
}
