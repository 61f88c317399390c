//! `SLOWLOG`: the slowest rounds' commands, newest first.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_protocol::resp::Reply;

use crate::submit::Waits;

/// Arguments of a command that are kept, and bytes of each.
const ARGUMENT_COUNT_MAX: usize = 32;
const ARGUMENT_BYTES_MAX: usize = 128;

/// A bounded ring.
#[derive(Debug)]
pub(super) struct SlowLog {
    entries: Mutex<VecDeque<Entry>>,
    next_id: AtomicU64,
    /// Microseconds; a negative threshold turns the log off.
    pub threshold_us: AtomicI64,
    /// Entries kept.
    pub length_max: AtomicUsize,
}

#[derive(Clone, Debug)]
struct Entry {
    id: u64,
    at_s: u64,
    took_us: u64,
    arguments: Vec<Bytes>,
    address: String,
    name: String,
}

impl Default for SlowLog {
    /// Redis's defaults: 10 ms, 128 entries.
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
            next_id: AtomicU64::new(0),
            threshold_us: AtomicI64::new(10_000),
            length_max: AtomicUsize::new(128),
        }
    }
}

impl SlowLog {
    /// Whether a command that took so long is logged.
    pub(super) fn concerns(&self, took: Duration) -> bool {
        let threshold = self.threshold_us.load(Ordering::Relaxed);
        threshold >= 0 && took.as_micros() >= threshold.unsigned_abs().into()
    }

    /// Keeps a copy of the command, cut to a bounded size. What a write waited for follows as one
    /// more argument: every client's parser takes that, where most take no further field.
    pub(super) fn add(
        &self,
        at_s: u64,
        took: Duration,
        (arguments, waits): (&[Bytes], Option<Waits>),
        (address, name): (String, String),
    ) {
        let mut arguments = shortened(arguments);
        if let Some(waits) = waits {
            let took_ms = took.as_secs_f64() * 1_000.0;
            arguments.push(Bytes::from(format!("# {took_ms:.1} ms: {waits}")));
        }
        let entry = Entry {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            at_s,
            took_us: took.as_micros() as u64,
            arguments,
            address,
            name,
        };
        let keep = self.length_max.load(Ordering::Relaxed);
        let mut entries = self.entries.lock();
        entries.push_front(entry);
        entries.truncate(keep);
    }

    /// The newest entries.
    pub(super) fn get(&self, count: usize) -> Reply {
        let entries = self.entries.lock();
        Reply::Array(entries.iter().take(count).map(Entry::to_reply).collect())
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.lock().len()
    }

    /// Forgets all.
    pub(super) fn reset(&self) {
        self.entries.lock().clear();
    }
}

impl Entry {
    fn to_reply(&self) -> Reply {
        let arguments = self.arguments.iter().map(|arg| Reply::Bulk(arg.clone())).collect();
        Reply::Array(vec![
            Reply::Integer(self.id as i64),
            Reply::Integer(self.at_s as i64),
            Reply::Integer(self.took_us as i64),
            Reply::Array(arguments),
            Reply::Bulk(Bytes::from(self.address.clone())),
            Reply::Bulk(Bytes::from(self.name.clone())),
        ])
    }
}

/// Copies, so that an entry doesn't keep a whole read buffer alive.
fn shortened(arguments: &[Bytes]) -> Vec<Bytes> {
    let kept =
        if arguments.len() > ARGUMENT_COUNT_MAX { ARGUMENT_COUNT_MAX - 1 } else { arguments.len() };
    let mut short: Vec<Bytes> = arguments[..kept]
        .iter()
        .map(|argument| match argument.get(..ARGUMENT_BYTES_MAX) {
            Some(start) => {
                let mut text = start.to_vec();
                let more = argument.len() - ARGUMENT_BYTES_MAX;
                text.extend_from_slice(format!("... ({more} more bytes)").as_bytes());
                Bytes::from(text)
            }
            None => Bytes::copy_from_slice(argument),
        })
        .collect();
    if kept < arguments.len() {
        let more = arguments.len() - kept;
        short.push(Bytes::from(format!("... ({more} more arguments)")));
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_and_cuts_arguments() {
        let log = SlowLog::default();
        log.length_max.store(2, Ordering::Relaxed);
        for number in 0..3 {
            let long = vec![Bytes::from("SET"), Bytes::from(vec![b'x'; 1_000 + number])];
            let waits = Some(Waits { queue_us: 150, ..Waits::default() });
            log.add(1, Duration::from_millis(20), (&long, waits), <_>::default());
        }
        assert_eq!(log.len(), 2);
        let Reply::Array(entries) = log.get(1) else { panic!("an array") };
        let Reply::Array(fields) = &entries[0] else { panic!("an array") };
        assert_eq!(fields[0], Reply::Integer(2));
        let Reply::Array(arguments) = &fields[3] else { panic!("an array") };
        let Reply::Bulk(value) = &arguments[1] else { panic!("bytes") };
        assert!(value.len() < 200 && value.ends_with(b"(874 more bytes)"));
        let shown = "# 20.0 ms: queue 0.1, journal 0.0, policy 0.0, apply 0.0";
        assert_eq!(arguments[2], Reply::Bulk(shown.into()));
    }

    #[test]
    fn a_negative_threshold_turns_it_off() {
        let log = SlowLog::default();
        assert!(log.concerns(Duration::from_millis(10)));
        assert!(!log.concerns(Duration::from_micros(9_999)));
        log.threshold_us.store(-1, Ordering::Relaxed);
        assert!(!log.concerns(Duration::from_secs(9)));
    }
}
