//! A lossy recovery in words, as JSON, and as the record that stays in the data directory.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use quorate_actors::node::NewGeneration;
use quorate_actors::node::config::NodeConfig;
use quorate_protocol::policy::Policy;
use quorate_protocol::types::NodeId;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::assess::{Assessment, Risk};
use super::record_path;
use super::survey::{Seen, Survey};
use crate::failure::Failure;
use crate::moment::moment;
use crate::output::{say, table};

/// What was found and done.
pub(super) struct Report {
    text: String,
    found: Value,
    done: Option<NewGeneration>,
}

impl Report {
    pub(super) fn of(
        node: &NodeConfig,
        survey: &Survey,
        assessment: &Assessment,
        risk: &Risk,
        policy: Policy,
    ) -> Self {
        let at_risk = at_risk(assessment, risk);
        let present = survey.configs.last().map(|config| config.policy.to_string());
        let present = present.unwrap_or_default();
        let mut rows =
            vec![["NODE", "LAST ENTRY", "MEMORY", "SEEN AT"].map(str::to_owned).to_vec()];
        rows.extend(survey.seen.iter().map(row));
        rows.extend(assessment.unknown.iter().map(|node| {
            vec![node.to_string(), "unknown".to_owned(), "-".to_owned(), "-".to_owned()]
        }));
        let name = &node.cluster.name;
        let generation = survey.own.generation.0;
        let survivor = survey.own.node;
        let text = format!(
            "cluster {name}  generation {generation}  policy {present}\n\n{}\nto go on alone: node \
             {survivor}, generation {}, policy {policy}\nmost complete: node {}\nat risk: {at_risk}\n",
            table(&rows),
            generation + 1,
            assessment.best.node,
        );
        let copy = |seen: &Seen| {
            json!({
                "node": seen.copy.node.0,
                "last_epoch": seen.copy.last.epoch.0,
                "last_seq": seen.copy.last.seq.0,
                "memory_loss": seen.copy.memory_loss,
                "seen_at": seen.place.to_string(),
            })
        };
        let found = json!({
            "cluster": name,
            "cluster_id": survey.own.cluster.map(|cluster| cluster.to_string()),
            "generation": generation,
            "policy": present,
            "survivor": survivor.0,
            "most_complete": assessment.best.node.0,
            "next_policy": policy.to_string(),
            "copies": survey.seen.iter().map(copy).collect::<Vec<_>>(),
            "unknown": assessment.unknown.iter().map(|node| node.0).collect::<Vec<_>>(),
            "can_elect": assessment.can_elect,
            "at_risk": {
                "first_seq": risk.known.map(|(first, _)| first),
                "last_seq": risk.known.map(|(_, last)| last.seq.0),
                "unknown_beyond_seq": risk.beyond.map(|id| id.seq.0),
                "text": at_risk,
            },
        });
        Self { text, found, done: None }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Keeps what is about to be done; synced before it is.
    pub(super) fn record_begun(&self, data_dir: &Path, fenced: &[NodeId]) -> Result<(), Failure> {
        let fenced: Vec<u64> = fenced.iter().map(|node| node.0).collect();
        let operator = std::env::var("SUDO_USER").or_else(|_| std::env::var("LOGNAME")).ok();
        let uid = nix::unistd::getuid().as_raw();
        let mut line = json!({
            "step": "begun", "operator": operator, "uid": uid, "fenced": fenced,
            "version": env!("CARGO_PKG_VERSION"),
        });
        merge(&mut line, &self.found);
        append(data_dir, line)
    }

    /// Keeps that it was done.
    pub(super) fn record_done(
        &mut self,
        data_dir: &Path,
        done: &NewGeneration,
    ) -> Result<(), Failure> {
        let mut line = json!({ "step": "done" });
        merge(&mut line, &outcome(done));
        self.done = Some(done.clone());
        append(data_dir, line)
    }

    /// The last words.
    pub(super) fn finish(&self, as_json: bool) {
        if as_json {
            let mut report = self.found.clone();
            report["recovered"] = self.done.as_ref().map_or(Value::Null, outcome);
            say(report);
        } else if let Some(done) = &self.done {
            let seq = done.kept.seq;
            say(format_args!(
                "\nrecovered: everything through entry {} is kept, and entry {} makes this node the \
                 only member of generation {}. Start it; the record is in recoveries.jsonl.\nWhat \
                 other nodes hold behind {seq} is kept in their directories: `quorate tail show DIR \
                 --after {seq}`. They join anew, with empty directories and new numbers.",
                done.kept, done.entry, done.generation
            ));
        } else {
            say("\nnothing was changed");
        }
    }
}

fn row(seen: &Seen) -> Vec<String> {
    let memory = if seen.copy.memory_loss { "may be lost" } else { "kept" };
    vec![
        seen.copy.node.to_string(),
        seen.copy.last.to_string(),
        memory.to_owned(),
        seen.place.to_string(),
    ]
}

fn at_risk(assessment: &Assessment, risk: &Risk) -> String {
    let known = risk.known.map(|(first, last)| {
        format!("entries {first} to {}, which node {} holds", last.seq, assessment.best.node)
    });
    let unknown: Vec<String> = assessment.unknown.iter().map(ToString::to_string).collect();
    let beyond = risk.beyond.map(|last| {
        let holders = if unknown.is_empty() {
            "nodes whose memory may be lost".to_owned()
        } else {
            format!("node {}", unknown.join(" or "))
        };
        format!("every write behind entry {} that only {holders} had", last.seq)
    });
    match (known, beyond) {
        (None, None) => "nothing: every acknowledged write is here".to_owned(),
        (Some(one), None) | (None, Some(one)) => one,
        (Some(one), Some(other)) => format!("{one}; and {other}"),
    }
}

fn outcome(done: &NewGeneration) -> Value {
    json!({
        "kept_epoch": done.kept.epoch.0,
        "kept_seq": done.kept.seq.0,
        "entry_epoch": done.entry.epoch.0,
        "entry_seq": done.entry.seq.0,
        "generation": done.generation.0,
        "policy": done.config.policy.to_string(),
    })
}

fn merge(into: &mut Value, from: &Value) {
    if let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) {
        into.extend(from.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
}

fn append(data_dir: &Path, mut line: Value) -> Result<(), Failure> {
    line["time"] = moment(OffsetDateTime::now_utc()).into();
    let path = record_path(data_dir);
    let written = OpenOptions::new().create(true).append(true).open(&path).and_then(|mut file| {
        writeln!(file, "{line}")?;
        file.sync_all()?;
        File::open(data_dir)?.sync_all()
    });
    written.map_err(|error| Failure::failed(path.display(), error))
}
