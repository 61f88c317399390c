//! Tasks whose panic an actor must hear of: a half-dead transport is worse than a dead one.

use std::any::Any;

use tokio::task::AbortHandle;

/// A task panicked.
#[derive(Debug, thiserror::Error)]
#[error("a task panicked: {0}")]
pub(super) struct Panicked(String);

/// Runs `work` as a task, and `report` with its result once it ended, unless it was aborted.
pub(super) fn spawn_and_report<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
    report: impl FnOnce(Result<T, Panicked>) + Send + 'static,
) -> AbortHandle {
    let task = tokio::spawn(work);
    let abort = task.abort_handle();
    tokio::spawn(async move {
        match task.await {
            Ok(result) => report(Ok(result)),
            Err(join) if join.is_panic() => report(Err(Panicked(text_of(&*join.into_panic())))),
            // Aborted, or the runtime is going down.
            Err(_) => {}
        }
    });
    abort
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn results_and_panics_are_reported_and_aborts_are_not() {
        let (report, reported) = oneshot::channel();
        spawn_and_report(async { 5 }, |result| report.send(result.ok()).expect("awaited"));
        assert_eq!(reported.await, Ok(Some(5)));
        let (report, reported) = oneshot::channel();
        let work = async { panic!("on purpose") };
        spawn_and_report(work, |result: Result<(), _>| {
            report.send(result.map_err(|error| error.to_string())).expect("awaited");
        });
        assert_eq!(reported.await, Ok(Err("a task panicked: on purpose".to_owned())));
        let (report, reported) = oneshot::channel::<()>();
        spawn_and_report(std::future::pending::<()>(), |_| drop(report)).abort();
        assert!(reported.await.is_err(), "dropped without a word");
    }
}
