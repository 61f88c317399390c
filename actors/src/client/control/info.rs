//! `INFO`: Redis's sections and fields, as far as they mean something here.

use std::fmt::Write as _;

use bytes::Bytes;
use quorate_protocol::resp::Reply;
use quorate_protocol::types::NodeId;

use super::greeting::REDIS_VERSION;
use super::topology::{node_hex, split};
use crate::client::session::Mode;
use crate::client::shared::Shared;
use crate::view::Role;

type Section = fn(&Shared, Mode, &mut String);

/// In the order of the answer. All of them are in the default set.
const SECTIONS: [(&str, Section); 9] = [
    ("server", server),
    ("clients", clients),
    ("memory", memory),
    ("persistence", persistence),
    ("stats", stats),
    ("replication", replication),
    ("cpu", cpu),
    ("cluster", cluster),
    ("keyspace", keyspace),
];

pub(super) fn info(shared: &Shared, mode: Mode, sections: &[String]) -> Reply {
    let wanted = |name: &str| {
        sections.is_empty()
            || sections.iter().any(|asked| {
                asked == name || ["all", "default", "everything"].contains(&asked.as_str())
            })
    };
    let mut out = String::with_capacity(2_048);
    for (name, section) in SECTIONS {
        if wanted(name) {
            if !out.is_empty() {
                out.push_str("\r\n");
            }
            section(shared, mode, &mut out);
        }
    }
    Reply::Verbatim("txt", Bytes::from(out))
}

/// Memory of this process that is in RAM, in bytes; 0 where it can't be read.
pub(super) fn resident_bytes() -> u64 {
    // Pages: total, then resident.
    std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok())
        .map_or(0, |pages| pages * 4_096)
}

/// Appends `name:value` lines. Writing to a string can't fail.
macro_rules! lines {
    ($out:expr, $($name:literal => $value:expr),+ $(,)?) => {
        $( let _ = write!($out, concat!($name, ":{}\r\n"), $value); )+
    };
}

fn server(shared: &Shared, mode: Mode, out: &mut String) {
    let view = shared.published.view();
    let live = shared.live();
    let settings = &live.settings;
    let (port, mode) = match mode {
        Mode::Cluster => (settings.listen.port(), "cluster"),
        Mode::Plain => (settings.listen_plain.map_or(0, |plain| plain.port()), "standalone"),
    };
    let uptime = shared.started.elapsed().as_secs();
    let run_id = node_hex(view.cluster.unwrap_or_default(), shared.options.node);
    out.push_str("# Server\r\n");
    lines!(out,
        "redis_version" => REDIS_VERSION,
        "quorate_version" => env!("CARGO_PKG_VERSION"),
        "redis_mode" => mode,
        "os" => std::env::consts::OS,
        "arch_bits" => usize::BITS,
        "multiplexing_api" => "epoll",
        "process_id" => std::process::id(),
        "run_id" => run_id,
        "tcp_port" => port,
        "server_time_usec" => shared.now_ms() * 1_000,
        "uptime_in_seconds" => uptime,
        "uptime_in_days" => uptime / 86_400,
        "node_id" => shared.options.node,
        "cluster_name" => shared.options.cluster_name,
        "epoch" => view.epoch,
    );
}

fn clients(shared: &Shared, _: Mode, out: &mut String) {
    out.push_str("# Clients\r\n");
    lines!(out,
        "connected_clients" => shared.registry.count(),
        "cluster_connections" => 0,
        "maxclients" => shared.live().settings.maxclients,
        "blocked_clients" => 0,
    );
}

fn memory(_: &Shared, _: Mode, out: &mut String) {
    let resident = resident_bytes();
    out.push_str("# Memory\r\n");
    lines!(out,
        "used_memory" => resident,
        "used_memory_rss" => resident,
        "maxmemory" => 0,
        "maxmemory_policy" => "noeviction",
    );
}

