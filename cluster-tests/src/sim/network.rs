//! Links between nodes: which are cut, and which connection of each pair is current.

use super::ledger::NODES_MAX;

/// All links.
#[derive(Clone, Debug, Default)]
pub(super) struct Network {
    /// How many faults cut the way from one node to another.
    cut: [[u32; NODES_MAX]; NODES_MAX],
    /// Until when large messages between two nodes are lost, in true time.
    black_hole_until_us: [[u64; NODES_MAX]; NODES_MAX],
    /// The current connection of a pair; 0 for none.
    connections: [[u64; NODES_MAX]; NODES_MAX],
    /// Whether an attempt to connect is under way.
    pub(super) connecting: [[bool; NODES_MAX]; NODES_MAX],
    last_connection: u64,
}

/// One-way ways that a fault cuts.
pub(super) type Cut = Vec<(usize, usize)>;

impl Network {
    /// Whether frames pass.
    pub(super) fn is_open(&self, from: usize, to: usize) -> bool {
        self.cut[from][to] == 0
    }

    /// Whether a connection can be made and kept.
    pub(super) fn is_open_both_ways(&self, a: usize, b: usize) -> bool {
        self.is_open(a, b) && self.is_open(b, a)
    }

    /// Loses large messages between two nodes for a while.
    pub(super) fn lose_large(&mut self, a: usize, b: usize, until_us: u64) {
        self.black_hole_until_us[a][b] = until_us;
        self.black_hole_until_us[b][a] = until_us;
    }

    /// Whether large messages pass.
    pub(super) fn carries_large(&self, from: usize, to: usize, now_us: u64) -> bool {
        self.black_hole_until_us[from][to] <= now_us
    }

    /// Cuts ways.
    pub(super) fn cut(&mut self, cut: &Cut) {
        for (from, to) in cut {
            self.cut[*from][*to] += 1;
        }
    }

    /// Mends what a fault cut.
    pub(super) fn mend(&mut self, cut: &Cut) {
        for (from, to) in cut {
            self.cut[*from][*to] -= 1;
        }
    }

    /// The current connection of a pair; 0 for none.
    pub(super) fn connection(&self, a: usize, b: usize) -> u64 {
        self.connections[a.min(b)][a.max(b)]
    }

    /// Makes a new connection.
    pub(super) fn connect(&mut self, a: usize, b: usize) -> u64 {
        self.last_connection += 1;
        self.connections[a.min(b)][a.max(b)] = self.last_connection;
        self.last_connection
    }

    /// Ends a connection.
    pub(super) fn disconnect(&mut self, a: usize, b: usize) {
        self.connections[a.min(b)][a.max(b)] = 0;
    }
}
