//! Tests that run the real binary, three nodes at a time.

mod bad_clients;
mod bad_start;
mod bounded;
mod common;
mod damage;
mod degraded;
mod differential;
mod disk_faults;
mod disk_full;
mod expiry;
mod gate;
mod journal_damage;
mod kills;
mod orders;
mod pauses;
mod policy;
mod pressure;
mod probe;
mod quorum_loss;
mod redis_py;
mod scrub;
mod snapshots;
mod steady;
mod tails;
mod torn_tail;
mod waits;
