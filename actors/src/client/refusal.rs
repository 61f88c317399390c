//! What clients are told when a command wasn't carried out, or may have been. The first word is
//! the code, and it decides whether a retry is safe.

use std::borrow::Cow;

use quorate_protocol::resp::Reply;
use quorate_protocol::types::EntryId;

use crate::submit::{DoubtReason, Refusal};

/// Nothing is known about a primary.
pub(super) fn cluster_down() -> Reply {
    error("CLUSTERDOWN The cluster has no primary that can be reached")
}

/// A command without a key needs the primary, which is another node.
pub(super) fn not_primary(write: bool) -> Reply {
    if write {
        error("READONLY You can't write against a read only replica.")
    } else {
        error("CLUSTERDOWN This node isn't the primary, and this command needs it")
    }
}

/// Where the key's primary is.
pub(super) fn moved(slot: u16, address: &str) -> Reply {
    Reply::Error(Cow::Owned(format!("MOVED {slot} {address}")))
}

/// The replica's state is older than the session allows, and no primary is known.
pub(super) fn master_down() -> Reply {
    error("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.")
}

/// The state can't be read.
pub(super) fn unhealthy(reason: &str) -> Reply {
    Reply::Error(Cow::Owned(format!("UNHEALTHY {}", one_line(reason))))
}

/// A refusal that says nothing about where to go; `NotPrimary` and `NoPrimary` are routed by the
/// caller, and this is what is left of them.
pub(super) fn refused(refusal: &Refusal) -> Reply {
    match refusal {
        Refusal::NotPrimary { .. } | Refusal::NoPrimary => cluster_down(),
        Refusal::NoReplicas { clause } => Reply::Error(Cow::Owned(format!(
            "NOREPLICAS The durability policy can't be met: {}",
            one_line(clause)
        ))),
        Refusal::Unhealthy(reason) => unhealthy(reason),
        Refusal::DiskFull => error("DISKFULL Too little free disk space for writes"),
        Refusal::OutOfMemory => error("OOM Too little memory for writes"),
        Refusal::Overloaded => error("OVERLOADED Too many bytes of writes wait already"),
        Refusal::Timeout { caller: true } => {
            error("TIMEOUT caller: the session's deadline ended before the command was accepted")
        }
        Refusal::Timeout { caller: false } => {
            error("TIMEOUT store: the command was not accepted within the store's deadline")
        }
        Refusal::Draining => error("DRAINING The node is stopping"),
    }
}

/// The command at `index` of this entry may have happened.
pub(super) fn in_doubt(id: Option<EntryId>, index: Option<u32>, reason: DoubtReason) -> Reply {
    let reason = match reason {
        DoubtReason::Deadline => "deadline",
        DoubtReason::LeadershipLost => "leadership_lost",
        DoubtReason::Shutdown => "shutdown",
    };
    let text = match (id, index) {
        (Some(EntryId { epoch, seq }), Some(index)) => {
            format!("INDOUBT epoch={epoch} seq={seq} index={index} reason={reason}")
        }
        (Some(EntryId { epoch, seq }), None) => {
            format!("INDOUBT epoch={epoch} seq={seq} index=? reason={reason}")
        }
        (None, _) => format!("INDOUBT epoch=? seq=? index=? reason={reason}"),
    };
    Reply::Error(Cow::Owned(text))
}

/// A fixed error.
pub(super) fn error(text: &'static str) -> Reply {
    Reply::Error(Cow::Borrowed(text))
}

/// An error reply is one line, whatever its reason contains.
fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}
