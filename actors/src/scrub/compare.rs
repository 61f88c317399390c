//! Who differs from the others, and in which slots.

use quorate_protocol::types::NodeId;

use super::hashes::{RangeHash, RangeHashes, SLOTS_PER_RANGE};

/// Slots in which nodes hold different content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The first slot.
    pub first_slot: u16,
    /// The last slot.
    pub last_slot: u16,
    /// Those that differ from what most hold; all of them where no more than half agree.
    pub nodes: Vec<NodeId>,
}

/// Compares nodes at one position, range by range. Neighbouring ranges with the same nodes are one.
#[must_use]
pub fn compare(nodes: &[(NodeId, RangeHashes)]) -> Vec<Difference> {
    let mut differences: Vec<Difference> = Vec::new();
    let ranges = nodes.iter().map(|(_, hashes)| hashes.ranges.len()).max().unwrap_or(0);
    for range in 0..ranges {
        let odd = odd_ones(nodes, range);
        if odd.is_empty() {
            continue;
        }
        let first_slot = range as u16 * SLOTS_PER_RANGE;
        let last_slot = first_slot + (SLOTS_PER_RANGE - 1);
        match differences.last_mut() {
            Some(last) if last.nodes == odd && last.last_slot + 1 == first_slot => {
                last.last_slot = last_slot;
            }
            _ => differences.push(Difference { first_slot, last_slot, nodes: odd }),
        }
    }
    differences
}

fn odd_ones(nodes: &[(NodeId, RangeHashes)], range: usize) -> Vec<NodeId> {
    let held = |hashes: &RangeHashes| hashes.ranges.get(range).copied();
    let holders = |content: Option<RangeHash>| {
        nodes.iter().filter(|(_, hashes)| held(hashes) == content).count()
    };
    let right = nodes
        .iter()
        .map(|(_, hashes)| held(hashes))
        .find(|content| 2 * holders(*content) > nodes.len());
    let differs = |hashes: &RangeHashes| right.is_none_or(|right| held(hashes) != right);
    nodes.iter().filter(|(_, hashes)| differs(hashes)).map(|(node, _)| *node).collect()
}

#[cfg(test)]
mod tests {
    use quorate_protocol::types::EntryId;

    use super::*;

    fn node(id: u64, changed: &[(usize, u8)]) -> (NodeId, RangeHashes) {
        let mut hashes = RangeHashes::new(EntryId::ZERO);
        for (range, content) in changed {
            hashes.ranges[*range] = RangeHash { keys: 1, hash: [*content; 32] };
        }
        (NodeId(id), hashes)
    }

    #[test]
    fn the_odd_one_is_named_with_its_slots() {
        let difference = |first_slot, last_slot, nodes: &[u64]| Difference {
            first_slot,
            last_slot,
            nodes: nodes.iter().copied().map(NodeId).collect(),
        };
        assert_eq!(compare(&[node(1, &[]), node(2, &[]), node(3, &[])]), []);
        assert_eq!(
            compare(&[node(1, &[(4, 9)]), node(2, &[(4, 9)]), node(3, &[])]),
            [difference(256, 319, &[3])]
        );
        // Neighbours are one; another node's difference is another.
        assert_eq!(
            compare(&[node(1, &[(0, 1), (1, 1), (255, 2)]), node(2, &[(9, 1)]), node(3, &[])]),
            [
                difference(0, 127, &[1]),
                difference(576, 639, &[2]),
                difference(16_320, 16_383, &[1])
            ]
        );
        // Of two, or of three that all differ, nobody is right.
        assert_eq!(compare(&[node(1, &[(2, 1)]), node(2, &[])]), [difference(128, 191, &[1, 2])]);
        let all = [node(1, &[(2, 1)]), node(2, &[(2, 2)]), node(3, &[])];
        assert_eq!(compare(&all), [difference(128, 191, &[1, 2, 3])]);
        assert_eq!(compare(&[node(1, &[(2, 1)])]), []);
    }
}
