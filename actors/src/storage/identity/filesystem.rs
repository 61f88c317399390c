//! Which file systems keep what was synced.

use std::io;
use std::path::Path;

use nix::sys::statfs::{FsType, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, statfs};

/// Linux's number for ramfs; nix has no name for it.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// The name of the file system at `path`, if a reboot or the end of a container empties it.
pub(super) fn volatile(path: &Path) -> io::Result<Option<&'static str>> {
    let kind = statfs(path)?.filesystem_type();
    Ok(if kind == TMPFS_MAGIC {
        Some("tmpfs")
    } else if kind == OVERLAYFS_SUPER_MAGIC {
        Some("overlay")
    } else if kind == RAMFS_MAGIC {
        Some("ramfs")
    } else {
        None
    })
}
