//! What one run is: a seed, and what shrinking took out of it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::fault::Fault;

/// One run, reproducible from its text: `seed=17 without=Delay,Loss keep=3,5,9 load=16 salt=2`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scenario {
    /// What everything is drawn from.
    pub seed: u64,
    /// Classes of faults that don't occur although the seed drew them.
    pub without: BTreeSet<Fault>,
    /// The only faults of the seed's schedule that occur, by number; `None` for all.
    pub keep: Option<BTreeSet<u32>>,
    /// Clients write and read so many times more rarely; 0 and 1 for as drawn.
    pub load: u64,
    /// Another order of the small things (latencies, timeouts) under the same faults.
    pub salt: u64,
}

impl Scenario {
    /// All of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed={}", self.seed)?;
        if !self.without.is_empty() {
            write!(f, " without={}", join(&self.without))?;
        }
        if let Some(keep) = &self.keep {
            write!(f, " keep={}", join(keep))?;
        }
        if self.load > 1 {
            write!(f, " load={}", self.load)?;
        }
        if self.salt > 0 {
            write!(f, " salt={}", self.salt)?;
        }
        Ok(())
    }
}

fn join<T: ToString>(items: &BTreeSet<T>) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut scenario = Self::default();
        for word in text.split_whitespace() {
            let (key, value) = word.split_once('=').ok_or_else(|| format!("{word}: no ="))?;
            match key {
                "seed" => scenario.seed = parse(value)?,
                "without" => scenario.without = parse_all(value)?,
                "keep" => scenario.keep = Some(parse_all(value)?),
                "load" => scenario.load = parse(value)?,
                "salt" => scenario.salt = parse(value)?,
                _ => return Err(format!("{key} is no part of a scenario")),
            }
        }
        Ok(scenario)
    }
}

fn parse<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is not understood"))
}

fn parse_all<T: FromStr + Ord>(text: &str) -> Result<BTreeSet<T>, String> {
    text.split(',').filter(|part| !part.is_empty()).map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_reads_what_it_prints() {
        let whole = Scenario::of(7);
        let small = Scenario {
            seed: 1 << 40,
            without: BTreeSet::from([Fault::Delay, Fault::Squeeze]),
            keep: Some(BTreeSet::from([3, 14])),
            load: 16,
            salt: 2,
        };
        let nothing = Scenario { keep: Some(BTreeSet::new()), ..Scenario::of(7) };
        for scenario in [whole, small, nothing] {
            assert_eq!(scenario.to_string().parse(), Ok(scenario));
        }
        for text in ["seed", "seed=x", "without=Sun", "speed=7"] {
            assert!(text.parse::<Scenario>().is_err(), "{text}");
        }
    }
}
