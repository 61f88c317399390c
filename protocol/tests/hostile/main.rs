//! What peers, clients and disks can make of a node: any event, and any bytes, in any order.
//! Nothing may panic, and nothing may take more memory than what was sent justifies.
//!
//! `PROPTEST_CASES=100000 cargo test --release -p quorate-protocol --test hostile` runs longer.

mod bytes;
mod events;
mod memory;
mod moves;
