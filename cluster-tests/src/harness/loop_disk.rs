//! A small file system of its own, in a file.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;
use nix::unistd::Uid;

/// Name of the file that takes space away, in the file system's root.
const BALLAST: &str = "ballast";

/// An ext4 file system, mounted by way of a loop device; unmounted when this is dropped.
#[derive(Debug)]
pub struct LoopDisk {
    image: PathBuf,
    mount: PathBuf,
}

impl LoopDisk {
    /// Whether this machine lets this process mount file systems.
    #[must_use]
    pub fn is_possible() -> bool {
        Uid::effective().is_root() && Path::new("/dev/loop-control").exists()
    }

    /// Makes one of so many bytes in the file `image` and mounts it at `mount`, empty.
    ///
    /// # Panics
    ///
    /// If that fails.
    #[must_use]
    pub fn mount(image: &Path, mount: &Path, bytes: u64) -> Self {
        let file = File::create(image).expect("make the image");
        // Its space is there for sure: what runs full is this file system, not the one below.
        posix_fallocate(&file, 0, i64::try_from(bytes).expect("a small disk"))
            .expect("reserve the image's space");
        Self::format(image, mount)
    }

    /// The same in a file that takes space from the file system below only as it is written: where
    /// that has none, writes here fail when they are synced.
    ///
    /// # Panics
    ///
    /// If that fails.
    #[must_use]
    pub fn mount_overfull(image: &Path, mount: &Path, bytes: u64) -> Self {
        File::create(image).and_then(|file| file.set_len(bytes)).expect("make the image");
        Self::format(image, mount)
    }

    fn format(image: &Path, mount: &Path) -> Self {
        // Its own records are written now and not some time later.
        let now = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-E", now]).arg(image));
        fs::create_dir_all(mount).expect("make the mount point");
        let disk = Self { image: image.to_owned(), mount: mount.to_owned() };
        disk.attach();
        fs::remove_dir(mount.join("lost+found")).expect("empty the file system");
        disk
    }

    fn attach(&self) {
        run(Command::new("mount").args(["-o", "loop,noatime"]).arg(&self.image).arg(&self.mount));
    }

    /// What an operator does with a file system whose disk failed: unmounts it, has it repaired, and
    /// mounts it again. Nothing may be using it.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn repair(&self) {
        run(Command::new("umount").arg(&self.mount));
        let checked = Command::new("e2fsck").args(["-f", "-y"]).arg(&self.image).output();
        let checked = checked.expect("run e2fsck");
        // 0: nothing was wrong; 1: it was, and is not any more.
        let said = String::from_utf8_lossy(&checked.stdout);
        assert!(matches!(checked.status.code(), Some(0 | 1)), "{said}");
        self.attach();
    }

    /// Bytes that are free.
    ///
    /// # Panics
    ///
    /// If the file system can't be asked.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        let space = statvfs(&self.mount).expect("ask the file system");
        space.blocks_available() * space.fragment_size()
    }

    /// Takes space away, so that at most `left` bytes stay free.
    ///
    /// # Panics
    ///
    /// If the file that does it can't be made.
    pub fn fill(&self, left: u64) {
        let path = self.mount.join(BALLAST);
        let ballast = OpenOptions::new().create(true).append(true).open(path);
        let ballast = ballast.expect("make the ballast");
        let mut step = self.free_bytes().saturating_sub(left);
        while self.free_bytes() > left && step >= 4096 {
            let from = ballast.metadata().expect("its size").len();
            let bytes = i64::try_from(step).expect("a small disk");
            let from = i64::try_from(from).expect("a small disk");
            // Part of the space goes to the file system's own records: try with less.
            if posix_fallocate(&ballast, from, bytes).is_err() {
                step /= 2;
            }
            step = step.min(self.free_bytes().saturating_sub(left));
        }
    }

    /// Gives the space back.
    ///
    /// # Panics
    ///
    /// If nothing was taken.
    pub fn relieve(&self) {
        fs::remove_file(self.mount.join(BALLAST)).expect("remove the ballast");
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.mount).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            // Still in use: it goes when the last user does.
            let _ = Command::new("umount").arg("-l").arg(&self.mount).status();
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
}
