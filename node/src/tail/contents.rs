//! `quorate tail show` and `export`.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use quorate_protocol::entry::Entry;

use super::connection::write_command;
use super::{SourceArgs, for_each_entry};
use crate::failure::Failure;
use crate::logged::{Contents, entry_json, entry_lines};
use crate::output::say;

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Where to write it; `-` is standard output
    #[arg(long)]
    output: PathBuf,
    /// JSON lines for programs, or RESP, which `redis-cli --pipe` sends
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Resp,
}

pub(super) fn show(source: &SourceArgs, json: bool) -> Result<(), Failure> {
    for_each_entry(source, |entry, contents| {
        if json {
            say(entry_json(entry, contents));
        } else {
            for line in entry_lines(entry, contents) {
                say(line);
            }
        }
        Ok(true)
    })
}

pub(super) fn export(args: &ExportArgs) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::failed(args.output.display(), error);
    let mut out: Box<dyn Write> = if args.output == Path::new("-") {
        Box::new(io::stdout().lock())
    } else {
        // Never over a file that is there: it may be the only copy of something.
        let file = OpenOptions::new().write(true).create_new(true).open(&args.output);
        Box::new(BufWriter::new(file.map_err(failed)?))
    };
    let mut count = 0u64;
    for_each_entry(&args.source, |entry, contents| {
        count += write_out(&mut out, args.format, entry, contents).map_err(failed)?;
        Ok(true)
    })?;
    out.flush().map_err(failed)?;
    if args.output != Path::new("-") {
        say(format_args!("{count} writes and transactions in {}", args.output.display()));
    }
    Ok(())
}

fn write_out(
    out: &mut impl Write,
    format: Format,
    entry: &Entry,
    contents: &Contents,
) -> io::Result<u64> {
    for logged in &contents.logged {
        match format {
            Format::Json => {
                let mut line = logged.json();
                line["epoch"] = entry.id.epoch.0.into();
                line["seq"] = entry.id.seq.0.into();
                line["time_ms"] = entry.time.0.into();
                writeln!(out, "{line}")?;
            }
            Format::Resp => {
                for argv in logged.commands() {
                    write_command(out, &argv)?;
                }
            }
        }
    }
    Ok(contents.logged.len() as u64)
}
