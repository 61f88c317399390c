//! The longest common subsequence of two values.

use bytes::Bytes;

use crate::command::model::Lcs;
use crate::resp::Reply;

/// Most cells of the table: bounds time and memory (64 MiB).
const CELLS_MAX: usize = 16 << 20;

const TOO_LARGE: &str =
    "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len";

pub(super) fn lcs(query: &Lcs, first: &[u8], second: &[u8]) -> Reply {
    let Some(table) = Table::fill(first, second) else { return Reply::error(TOO_LARGE) };
    let len = table.at(first.len(), second.len());
    if query.idx {
        return Reply::Map(vec![
            (Reply::bulk("matches"), Reply::Array(matches(query, &table, first, second))),
            (Reply::bulk("len"), Reply::Integer(i64::from(len))),
        ]);
    }
    if query.len {
        return Reply::Integer(i64::from(len));
    }
    let mut common: Vec<u8> = table.trace(first, second).map(|(at, _)| first[at]).collect();
    common.reverse();
    Reply::Bulk(Bytes::from(common))
}

/// For each pair of prefixes the length of their longest common subsequence.
struct Table {
    width: usize,
    cells: Vec<u32>,
}

impl Table {
    fn fill(first: &[u8], second: &[u8]) -> Option<Self> {
        let width = second.len() + 1;
        let size = (first.len() + 1).checked_mul(width).filter(|&size| size <= CELLS_MAX)?;
        let mut table = Self { width, cells: vec![0; size] };
        for (row, a) in first.iter().enumerate() {
            for (column, b) in second.iter().enumerate() {
                table.cells[(row + 1) * width + column + 1] = if a == b {
                    table.at(row, column) + 1
                } else {
                    table.at(row, column + 1).max(table.at(row + 1, column))
                };
            }
        }
        Some(table)
    }

    fn at(&self, row: usize, column: usize) -> u32 {
        self.cells[row * self.width + column]
    }

    /// The pairs of equal bytes of one longest common subsequence, from the last to the first.
    fn trace<'a>(
        &'a self,
        first: &'a [u8],
        second: &'a [u8],
    ) -> impl Iterator<Item = (usize, usize)> + 'a {
        let (mut row, mut column) = (first.len(), second.len());
        std::iter::from_fn(move || {
            while row > 0 && column > 0 {
                if first[row - 1] == second[column - 1] {
                    row -= 1;
                    column -= 1;
                    return Some((row, column));
                }
                if self.at(row - 1, column) > self.at(row, column - 1) {
                    row -= 1;
                } else {
                    column -= 1;
                }
            }
            None
        })
    }
}

/// Runs of pairs, from the last to the first.
fn matches(query: &Lcs, table: &Table, first: &[u8], second: &[u8]) -> Vec<Reply> {
    let mut runs: Vec<(usize, usize, usize)> = Vec::new();
    for (a, b) in table.trace(first, second) {
        match runs.last_mut() {
            Some((start_a, start_b, len)) if a + 1 == *start_a && b + 1 == *start_b => {
                (*start_a, *start_b) = (a, b);
                *len += 1;
            }
            _ => runs.push((a, b, 1)),
        }
    }
    runs.retain(|&(_, _, len)| len as i64 >= query.min_match_len);
    runs.into_iter()
        .map(|(a, b, len)| {
            let mut run = vec![range(a, len), range(b, len)];
            if query.with_match_len {
                run.push(Reply::Integer(len as i64));
            }
            Reply::Array(run)
        })
        .collect()
}

fn range(start: usize, len: usize) -> Reply {
    Reply::Array(vec![Reply::Integer(start as i64), Reply::Integer((start + len - 1) as i64)])
}
