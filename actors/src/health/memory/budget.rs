//! What the system lets a process have, and what this one has.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};

/// How much memory the node may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes.
    pub bytes: u64,
    /// Who says so.
    pub source: BudgetSource,
}

/// Where a budget comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetSource {
    /// The configuration.
    Configured,
    /// The limit of the process's control group, version 2, or of one above it.
    CgroupV2,
    /// The same, version 1.
    CgroupV1,
    /// The process's limit on its data or its addresses.
    Rlimit,
    /// All of the machine's memory.
    Ram,
}

impl Budget {
    /// The configured one; else the limit of the control group, else that of the process, else
    /// the machine's memory. A limit above the machine's memory limits nothing.
    #[must_use]
    pub fn find(configured: Option<u64>) -> Self {
        if let Some(bytes) = configured {
            return Self { bytes, source: BudgetSource::Configured };
        }
        let ram = ram_bytes();
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let found = [
            (BudgetSource::CgroupV2, cgroup_v2(&groups, Path::new("/sys/fs/cgroup"))),
            (BudgetSource::CgroupV1, cgroup_v1(&groups, Path::new("/sys/fs/cgroup/memory"))),
            (BudgetSource::Rlimit, rlimit()),
        ];
        let limit = found.into_iter().find_map(|(source, bytes)| {
            Some(Self { bytes: bytes.filter(|bytes| *bytes < ram)?, source })
        });
        limit.unwrap_or(Self { bytes: ram, source: BudgetSource::Ram })
    }
}

/// The lowest limit of the group and of those above it.
fn cgroup_v2(groups: &str, root: &Path) -> Option<u64> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    lowest(root, group, "memory.max")
}

fn cgroup_v1(groups: &str, root: &Path) -> Option<u64> {
    let group = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next()?;
        controllers.split(',').any(|name| name == "memory").then(|| parts.next())?
    })?;
    lowest(root, group, "memory.limit_in_bytes")
}

/// Inside a container the group's own path may not be visible: then the root of what is visible is
/// the container's.
fn lowest(root: &Path, group: &str, file: &str) -> Option<u64> {
    let inner = root.join(group.trim_start_matches('/'));
    let above = inner.ancestors().take_while(|path| path.starts_with(root));
    above.filter_map(|path| fs::read_to_string(path.join(file)).ok()?.trim().parse().ok()).min()
}

fn rlimit() -> Option<u64> {
    let limit = |resource| getrlimit(resource).ok().map(|(soft, _)| soft);
    [Resource::RLIMIT_DATA, Resource::RLIMIT_AS]
        .into_iter()
        .filter_map(limit)
        .filter(|bytes| *bytes != RLIM_INFINITY)
        .min()
}

fn ram_bytes() -> u64 {
    let value = |variable| sysconf(variable).ok().flatten().and_then(|n| u64::try_from(n).ok());
    match (value(SysconfVar::_PHYS_PAGES), value(SysconfVar::PAGE_SIZE)) {
        (Some(pages), Some(bytes)) => pages.saturating_mul(bytes),
        // Unknown is unlimited: a figure that was made up could refuse every write.
        (_, _) => u64::MAX,
    }
}

/// What this process has in main memory.
///
/// # Errors
/// `/proc` can't be read.
pub(super) fn resident_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let bytes = sysconf(SysconfVar::PAGE_SIZE).map_err(io::Error::from)?.unwrap_or(4096);
    let bytes = u64::try_from(bytes).map_err(io::Error::other)?;
    pages
        .and_then(|pages| pages.checked_mul(bytes))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/statm"))
}

impl fmt::Display for BudgetSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configured => "health.memory_limit",
            Self::CgroupV2 => "cgroup v2",
            Self::CgroupV1 => "cgroup v1",
            Self::Rlimit => "rlimit",
            Self::Ram => "RAM",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::scratch::Scratch;

    fn limits(files: &[(&str, &str)]) -> Scratch {
        let root = Scratch::new();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_lowest_limit_from_the_group_up_counts() {
        let root = limits(&[
            ("memory.max", "max\n"),
            ("system/memory.max", "1000\n"),
            ("system/node/memory.max", "5000\n"),
        ]);
        assert_eq!(cgroup_v2("0::/system/node\n", root.path()), Some(1000));
        assert_eq!(cgroup_v2("0::/\n", root.path()), None);
        // As in a container, whose group is the root of what it sees.
        let root = limits(&[("memory.max", "700\n")]);
        assert_eq!(cgroup_v2("0::/system/node\n", root.path()), Some(700));
        assert_eq!(cgroup_v2("5:memory:/a\n", root.path()), None);
    }

    #[test]
    fn the_first_version_names_its_controllers() {
        let root = limits(&[("node/memory.limit_in_bytes", "4096\n")]);
        let groups = "9:cpu,cpuacct:/other\n5:memory,hugetlb:/node\n0::/elsewhere\n";
        assert_eq!(cgroup_v1(groups, root.path()), Some(4096));
        assert_eq!(cgroup_v1("9:cpu:/node\n", root.path()), None);
    }

    #[test]
    fn this_process_has_a_budget_and_fits_it() {
        let budget = Budget::find(None);
        let resident = resident_bytes().unwrap();
        assert!(resident > 0 && resident < budget.bytes, "{resident} of {budget:?}");
        let configured = Budget::find(Some(5));
        assert_eq!(configured, Budget { bytes: 5, source: BudgetSource::Configured });
    }
}
