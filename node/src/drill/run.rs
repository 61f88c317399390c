//! One fault under load.

use std::path::Path;
use std::time::{Duration, Instant};

use quorate_drill::history::{RegisterHistory, UniqueWrite, check_register, count};
use quorate_drill::workload::{
    RegisterClients, RegisterOptions, UniqueWriters, WriterOptions, keys,
};

use super::cluster::{DrillCluster, Node, poll};
use super::fault::{Fault, Struck, recover};
use super::figures::{Figures, ms};
use crate::failure::Failure;

/// Acknowledged writes before the fault, and after it.
const WRITES_MIN: u64 = 200;

/// Those that a primary acknowledges alone before it loses its disk, where the policy lets it.
const WRITES_ALONE: u64 = 100;

/// How long the writers may take for them.
const WRITES_LIMIT: Duration = Duration::from_secs(30);

/// How long another node may take to lead. Under some policies none can.
pub(super) const FAILOVER_LIMIT: Duration = Duration::from_secs(10);

/// How long a broken node may take to be back, a restart by a service manager included.
const RETURN_LIMIT: Duration = Duration::from_secs(120);

/// A pause after each exchange of a writer: a drill is no benchmark.
const WRITER_PAUSE: Duration = Duration::from_millis(1);

/// What one run needs.
pub(super) struct Run<'a> {
    pub(super) cluster: &'a DrillCluster,
    pub(super) fault: &'a Fault,
    /// Unlike that of any other run: keys begin with it.
    pub(super) name: String,
    pub(super) writers: usize,
    pub(super) reply_timeout: Duration,
}

impl Run<'_> {
    /// Breaks the primary under load, mends it, and judges what clients saw.
    pub(super) fn execute(&self) -> Result<Figures, Failure> {
        let clients = self.cluster.clients();
        let options = WriterOptions {
            writers: self.writers,
            pipeline: 1,
            pause: WRITER_PAUSE,
            timeout: self.reply_timeout,
        };
        let writers = UniqueWriters::start(&self.name, &clients, options);
        let options = RegisterOptions { timeout: self.reply_timeout, ..RegisterOptions::default() };
        let registers = RegisterClients::start(&self.name, &clients, options);
        wait_for_writes(&writers, "before the fault")?;
        let Some((node, _)) = self.cluster.primary(|_| true) else {
            return Err(Failure::Failed("writes succeed, but no node says that it leads".into()));
        };
        let mut figures = Figures { node: node.id, ..Figures::default() };
        let others = self.fault.end_others(self.cluster, node)?;
        if others.is_some() {
            wait_for(&writers, WRITES_ALONE, "by the primary alone")?;
        }
        let mut struck = self.fault.strike(self.cluster, node);
        self.fault.wipe(self.cluster, &mut struck)?;
        drop(others);
        self.fail_over(&mut struck, node, &mut figures)?;
        if !self.fault.wipes() {
            self.mend(&mut struck, node)?;
        }
        wait_for_writes(&writers, "after the fault")?;
        let at = struck.at;
        self.judge(writers, registers, at, &mut figures)?;
        if self.fault.wipes() && !figures.recovered {
            self.mend(&mut struck, node)?;
        }
        Ok(figures)
    }

    /// Waits for another primary, as long as there may be one.
    fn fail_over(
        &self,
        struck: &mut Struck,
        node: Node,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        let found = poll(FAILOVER_LIMIT, || match struck.refusal() {
            Some(failure) => Some(Err(failure)),
            None => {
                let (successor, _) = self.cluster.primary(|other| other != node)?;
                Some(Ok((successor, Instant::now())))
            }
        });
        if let Some((successor, at)) = found.transpose()? {
            figures.successor = Some(successor.id);
            figures.new_primary_ms = Some(ms(at - struck.at));
        } else if self.fault.wipes() {
            figures.successor = Some(recover(self.cluster, node)?.id);
            figures.recovered = true;
            figures.kept_in = struck.kept_in().map(Path::to_owned);
        }
        Ok(())
    }

    fn mend(&self, struck: &mut Struck, node: Node) -> Result<(), Failure> {
        self.fault.mend(self.cluster, struck)?;
        if self.cluster.wait_until_back(node, RETURN_LIMIT) {
            return Ok(());
        }
        Err(Failure::Failed(format!("node-{} was not back within {RETURN_LIMIT:?}", node.id)))
    }

    fn judge(
        &self,
        writers: UniqueWriters,
        registers: RegisterClients,
        struck: Instant,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        let names = registers.names();
        let histories = registers.finish();
        let history = writers.finish_each();
        figures.measure(&history, struck);
        let history: Vec<UniqueWrite> = history.into_iter().flatten().collect();
        let keys = keys(&history);
        let store = self.cluster.read_all(&keys)?;
        let (verdict, violations) = count(&history, &store);
        figures.judge(verdict, &violations);
        figures.operations = histories.iter().map(RegisterHistory::len).sum();
        figures.not_linearizable = histories
            .iter()
            .find_map(|history| check_register(history).err())
            .map(|e| e.to_string());
        self.cluster.delete_all(&keys)?;
        self.cluster.delete_all(&names)
    }
}

fn wait_for_writes(writers: &UniqueWriters, when: &str) -> Result<(), Failure> {
    wait_for(writers, WRITES_MIN, when)
}

fn wait_for(writers: &UniqueWriters, more: u64, when: &str) -> Result<(), Failure> {
    let goal = writers.acknowledged() + more;
    match poll(WRITES_LIMIT, || (writers.acknowledged() >= goal).then_some(())) {
        Some(()) => Ok(()),
        None => Err(Failure::Failed(format!(
            "{when}: fewer than {more} writes were acknowledged within {WRITES_LIMIT:?}"
        ))),
    }
}
