//! A record, outside the disk, of how far the log was written.
//!
//! A write that returned survives the end of the process but not that of the machine, and the
//! kernel may also drop its pages after a failed write back. This record lives in memory that
//! outlives the process (a tmpfs), so at the next start it shows whether the log still goes as
//! far as it was ever acknowledged from memory. It is written before progress in memory is
//! published. Where it is missing nothing is proved.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use quorate_protocol::record::{Frame, RECORD_HEADER_BYTES, SyncMark};
use quorate_protocol::types::{Chain, EntryId, Incarnation};

use super::recovery::Recovered;

#[derive(Debug)]
pub(super) struct Witness {
    file: File,
    incarnation: Incarnation,
}

/// What a life recorded last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Witnessed {
    pub(super) incarnation: Incarnation,
    pub(super) id: EntryId,
    pub(super) chain: Chain,
}

impl Witness {
    /// Opens or makes the record. A link is not followed: the folder may be everyone's.
    pub(super) fn open(path: &Path, incarnation: Incarnation) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(path)?;
        Ok(Self { file, incarnation })
    }

    pub(super) fn record(&self, id: EntryId, chain: Chain) -> io::Result<()> {
        // The life that it speaks for stands where a mark has its segment's nonce.
        let frame = SyncMark { nonce: self.incarnation.0, id, chain };
        self.file.write_all_at(&frame.encode(), 0)
    }

    /// What was recorded last, if anything legible was.
    pub(super) fn read(path: &Path) -> Option<Witnessed> {
        let file =
            OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path).ok()?;
        let mut bytes = [0; RECORD_HEADER_BYTES];
        file.read_exact_at(&mut bytes, 0).ok()?;
        match Frame::decode(&bytes) {
            Ok(Frame::SyncMark(mark)) => Some(Witnessed {
                incarnation: Incarnation(mark.nonce),
                id: mark.id,
                chain: mark.chain,
            }),
            Ok(Frame::Entry(_) | Frame::Trailer(_)) | Err(_) => None,
        }
    }
}

/// The life that recorded, outside the disk, that it wrote the log exactly this far; `None` proves
/// nothing.
#[must_use]
pub fn witnessed(path: &Path, log: &Recovered) -> Option<Incarnation> {
    let found = Witness::read(path)?;
    ((found.id, found.chain) == (log.last, log.last_chain)).then_some(found.incarnation)
}
