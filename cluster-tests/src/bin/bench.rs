//! Prints how Quorate compares with etcd and Redis on this machine.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use quorate_cluster_tests::bench::{
    EtcdCluster, LoadResult, Machine, Measured, RedisReplication, Report, Request, RespLoad,
    measure_failovers, run_etcd_puts, run_resp,
};
use quorate_cluster_tests::harness::{Cluster, work_dir};

/// Bytes of a value.
const VALUE_BYTES: usize = 128;

/// Compare Quorate with etcd and Redis, three nodes each, in one run.
#[derive(Debug, Parser)]
struct Options {
    /// Rounds; the median one is reported
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that each system is measured in a round, for each load
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Times that the primary is killed
    #[arg(long, default_value_t = 20)]
    failovers: usize,
    /// Systems to measure
    #[arg(long, value_delimiter = ',', default_value = "quorate,etcd,redis")]
    systems: Vec<String>,
    /// Folder for report.md and report.json; the target directory's `bench` if absent
    #[arg(long)]
    output: Option<PathBuf>,
}

/// One row of the table.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    connections: usize,
    pipeline: usize,
    writes: bool,
}

const CASES: &[Case] = &[
    Case { name: "SET, 1 connection", connections: 1, pipeline: 1, writes: true },
    Case { name: "SET, 50 connections", connections: 50, pipeline: 1, writes: true },
    Case { name: "SET, 64 connections", connections: 64, pipeline: 1, writes: true },
    Case { name: "SET, 256 connections", connections: 256, pipeline: 1, writes: true },
    Case { name: "SET, 50 connections × 16", connections: 50, pipeline: 16, writes: true },
    Case { name: "GET, 50 connections", connections: 50, pipeline: 1, writes: false },
    Case { name: "GET, 50 connections × 16", connections: 50, pipeline: 16, writes: false },
];

struct Systems {
    quorate: Option<Cluster>,
    etcd: Option<EtcdCluster>,
    redis: Option<RedisReplication>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let dir = work_dir("bench");
    let machine = Machine::describe(&dir);
    let wanted = |name: &str| options.systems.iter().any(|system| system == name);
    if wanted("etcd") && !EtcdCluster::is_installed() {
        return Err("etcd is not installed (Debian package etcd-server)".into());
    }
    let mut systems = Systems {
        quorate: wanted("quorate").then(|| Cluster::start("bench-quorate")),
        etcd: wanted("etcd").then(|| EtcdCluster::start(&dir.join("etcd"))),
        redis: wanted("redis").then(|| RedisReplication::start(&dir.join("redis"))),
    };
    let mut report =
        Report { machine, measured: Vec::new(), failovers: Vec::new(), cross_check: None };
    for case in CASES {
        measure(options, case, &systems, &mut report)?;
    }
    report.cross_check = systems.redis.as_ref().map(cross_check).transpose()?;
    if let Some(cluster) = &mut systems.quorate {
        // The others' background work would count as ours.
        systems.etcd = None;
        systems.redis = None;
        eprintln!("{} failovers", options.failovers);
        report.failovers = measure_failovers(cluster, options.failovers);
    }
    drop(systems);
    let output = options.output.clone().unwrap_or_else(|| dir.with_file_name("bench-report"));
    fs::create_dir_all(&output)?;
    fs::write(output.join("report.md"), report.to_markdown())?;
    fs::write(output.join("report.json"), serde_json::to_string_pretty(&report)?)?;
    fs::remove_dir_all(&dir)?;
    println!("{}", report.to_markdown());
    eprintln!("written to {}", output.display());
    Ok(())
}

fn measure(
    options: &Options,
    case: &Case,
    systems: &Systems,
    report: &mut Report,
) -> Result<(), Box<dyn Error>> {
    let duration = Duration::from_secs(options.seconds);
    let warm_up = Duration::from_secs(1);
    let mut rows: Vec<Measured> = Vec::new();
    let mut note = |system: &str, result: LoadResult| {
        eprintln!("{}: {system}: {:.0} ops/s, p50 {:.2} ms", case.name, result.ops, result.p50_ms);
        if let Some(row) = rows.iter_mut().find(|row| row.system == system) {
            row.rounds.push(result);
        } else {
            let (load, system) = (case.name.to_owned(), system.to_owned());
            rows.push(Measured { load, system, rounds: vec![result] });
        }
    };
    for _ in 0..options.rounds {
        let load = |request| RespLoad {
            request: if case.writes { request } else { Request::Get },
            connections: case.connections,
            pipeline: case.pipeline,
            value_bytes: VALUE_BYTES,
            duration,
            warm_up,
        };
        if let Some(cluster) = &systems.quorate {
            let address = cluster.client_address(cluster.wait_until_writable());
            note("Quorate", run_resp(address, &load(Request::Set))?);
        }
        if let Some(etcd) = systems.etcd.as_ref().filter(|_| case.writes && case.pipeline == 1) {
            let leader = etcd.leader();
            note("etcd", run_etcd_puts(leader, case.connections, VALUE_BYTES, warm_up, duration)?);
        }
        if let Some(redis) = &systems.redis {
            let name = if case.writes { "Redis SET+WAIT 1" } else { "Redis" };
            note(name, run_resp(redis.address(), &load(Request::SetThenWait))?);
        }
    }
    report.measured.extend(rows);
    Ok(())
}

/// `SET` without `WAIT` at 50 connections, by `redis-benchmark` and by this program.
fn cross_check(redis: &RedisReplication) -> Result<(f64, f64), Box<dyn Error>> {
    let output = Command::new("redis-benchmark")
        .args(["-h", "127.0.0.1", "-p", &redis.address().port().to_string()])
        .args(["-t", "set", "-c", "50", "-d", "128", "-r", "100000", "-n", "200000", "--csv"])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let theirs = text
        .lines()
        .find_map(|line| line.strip_prefix("\"SET\",\""))
        .and_then(|rest| rest.split('"').next())
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| format!("redis-benchmark printed {text}"))?;
    let load = RespLoad {
        request: Request::Set,
        connections: 50,
        pipeline: 1,
        value_bytes: VALUE_BYTES,
        duration: Duration::from_secs(5),
        warm_up: Duration::from_secs(1),
    };
    Ok((theirs, run_resp(redis.address(), &load)?.ops))
}
