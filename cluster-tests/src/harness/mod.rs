//! Starts real nodes, breaks them, and looks at what they say.
//!
//! One cluster runs at a time on a machine, whatever the number of test threads or processes:
//! [`Cluster`] holds a lock for as long as it lives. Its processes end with it, also when a test
//! panics; its files stay after a panic, and the ends of the logs are printed.

mod cluster;
mod disk_fault;
mod files;
mod hosts;
mod lock;
mod loop_disk;
mod ports;
mod process;
mod redis;
mod s3_proxy;
mod s3_server;
mod settings;
mod status;
mod wait;

pub use cluster::{Cluster, ClusterOptions, RECOVERY_LIMIT};
pub use disk_fault::{DiskCall, DiskFault};
pub use files::{binary, python, work_dir};
pub use hosts::Hosts;
pub use lock::ClusterLock;
pub use loop_disk::LoopDisk;
pub use ports::Ports;
pub use process::NodeProcess;
pub use redis::RedisServer;
pub use s3_proxy::{S3Fault, S3Proxy};
pub use s3_server::S3Server;
pub use settings::NodeSettings;
pub use status::{ContentHash, Receiving, Role, Status};
pub use wait::{poll, try_poll};
