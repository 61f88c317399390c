//! Quorate side by side with etcd and Redis on one machine, in one run.
//!
//! All systems run three nodes with their data on the same disk and sync before they answer:
//!
//! - Quorate with the policy `majority`: on two disks of three before the reply;
//! - etcd: on two disks of three before the reply; clients speak gRPC to the leader, one request
//!   under way per connection, as etcd's own benchmark tool does with `--conns N --clients N`;
//! - Redis with `appendfsync always` and, after each request, `WAIT 1 0`: on the primary's disk
//!   and in one replica's memory, which promises less.
//!
//! Systems alternate, for several rounds; what is reported is the median round. The load is
//! closed-loop: each connection sends its next request when it has the reply to the last.

mod etcd;
mod failover;
mod grpc;
mod histogram;
mod machine;
mod redis;
mod report;
mod resp_load;

pub use etcd::EtcdCluster;
pub use failover::{FailoverRun, measure_failovers};
pub use grpc::run_etcd_puts;
pub use histogram::{Latencies, LoadResult};
pub use machine::{Machine, sync_latency};
pub use redis::RedisReplication;
pub use report::{Measured, Report};
pub use resp_load::{Request, RespLoad, run_resp};
