//! Explores every order of events of a small cluster, over the same core that a node runs.
//!
//! The rest of a node is reduced to what the core can tell apart ([`node`]), the network to the
//! latest message of each kind ([`network`]), and time to nothing: any timer may be due at any
//! moment. What is explored is therefore more than what can happen, except for the bounds in
//! [`Scope`]. A state that breaks a property ([`Broken`]) is reported with the events that lead
//! to it.

mod actions;
mod fold;
mod network;
mod node;
mod scope;
mod state;
mod suite;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use quorate_protocol::mutants::Mutant;
use stateright::{Checker as _, HasDiscoveries, Model, Property};

pub use actions::Action;
pub use scope::{Scope, Start};
pub use state::{Broken, State};
pub use suite::{Hunt, Size, hunts, searches};

/// What a search found.
#[derive(Clone, Debug)]
pub struct Report {
    /// States reached, each as often as it was.
    pub states: usize,
    /// Different states.
    pub unique: usize,
    /// The longest way to a state, in events.
    pub depth: usize,
    /// How long it took.
    pub elapsed: Duration,
    /// Whether everything within the bounds was explored.
    pub complete: bool,
    /// What is broken, and the events that lead there.
    pub broken: Option<(Broken, Vec<String>)>,
    /// Situations that the search is meant to reach and did not.
    pub missed: Vec<&'static str>,
}

struct Cluster(Scope);

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        Mutant::activate(self.0.mutant);
        vec![self.0.first_state()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions::enabled(&self.0, state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        // The checker has threads of its own.
        Mutant::activate(self.0.mutant);
        let next = actions::apply(&self.0, state, action);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties =
            vec![Property::always(SAFE, |_, state: &State| state.broken.is_none())];
        properties.extend(MARKS.iter().map(|(name, seen)| Property::sometimes(name, *seen)));
        properties
    }
}

const SAFE: &str = "safe";

type Seen = fn(&Cluster, &State) -> bool;

/// Situations without which a search says nothing.
const MARKS: [(&str, Seen); 4] = [
    ("a write is committed", |_, state| state.has_committed_write()),
    ("another primary is elected", |_, state| state.history.won.len() > 1),
    ("memory loss is over", |_, state| state.has_left_memory_loss()),
    ("a change is in force", |_, state| state.has_changed()),
];

/// Explores a scope with so many threads, up to the first violation or to about so many states.
#[must_use]
pub fn check(scope: &Scope, threads: usize, states_max: usize) -> Report {
    let started = Instant::now();
    let checker = Cluster(scope.clone())
        .checker()
        .threads(threads)
        .finish_when(HasDiscoveries::AnyFailures)
        .target_state_count(states_max)
        .spawn_bfs()
        .join();
    let elapsed = started.elapsed();
    let found = checker.discoveries();
    let broken = found.get(SAFE).map(|path| {
        let broken = path.last_state().broken.expect("only broken states are reported");
        (broken, path.clone().into_vec().iter().filter_map(describe).collect())
    });
    let missed = MARKS.iter().map(|(name, _)| *name);
    let missed = missed.filter(|name| scope.reaches(name) && !found.contains_key(name)).collect();
    Report {
        states: checker.state_count(),
        unique: checker.unique_state_count(),
        depth: checker.max_depth(),
        elapsed,
        complete: broken.is_none() && checker.state_count() < states_max,
        broken,
        missed,
    }
}

/// One step of a way to a violation, in words.
fn describe(step: &(State, Option<Action>)) -> Option<String> {
    let (state, action) = (&step.0, step.1?);
    let arriving = match action {
        Action::Deliver(index, entries) => state.network.get(index).map(|e| (e, entries)),
        _ => None,
    };
    Some(match arriving {
        Some((envelope, 0)) => format!("{envelope}"),
        Some((envelope, entries)) => format!("{envelope}, {entries} of its entries arrive"),
        None => format!("{action:?}"),
    })
}
