//! `quorate restore`: an archive into an empty data directory.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use quorate_actors::archive::{self, Location, Point, Progress, RestoreOptions};
use serde_json::json;

use super::offline::{failed, open, read_config};
use crate::failure::Failure;
use crate::moment::{moment_ms, parse_moment};
use crate::output::say;

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// Configuration of the node that the archive is restored for
    #[arg(long, env = "QUORATE_CONFIG")]
    config: PathBuf,
    /// The archive's directory, or s3://bucket/prefix, which is reached as the configuration says
    #[arg(long, value_name = "TARGET")]
    target: Location,
    /// `latest`, `seq N`, or `time T` with T as 2026-01-31T12:00:00Z or in milliseconds since 1970
    #[arg(long, value_name = "POINT", num_args = 1..=2, default_value = "latest")]
    to: Vec<String>,
    /// Restore there and not into the configured data directory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Restores.
pub(crate) fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let point = point(&args.to)?;
    let node = read_config(&args.config)?.node;
    let data_dir = args.data_dir.clone().unwrap_or_else(|| node.data_dir.clone());
    let target = open(&args.target, node.archive.s3)?;
    let options = RestoreOptions {
        data_dir: data_dir.clone(),
        node: node.node,
        allow_volatile: node.allow_volatile,
        addresses: [node.peer.advertise, node.client.advertise, node.client.advertise_plain],
        rocksdb: node.rocksdb,
        point,
    };
    let began = Instant::now();
    let mut bar = Bar::new("restoring");
    let restored = archive::restore(&target, &options, &mut |progress| bar.show(progress));
    bar.finish();
    let restored = restored.map_err(failed)?;
    if args.json {
        say(json!({
            "from_cluster": restored.from_cluster,
            "cluster_id": restored.cluster.to_string(),
            "generation": restored.generation.0,
            "seq": restored.last.seq.0,
            "time_ms": restored.time_ms,
            "keys": restored.content.keys,
            "compared": restored.compared,
            "policy": restored.policy.to_string(),
            "seconds": began.elapsed().as_secs_f64(),
        }));
        return Ok(());
    }
    say(format_args!(
        "restored {} keys as of entry {} ({}) into {} in {:.1} s{}\nIt is a cluster of its own, {}, \
         with node {} as its only member and the policy {}. Start it; others join it.",
        restored.content.keys,
        restored.last.seq,
        moment_ms(restored.time_ms),
        data_dir.display(),
        began.elapsed().as_secs_f64(),
        if restored.compared { "; it holds what was archived" } else { "" },
        restored.cluster,
        node.node,
        restored.policy,
    ));
    Ok(())
}

fn point(words: &[String]) -> Result<Point, Failure> {
    let words: Vec<&str> = words.iter().flat_map(|words| words.split_whitespace()).collect();
    let parsed = match words[..] {
        ["latest"] => Some(Point::Latest),
        ["seq", number] => number.parse().ok().map(Point::Seq),
        ["time", moment] => moment.parse().ok().or_else(|| parse_moment(moment)).map(Point::Time),
        _ => None,
    };
    parsed.ok_or_else(|| {
        Failure::Usage(format!(
            "--to {:?}: latest, seq N, or time T as 2026-01-31T12:00:00Z or in milliseconds",
            words.join(" ")
        ))
    })
}

/// Progress on a terminal, on one line.
pub(super) struct Bar {
    what: &'static str,
    shown: Option<Instant>,
    terminal: bool,
}

impl Bar {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, shown: None, terminal: std::io::stderr().is_terminal() }
    }

    pub(super) fn show(&mut self, progress: Progress) {
        const PERIOD: Duration = Duration::from_millis(200);
        if !self.terminal || self.shown.is_some_and(|shown| shown.elapsed() < PERIOD) {
            return;
        }
        self.shown = Some(Instant::now());
        let percent = 100 * progress.bytes / progress.total_bytes.max(1);
        eprint!("\r{}: {percent} %, entry {}", self.what, progress.seq);
        let _ = std::io::stderr().flush();
    }

    /// Clears the line.
    pub(super) fn finish(&mut self) {
        if self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Option<Point> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        point(&words).ok()
    }

    #[test]
    fn points_are_given_in_one_word_or_two() {
        assert_eq!(parsed(&["latest"]), Some(Point::Latest));
        assert_eq!(parsed(&["seq", "7"]), Some(Point::Seq(7)));
        assert_eq!(parsed(&["seq 7"]), Some(Point::Seq(7)));
        assert_eq!(parsed(&["time", "1700000000000"]), Some(Point::Time(1_700_000_000_000)));
        let moment = parsed(&["time 2024-02-29T12:34:56Z"]);
        assert_eq!(moment, Some(Point::Time(1_709_210_096_000)));
        for wrong in [&["seq"][..], &["seq", "x"], &["time", "yesterday"], &["first"], &[]] {
            assert_eq!(parsed(wrong), None, "{wrong:?}");
        }
    }
}
