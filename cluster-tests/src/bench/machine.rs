//! What the figures were taken on.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde::Serialize;

use super::etcd::EtcdCluster;
use super::histogram::Latencies;

/// The machine and the versions of the systems.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Processors.
    pub cores: usize,
    /// The processor's name.
    pub processor: String,
    /// The kernel.
    pub kernel: String,
    /// `etcd --version`.
    pub etcd: String,
    /// `redis-server --version`.
    pub redis: String,
    /// Median of a 4 KiB write with `fdatasync` on the disk of the data, in milliseconds.
    pub sync_p50_ms: f64,
    /// Its 99th percentile.
    pub sync_p99_ms: f64,
}

impl Machine {
    /// Looks around; syncs are measured in `dir`.
    #[must_use]
    pub fn describe(dir: &Path) -> Self {
        let syncs = sync_latency(dir);
        let processor = fs::read_to_string("/proc/cpuinfo")
            .unwrap_or_default()
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .map_or("?", |rest| rest.trim_start_matches([' ', '\t', ':']))
            .to_owned();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            etcd: EtcdCluster::version(),
            redis: redis_version(),
            sync_p50_ms: syncs.quantile_ms(0.5),
            sync_p99_ms: syncs.quantile_ms(0.99),
        }
    }
}

/// Writes 4 KiB and syncs, 300 times, inside of a file that has its size already.
///
/// # Panics
///
/// If the file can't be written.
#[must_use]
pub fn sync_latency(dir: &Path) -> Latencies {
    let path = dir.join("sync-probe");
    let mut file = File::create(&path).expect("make a probe file");
    file.write_all(&vec![0; 300 << 12]).expect("fill the probe file");
    file.sync_all().expect("sync the probe file");
    let mut file = File::options().write(true).open(&path).expect("open the probe file");
    let mut latencies = Latencies::default();
    for _ in 0..300 {
        let began = Instant::now();
        file.write_all(&[1; 4096]).expect("write");
        file.sync_data().expect("sync");
        latencies.record(began.elapsed(), 1);
    }
    // Left over, it is 1 MiB in a scratch directory.
    let _ = fs::remove_file(&path);
    latencies
}

fn redis_version() -> String {
    Command::new("redis-server").arg("--version").output().map_or_else(
        |_| "not installed".to_owned(),
        |output| {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.split(' ').find_map(|word| word.strip_prefix("v=")).unwrap_or("?").to_owned()
        },
    )
}
