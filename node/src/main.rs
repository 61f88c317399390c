//! The `quorate` command: runs a node, makes what it needs, and asks running nodes how they are.

mod adapter;
mod admin;
mod backup;
mod cli;
mod config;
mod dev;
mod drill;
mod events;
mod failure;
mod hex;
mod http;
mod join;
mod journal;
mod logged;
mod logging;
mod members;
mod moment;
mod notify;
mod orders;
mod output;
mod pki;
mod policy;
mod progress;
mod recover;
mod reload;
mod scrub;
mod start;
mod status;
mod stop;
mod storage;
mod tail;
mod token;

use clap::Parser as _;

const _: () = assert!(!quorate_protocol::MUTANTS, "a node is built without deliberate mistakes");

fn main() -> std::process::ExitCode {
    // Two providers may end up in one binary; naming one keeps rustls from having to guess.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match cli::Cli::parse().run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("quorate: {failure}");
            failure.exit_code()
        }
    }
}
