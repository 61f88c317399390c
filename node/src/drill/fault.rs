//! How the primary is broken, and how it is mended.
//!
//! The node breaks itself, on an order that any node passes on to it: so a drill needs no shell on
//! the machine, and the node that is broken decides whether it may be (ADR 39).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use serde_json::json;

use super::cluster::{DrillCluster, Node, poll, said};
use crate::admin::drill::{self, Break};
use crate::dev::NodeProcess;
use crate::failure::Failure;
use crate::http::{AdminUrl, Answer};

/// How long a broken process may take to be gone.
const GONE_LIMIT: Duration = Duration::from_secs(10);

/// How long the answer to the order is waited for; a node that breaks gives none.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What is done to the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its process ends at once.
    Kill {
        /// Its data is taken away meanwhile.
        wipe: bool,
    },
    /// Its process stands still for so long.
    Pause(Duration),
}

/// A fault that can be injected again and again.
pub(super) struct Fault {
    kind: Kind,
    admin: AdminUrl,
    confirmed: bool,
}

/// A fault that was injected.
pub(super) struct Struck {
    /// Just before the order was given.
    pub(super) at: Instant,
    node: Node,
    answer: Receiver<Result<Answer, Failure>>,
    /// Where the node's data is, and where it belongs.
    aside: Option<(PathBuf, PathBuf)>,
}

/// Nodes that are started again when this is dropped.
pub(super) struct Ended(Vec<NodeProcess>);

impl Drop for Ended {
    fn drop(&mut self) {
        for process in &mut self.0 {
            if let Err(error) = process.spawn() {
                eprintln!("{error}");
            }
        }
    }
}

impl Struck {
    /// Where the node's data is kept meanwhile, if it was taken away.
    pub(super) fn kept_in(&self) -> Option<&Path> {
        self.aside.as_ref().map(|(aside, _)| aside.as_path())
    }

    /// What the order was refused with, if it was.
    pub(super) fn refusal(&self) -> Option<Failure> {
        match self.answer.try_recv() {
            // A paused node answers when it goes on. Where another node passed the order on, it may
            // have lost the one that was to answer.
            Ok(Ok(answer)) if matches!(answer.status, 200 | 504) => None,
            Ok(Ok(answer)) => {
                let body: serde_json::Value =
                    serde_json::from_str(&answer.body).unwrap_or_default();
                let why = body["error"].as_str().unwrap_or(answer.body.trim());
                Some(Failure::Failed(format!("the primary was not broken: {why}")))
            }
            // A broken node answers nobody.
            Ok(Err(_)) | Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }
}

impl Fault {
    pub(super) fn new(kind: Kind, admin: AdminUrl, confirmed: bool) -> Self {
        Self { kind, admin, confirmed }
    }

    /// As the command line has it.
    pub(super) fn name(&self) -> String {
        match self.kind {
            Kind::Kill { wipe: false } => "kill".to_owned(),
            Kind::Kill { wipe: true } => "kill, wipe".to_owned(),
            Kind::Pause(length) => format!("pause {} ms", length.as_millis()),
        }
    }

    /// Whether the node's data is taken away.
    pub(super) fn wipes(&self) -> bool {
        self.kind == Kind::Kill { wipe: true }
    }

    /// Ends all other nodes, where what the primary acknowledges is then on its disk alone and that is to
    /// be taken away: a loss that must be found. Standing still would not do: the kernel would keep for
    /// them what arrives.
    pub(super) fn end_others(
        &self,
        cluster: &DrillCluster,
        primary: Node,
    ) -> Result<Option<Ended>, Failure> {
        if !self.wipes() || !cluster.acknowledges_alone() {
            return Ok(None);
        }
        let mut ended = Ended(Vec::new());
        for node in cluster.nodes.iter().filter(|node| **node != primary) {
            let Some(mut process) = process(cluster, *node) else { continue };
            process.adopt();
            process.kill();
            ended.0.push(wait_until_gone(process, *node)?);
        }
        Ok(Some(ended))
    }

