//! Asks the voters for their chains, and draws the conclusion.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_protocol::cluster::ClusterEntry;
use quorate_protocol::types::{NodeId, Seq};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::chains::Chains;
use super::compare::{ChainPoint, ChainReport, Divergence, NodeChain};
use super::suspicion::{Finding, Suspect, Suspicion};
use crate::metrics::ChainMetrics;
use crate::snapshot::{Dialled, chain_remotely, connect};
use crate::storage::state::damage;
use crate::view::Published;

/// How long a voter may take to answer, a connection included.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// A start that can't trust its journal or its state, and what they say.
#[derive(Clone, Debug)]
pub(crate) struct Doubt {
    /// Why.
    pub(crate) suspect: Suspect,
    /// What the state holds; `ChainPoint` of position 0 where it holds nothing.
    pub(crate) state: ChainPoint,
    /// The chain that the journal has at the state's entry, where it holds that.
    pub(crate) journal_there: Option<ChainPoint>,
    /// The journal's end.
    pub(crate) journal: ChainPoint,
    /// The newest configuration in either.
    pub(crate) config: Arc<ClusterEntry>,
    /// Of the state in force.
    pub(crate) state_dir: PathBuf,
}

/// What is known of the positions that a doubt is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The voters must be asked again.
    Open,
    /// Journal and state are what most hold.
    Clean,
    /// The state isn't.
    State,
    /// The journal isn't, and the state holds all that it should hold.
    Journal,
    /// The journal isn't, and nothing here holds what it should hold.
    Lost,
}

/// Compares this node with the others, as often as it is told to.
pub(crate) struct ChainWatch {
    pub(crate) node: NodeId,
    pub(crate) published: Arc<Published>,
    pub(crate) chains: Arc<Chains>,
    pub(crate) suspicion: Arc<Suspicion>,
    pub(crate) metrics: ChainMetrics,
    /// Set where this start can't trust what it found.
    pub(crate) doubt: Option<Doubt>,
    /// What `/status` says.
    pub(crate) told: Arc<Divergence>,
}

impl ChainWatch {
    /// One comparison. Failures are told, and it is tried again the next time.
    pub(crate) async fn look(&self, dial: &Dialled) {
        match &self.doubt {
            None => self.compare(dial).await,
            Some(doubt) => self.verify(doubt, dial).await,
        }
    }

    async fn compare(&self, dial: &Dialled) {
        let view = self.published.view();
        let Some(config) = view.config.clone().filter(|config| config.is_voter(self.node)) else {
            return;
        };
        let chains = self.chains.clone();
        let read = move || (chains.contradiction(), chains.committed(Seq::MAX));
        let Ok((contradiction, own)) = tokio::task::spawn_blocking(read).await else { return };
        if let Some((journal, state)) = contradiction {
            let reason = format!("the journal holds {journal}, the state {state}");
            return self.stand_back(state.id.seq, &reason);
        }
        let Some(own) = own else { return };
        let report = self.report(&config, own, dial).await;
        self.judge(&report);
    }

    /// Names who differs; if that is this node, it stands back.
    fn judge(&self, report: &ChainReport) {
        let odd = report.odd();
        self.metrics.compared(report, &odd);
        let text = (!odd.is_empty()).then(|| {
            let names: Vec<String> = odd.iter().map(NodeId::to_string).collect();
            format!("node {} differs at {}: {report}", names.join(", node "), report.seq)
        });
        if self.told.tell(text.as_deref()) {
            match &text {
                Some(text) => tracing::error!(divergence = %text, "nodes hold different logs"),
                None => tracing::info!(seq = %report.seq, "all nodes hold the same log again"),
            }
        }
        if let (Some(text), true, Some(_)) = (text, odd.contains(&self.node), report.most()) {
            self.stand_back(report.seq, &text);
        }
    }

    fn stand_back(&self, seq: Seq, reason: &str) {
        if let Err(error) = self.suspicion.raise(seq, reason) {
            tracing::error!(%error, "the mark of a suspect log can't be written");
        }
    }

    /// All voters at the highest position that all who answer know to be committed, and that is in
    /// this node's journal. Who is further behind is left out.
    async fn report(&self, config: &ClusterEntry, own: ChainPoint, dial: &Dialled) -> ChainReport {
        let first = self.ask(config, own, dial).await;
        let known = first.iter().filter_map(|node| node.holds.clone().ok());
        let seqs: Vec<Seq> = known.map(|point| point.id.seq).collect();
        let first = ChainReport::new(own.id.seq, first);
        let chains = self.chains.clone();
        let common = move || {
            let mut lower: Vec<Seq> = seqs.into_iter().filter(|seq| *seq < own.id.seq).collect();
            lower.sort_unstable();
            lower.into_iter().find_map(|seq| chains.at(seq))
        };
        let Ok(Some(lower)) = tokio::task::spawn_blocking(common).await else { return first };
        ChainReport::new(lower.id.seq, self.ask(config, lower, dial).await)
    }

