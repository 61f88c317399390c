//! What most voters hold at one position, and who doesn't.

use std::fmt;

use parking_lot::Mutex;
use quorate_protocol::types::{Chain, EntryId, NodeId, Seq};

/// An entry, and the log's chain behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainPoint {
    /// The entry.
    pub id: EntryId,
    /// The chain.
    pub chain: Chain,
}

/// What one voter said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeChain {
    /// Which.
    pub node: NodeId,
    /// What it holds there; else why it isn't known.
    pub holds: Result<ChainPoint, String>,
}

/// All voters at one position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainReport {
    /// The position.
    pub seq: Seq,
    /// Every voter.
    pub nodes: Vec<NodeChain>,
}

/// Who holds a different log, in words, as of the last comparison.
#[derive(Debug, Default)]
pub struct Divergence(Mutex<Option<String>>);

impl Divergence {
    /// `None` where all that answered hold the same.
    #[must_use]
    pub fn told(&self) -> Option<String> {
        self.0.lock().clone()
    }

    /// Whether this is another finding than the last.
    pub(crate) fn tell(&self, text: Option<&str>) -> bool {
        let mut told = self.0.lock();
        let changed = told.as_deref() != text;
        if changed {
            *told = text.map(str::to_owned);
        }
        changed
    }
}

impl ChainReport {
    /// What was said of one position. A voter that spoke of another one, because it knows of none
    /// so high to be committed, says nothing of this one.
    #[must_use]
    pub fn new(seq: Seq, mut nodes: Vec<NodeChain>) -> Self {
        for node in &mut nodes {
            if let Ok(point) = &node.holds
                && point.id.seq != seq
            {
                node.holds = Err(format!("it is at {} yet", point.id));
            }
        }
        Self { seq, nodes }
    }

    /// What more than half of all voters hold.
    #[must_use]
    pub fn most(&self) -> Option<ChainPoint> {
        let holders = |point| self.nodes.iter().filter(|node| node.holds == Ok(point)).count();
        let points = self.nodes.iter().filter_map(|node| node.holds.clone().ok());
        points.into_iter().find(|point| 2 * holders(*point) > self.nodes.len())
    }

    /// Those that hold something else than most; where there is no such thing, all that answered,
    /// unless all of these hold the same.
    #[must_use]
    pub fn odd(&self) -> Vec<NodeId> {
        let known = || self.nodes.iter().filter_map(|n| Some((n.node, n.holds.clone().ok()?)));
        let first = known().next().map(|(_, point)| point);
        let (most, equal) = (self.most(), known().all(|(_, point)| Some(point) == first));
        if equal {
            return Vec::new();
        }
        known().filter(|(_, point)| most != Some(*point)).map(|(node, _)| node).collect()
    }
}

impl fmt::Display for ChainPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with chain {:032x}", self.id, self.chain.0)
    }
}

/// Who holds what: `node 1: 3.17 with chain …; node 2: …`.
impl fmt::Display for ChainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, NodeChain { node, holds }) in self.nodes.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            match holds {
                Ok(point) => write!(f, "{separator}node {node}: {point}")?,
                Err(reason) => write!(f, "{separator}node {node}: {reason}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use quorate_protocol::types::Epoch;

    use super::*;

    fn point(chain: u128) -> ChainPoint {
        ChainPoint { id: EntryId::new(Epoch(2), Seq(7)), chain: Chain(chain) }
    }

    fn report(chains: &[Option<u128>]) -> ChainReport {
        let holds = |chain: &Option<u128>| chain.map(point).ok_or_else(|| "silent".to_owned());
        let nodes = (1..).zip(chains);
        let nodes = nodes.map(|(n, chain)| NodeChain { node: NodeId(n), holds: holds(chain) });
        ChainReport::new(Seq(7), nodes.collect())
    }

    #[test]
    fn who_is_not_there_yet_is_no_odd_one() {
        let mut nodes = report(&[Some(1), Some(1), Some(1)]).nodes;
        nodes[1].holds = Ok(ChainPoint { id: EntryId::new(Epoch(2), Seq(6)), chain: Chain(5) });
        let report = ChainReport::new(Seq(7), nodes);
        assert_eq!((report.most(), report.odd()), (Some(point(1)), vec![]), "{report}");
    }

    type Row = (&'static [Option<u128>], Option<u128>, &'static [u64]);

    #[test]
    fn the_odd_one_is_who_differs_from_more_than_half_of_all_voters() {
        let rows: [Row; 8] = [
            (&[Some(1), Some(1), Some(1)], Some(1), &[]),
            (&[Some(1), Some(2), Some(1)], Some(1), &[2]),
            (&[Some(1), None, Some(1)], Some(1), &[]),
            // Two of three that differ: neither is right.
            (&[Some(1), None, Some(2)], None, &[1, 3]),
            (&[Some(1), Some(2), Some(3)], None, &[1, 2, 3]),
            // One voice is not most of three, but nobody contradicts it.
            (&[Some(1), None, None], None, &[]),
            (&[Some(1), Some(1), Some(2), None, None], None, &[1, 2, 3]),
            (&[Some(1), Some(1), Some(2), Some(1), None], Some(1), &[3]),
        ];
        for (chains, most, odd) in rows {
            let report = report(chains);
            assert_eq!(report.most(), most.map(point), "{report}");
            let odd: Vec<NodeId> = odd.iter().copied().map(NodeId).collect();
            assert_eq!(report.odd(), odd, "{report}");
        }
    }

    #[test]
    fn both_chains_are_named() {
        let text = report(&[Some(0xab), None]).to_string();
        assert_eq!(text, format!("node 1: 2.7 with chain {:032x}; node 2: silent", 0xab));
    }
}
