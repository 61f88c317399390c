//! The log of a node, and what happens when it panics.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::config::{LogFormat, LogSettings};
use crate::failure::Failure;

/// Starts logging, and makes every panic end the process: a node that lost a part must not go on
/// answering with the rest.
pub(crate) fn start(settings: &LogSettings) -> Result<(), Failure> {
    let file = match &settings.file {
        Some(path) => {
            let file =
                OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
                    Failure::failed(format_args!("log {}", path.display()), error)
                })?;
            Some(Arc::new(file))
        }
        None => None,
    };
    let filter = EnvFilter::try_new(&settings.filter)
        .map_err(|error| Failure::Usage(format!("log.filter: {error}")))?;
    let colours = file.is_none() && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let writer = match &file {
        Some(file) => BoxMakeWriter::new(file.clone()),
        None => BoxMakeWriter::new(std::io::stderr),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colours)
        .with_thread_names(true);
    let started = match settings.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Failure::failed("log", error))?;
    end_on_panic(file);
    Ok(())
}

/// Says where and why on standard error, and in the log file where there is one, then aborts.
fn end_on_panic(file: Option<Arc<File>>) {
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let line = format!(
            "quorate: fatal: thread '{}' panicked, the process ends: {panic}",
            thread.name().unwrap_or("unnamed"),
        )
        .replace('\n', " ");
        let trace = std::backtrace::Backtrace::capture();
        if trace.status() == std::backtrace::BacktraceStatus::Captured {
            eprintln!("{trace}");
        }
        eprintln!("{line}");
        if let Some(mut file) = file.as_deref() {
            // Nothing is left to tell if this fails, too.
            let _ = writeln!(file, "{line}");
        }
        std::process::abort();
    }));
}