    /// What all voters hold at the position of `own`, or at their commit positions.
    async fn ask(&self, config: &ClusterEntry, own: ChainPoint, dial: &Dialled) -> Vec<NodeChain> {
        let mut asking = JoinSet::new();
        for node in config.voters() {
            let address = config.member(node).map(|member| member.peer_addr.clone());
            let (address, dial) = (address.unwrap_or_default(), dial.clone());
            let (here, seq) = (node == self.node, own.id.seq);
            asking.spawn(async move {
                let holds = if here { Ok(own) } else { ask_one(&dial, node, &address, seq).await };
                NodeChain { node, holds }
            });
        }
        let mut nodes = asking.join_all().await;
        nodes.sort_by_key(|answer| answer.node);
        nodes
    }

    /// Finds out which of journal and state is right, and notes it for the next start.
    async fn verify(&self, doubt: &Doubt, dial: &Dialled) {
        let (state, journal) = (doubt.state, doubt.journal);
        let mut reports = Vec::new();
        for (point, asked) in
            [(state, state.id.seq > Seq::ZERO), (journal, journal.id.seq > state.id.seq)]
        {
            reports.push(if asked {
                let nodes = self.ask(&doubt.config, point, dial).await;
                Some(ChainReport::new(point.id.seq, nodes))
            } else {
                None
            });
        }
        let (at_end, at_state) = (reports.pop().flatten(), reports.pop().flatten());
        let verdict = doubt.verdict(at_state.as_ref(), at_end.as_ref());
        let reports: Vec<String> =
            at_state.iter().chain(&at_end).map(ChainReport::to_string).collect();
        let found = format!("{}; {}", doubt.suspect.reason, reports.join("; "));
        if self.told.tell(Some(&found)) {
            tracing::warn!(?verdict, %found, "the voters were asked which log is right");
        }
        if let Err(error) = self.settle(doubt, verdict, &found) {
            tracing::error!(%error, "what was found of a suspect log can't be noted");
        }
    }

    fn settle(&self, doubt: &Doubt, verdict: Verdict, found: &str) -> io::Result<()> {
        let data_dir = self.suspicion.data_dir();
        let note = |finding| {
            let (seq, reason) = (doubt.suspect.seq, found.to_owned());
            Suspect { finding, seq, reason }.store(data_dir)
        };
        match verdict {
            Verdict::Open => return Ok(()),
            Verdict::Clean => Suspect::remove(data_dir)?,
            Verdict::State => {
                damage::mark(&doubt.state_dir, found)?;
                Suspect::remove(data_dir)?;
            }
            Verdict::Journal => note(Finding::Journal)?,
            Verdict::Lost => note(Finding::Lost)?,
        }
        tracing::error!(?verdict, found, "a suspect log was judged: restarting");
        self.suspicion.settled();
        Ok(())
    }
}

