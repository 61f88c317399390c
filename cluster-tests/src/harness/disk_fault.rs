//! Writes and syncs that hang, fail or take long, by a library that is loaded into a node before libc.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cluster::RECOVERY_LIMIT;
use super::settings::NodeSettings;
use super::wait::poll;

/// The library's source; it says how it is told what to do.
const SOURCE: &str = include_str!("../../shims/disk_fault.c");

/// The calls that a fault is about.
#[derive(Clone, Copy, Debug)]
pub enum DiskCall {
    /// `fsync` and `fdatasync`.
    Sync,
    /// `pwrite` and `pwritev`.
    Write,
    /// All of them, and `write`, `rename` and `unlink`.
    Any,
}

/// Disk faults of one node, for files whose path contains a given text.
#[derive(Clone, Debug)]
pub struct DiskFault {
    control: PathBuf,
}

impl DiskFault {
    /// Compiles the library into the node's directory and has the node load it from its next
    /// start on.
    ///
    /// # Panics
    ///
    /// If there is no C compiler.
    #[must_use]
    pub fn install(settings: &mut NodeSettings) -> Self {
        let (source, library) =
            (settings.dir.join("disk_fault.c"), settings.dir.join("disk_fault.so"));
        fs::write(&source, SOURCE).expect("write the library's source");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .output()
            .expect("start cc");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let control = settings.dir.join("disk_fault");
        let variable =
            |name: &str, path: &Path| (name.to_owned(), path.to_str().expect("ours").to_owned());
        settings.environment.push(variable("LD_PRELOAD", &library));
        settings.environment.push(variable("DISK_FAULT_CONTROL", &control));
        Self { control }
    }

    /// From now on such calls don't return.
    pub fn hang(&self, call: DiskCall, path: &str) {
        self.order("hang", call, path);
    }

    /// From now on such calls take 50 ms longer.
    pub fn slow(&self, call: DiskCall, path: &str) {
        self.order("slow", call, path);
    }

    /// From this one of such calls on, counted from 1, all return `EIO`.
    pub fn away_from(&self, number: u64, call: DiskCall, path: &str) {
        self.order(&format!("away-{number}"), call, path);
    }

    /// The next such call returns `EIO`.
    pub fn fail_once(&self, call: DiskCall, path: &str) {
        self.order("fail", call, path);
    }

    /// Calls return again.
    ///
    /// # Panics
    ///
    /// If there is no fault.
    pub fn end(&self) {
        fs::remove_file(&self.control).expect("remove the control file");
    }

    /// Waits until the fault has hit a call.
    pub fn wait_until_hit(&self) {
        poll(RECOVERY_LIMIT, "a call that the fault hits", || (self.hits() > 0).then_some(()));
    }

    /// How many calls the fault has hit.
    #[must_use]
    pub fn hits(&self) -> usize {
        let noted = fs::read_to_string(self.control.with_extension("hit"));
        noted.map_or(0, |noted| noted.lines().count())
    }

    fn order(&self, action: &str, call: DiskCall, path: &str) {
        let call = match call {
            DiskCall::Sync => "sync",
            DiskCall::Write => "write",
            DiskCall::Any => "any",
        };
        let _ = fs::remove_file(self.control.with_extension("hit"));
        // Never seen in part.
        let beside = self.control.with_extension("new");
        fs::write(&beside, format!("{action} {call} {path}\n")).expect("write the control file");
        fs::rename(&beside, &self.control).expect("put the control file in place");
    }
}
