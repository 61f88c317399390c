//! The log of a node, and what happens when it panics.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::{EnvFilter, reload};

use crate::config::{LogFormat, LogSettings};
use crate::failure::Failure;

/// Changes the log of a running node.
pub(crate) struct Log {
    filter: Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
    file: Option<LogFile>,
}

/// A log file that may be replaced while it is written to.
#[derive(Clone)]
struct LogFile(Arc<ArcSwap<File>>);

/// What is written into whatever file it was when the line began.
struct Line(Arc<File>);

impl std::io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        (&*self.0).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        (&*self.0).flush()
    }
}

impl MakeWriter<'_> for LogFile {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line(self.0.load_full())
    }
}

impl Log {
    /// Opens the log's file anew, as one that was moved away is to be replaced, and takes a filter
    /// over that [`parse_filter`] has accepted. Nothing changes where the file can't be opened.
    pub(crate) fn renew(&self, path: Option<&Path>, filter: EnvFilter) -> Result<(), Failure> {
        let file = path.map(open).transpose()?;
        (self.filter)(filter).map_err(|error| Failure::failed("log.filter", error))?;
        if let (Some(current), Some(file)) = (&self.file, file) {
            current.0.store(Arc::new(file));
        }
        Ok(())
    }
}

/// Levels by module. A word alone has to be a level: taken for a module, a mistyped one would silence
/// everything else.
pub(crate) fn parse_filter(text: &str) -> Result<EnvFilter, String> {
    let words = text.split(',').map(str::trim).filter(|part| !part.contains(['=', '[', ']']));
    for word in words {
        // Nothing at all would be taken for `error`.
        if word.is_empty() || word.parse::<LevelFilter>().is_err() {
            let levels = "off, error, warn, info, debug, trace";
            return Err(format!("{word:?} is no level ({levels}) and sets none"));
        }
    }
    EnvFilter::try_new(text).map_err(|error| error.to_string())
}

fn open(path: &Path) -> Result<File, Failure> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|error| Failure::failed(format_args!("log {}", path.display()), error))
}

/// Starts logging, and makes every panic end the process: a node that lost a part must not go on
/// answering with the rest.
pub(crate) fn start(settings: &LogSettings) -> Result<Log, Failure> {
    let file = settings.file.as_deref().map(open).transpose()?;
    let file = file.map(|file| LogFile(Arc::new(ArcSwap::from_pointee(file))));
    let filter = parse_filter(&settings.filter)
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
    let failed = |error| Failure::failed("log", error);
    let filter: Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync> =
        match settings.format {
            LogFormat::Text => {
                let builder = builder.with_filter_reloading();
                let handle = builder.reload_handle();
                builder.try_init().map_err(failed)?;
                Box::new(move |filter| handle.reload(filter))
            }
            LogFormat::Json => {
                let builder = builder.json().flatten_event(true).with_filter_reloading();
                let handle = builder.reload_handle();
                builder.try_init().map_err(failed)?;
                Box::new(move |filter| handle.reload(filter))
            }
        };
    end_on_panic(file.clone());
    Ok(Log { filter, file })
}

/// Says where and why on standard error, and in the log file where there is one, then aborts.
fn end_on_panic(file: Option<LogFile>) {
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
        if let Some(file) = &file {
            // Nothing is left to tell if this fails, too.
            let _ = writeln!(file.make_writer(), "{line}");
        }
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_level_is_no_module() {
        for good in ["info", "warn,quorate_actors::replication=debug", "off", "[span]=trace"] {
            assert!(parse_filter(good).is_ok(), "{good}");
        }
        for wrong in ["inof", "", "info,", "quorate_actors", "a=b"] {
            assert!(parse_filter(wrong).is_err(), "{wrong}");
        }
    }
}
