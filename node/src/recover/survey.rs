//! What is left of the cluster: the survivor's own copy, other directories, and nodes that answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_actors::node::OfflineCopy;
use quorate_actors::supervisor::Phase;
use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::types::{EntryId, Epoch, NodeId, Seq};

use super::assess::Copy;
use crate::failure::Failure;
use crate::http::AdminUrl;
use crate::status;

/// The longest wait for a node's answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Where a copy was seen.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In the data directory of a stopped node.
    Directory(PathBuf),
    /// At a node that runs.
    Running(AdminUrl),
}

/// One copy that was seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) copy: Copy,
    pub(super) place: Place,
}

/// Everything that was seen.
pub(super) struct Survey {
    /// The survivor's directory.
    pub(super) own: OfflineCopy,
    /// All copies, the survivor's first.
    pub(super) seen: Vec<Seen>,
    /// The configurations that may be in force, oldest first.
    pub(super) configs: Vec<ClusterEntry>,
}

impl Survey {
    /// Looks at the survivor's directory and at everything else that was named.
    pub(super) fn take(
        own: &Path,
        directories: &[PathBuf],
        running: &[AdminUrl],
    ) -> Result<Self, Failure> {
        let copy = read(own)?;
        let mut survey = Self { seen: Vec::new(), configs: configs(&copy), own: copy.clone() };
        survey.add_directory(own, copy)?;
        for path in directories {
            survey.add_directory(path, read(path)?)?;
        }
        for admin in running {
            survey.add_running(admin)?;
        }
        Ok(survey)
    }

    /// What was seen, wherever.
    pub(super) fn copies(&self) -> Vec<Copy> {
        self.seen.iter().map(|seen| seen.copy).collect()
    }

    /// The survivor's copy.
    pub(super) fn survivor(&self) -> Copy {
        self.seen[0].copy
    }

    fn add_directory(&mut self, path: &Path, found: OfflineCopy) -> Result<(), Failure> {
        let refuse = |why: String| Err(Failure::failed(path.display(), why));
        if let Some(damage) = &found.damage {
            return refuse(format!(
                "its journal lost synced entries ({damage}): it can't go on, nor say what is at risk"
            ));
        }
        if found.cluster.is_none() || found.cluster != self.own.cluster {
            return refuse("it belongs to another cluster".to_owned());
        }
        if found.generation != self.own.generation {
            let (theirs, ours) = (found.generation, self.own.generation);
            return refuse(format!("it is of generation {theirs}, and the survivor of {ours}"));
        }
        if found.last > self.seen.iter().map(|seen| seen.copy.last).max().unwrap_or_default() {
            self.configs = configs(&found);
        }
        let copy = Copy { node: found.node, last: found.last, memory_loss: found.memory_loss };
        self.add(copy, Place::Directory(path.to_owned()))
    }

    fn add_running(&mut self, admin: &AdminUrl) -> Result<(), Failure> {
        let status = status::fetch(admin, ANSWER_LIMIT)?;
        let refuse = |why: String| Err(Failure::failed(admin, why));
        if status.phase == Phase::Starting.to_string() {
            return refuse(
                "it is still starting, and doesn't know its log yet: ask again".to_owned(),
            );
        }
        if status.cluster_id != self.own.cluster.map(|cluster| cluster.to_string()) {
            return refuse("it belongs to another cluster".to_owned());
        }
        if status.generation != self.own.generation.0 {
            let (theirs, ours) = (status.generation, self.own.generation);
            return refuse(format!("it is of generation {theirs}, and the survivor of {ours}"));
        }
        if let Some(primary) = status.primary {
            return refuse(format!("node {primary} leads the cluster: nothing is to be recovered"));
        }
        let members: Vec<u64> = status.members.iter().map(|member| member.node).collect();
        let known =
            |node: &u64| self.configs.iter().any(|config| config.member(NodeId(*node)).is_some());
        if let Some(stranger) = members.iter().find(|node| !known(node)) {
            return refuse(format!(
                "it knows a member {stranger} that no directory names: stop it, and name its data \
                 directory with --copy"
            ));
        }
        let copy = Copy {
            node: NodeId(status.node),
            last: EntryId::new(Epoch(status.last_epoch), Seq(status.last_seq)),
            memory_loss: status.memory_loss,
        };
        self.add(copy, Place::Running(admin.clone()))
    }

    fn add(&mut self, copy: Copy, place: Place) -> Result<(), Failure> {
        let node = copy.node;
        if self.seen.iter().any(|seen| seen.copy.node == node) {
            return Err(Failure::Usage(format!("{place}: node {node} was named before")));
        }
        self.seen.push(Seen { copy, place });
        Ok(())
    }
}

fn read(path: &Path) -> Result<OfflineCopy, Failure> {
    OfflineCopy::read(path).map_err(|error| Failure::failed(path.display(), error))
}

/// Those of this log that may be in force: the newest that the state holds, which is committed, and
/// what comes behind it. One of a higher generation is in force at once.
fn configs(copy: &OfflineCopy) -> Vec<ClusterEntry> {
    let mut from = 0;
    for (index, (id, config)) in copy.configs.iter().enumerate().skip(1) {
        let risen = config.generation > copy.configs[index - 1].1.generation;
        if risen || id.seq <= copy.applied.seq {
            from = index;
        }
    }
    copy.configs[from..].iter().map(|(_, config)| ClusterEntry::clone(config)).collect()
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Running(admin) => write!(f, "{admin}, running"),
        }
    }
}
