//! Where the binary is, and where clusters may keep their data.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, statfs};

/// The `quorate` binary: `$QUORATE_BIN`, else the one that was built beside this test.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn binary() -> PathBuf {
    let path =
        env::var_os("QUORATE_BIN").map_or_else(|| profile_dir().join("quorate"), PathBuf::from);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --release --package quorate` first (`make test` does)",
        path.display()
    );
    path
}

/// A Python that has redis-py and moto: `$QUORATE_PYTHON`, else the one that `make` sets up.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn python() -> PathBuf {
    let beside = || target_dir().with_file_name("python").join("bin/python3");
    let path = env::var_os("QUORATE_PYTHON").map_or_else(beside, PathBuf::from);
    assert!(
        path.is_file(),
        "{} is missing: `make test` makes it, or set QUORATE_PYTHON to a Python with redis-py and moto",
        path.display()
    );
    path
}

/// A new, empty directory for one cluster, on a file system that keeps what was synced.
///
/// It lies in `$QUORATE_TEST_DIR`, else in the target directory.
///
/// # Panics
///
/// If it can't be made there.
#[must_use]
pub fn work_dir(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let parent = env::var_os("QUORATE_TEST_DIR")
        .map_or_else(|| target_dir().join("cluster-tests"), PathBuf::from);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = parent.join(format!("{name}-{}-{number}", std::process::id()));
    fs::create_dir_all(&dir).unwrap_or_else(|error| panic!("make {}: {error}", dir.display()));
    assert!(
        !is_volatile(&dir),
        "{} is on tmpfs or overlay, which nodes refuse; set QUORATE_TEST_DIR",
        dir.display()
    );
    dir
}

fn is_volatile(dir: &Path) -> bool {
    let kind = statfs(dir).expect("a directory that was just made").filesystem_type();
    kind == TMPFS_MAGIC || kind == OVERLAYFS_SUPER_MAGIC
}

/// `target/<profile>`, from this test's own path `target/<profile>/deps/<test>`.
fn profile_dir() -> PathBuf {
    let test = env::current_exe().expect("a test knows its own path");
    let dir = test.parent().expect("an executable lies in a directory");
    let dir = if dir.ends_with("deps") { dir.parent().expect("deps has a parent") } else { dir };
    dir.to_owned()
}

/// The target directory.
pub(crate) fn target_dir() -> PathBuf {
    profile_dir().parent().expect("a profile's directory has a parent").to_owned()
}
