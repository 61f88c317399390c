//! `quorate backup schedule`.

use std::time::Duration;

use super::{AdminUrl, Failure};
use crate::admin::{BackupJob, BackupSchedule};
use crate::moment::moment_ms;
use crate::output::{say, table};

/// The longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn show(admin: &AdminUrl, as_json: bool) -> Result<(), Failure> {
    let answer = admin.get("/backup", ANSWER_LIMIT)?;
    if answer.status == 404 {
        // That nothing is configured is an answer, in words.
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
        if let Some(error) = body["error"].as_str() {
            return Err(Failure::Failed(error.to_owned()));
        }
    }
    let schedule: BackupSchedule = answer.parsed(admin)?;
    if as_json {
        say(serde_json::json!(schedule));
    } else {
        say(render(&schedule).trim_end());
    }
    Ok(())
}

fn render(schedule: &BackupSchedule) -> String {
    let mut text = match (schedule.archived_seq, schedule.archived_time_ms) {
        (Some(seq), Some(time)) => {
            format!("{} through entry {seq} of {}", schedule.target, moment_ms(time))
        }
        _ => format!("{}: nothing yet, as far as this node knows", schedule.target),
    };
    if let (Some(at), Some(by)) = (schedule.written_at_ms, schedule.written_by) {
        text += &format!(", written {} by node {by}", moment_ms(at));
    }
    let node = schedule.node;
    text += &match (schedule.archives, schedule.primary) {
        (true, _) => format!("\nnode {node} archives, as it leads"),
        (false, Some(primary)) => {
            format!(
                "\nnode {primary} archives, as it leads: ask it what is due; this is node {node}"
            )
        }
        (false, None) => format!("\nnobody leads, so nothing is archived; this is node {node}"),
    };
    text += if schedule.running { "; a job is under way\n\n" } else { "\n\n" };
    let header = ["WHAT", "EVERY", "LAST", "RESULT", "NEXT"];
    let jobs = [
        ("log", &schedule.runs),
        ("snapshot", &schedule.snapshots),
        ("comparison", &schedule.verifications),
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(jobs.map(|(what, job)| row(what, job)));
    text += &table(&rows);
    for (what, job) in jobs {
        if let Some(failure) = &job.failure {
            let good = job.succeeded_at_ms.map_or("never".to_owned(), moment_ms);
            text += &format!("{what} failed: {failure}; last good: {good}\n");
        }
    }
    let no = |kept: Option<String>| kept.unwrap_or_else(|| "no limit".to_owned());
    text += &format!(
        "\nkept: snapshots {}, age {}, bytes {}\ncopied in a second: {}; waits for: {}; at a stop: {}\n",
        no(schedule.retain_snapshots.map(|kept| kept.to_string())),
        no(schedule.retain_age_seconds.map(span)),
        no(schedule.retain_bytes.map(size)),
        size(schedule.bytes_per_second),
        schedule.ack,
        if schedule.final_backup { "archives what is new" } else { "nothing" },
    );
    text
}

fn row(what: &str, job: &BackupJob) -> Vec<String> {
    let at = |ms: Option<u64>| ms.map_or("-".to_owned(), moment_ms);
    let result = match (&job.failure, job.ended_at_ms) {
        (Some(_), _) => "failed",
        (None, Some(_)) => "good",
        (None, None) => "-",
    };
    let every = job.interval_seconds.map_or("never".to_owned(), span);
    vec![what.to_owned(), every, at(job.ended_at_ms), result.to_owned(), at(job.due_at_ms)]
}

/// As the configuration has it: in the largest unit that fits.
fn span(seconds: f64) -> String {
    let micros = (seconds * 1e6).round() as u64;
    let units = [("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000)];
    let units = units.into_iter().chain([("s", 1_000_000), ("ms", 1_000)]);
    in_unit(micros, units).unwrap_or_else(|| format!("{micros}us"))
}

fn size(bytes: u64) -> String {
    let units = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    in_unit(bytes, units).unwrap_or_else(|| bytes.to_string())
}

fn in_unit(value: u64, units: impl IntoIterator<Item = (&'static str, u64)>) -> Option<String> {
    let mut fitting =
        units.into_iter().filter(|(_, unit)| value > 0 && value.is_multiple_of(*unit));
    fitting.next().map(|(name, unit)| format!("{}{name}", value / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_as_in_a_configuration() {
        for text in ["1d", "36h", "90min", "1s", "1500ms", "1001us"] {
            let read = crate::config::parse_duration(text).expect("a duration");
            assert_eq!(span(read.as_secs_f64()), text);
        }
        assert_eq!((span(0.0), span(86_400.0 * 30.0)), ("0us".to_owned(), "30d".to_owned()));
        let sizes = [(0, "0"), (1_023, "1023"), (64 << 20, "64MiB"), (3 << 40, "3TiB")];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_node_that_does_not_archive_says_who_does() {
        let job = |every: f64| BackupJob { interval_seconds: Some(every), ..BackupJob::default() };
        let mut schedule = BackupSchedule {
            node: 2,
            primary: Some(1),
            archives: false,
            running: false,
            target: "/a".to_owned(),
            archived_seq: None,
            archived_time_ms: None,
            written_at_ms: None,
            written_by: None,
            runs: job(60.0),
            snapshots: job(86_400.0),
            verifications: BackupJob::default(),
            retain_snapshots: Some(7),
            retain_age_seconds: None,
            retain_bytes: Some(100 << 30),
            bytes_per_second: 64 << 20,
            ack: "local".to_owned(),
            final_backup: false,
        };
        let text = render(&schedule);
        assert!(text.contains("node 1 archives, as it leads: ask it"), "{text}");
        assert!(text.contains("kept: snapshots 7, age no limit, bytes 100GiB"), "{text}");
        assert!(text.contains("comparison  never"), "{text}");
        schedule.primary = None;
        assert!(render(&schedule).contains("nobody leads"), "{}", render(&schedule));
        schedule.archives = true;
        schedule.runs.failure = Some("HEAD: the disk is full".to_owned());
        let text = render(&schedule);
        assert!(text.contains("log failed: HEAD: the disk is full; last good: never"), "{text}");
    }
}
