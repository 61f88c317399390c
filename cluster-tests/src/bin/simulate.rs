//! Runs seeds of the simulator and prints what they did and found.
//!
//! `simulate --seeds 2000 [--from 0] [--seed 17 --trace] [--mutant NAME | --mutants] [--hours 2]`;
//! exit code 1 on any violation, mark that was not hit, or mistake that was not found.

use std::collections::BTreeMap;
use std::fs::{File, create_dir_all};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;
use quorate_cluster_tests::sim::{self, Fault, Outcome, Scenario, Total};
use quorate_protocol::mutants::Mutant;

/// Simulates clusters under faults and checks that nothing is ever wrong.
#[derive(Parser)]
struct Options {
    /// How many seeds to run; with a mutant, how many it may survive.
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Run this scenario alone: a seed with parts taken out, as shrinking prints it.
    #[arg(long, conflicts_with = "seed")]
    scenario: Option<Scenario>,
    /// Print every event and command.
    #[arg(long)]
    trace: bool,
    /// Switch one deliberate mistake on: it has to be found.
    #[arg(long, value_parser = mutant)]
    mutant: Option<Mutant>,
    /// Try every deliberate mistake: each has to be found.
    #[arg(long, conflicts_with = "mutant")]
    mutants: bool,
    /// Run until so many hours are over, and add the totals to the ledger.
    #[arg(long)]
    hours: Option<f64>,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Don't shrink what fails.
    #[arg(long)]
    no_shrink: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    // A panic is reported as a violation of its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let alone = options.scenario.clone().or(options.seed.map(Scenario::of));
    let good = match alone {
        Some(scenario) => run_one(&options, &scenario),
        None if options.mutants => run_mutants(&options, Mutant::ALL),
        None => match options.mutant {
            Some(mutant) => run_mutants(&options, &[mutant]),
            None => run_many(&options),
        },
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn mutant(name: &str) -> Result<Mutant, String> {
    let found = Mutant::ALL.iter().find(|mutant| format!("{mutant:?}") == name);
    found.copied().ok_or_else(|| format!("no mutant is called {name}"))
}

/// One run; with a mutant, under its mistake.
fn run_one(options: &Options, scenario: &Scenario) -> bool {
    Mutant::activate(options.mutant);
    let outcome = if options.trace { sim::trace(scenario) } else { sim::run(scenario) };
    let mut total = Total::default();
    total.add(&outcome);
    print!("{total}");
    println!("trace hash {:016x}", outcome.trace_hash);
    report(options, &outcome);
    outcome.violation.is_none()
}

fn run_many(options: &Options) -> bool {
    let started = Instant::now();
    let until = options.hours.map(|hours| started + Duration::from_secs_f64(hours * 3600.0));
    let last = if until.is_some() { u64::MAX } else { options.from.saturating_add(options.seeds) };
    let mut total = Total::default();
    sim::run_seeds(options.from..last, options.threads, |outcome| {
        total.add(outcome);
        report(options, outcome);
        until.is_none_or(|until| Instant::now() < until)
    });
    let elapsed_s = started.elapsed().as_secs_f64();
    print!("{total}");
    println!("{elapsed_s:.1} s, {:.1} seeds/s", total.seeds as f64 / elapsed_s);
    if until.is_some() {
        keep(&total.ledger_line(&commit(), elapsed_s));
    }
    let missing = sim::missing(&total);
    if total.seeds < sim::JUDGED_FROM {
        println!("marks are judged from {} seeds on", sim::JUDGED_FROM);
        return total.violations == 0;
    }
    for mark in &missing {
        println!("never reached: {mark}");
    }
    total.violations == 0 && missing.is_empty()
}

/// Prints a failure, and the small run that it shrinks to.
fn report(options: &Options, outcome: &Outcome) {
    if outcome.violation.is_none() {
        return;
    }
    println!("{outcome}");
    if options.no_shrink || options.trace {
        return;
    }
    let Some(small) = sim::shrink(&outcome.scenario) else {
        return;
    };
    println!("  shrinks to: {small}");
    let (violation, at_us) = small.violation.as_ref().expect("it fails");
    for (at_us, fault) in small.injected.iter().filter(|(at, _)| at <= at_us) {
        println!("  {at_us:>12} {fault}");
    }
    let always = Fault::ALL.iter().map(|fault| fault.name());
    let always: Vec<_> = always
        .filter(|name| small.faults.contains_key(name))
        .filter(|name| !small.injected.iter().any(|(_, fault)| fault.contains(name)))
        .collect();
    println!("  {at_us:>12} {violation}");
    println!("  all the time: {}", always.join(", "));
    println!("  for cluster-tests/corpus/seeds.txt: {} # {}", small.scenario, violation.invariant);
}

/// Every mistake has to be found by some seed.
fn run_mutants(options: &Options, mutants: &[Mutant]) -> bool {
    let started = Instant::now();
    let seeds = options.from..options.from.saturating_add(options.seeds);
    let results = sim::kill_all(mutants, &BTreeMap::new(), seeds, options.threads);
    let mut survivors = 0;
    println!("| mutant | killed by | seeds |\n|---|---|---|");
    for (mutant, found) in &results {
        match found.as_ref().and_then(|outcome| Some((outcome, outcome.violation.as_ref()?))) {
            Some((outcome, (violation, _))) => {
                let needed = outcome.scenario.seed - options.from + 1;
                println!("| {mutant:?} | {} | {needed} |", violation.invariant);
            }
            None => {
                survivors += 1;
                println!("| {mutant:?} | **survives** | {} |", options.seeds);
            }
        }
    }
    println!(
        "{} of {} mutants killed in {:.1} s",
        results.len() - survivors,
        results.len(),
        started.elapsed().as_secs_f64()
    );
    survivors == 0
}

/// Adds a line to the ledger of long runs.
fn keep(line: &str) {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let folder = home.join(".cache/quorate/verify");
    let written = create_dir_all(&folder)
        .and_then(|()| File::options().create(true).append(true).open(folder.join("ledger.jsonl")))
        .and_then(|mut file| writeln!(file, "{line}"));
    match written {
        Ok(()) => println!("ledger: {line}"),
        Err(error) => println!("ledger not written: {error}: {line}"),
    }
}

fn commit() -> String {
    let output =
        Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    output.ok().filter(|output| output.status.success()).map_or_else(
        || "unknown".to_owned(),
        |o| String::from_utf8_lossy(&o.stdout).trim().to_owned(),
    )
}
