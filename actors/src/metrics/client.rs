//! What client connections count.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge, Registry};
use quorate_protocol::command;

use super::{counter, counters, gauge, histograms, part};
use crate::gate::Attribution;
use crate::submit::Refusal;

/// What client connections count. `INFO` reads the same figures, less what they were at the last
/// `CONFIG RESETSTAT`: a counter itself never goes back.
#[derive(Clone, Debug)]
pub struct ClientMetrics {
    /// Whether it is noted what writes wait for.
    pub attribution: Attribution,
    connected: IntGauge,
    connections: IntCounter,
    rejected: IntCounter,
    auth_failures: IntCounter,
    reads: IntCounter,
    writes: IntCounter,
    others: IntCounter,
    /// By name; what isn't a command has no child.
    calls: Arc<BTreeMap<&'static str, IntCounter>>,
    errors: Arc<Vec<(&'static str, IntCounter)>>,
    read_rounds: Histogram,
    write_rounds: Histogram,
    write_encode: Histogram,
    write_socket: Histogram,
    input_bytes: IntCounter,
    output_bytes: IntCounter,
    refusals: Refusals,
    reset_at: Arc<ResetAt>,
}

/// First words of error replies; the last stands for every other.
const ERROR_CODES: [&str; 20] = [
    "ERR",
    "MOVED",
    "CLUSTERDOWN",
    "INDOUBT",
    "READONLY",
    "MASTERDOWN",
    "NOREPLICAS",
    "UNHEALTHY",
    "DISKFULL",
    "OOM",
    "OVERLOADED",
    "TIMEOUT",
    "DRAINING",
    "NOAUTH",
    "WRONGPASS",
    "NOPROTO",
    "WRONGTYPE",
    "EXECABORT",
    "UNBLOCKED",
    "other",
];

/// Commands of one round of a connection, by what they needed.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundCounts {
    /// Reads of the keyspace.
    pub reads: u64,
    /// Commands that went through the log, or should have.
    pub writes: u64,
    /// Everything else.
    pub others: u64,
    /// Time from reading them to having their replies.
    pub took: Duration,
    /// Bytes that were read.
    pub input_bytes: u64,
    /// Bytes of replies.
    pub output_bytes: u64,
}

/// Figures of `INFO stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InfoStats {
    /// Connections accepted.
    pub connections: u64,
    /// Connections refused.
    pub rejected: u64,
    /// Commands.
    pub commands: u64,
    /// Bytes that were read.
    pub input_bytes: u64,
    /// Bytes of replies.
    pub output_bytes: u64,
}

#[derive(Clone, Debug)]
struct Refusals {
    not_primary: IntCounter,
    no_primary: IntCounter,
    no_replicas: IntCounter,
    unhealthy: IntCounter,
    disk_full: IntCounter,
    out_of_memory: IntCounter,
    overloaded: IntCounter,
    timeout_caller: IntCounter,
    timeout_store: IntCounter,
    draining: IntCounter,
}

#[derive(Debug, Default)]
struct ResetAt {
    connections: AtomicU64,
    rejected: AtomicU64,
    commands: AtomicU64,
    input_bytes: AtomicU64,
    output_bytes: AtomicU64,
}

impl ClientMetrics {
    pub(super) fn new(
        registry: &Registry,
        attribution: Attribution,
    ) -> Result<Self, prometheus::Error> {
        let commands = counters(
            registry,
            "quorate_commands_total",
            "Commands, by what they need: state, log, or only the connection",
            "class",
        )?;
        let calls = counters(
            registry,
            "quorate_command_calls_total",
            "Commands by name, carried out or not",
            "command",
        )?;
        let errors = counters(
            registry,
            "quorate_command_errors_total",
            "Error replies, by their first word",
            "code",
        )?;
        let rounds = histograms(
            registry,
            "quorate_round_seconds",
            "From reading a round of commands off a connection to having its replies: rounds with \
             a write, and others with a read",
            "class",
        )?;
        let bytes =
            counters(registry, "quorate_client_bytes_total", "Bytes from and to clients", "way")?;
        Ok(Self {
            attribution,
            connected: gauge(registry, "quorate_clients_connected", "Client connections")?,
            connections: counter(registry, "quorate_clients_accepted_total", "Clients accepted")?,
            rejected: counter(
                registry,
                "quorate_clients_rejected_total",
                "Clients refused because maxclients were connected",
            )?,
            auth_failures: counter(
                registry,
                "quorate_client_auth_failures_total",
                "Wrong passwords",
            )?,
            reads: commands.with_label_values(&["read"]),
            writes: commands.with_label_values(&["write"]),
            others: commands.with_label_values(&["connection"]),
            calls: Arc::new(
                command::all()
                    .map(|spec| (spec.name, calls.with_label_values(&[spec.name])))
                    .collect(),
            ),
            errors: Arc::new(
                ERROR_CODES.iter().map(|&code| (code, errors.with_label_values(&[code]))).collect(),
            ),
            read_rounds: rounds.with_label_values(&["read"]),
            write_rounds: rounds.with_label_values(&["write"]),
            write_encode: part(
                registry,
                "quorate_write_encode_seconds",
                "Encoding the replies of a round with a write",
            )?,
            write_socket: part(
                registry,
                "quorate_write_socket_seconds",
                "Handing the replies of a round with a write to the socket",
            )?,
            input_bytes: bytes.with_label_values(&["in"]),
            output_bytes: bytes.with_label_values(&["out"]),
            refusals: Refusals::new(registry)?,
            reset_at: Arc::default(),
        })
    }