fn persistence(_: &Shared, _: Mode, out: &mut String) {
    out.push_str("# Persistence\r\n");
    lines!(out,
        "loading" => 0,
        "async_loading" => 0,
        "rdb_bgsave_in_progress" => 0,
        "rdb_last_bgsave_status" => "ok",
        "aof_enabled" => 1,
        "aof_rewrite_in_progress" => 0,
        "aof_last_bgrewrite_status" => "ok",
        "aof_last_write_status" => "ok",
    );
}

fn stats(shared: &Shared, _: Mode, out: &mut String) {
    let stats = shared.metrics.info();
    out.push_str("# Stats\r\n");
    lines!(out,
        "total_connections_received" => stats.connections,
        "total_commands_processed" => stats.commands,
        "instantaneous_ops_per_sec" => 0,
        "total_net_input_bytes" => stats.input_bytes,
        "total_net_output_bytes" => stats.output_bytes,
        "rejected_connections" => stats.rejected,
        "expired_keys" => 0,
        "evicted_keys" => 0,
        "pubsub_channels" => 0,
        "pubsub_patterns" => 0,
    );
}

fn replication(shared: &Shared, _: Mode, out: &mut String) {
    let view = shared.published.view();
    let (committed, applied) = (shared.published.committed(), shared.published.applied());
    out.push_str("# Replication\r\n");
    if shared.published.role() == Role::Primary {
        let replicas: Vec<_> = view
            .peers
            .iter()
            .filter(|peer| peer.connected)
            .filter_map(|peer| Some((peer, view.config.as_ref()?.member(peer.node)?)))
            .collect();
        lines!(out, "role" => "master", "connected_slaves" => replicas.len());
        for (at, (peer, member)) in replicas.iter().enumerate() {
            let (host, port) = split(&member.client_addr);
            let lag = committed.0.saturating_sub(peer.in_memory.0);
            let _ = write!(
                out,
                "slave{at}:ip={host},port={port},state=online,offset={},lag={lag}\r\n",
                peer.in_memory
            );
        }
    } else {
        let primary =
            view.primary.and_then(|primary| view.config.as_ref()?.member(primary).cloned());
        let address = primary.as_ref().map_or("", |member| member.client_addr.as_str());
        let (host, port) = split(address);
        lines!(out,
            "role" => "slave",
            "master_host" => host,
            "master_port" => port,
            "master_link_status" => if primary.is_some() { "up" } else { "down" },
            "master_sync_in_progress" => 0,
            "slave_read_repl_offset" => view.last.seq,
            "slave_repl_offset" => applied,
            "slave_read_only" => 1,
            "connected_slaves" => 0,
        );
    }
    lines!(out,
        "master_replid" => node_hex(view.cluster.unwrap_or_default(), NodeId(0)),
        "master_repl_offset" => committed,
        "repl_backlog_active" => 1,
        "applied_seq" => applied,
        "persisted_seq" => view.persisted,
        "degraded" => u8::from(view.degraded.is_some()),
    );
}

fn cpu(_: &Shared, _: Mode, out: &mut String) {
    use nix::sys::resource::{UsageWho, getrusage};
    out.push_str("# CPU\r\n");
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let (system, user) = (usage.system_time(), usage.user_time());
        let _ = write!(
            out,
            "used_cpu_sys:{}.{:06}\r\nused_cpu_user:{}.{:06}\r\n",
            system.tv_sec(),
            system.tv_usec(),
            user.tv_sec(),
            user.tv_usec()
        );
    }
}

fn cluster(_: &Shared, mode: Mode, out: &mut String) {
    out.push_str("# Cluster\r\n");
    lines!(out, "cluster_enabled" => u8::from(mode == Mode::Cluster));
}

fn keyspace(shared: &Shared, _: Mode, out: &mut String) {
    out.push_str("# Keyspace\r\n");
    match shared.state.count() {
        Ok(0) => {}
        Ok(keys) => {
            let _ = write!(out, "db0:keys={keys},expires=0,avg_ttl=0\r\n");
        }
        Err(fault) => tracing::warn!(%fault, "INFO has no keyspace section"),
    }
}