async fn ask_one(
    dial: &Dialled,
    node: NodeId,
    address: &str,
    seq: Seq,
) -> Result<ChainPoint, String> {
    let asked = async {
        let connection = connect(dial, node, address).await?;
        let point = chain_remotely(&connection, seq).await;
        connection.close(0u32.into(), b"");
        point?.ok_or_else(|| "it has trimmed its log beyond that".to_owned())
    };
    timeout(ANSWER_DEADLINE, asked).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

impl Doubt {
    /// A majority at the state's position decides on both; one at the journal's end on the tail
    /// behind the state.
    fn verdict(&self, at_state: Option<&ChainReport>, at_end: Option<&ChainReport>) -> Verdict {
        let (state_right, start_right) = match at_state.map(ChainReport::most) {
            None => (true, true),
            Some(None) => return Verdict::Open,
            Some(Some(right)) => {
                let journal = self.journal_there.is_none_or(|journal| journal == right);
                (self.state == right, journal)
            }
        };
        let tail_right = match at_end.map(ChainReport::most) {
            None => true,
            // A tail that isn't committed may differ; but not where the difference was seen.
            Some(None) if self.suspect.seq > self.state.id.seq => return Verdict::Open,
            Some(None) => true,
            // Another id: the tail is of another branch, which the primary has cut.
            Some(Some(right)) => right.id != self.journal.id || right == self.journal,
        };
        match (state_right, start_right && tail_right) {
            (true, true) => Verdict::Clean,
            (false, true) => Verdict::State,
            (true, false) if self.journal.id.seq <= self.state.id.seq => Verdict::Journal,
            (_, false) => Verdict::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_protocol::cluster::SafetyTimers;
    use quorate_protocol::policy::Policy;
    use quorate_protocol::types::{Chain, ClusterId, EntryId, Epoch, Generation};

    use super::*;

    fn point(epoch: u64, seq: u64, chain: u128) -> ChainPoint {
        ChainPoint { id: EntryId::new(Epoch(epoch), Seq(seq)), chain: Chain(chain) }
    }

    fn doubt(seen: u64, state: ChainPoint, there: Option<u128>, journal: ChainPoint) -> Doubt {
        let suspect =
            Suspect { finding: Finding::Unverified, seq: Seq(seen), reason: String::new() };
        let config = ClusterEntry {
            cluster: ClusterId(7),
            generation: Generation(0),
            version: 1,
            members: Vec::new(),
            policy: Policy::MAJORITY,
            timers: SafetyTimers::LAN,
            removed: Vec::new(),
            tokens: Vec::new(),
        };
        let journal_there = there.map(|chain| ChainPoint { id: state.id, chain: Chain(chain) });
        let state_dir = PathBuf::new();
        Doubt { suspect, state, journal_there, journal, config: Arc::new(config), state_dir }
    }

    /// Node 1 asks; the others say this.
    fn report(own: ChainPoint, others: &[Option<ChainPoint>]) -> ChainReport {
        let silent = || "silent".to_owned();
        let own = NodeChain { node: NodeId(1), holds: Ok(own) };
        let others = (2..)
            .zip(others)
            .map(|(node, point)| NodeChain { node: NodeId(node), holds: point.ok_or_else(silent) });
        let nodes: Vec<NodeChain> = std::iter::once(own.clone()).chain(others).collect();
        let seq = own.holds.expect("own").id.seq;
        ChainReport::new(seq, nodes)
    }

    /// State at 5 and journal at `end`, against others who hold these.
    fn verdict(
        doubt: &Doubt,
        at_state: &[Option<ChainPoint>],
        at_end: Option<&[Option<ChainPoint>]>,
    ) -> Verdict {
        let at_state = report(doubt.state, at_state);
        let at_end = at_end.map(|others| report(doubt.journal, others));
        doubt.verdict(Some(&at_state), at_end.as_ref())
    }

    #[test]
    fn most_voters_decide_which_of_journal_and_state_is_given_up() {
        let (right, wrong) = (point(2, 5, 1), point(2, 5, 9));
        let both = [Some(right), Some(right)];
        let same = doubt(5, right, Some(1), right);
        assert_eq!(verdict(&same, &both, None), Verdict::Clean);
        assert_eq!(verdict(&same, &[Some(wrong), Some(right)], None), Verdict::Clean);
        let journal = doubt(5, right, Some(9), wrong);
        assert_eq!(verdict(&journal, &both, None), Verdict::Journal);
        let state = doubt(5, wrong, Some(1), right);
        assert_eq!(verdict(&state, &both, None), Verdict::State);
        let lost = doubt(5, wrong, Some(9), wrong);
        assert_eq!(verdict(&lost, &both, None), Verdict::Lost);
        // One voter of three can't say it alone.
        assert_eq!(verdict(&lost, &[Some(right), None], None), Verdict::Open);
        // Those that are not there yet say nothing of it.
        let behind = Some(point(2, 4, 3));
        assert_eq!(verdict(&lost, &[behind, behind], None), Verdict::Open);
    }

    #[test]
    fn a_tail_behind_the_state_is_lost_where_it_is_not_what_most_hold() {
        let (state, end) = (point(2, 5, 1), point(2, 8, 4));
        let at_state = [Some(state), Some(state)];
        let other_chain = Some(point(2, 8, 9));
        let doubt = |seen| doubt(seen, state, Some(1), end);
        let judged =
            |seen, others: [Option<ChainPoint>; 2]| verdict(&doubt(seen), &at_state, Some(&others));
        assert_eq!(judged(8, [other_chain, other_chain]), Verdict::Lost);
        assert_eq!(judged(8, [Some(end), Some(end)]), Verdict::Clean);
        // Of another epoch: never committed, and cut in the ordinary way.
        let other_branch = Some(point(3, 8, 7));
        assert_eq!(judged(8, [other_branch, other_branch]), Verdict::Clean);
        // Not committed yet.
        assert_eq!(judged(8, [Some(state), Some(state)]), Verdict::Open);
        assert_eq!(judged(5, [Some(state), Some(state)]), Verdict::Clean);
    }
}
