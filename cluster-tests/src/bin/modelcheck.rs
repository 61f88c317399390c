//! Explores every order of events of small clusters and prints what it found.
//!
//! `modelcheck [--small] [--mutants] [--mutant NAME] [--policy NAME] [--search TEXT] [--threads N]
//! [--states-max N]`; exit code 1 on a violation, on a mistake that is not found, and on a search
//! that misses what it is for.

use std::process::ExitCode;

use clap::Parser;
use quorate_cluster_tests::modelcheck::{Report, Scope, Size, check, hunts, searches};
use quorate_protocol::mutants::Mutant;
use quorate_protocol::policy::Policy;

/// Explores every order of events of small clusters, over the core that a node runs.
#[derive(Parser)]
struct Options {
    /// The bounds that every change is tested with.
    #[arg(long)]
    small: bool,
    /// Switch one rule off at a time: each must be found.
    #[arg(long)]
    mutants: bool,
    /// Search with this mistake in the core.
    #[arg(long, value_parser = mutant)]
    mutant: Option<Mutant>,
    /// Searches of one policy alone.
    #[arg(long, value_parser = policy)]
    policy: Option<Policy>,
    /// Searches whose name holds this text alone.
    #[arg(long)]
    search: Option<String>,
    /// Threads to search with.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// States after which a search is given up as incomplete.
    #[arg(long, default_value_t = 1_000_000_000)]
    states_max: usize,
}

fn policy(name: &str) -> Result<Policy, String> {
    Policy::preset(name).ok_or_else(|| "local, memory, hybrid, majority or all".to_owned())
}

fn mutant(name: &str) -> Result<Mutant, String> {
    let named = |mutant: &&Mutant| format!("{mutant:?}") == name;
    Mutant::ALL.iter().find(named).copied().ok_or_else(|| format!("no mistake is named {name}"))
}

fn main() -> ExitCode {
    let options = Options::parse();
    println!("{HEADER}");
    let good = if options.mutants { hunt_all(&options) } else { search_all(&options) };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

const HEADER: &str =
    "policy                              search                  states     unique  depth      s";

fn search_all(options: &Options) -> bool {
    let size = if options.small { Size::Small } else { Size::Full };
    let mut good = true;
    for scope in searches(size) {
        if options.policy.is_some_and(|policy| policy != scope.policy)
            || options.search.as_ref().is_some_and(|text| !scope.name.contains(text.as_str()))
        {
            continue;
        }
        let scope = Scope { mutant: options.mutant, ..scope };
        let report = check(&scope, options.threads, options.states_max);
        let verdict = match (&report.broken, report.complete) {
            (Some((broken, _)), _) => format!("{} is broken", broken.name()),
            (None, true) if report.missed.is_empty() => "0 violations".to_owned(),
            (None, true) => format!("0 violations, but never: {}", report.missed.join(", ")),
            (None, false) => "0 violations so far, not complete".to_owned(),
        };
        print_line(&scope, &report, &verdict);
        print_way(&report);
        good &= report.broken.is_none() && report.complete && report.missed.is_empty();
    }
    good
}

fn hunt_all(options: &Options) -> bool {
    let mut good = true;
    for hunt in hunts() {
        let report = check(&hunt.scope, options.threads, options.states_max);
        let mutant = hunt.scope.mutant.map_or_else(String::new, |mutant| format!("{mutant:?}"));
        let verdict = report.broken.as_ref().map_or("NOT FOUND", |(broken, _)| broken.name());
        print_line(&hunt.scope, &report, &format!("{}: {mutant}: {verdict}", hunt.known_as));
        print_way(&report);
        good &= report.broken.is_some();
    }
    good
}

fn print_line(scope: &Scope, report: &Report, verdict: &str) {
    println!(
        "{:<35} {:<20} {:>9} {:>10} {:>6} {:>6.1}  {verdict}",
        scope.policy.to_string(),
        scope.name,
        report.states,
        report.unique,
        report.depth,
        report.elapsed.as_secs_f64(),
    );
}

fn print_way(report: &Report) {
    if let Some((_, steps)) = &report.broken {
        for step in steps {
            println!("    {step}");
        }
    }
}
