//! Explanations and simulations in words.

use super::report::{ByCursors, Explained, Failed, Latency, NodeLatency, Simulated, Voter};

/// `quorate policy explain`
pub(super) fn explained(report: &Explained) -> String {
    let Explained { policy, preset, voters, persisted_copies, copies, .. } = report;
    let name = preset.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
    let mut text = format!("{name}{policy} on {}\n", counted(*voters, "voter"));
    text += &match (persisted_copies, copies - persisted_copies) {
        (0, _) => {
            format!("An acknowledged write is in the memory of {}", counted(*copies, "voter"))
        }
        (on_disk, 0) => format!("An acknowledged write is on {}", counted(*on_disk, "disk")),
        (on_disk, more) => format!(
            "An acknowledged write is on {}, and in the memory of {more} more",
            counted(*on_disk, "disk")
        ),
    };
    text += " at least, whichever they are.\nA voter that stops is down or cut off; one that loses \
             power is back without what was only in memory.\n";
    for (title, sets, none) in [
        ("Keeps every acknowledged write if, at worst,", &report.keeps, "nothing fails"),
        ("May lose acknowledged writes once", &report.loses, "never"),
        ("Acknowledges no write once", &report.blocks_writes, "never"),
        ("Can elect no primary once", &report.blocks_elections, "never"),
        ("Serves no linearizable read once", &report.blocks_reads, "never"),
    ] {
        text += &listed(title, sets, none);
    }
    let all = report.combinations;
    text += &format!(
        "\nOf {} combinations of stops, power cuts and lost disks, {} may lose acknowledged writes, \
         {} block writes,\n{} block elections, {} block reads.\n",
        all.total, all.lose_data, all.block_writes, all.block_elections, all.block_reads
    );
    if let Some(latency) = &report.latency {
        text += &predicted(latency);
    }
    if let Some(weakness) = &report.weakness {
        text += &format!("\nA weak policy: {weakness}.\n");
    }
    text
}

fn listed(title: &str, sets: &[Failed], none: &str) -> String {
    let mut text = format!("\n{title}\n");
    for set in sets {
        text += &format!("  - {}\n", set.text);
    }
    if sets.is_empty() {
        text += &format!("  - {none}\n");
    }
    text
}

fn predicted(latency: &Latency) -> String {
    let mut text = match latency.p50_milliseconds {
        Some(p50) => format!("\nA write would take {p50:.2} ms (median)"),
        None => "\nHalf of the writes or more would not be acknowledged".to_owned(),
    };
    text += &format!(
        ", by the last minute's load: {} entries watched, for {} writes.\n",
        latency.entries, latency.writes
    );
    for NodeLatency { node, in_memory_milliseconds, persisted_milliseconds } in &latency.nodes {
        let after = |ms: &Option<f64>| ms.map_or("unknown".to_owned(), |ms| format!("{ms:.2} ms"));
        text += &format!(
            "  - node-{node}: in memory after {}, on disk after {}\n",
            after(in_memory_milliseconds),
            after(persisted_milliseconds)
        );
    }
    text
}

/// `quorate policy simulate`
pub(super) fn simulated(report: &Simulated) -> String {
    let voters: Vec<String> = report.voters.iter().map(voter).collect();
    let mut text = format!("{}: {}\n", report.policy, voters.join(", "));
    text += &match (&report.degraded, report.reads) {
        (None, true) => "writes     acknowledged\n".to_owned(),
        (None, false) => "writes     refused: there is no primary\n".to_owned(),
        (Some(clause), _) => format!("writes     refused: {clause}\n"),
    };
    text += if report.reads { "reads      served\n" } else { "reads      refused\n" };
    text += match (report.primary_stays, report.elects) {
        (true, true) => "primary    stays; another could be elected\n",
        (true, false) => "primary    stays; no other could be elected\n",
        (false, true) => "primary    is elected among those that are up\n",
        (false, false) => "primary    none, and none can be elected\n",
    };
    text += if report.may_lose_data {
        "data       a write with no more copies than the policy asks for may be lost\n"
    } else {
        "data       no acknowledged write is lost\n"
    };
    if let Some(cursors) = &report.cursors {
        text += &format!("cursors    {}\n", by_cursors(cursors));
    }
    text
}

fn by_cursors(cursors: &ByCursors) -> String {
    let mut text = format!("acknowledged through {}", cursors.acknowledged_seq);
    if let (Some(met), Some(node), Some(level)) =
        (cursors.met_seq, cursors.blocker, &cursors.blocker_level)
    {
        text +=
            &format!(", met by those left through {met}, where node-{node}'s {level} cursor is");
    }
    match (cursors.lost_first_seq, cursors.lost_last_seq) {
        (Some(first), Some(last)) => {
            text + &format!("; no copy would be left of entries {first} to {last}")
        }
        _ => text + "; each acknowledged entry has a copy left",
    }
}

fn voter(voter: &Voter) -> String {
    let role = if voter.primary { " (primary)" } else { "" };
    let condition = match voter.condition.as_str() {
        "power_cut" => "back after a power cut",
        "disk_lost" => "without its disk",
        other => other,
    };
    format!("node-{}{role} {condition}", voter.node)
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
