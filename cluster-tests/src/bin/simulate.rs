//! Runs seeds of the simulator and prints what they did and found.
//!
//! `simulate --seeds 2000 [--from 0] [--stop] [--seed 17 --trace]`; exit code 1 on any violation.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use quorate_cluster_tests::sim::{self, Outcome};

const USAGE: &str = "usage: simulate [--seeds N] [--from S] [--seed S] [--stop] [--trace]\n\
    --stop ends at the first violation; --trace prints every event and command";

struct Options {
    first: u64,
    seeds: u64,
    stop: bool,
    trace: bool,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // A panic is reported as a violation of its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let started = Instant::now();
    let mut total = Total::default();
    for seed in options.first..options.first.saturating_add(options.seeds) {
        total.add(&sim::run(seed, options.trace));
        if options.stop && total.violations > 0 {
            break;
        }
    }
    total.print(started.elapsed().as_secs_f64());
    if total.violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { first: 0, seeds: 100, stop: false, trace: false };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--trace" => {
                options.trace = true;
                continue;
            }
            "--stop" => {
                options.stop = true;
                continue;
            }
            _ => {}
        }
        let number = args.next().and_then(|text| text.parse().ok());
        let number: u64 = number.ok_or_else(|| format!("{arg} needs a number"))?;
        match arg.as_str() {
            "--seeds" => options.seeds = number,
            "--from" => options.first = number,
            "--seed" => (options.first, options.seeds) = (number, 1),
            _ => return Err(format!("unknown option {arg}")),
        }
    }
    Ok(options)
}

/// What all seeds did together.
#[derive(Default)]
struct Total {
    seeds: u64,
    violations: u64,
    over_budget: u64,
    simulated_us: u64,
    events: u64,
    faults: BTreeMap<&'static str, u64>,
    marks: BTreeMap<&'static str, u64>,
    clusters: BTreeMap<String, u64>,
}

impl Total {
    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.over_budget += u64::from(outcome.over_budget);
        self.simulated_us += outcome.simulated_us;
        self.events += outcome.events;
        for (fault, count) in &outcome.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        for (mark, count) in &outcome.marks {
            *self.marks.entry(mark).or_default() += count;
        }
        let cluster = format!("{} on {} nodes", outcome.policy, outcome.nodes);
        *self.clusters.entry(cluster).or_default() += 1;
        if let Some((violation, at_us)) = &outcome.violation {
            self.violations += 1;
            println!(
                "seed {}: {} on {} nodes, at {} us: {}: {}",
                outcome.seed,
                outcome.policy,
                outcome.nodes,
                at_us,
                violation.invariant,
                violation.what
            );
        }
    }

    fn print(&self, elapsed_s: f64) {
        let seconds = self.simulated_us as f64 / 1e6;
        println!(
            "{} seeds, {:.1} h simulated, {} events, {:.1} s, {:.1} seeds/s",
            self.seeds,
            seconds / 3600.0,
            self.events,
            elapsed_s,
            self.seeds as f64 / elapsed_s
        );
        println!("{} violations, {} seeds over budget", self.violations, self.over_budget);
        for (title, counts) in [("faults", &self.faults), ("marks", &self.marks)] {
            println!("{title}:");
            for (name, count) in counts {
                println!("  {count:>10} {name}");
            }
        }
        println!("clusters:");
        for (name, count) in &self.clusters {
            println!("  {count:>10} {name}");
        }
    }
}