    /// A client was accepted.
    pub fn connected(&self) {
        self.connections.inc();
        self.connected.inc();
    }

    /// An accepted client is gone.
    pub fn disconnected(&self) {
        self.connected.dec();
    }

    /// A client was refused for want of room.
    pub fn rejected(&self) {
        self.rejected.inc();
    }

    /// A wrong password.
    pub fn auth_failed(&self) {
        self.auth_failures.inc();
    }

    /// A connection's round is over.
    pub fn round(&self, counts: &RoundCounts) {
        for (counter, count) in [
            (&self.reads, counts.reads),
            (&self.writes, counts.writes),
            (&self.others, counts.others),
            (&self.input_bytes, counts.input_bytes),
            (&self.output_bytes, counts.output_bytes),
        ] {
            if count > 0 {
                counter.inc_by(count);
            }
        }
        if counts.writes > 0 {
            self.write_rounds.observe(counts.took.as_secs_f64());
        } else if counts.reads > 0 {
            self.read_rounds.observe(counts.took.as_secs_f64());
        }
    }

    /// The replies of a round with a write were encoded and handed to the socket.
    pub fn answered(&self, encode: Duration, socket: Duration) {
        self.write_encode.observe(encode.as_secs_f64());
        self.write_socket.observe(socket.as_secs_f64());
    }

    /// So many commands of this name, as in the table of commands.
    pub fn called(&self, name: &'static str, count: u64) {
        if let Some(calls) = self.calls.get(name) {
            calls.inc_by(count);
        }
    }

    /// An error reply: `text` begins with its code.
    pub fn error(&self, text: &str) {
        let code = text.split(' ').next().unwrap_or_default();
        let known = self.errors.iter().find(|(known, _)| *known == code);
        if let Some((_, counter)) = known.or(self.errors.last()) {
            counter.inc();
        }
    }

    /// A batch was refused.
    pub fn refused(&self, refusal: &Refusal) {
        self.refusals.of(refusal).inc();
    }

    /// Figures since the start or the last reset.
    #[must_use]
    pub fn info(&self) -> InfoStats {
        let total = self.totals();
        let since = |total: u64, at: &AtomicU64| total.saturating_sub(at.load(Ordering::Relaxed));
        let at = &self.reset_at;
        InfoStats {
            connections: since(total.connections, &at.connections),
            rejected: since(total.rejected, &at.rejected),
            commands: since(total.commands, &at.commands),
            input_bytes: since(total.input_bytes, &at.input_bytes),
            output_bytes: since(total.output_bytes, &at.output_bytes),
        }
    }

    /// `CONFIG RESETSTAT`: `info` counts from here.
    pub fn reset_info(&self) {
        let total = self.totals();
        let at = &self.reset_at;
        at.connections.store(total.connections, Ordering::Relaxed);
        at.rejected.store(total.rejected, Ordering::Relaxed);
        at.commands.store(total.commands, Ordering::Relaxed);
        at.input_bytes.store(total.input_bytes, Ordering::Relaxed);
        at.output_bytes.store(total.output_bytes, Ordering::Relaxed);
    }

    fn totals(&self) -> InfoStats {
        InfoStats {
            connections: self.connections.get(),
            rejected: self.rejected.get(),
            commands: self.reads.get() + self.writes.get() + self.others.get(),
            input_bytes: self.input_bytes.get(),
            output_bytes: self.output_bytes.get(),
        }
    }
}

impl Refusals {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let refusals = counters(
            registry,
            "quorate_admission_refusals_total",
            "Batches refused before they were sealed, and rounds of reads refused, by reason",
            "reason",
        )?;
        let child = |reason| refusals.with_label_values(&[reason]);
        Ok(Self {
            not_primary: child("not_primary"),
            no_primary: child("no_primary"),
            no_replicas: child("no_replicas"),
            unhealthy: child("unhealthy"),
            disk_full: child("disk_full"),
            out_of_memory: child("out_of_memory"),
            overloaded: child("overloaded"),
            timeout_caller: child("timeout_caller"),
            timeout_store: child("timeout_store"),
            draining: child("draining"),
        })
    }

    fn of(&self, refusal: &Refusal) -> &IntCounter {
        match refusal {
            Refusal::NotPrimary { .. } => &self.not_primary,
            Refusal::NoPrimary => &self.no_primary,
            Refusal::NoReplicas { .. } => &self.no_replicas,
            Refusal::Unhealthy(_) => &self.unhealthy,
            Refusal::DiskFull => &self.disk_full,
            Refusal::OutOfMemory => &self.out_of_memory,
            Refusal::Overloaded => &self.overloaded,
            Refusal::Timeout { caller: true } => &self.timeout_caller,
            Refusal::Timeout { caller: false } => &self.timeout_store,
            Refusal::Draining => &self.draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Metrics;

    #[test]
    fn errors_are_counted_by_their_code() {
        let metrics = Metrics::new().expect("names are unique");
        metrics.client.error("MOVED 1 127.0.0.1:1");
        metrics.client.error("SOMETHING else");
        metrics.client.called("set", 3);
        let text = metrics.render().expect("text");
        assert!(text.contains("quorate_command_errors_total{code=\"MOVED\"} 1"));
        assert!(text.contains("quorate_command_errors_total{code=\"other\"} 1"));
        assert!(text.contains("quorate_command_calls_total{command=\"set\"} 3"));
    }
}