    /// Breaks this node, which leads.
    pub(super) fn strike(&self, cluster: &DrillCluster, node: Node) -> Struck {
        let fault = match self.kind {
            Kind::Kill { .. } => drill::Fault::Kill,
            Kind::Pause(length) => drill::Fault::Pause(length.as_millis() as u64),
        };
        let order = json!(Break { node: node.id, fault, confirmed: self.confirmed });
        let (answered, answer) = channel();
        // Where the others are down, none passes it on.
        let own = cluster.layout.as_ref().filter(|_| self.wipes());
        let own = own.map(|layout| format!("http://{}", layout.admin(node.id as u16)));
        let admin = own.and_then(|own| own.parse().ok()).unwrap_or_else(|| self.admin.clone());
        let at = Instant::now();
        std::thread::spawn(move || {
            // The receiver may be gone: who leads now is found out otherwise.
            let _ = answered.send(admin.post("/admin/drill", &order.to_string(), ANSWER_LIMIT));
        });
        Struck { at, node, answer, aside: None }
    }

    /// Takes the data of a killed node away, where that is wanted.
    pub(super) fn wipe(&self, cluster: &DrillCluster, struck: &mut Struck) -> Result<(), Failure> {
        let (true, Some(mut process)) = (self.wipes(), process(cluster, struck.node)) else {
            return Ok(());
        };
        let gone = poll(GONE_LIMIT, || match struck.refusal() {
            Some(refusal) => Some(Err(refusal)),
            None => (!process.adopt()).then_some(Ok(())),
        });
        gone.unwrap_or_else(|| Err(still_runs(struck.node)))?;
        let layout = cluster.layout.as_ref().expect("a process was found in it");
        let data = layout.data(struck.node.id as u16);
        let aside = data.with_extension(format!("drill-{}", std::process::id()));
        std::fs::rename(&data, &aside).map_err(|error| Failure::failed(data.display(), error))?;
        struck.aside = Some((aside, data));
        Ok(())
    }

    /// Brings the node back, as far as that is for the drill to do.
    pub(super) fn mend(&self, cluster: &DrillCluster, struck: &mut Struck) -> Result<(), Failure> {
        let node = struck.node;
        if matches!(self.kind, Kind::Pause(_)) {
            return Ok(());
        }
        let Some(process) = process(cluster, node) else {
            eprintln!("node-{} was killed; waiting until it is started again", node.id);
            return Ok(());
        };
        let mut process = wait_until_gone(process, node)?;
        if let Some((aside, data)) = struck.aside.take() {
            let put_back = std::fs::rename(&aside, &data);
            put_back.map_err(|error| Failure::failed(aside.display(), error))?;
        }
        process.spawn()
    }
}

/// Has the node that holds most of what is left go on alone, as an operator would where none
/// may be elected.
pub(super) fn recover(cluster: &DrillCluster, broken: Node) -> Result<Node, Failure> {
    let layout = cluster.layout.as_ref().expect("only such a cluster is wiped");
    let others = || cluster.nodes.iter().copied().filter(|node| *node != broken);
    let left = others().filter_map(|node| Some((said(node)?.last, node)));
    let (_, survivor) = left
        .max_by_key(|(last, node)| (*last, node.id))
        .ok_or_else(|| Failure::Failed("no node is left that answers".to_owned()))?;
    let mut process = process(cluster, survivor).expect("it is in the folder");
    process.adopt();
    process.terminate();
    let mut process = wait_until_gone(process, survivor)?;
    let failed = |error: std::io::Error| Failure::failed("quorate recover", error);
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.arg("recover").arg("--config").arg(layout.config(survivor.id as u16));
    command.args(["--confirm", &format!("recover {}", cluster.name)]).stdin(Stdio::null());
    for node in cluster.nodes.iter().filter(|node| **node != survivor) {
        command.args(["--fenced", &node.id.to_string()]);
    }
    for node in others().filter(|node| *node != survivor) {
        command.args(["--admin", &format!("http://{}", layout.admin(node.id as u16))]);
    }
    let output = command.output().map_err(failed)?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::failed("quorate recover", why.trim()));
    }
    process.spawn()?;
    Ok(survivor)
}

fn process(cluster: &DrillCluster, node: Node) -> Option<NodeProcess> {
    let processes = cluster.layout.as_ref()?.processes();
    processes.into_iter().find(|process| u64::from(process.id()) == node.id)
}

fn wait_until_gone(mut process: NodeProcess, node: Node) -> Result<NodeProcess, Failure> {
    match poll(GONE_LIMIT, || (!process.adopt()).then_some(())) {
        Some(()) => Ok(process),
        None => Err(still_runs(node)),
    }
}

fn still_runs(node: Node) -> Failure {
    Failure::Failed(format!("node-{} was told to end and still runs", node.id))
}
