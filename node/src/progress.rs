//! A bar on a terminal for what takes long; nothing elsewhere.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::http::AdminUrl;

/// Between two questions how far it is.
const ASK_PERIOD: Duration = Duration::from_millis(300);

/// The longest wait for an answer to one.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// How far something is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Of `total`.
    pub(crate) done: u64,
    /// Bytes.
    pub(crate) total: u64,
}

/// Does something and shows meanwhile that, and as far as `/status` tells, how far it is.
pub(crate) fn shown<T>(
    admin: &AdminUrl,
    what: &'static str,
    progress: impl Fn(&serde_json::Value) -> Option<Progress> + Sync,
    work: impl FnOnce() -> T,
) -> T {
    // Hides itself where standard error is no terminal.
    let bar = ProgressBar::new_spinner().with_message(what);
    if bar.is_hidden() {
        return work();
    }
    bar.enable_steady_tick(ASK_PERIOD);
    let (ended, end) = channel::<()>();
    let value = std::thread::scope(|scope| {
        scope.spawn(|| {
            let end = end;
            while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(ASK_PERIOD) {
                let status = admin.get("/status", ANSWER_LIMIT).ok();
                let status = status.and_then(|answer| serde_json::from_str(&answer.body).ok());
                if let Some(Progress { done, total }) = status.as_ref().and_then(&progress) {
                    bar.set_style(style());
                    bar.set_length(total);
                    bar.set_position(done);
                }
            }
        });
        let value = work();
        drop(ended);
        value
    });
    bar.finish_and_clear();
    value
}

fn style() -> ProgressStyle {
    let template = "{spinner} {msg} [{bar:30}] {bytes} of {total_bytes}, {elapsed}";
    ProgressStyle::with_template(template).expect("the template is fixed")
}
