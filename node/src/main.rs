//! The `quorate` command: runs a node, makes what it needs, and asks running nodes how they are.

mod cli;
mod config;
mod failure;
mod output;
mod pki;

use clap::Parser as _;

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
